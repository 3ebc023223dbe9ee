//! The least that can be called a sticky balancer on Pingora: `bare-pingora LISTEN BACKEND...`.
//!
//! It is a floor, not a model: it names its backends in a readable cookie, checks nothing, counts nothing and knows no session.
//! One worker thread; Pingora's default modules are left out, since tidegate leaves them out too.
use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;
use std::sync::atomic::{AtomicUsize, Ordering};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The cookie is `BARE=<position of the backend>`.
const COOKIE: &str = "BARE";

struct Bare {
    backends: Vec<HttpPeer>,
    turn: AtomicUsize,
}

/// Per request: where it goes, and whether the client must be told.
#[derive(Default)]
struct Choice {
    backend: usize,
    is_new: bool,
}

impl Bare {
    fn pinned(&self, request: &RequestHeader) -> Option<usize> {
        request
            .headers
            .get_all("cookie")
            .iter()
            .filter_map(|field| field.to_str().ok())
            .flat_map(|field| field.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(name, value)| if name == COOKIE { value.parse().ok() } else { None })
            .filter(|position| *position < self.backends.len())
    }
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = Choice;

    fn new_ctx(&self) -> Choice {
        Choice::default()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(&self, session: &mut Session, choice: &mut Choice) -> Result<Box<HttpPeer>> {
        let pinned = self.pinned(session.req_header());
        choice.is_new = pinned.is_none();
        choice.backend = pinned.unwrap_or_else(|| self.turn.fetch_add(1, Ordering::Relaxed) % self.backends.len());
        Ok(Box::new(self.backends[choice.backend].clone()))
    }

    async fn upstream_request_filter(&self, session: &mut Session, request: &mut RequestHeader, _choice: &mut Choice) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        Ok(())
    }

    async fn response_filter(&self, _session: &mut Session, response: &mut ResponseHeader, choice: &mut Choice) -> Result<()> {
        if choice.is_new {
            response.append_header("Set-Cookie", format!("{COOKIE}={}; Path=/; HttpOnly", choice.backend))?;
        }
        Ok(())
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().expect("usage: bare-pingora LISTEN BACKEND...");
    let backends: Vec<HttpPeer> = arguments.map(|address| HttpPeer::new(address, false, String::new())).collect();
    assert!(!backends.is_empty(), "usage: bare-pingora LISTEN BACKEND...");

    // No grace: compare.py stops a proxy only when its load has ended.
    let settings = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 512,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, settings);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare { backends, turn: AtomicUsize::new(0) });
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
