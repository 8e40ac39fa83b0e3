//! The CA certificates that are trusted for `https` services.

use std::env::var_os;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::failure::Failure;

/// Either variable replaces the system's list of certificates.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Trusts the certificates that the environment names, or else the system's list, where a private CA belongs. If the
/// system has no list, as in a small container, Mozilla's list is used.
///
/// # Errors
/// The certificates that the environment names cannot be read, or there are none.
pub fn config() -> Result<TlsConfig, Failure> {
    let loaded = rustls_native_certs::load_native_certs();
    let named = VARIABLES.into_iter().find(|name| var_os(name).is_some());
    let roots = match (loaded.certs.is_empty(), named) {
        (false, _) => loaded.certs.iter().map(|one| Certificate::from_der(one).to_owned()).collect::<Vec<_>>().into(),
        (true, None) => RootCerts::WebPki,
        (true, Some(name)) => {
            let reason = loaded.errors.first().map_or_else(|| "no certificate found".to_owned(), ToString::to_string);
            return Err(Failure::usage(format!("{name}: {reason}")));
        }
    };
    Ok(TlsConfig::builder().root_certs(roots).build())
}
