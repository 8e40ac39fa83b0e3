//! The CA certificates that are trusted for `https` services.

use std::env::var_os;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::failure::Failure;

/// Either variable replaces the system's list of certificates.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Trusts the certificates that the environment names. If it names none, trusts the system's list, to which an
/// operator can add a private CA. If the system has no list, as in a small container, trusts Mozilla's list.
///
/// # Errors
/// The environment names a file or a folder from which no certificate can be read.
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
