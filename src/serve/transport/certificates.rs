//! The certificates of one TLS listener, and which of them a handshake shows.
//!
//! A set is immutable: a reload builds a new one and swaps it in, and handshakes under way keep the old one. An unknown
//! or absent server name gets the first certificate and not an alert, as with HAProxy without `strict-sni`: probes and
//! old clients connect by address.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::ssl::{
    AlpnError, NameType, Ssl, SslAcceptor, SslAcceptorBuilder, SslContext, SslMethod, SslSessionCacheMode, SslVersion, select_next_proto,
};
use openssl::x509::{X509, X509Ref};

/// What we speak, best first (RFC 7301 wire form).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// Which certificate files a TLS listener shows. The first is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSpec {
    /// Certificate chain in PEM, and its key; without a key path the key is in the certificate file.
    pub certificates: Vec<(PathBuf, Option<PathBuf>)>,
}

/// Why a certificate cannot be used; names the file.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read, but holds no usable certificate or key.
    #[error("{path}: {what}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong, with OpenSSL's words where it has some.
        what: String,
    },
    /// A TLS listener needs at least one certificate.
    #[error("no certificate; give at least one under `tls.certificates`")]
    None,
}

/// A loaded set of certificates, ready for handshakes.
pub struct Certificates {
    /// Built from the first certificate; its server name callback moves the handshake to the right context.
    entry: SslContext,
    facts: Vec<CertificateFacts>,
}

/// What an operator wants to know of a loaded certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The file it came from.
    pub path: PathBuf,
    /// The DNS names it is for, lower case; the common name if it has no alternative names.
    pub names: Vec<String>,
    /// End of validity, seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the certificate: two of the same name and end are told apart.
    pub fingerprint: Vec<u8>,
}

impl Certificates {
    /// Reads and checks every file.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used: unreadable, no PEM, or a key that is not the certificate's.
    pub fn load(spec: &TlsSpec) -> Result<Certificates, CertificateError> {
        let mut names = Names::default();
        let mut facts = Vec::new();
        let mut contexts = Vec::new();
        for (index, (certificate, key)) in spec.certificates.iter().enumerate() {
            let loaded = Pair::read(certificate, key.as_deref())?;
            for name in &loaded.facts.names {
                names.add(name, index);
            }
            contexts.push(loaded.builder()?.build().into_context());
            facts.push(loaded.facts);
        }
        let (path, key) = spec.certificates.first().ok_or(CertificateError::None)?;
        let mut entry = Pair::read(path, key.as_deref())?.builder()?;
        entry.set_servername_callback(move |ssl, _alert| {
            let index = ssl.servername(NameType::HOST_NAME).and_then(|name| names.find(name));
            if let Some(context) = index.and_then(|i| contexts.get(i))
                && let Err(e) = ssl.set_ssl_context(context)
            {
                log::warn!("cannot choose a certificate, the first is shown: {e}");
            }
            Ok(())
        });
        Ok(Certificates { entry: entry.build().into_context(), facts })
    }

    /// What was loaded, in the order of the configuration.
    pub fn facts(&self) -> &[CertificateFacts] {
        &self.facts
    }

    /// The state of one new handshake.
    pub(super) fn handshake(&self) -> Result<Ssl, ErrorStack> {
        Ssl::new(&self.entry)
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Certificates").field(&self.facts).finish()
    }
}

/// Server names to positions in the set. Where two certificates have a name, the first one listed wins.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, usize>,
    /// `example.com` stands for `*.example.com`: exactly one label more (RFC 9525 §6.3).
    wildcard: HashMap<String, usize>,
}

impl Names {
    fn add(&mut self, name: &str, index: usize) {
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.entry(parent.to_owned()),
            None => self.exact.entry(name.to_owned()),
        }
        .or_insert(index);
    }

    fn find(&self, name: &str) -> Option<usize> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        self.exact.get(&name).or_else(|| self.wildcard.get(parent()?)).copied()
    }
}

/// One certificate chain with its key, read from files.
struct Pair {
    chain: Vec<X509>,
    key: PKey<openssl::pkey::Private>,
    facts: CertificateFacts,
}

impl Pair {
    fn read(certificate: &Path, key: Option<&Path>) -> Result<Pair, CertificateError> {
        let pem = read(certificate)?;
        let chain = X509::stack_from_pem(&pem).map_err(|e| unusable(certificate, format!("no certificate in PEM form: {e}")))?;
        let Some(leaf) = chain.first() else {
            return Err(unusable(certificate, "no certificate in it".to_owned()));
        };
        let facts = CertificateFacts {
            path: certificate.to_owned(),
            names: names_of(leaf),
            fingerprint: leaf.digest(MessageDigest::sha256()).map(|digest| digest.to_vec()).unwrap_or_default(),
            not_after: seconds(leaf).map_err(|e| unusable(certificate, format!("unreadable end date: {e}")))?,
        };
        let key_path = key.unwrap_or(certificate);
        let key_pem = if key.is_some() { read(key_path)? } else { pem };
        let key = PKey::private_key_from_pem(&key_pem).map_err(|e| {
            let what = format!("no private key in PEM form: {e}; name its file under `key`");
            unusable(key_path, what)
        })?;
        // Asked here, since OpenSSL's own complaint does not say which two files it is about.
        if !leaf.public_key().is_ok_and(|public| public.public_eq(&key)) {
            let what = format!("not the key of {}", certificate.display());
            return Err(unusable(key_path, what));
        }
        Ok(Pair { chain, key, facts })
    }

    fn builder(&self) -> Result<SslAcceptorBuilder, CertificateError> {
        let build = || -> Result<SslAcceptorBuilder, ErrorStack> {
            let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
            builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
            // Tickets resume sessions; a cache in our memory on top would only cost.
            builder.set_session_cache_mode(SslSessionCacheMode::OFF);
            builder.set_alpn_select_callback(|_ssl, offered| select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::NOACK));
            let mut chain = self.chain.iter();
            if let Some(leaf) = chain.next() {
                builder.set_certificate(leaf)?;
            }
            for issuer in chain {
                builder.add_extra_chain_cert(issuer.clone())?;
            }
            builder.set_private_key(&self.key)?;
            Ok(builder)
        };
        build().map_err(|e| unusable(&self.facts.path, e.to_string()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
}

fn unusable(path: &Path, what: String) -> CertificateError {
    CertificateError::Unusable { path: path.to_owned(), what }
}

fn names_of(leaf: &X509Ref) -> Vec<String> {
    let alternative: Vec<String> =
        leaf.subject_alt_names().into_iter().flatten().filter_map(|name| name.dnsname().map(str::to_ascii_lowercase)).collect();
    if !alternative.is_empty() {
        return alternative;
    }
    let common = leaf.subject_name().entries_by_nid(Nid::COMMONNAME);
    common.filter_map(|entry| entry.data().to_string().ok()).map(|name| name.to_ascii_lowercase()).collect()
}

fn seconds(leaf: &X509Ref) -> Result<i64, ErrorStack> {
    let epoch = openssl::asn1::Asn1Time::from_unix(0)?;
    let left = epoch.diff(leaf.not_after())?;
    Ok(i64::from(left.days) * 86_400 + i64::from(left.secs))
}

/// A set that a reload can replace while handshakes go on.
pub(super) type SharedCertificates = Arc<arc_swap::ArcSwap<Certificates>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<usize>) {
        let mut names = Names::default();
        let listed = ["shop.example.com", "*.example.com", "*.shop.example.com", "shop.example.com"];
        for (index, listed) in listed.iter().enumerate() {
            names.add(listed, index);
        }
        assert_eq!(names.find(name), expected, "{name}");
    }

    #[test]
    fn the_exact_name_goes_before_the_wildcard_and_a_wildcard_is_one_label() {
        check("shop.example.com", Some(0));
        check("SHOP.Example.COM.", Some(0));
        check("www.example.com", Some(1));
        check("eu.shop.example.com", Some(2));
        check("a.b.example.com", None);
        check("example.com", None);
        check("com", None);
        check("", None);
    }

    #[test]
    fn a_missing_file_is_named() {
        let spec = TlsSpec { certificates: vec![("/nowhere/shop.pem".into(), None)] };
        let error = Certificates::load(&spec).unwrap_err().to_string();
        assert!(error.contains("/nowhere/shop.pem"), "{error}");
    }
}
