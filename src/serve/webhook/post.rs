//! One report on its way: signed, posted, tried again with growing pauses, given up in the end.
//!
//! The signature covers the time of the attempt, so that a report that somebody recorded cannot be played back much later:
//! `X-Tidegate-Signature: t=1795168800,v1=` and the hexadecimal HMAC-SHA256 of `1795168800.` followed by the body.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header;
use pingora_core::{Error, ErrorType};
use pingora_http::RequestHeader;
use sha2::Sha256;
use tokio::time::Instant;

use super::ReportResult;
use crate::model::settings::{Protocol, WebhookUrl};
use crate::serve::control::Control;
use crate::serve::outbound::{self, Connected, Connectors};
use crate::serve::secrets;

/// A report.
pub struct Report {
    /// Where to.
    pub url: WebhookUrl,
    /// Of the key that signs it, read anew for each attempt: a key that was changed needs no restart.
    pub key_file: PathBuf,
    /// The drain as JSON.
    pub body: Bytes,
    /// `drain d7: drained`, for the log.
    pub about: String,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A whole attempt, name resolution included.
    pub attempt: Duration,
    /// After the first failure; doubled each time.
    pub first_pause: Duration,
    /// A receiver that is back is found within this time.
    pub longest_pause: Duration,
    /// From the first attempt.
    pub give_up: Duration,
}

impl Default for Times {
    fn default() -> Times {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Times { attempt: Duration::from_secs(10), first_pause: Duration::from_secs(1), longest_pause: minutes(5), give_up: minutes(60) }
    }
}

impl Report {
    /// Sends it until it is taken or given up, and counts how it went.
    pub async fn deliver(&self, connectors: &Connectors, control: &Control, times: Times) {
        let begun = Instant::now();
        let mut pause = times.first_pause;
        // Not the whole URL: some carry their secret in it.
        let (receiver, about) = (self.url.authority(), &self.about);
        loop {
            let why = match self.attempt(connectors, control.now().as_secs(), times.attempt).await {
                Ok(()) => {
                    control.reports.count(ReportResult::Delivered);
                    return log::info!("{about}: reported to {receiver}");
                }
                Err(why) => why,
            };
            if begun.elapsed() + pause > times.give_up {
                control.reports.count(ReportResult::GivenUp);
                return log::error!("{about}: not reported to {receiver}: {why}; given up after {:?}", times.give_up);
            }
            control.reports.count(ReportResult::Failed);
            log::warn!("{about}: not reported to {receiver}: {why}; next attempt in {pause:?}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(times.longest_pause);
        }
    }

    async fn attempt(&self, connectors: &Connectors, now: u64, limit: Duration) -> Result<(), String> {
        let begun = Instant::now();
        // Never sent unsigned, nor signed with half a key: whoever is writing the file may be done at the next attempt.
        let key = secrets::read_webhook_key(&self.key_file).map_err(|error| error.to_string())?;
        let signature = format!("t={now},v1={}", signature(&key, now, &self.body));
        let addresses = resolve(&self.url, limit).await?;
        let mut failure = format!("host name {} has no address", self.url.address.host);
        for address in addresses {
            let left = limit.saturating_sub(begun.elapsed());
            let connected = Connected::default();
            match outbound::within(left, &connected, self.post(connectors, address, &connected, &signature)).await {
                Ok(200..=299) => return Ok(()),
                // It was heard; another address of the same name would only hear it twice.
                Ok(status) => return Err(format!("status {status}")),
                Err(e) => {
                    let absent = matches!(e.etype(), ErrorType::ConnectRefused | ErrorType::ConnectNoRoute);
                    failure = outbound::describe(&e, limit);
                    if !absent {
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    async fn post(&self, connectors: &Connectors, address: SocketAddr, connected: &Connected, signature: &str) -> Result<u16, Box<Error>> {
        let tls = self.url.tls.then(|| (self.url.address.host.clone(), true));
        let peer = outbound::peer(address, tls, Protocol::Http1, connected);
        let (mut exchange, _) = connectors.http.get_http_session(&peer).await?;
        exchange.write_request_header(Box::new(self.request(signature)?)).await?;
        exchange.write_request_body(self.body.clone(), true).await?;
        exchange.finish_request_body().await?;
        outbound::read_head(&mut exchange).await
    }

    fn request(&self, signature: &str) -> Result<RequestHeader, Box<Error>> {
        let mut request = RequestHeader::build("POST", self.url.target.as_bytes(), None)?;
        request.insert_header(header::HOST, self.url.authority())?;
        request.insert_header(header::USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))?;
        request.insert_header(header::CONTENT_TYPE, "application/json")?;
        request.insert_header(header::CONTENT_LENGTH, self.body.len())?;
        request.insert_header(header::CONNECTION, "close")?;
        request.insert_header("X-Tidegate-Signature", signature)?;
        Ok(request)
    }
}

/// Hexadecimal.
fn signature(key: &[u8], now: u64, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    let mac = mac.chain_update(format!("{now}.")).chain_update(body).finalize().into_bytes();
    mac.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn resolve(url: &WebhookUrl, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    if let Some(literal) = url.address.literal() {
        return Ok(vec![literal]);
    }
    let host = &url.address.host;
    let question = tokio::net::lookup_host((host.as_str(), url.address.port));
    match tokio::time::timeout(limit, question).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(e)) => Err(format!("host name {host} does not resolve: {e}")),
        Err(_) => Err(format!("host name {host} does not resolve within {limit:?}")),
    }
}

#[cfg(test)]
mod tests;
