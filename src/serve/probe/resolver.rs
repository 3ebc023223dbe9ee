//! From a backend's host name to its address, before a probe and never before a request.
//!
//! An address that was good stays until the name server offers others: a name server that is down takes no backend away.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::backend::Live;
use crate::model::settings::Address;

/// Between two questions about one name: what name servers in clusters use as the life of a record.
const EVERY: Duration = Duration::from_secs(10);
/// Longest wait for the name server; its own default is five seconds, too long to keep a probe waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// The resolver of one backend.
#[derive(Debug, Default)]
pub struct Resolver {
    asked: Option<Instant>,
}

impl Resolver {
    /// Where to connect now; what the name server says is left in `live` for the requests.
    ///
    /// # Errors
    /// A few words, when the name never resolved.
    pub async fn address(&mut self, address: &Address, live: &Live) -> Result<SocketAddr, String> {
        if let Some(literal) = address.literal() {
            return Ok(literal);
        }
        let known = live.address();
        if let Some(known) = known
            && self.asked.is_some_and(|asked| asked.elapsed() < EVERY)
        {
            return Ok(known);
        }
        self.asked = Some(Instant::now());
        let question = tokio::net::lookup_host((address.host.as_str(), address.port));
        let answer = match tokio::time::timeout(PATIENCE, question).await {
            Ok(Ok(addresses)) => choose(known, addresses).ok_or_else(|| "it has no address".to_owned()),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        match (answer, known) {
            (Ok(chosen), known) => {
                if known != Some(chosen) {
                    live.resolved(chosen);
                }
                Ok(chosen)
            }
            (Err(why), Some(known)) => {
                log::warn!("host name {}: {why}; {known} stays in use", address.host);
                Ok(known)
            }
            (Err(why), None) => Err(format!("host name {} does not resolve: {why}", address.host)),
        }
    }
}

/// The address in use while the name still has it: answers come in another order each time.
fn choose(known: Option<SocketAddr>, addresses: impl Iterator<Item = SocketAddr>) -> Option<SocketAddr> {
    let mut first = None;
    for address in addresses {
        if known == Some(address) {
            return known;
        }
        first.get_or_insert(address);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::admission::ReleaseState;
    use crate::model::sketch::plain_backend;
    use crate::model::time::Time;

    #[test]
    fn an_address_stays_while_its_name_has_it() {
        let at = |n: u8| SocketAddr::from(([10, 0, 0, n], 80));
        let check = |known, answer: &[u8], expected| {
            let answer: Vec<_> = answer.iter().map(|n| at(*n)).collect();
            assert_eq!(choose(known, answer.into_iter()), expected);
        };
        check(None, &[1, 2], Some(at(1)));
        check(Some(at(2)), &[1, 2], Some(at(2)));
        check(Some(at(3)), &[1, 2], Some(at(1)));
        check(Some(at(3)), &[], None);
    }

    async fn resolve(host: &str, known: Option<SocketAddr>) -> (Result<SocketAddr, String>, Option<SocketAddr>) {
        let address = Address { host: host.to_owned(), port: 81 };
        let spec = plain_backend(address.clone());
        let live = Live::new(&spec, ReleaseState::Current, Time(0));
        if let Some(known) = known {
            live.resolved(known);
        }
        (Resolver::default().address(&address, &live).await, live.address())
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_a_literal_is_not() {
        let literal = SocketAddr::from(([127, 0, 0, 7], 81));
        assert_eq!(resolve("127.0.0.7", None).await, (Ok(literal), Some(literal)));
        let (found, left) = resolve("localhost", None).await;
        assert!(found.as_ref().is_ok_and(|a| a.ip().is_loopback() && a.port() == 81), "{found:?}");
        assert_eq!(found.ok(), left);
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_address() {
        // RFC 6761: `invalid` never resolves.
        let old = SocketAddr::from(([127, 0, 0, 9], 81));
        assert_eq!(resolve("gone.invalid", Some(old)).await, (Ok(old), Some(old)));
        let (found, left) = resolve("gone.invalid", None).await;
        assert!(found.is_err_and(|why| why.starts_with("host name gone.invalid does not resolve: ")));
        assert_eq!(left, None);
    }
}
