//! The pages of the scripted application, and its memory of sessions.
//!
//! A session is looked at before the answer is delayed or held: as in a servlet that takes its session first.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{OriginSpec, Shared, Stay};
use crate::http::{Head, query_value};

pub(super) struct Reply {
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<String>) -> Reply {
        Reply { status, fields: Vec::new(), body: body.into() }
    }

    fn with(mut self, name: &'static str, value: String) -> Reply {
        self.fields.push((name, value));
        self
    }

    pub(super) fn write(&self, to: &mut impl Write, method: &str) -> io::Result<()> {
        let mut text = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.fields {
            text += &format!("{name}: {value}\r\n");
        }
        text += "Content-Type: text/plain\r\n";
        text += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        if method != "HEAD" {
            text += &self.body;
        }
        to.write_all(text.as_bytes())
    }
}

impl Shared {
    pub(super) fn reply(&self, path: &str, target: &str, head: &Head, body: &[u8]) -> Reply {
        match path {
            "/" | "/page" => self.page(head, target),
            "/peek" | "/hold" => match self.known_session(head, target) {
                Some(id) => Reply::new(200, self.describe(&id, "known")),
                None => Reply::new(200, self.describe("none", "unknown")),
            },
            "/login" => self.login(head, target),
            "/logout" => {
                if let Some(id) = self.known_session(head, target) {
                    self.sessions.lock().unwrap().remove(&id);
                }
                let path = query_value(target, "path").unwrap_or(&self.spec.cookie_path);
                Reply::new(200, self.describe("none", "ended")).with("Set-Cookie", self.spec.deletion(path))
            }
            "/replace" => {
                if let Some(id) = self.known_session(head, target) {
                    self.sessions.lock().unwrap().remove(&id);
                }
                let id = self.new_session(0);
                Reply::new(200, self.describe(&id, "replaced"))
                    .with("Set-Cookie", self.spec.deletion(&self.spec.cookie_path))
                    .with("Set-Cookie", self.spec.set_cookie(&id))
            }
            "/redirect" => {
                let to = query_value(target, "to").unwrap_or("/page");
                Reply::new(302, "").with("Location", to.to_owned())
            }
            "/headers" => Reply::new(200, head.raw.clone()),
            "/body" => Reply::new(200, String::from_utf8_lossy(body)),
            "/status" => {
                let code = query_value(target, "code").and_then(|code| code.parse().ok());
                Reply::new(code.unwrap_or(500), self.describe("none", "status"))
            }
            "/count" => {
                let mut sessions = self.sessions.lock().unwrap();
                self.purge(&mut sessions);
                Reply::new(200, format!("{{\"sessions\": {}}}", sessions.len()))
            }
            "/health" => {
                self.probes.fetch_add(1, Ordering::SeqCst);
                let life = self.lives.load(Ordering::SeqCst).to_string();
                Reply::new(self.health.load(Ordering::SeqCst), "health").with("X-Instance", life)
            }
            "/health/enable" | "/health/disable" => {
                let status = if path == "/health/enable" { 200 } else { 503 };
                self.health.store(status, Ordering::SeqCst);
                Reply::new(204, "")
            }
            _ => Reply::new(404, "no such page"),
        }
    }

    fn page(&self, head: &Head, target: &str) -> Reply {
        if let Some(id) = self.known_session(head, target) {
            let mut sessions = self.sessions.lock().unwrap();
            if let Some(stay) = sessions.get_mut(&id) {
                stay.counter += 1;
            }
            drop(sessions);
            return Reply::new(200, self.describe(&id, "known"));
        }
        let id = self.new_session(1);
        Reply::new(200, self.describe(&id, "new")).with("Set-Cookie", self.spec.set_cookie(&id))
    }

    /// Renames the session, with its counter.
    fn login(&self, head: &Head, target: &str) -> Reply {
        let old = self.known_session(head, target);
        let stay = old.and_then(|id| self.sessions.lock().unwrap().remove(&id));
        let id = self.new_session(stay.map_or(0, |stay| stay.counter));
        Reply::new(200, self.describe(&id, "renamed")).with("Set-Cookie", self.spec.set_cookie(&id))
    }

    fn describe(&self, id: &str, session: &str) -> String {
        let counter = self.sessions.lock().unwrap().get(id).map_or(0, |s| s.counter);
        let OriginSpec { release, backend, .. } = &self.spec;
        format!("release={release} backend={backend} id={id} session={session} counter={counter}\n")
    }

    /// The first id of the request that is in memory, touched; Tomcat too looks at every cookie of the name.
    pub(super) fn known_session(&self, head: &Head, target: &str) -> Option<String> {
        let mut sessions = self.sessions.lock().unwrap();
        self.purge(&mut sessions);
        let from_cookies = head
            .fields_named("cookie")
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.spec.cookie)
            .map(|(_, value)| value);
        let path = target.split('?').next().unwrap_or_default();
        let from_path = path.split(";jsessionid=").skip(1).take(1);
        let from_query = query_value(target, &self.spec.cookie);
        let id = from_cookies.chain(from_path).chain(from_query).find(|id| sessions.contains_key(*id))?;
        sessions.get_mut(id)?.last_seen = Instant::now();
        Some(id.to_owned())
    }

    fn new_session(&self, counter: u64) -> String {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the system has random bytes");
        let mut id = format!("{:032X}", u128::from_be_bytes(random));
        if let Some(route) = &self.spec.route {
            id = format!("{id}.{route}");
        }
        let last_seen = Instant::now();
        let mut sessions = self.sessions.lock().unwrap();
        sessions.insert(id.clone(), Stay { counter, last_seen });
        id
    }

    pub(super) fn purge(&self, sessions: &mut HashMap<String, Stay>) {
        if let Some(timeout) = self.spec.idle_timeout {
            sessions.retain(|_, stay| stay.last_seen.elapsed() < timeout);
        }
    }
}
