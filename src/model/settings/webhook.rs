//! Where verdicts are reported: a URL, taken apart when the configuration is read. A report never parses anything.

use super::Address;

/// A URL that reports are posted to, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebhookUrl {
    /// As written.
    pub url: String,
    /// Whether it is `https`.
    pub tls: bool,
    /// Whom to connect to.
    pub address: Address,
    /// Path and query; begins with `/`.
    pub target: String,
}

impl WebhookUrl {
    /// The `Host` of requests to it: without the port that goes without saying (RFC 9110 §4.2.3).
    pub fn authority(&self) -> String {
        let full = self.address.to_string();
        let usual = if self.tls { ":443" } else { ":80" };
        full.strip_suffix(usual).map_or_else(|| full.clone(), str::to_owned)
    }
}
