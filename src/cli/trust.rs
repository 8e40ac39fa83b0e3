//! Whom an `https` service is believed to be: the certificates that this machine trusts.

use std::env::var_os;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::failure::Failure;

/// Either of them takes the place of the system's own list.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The system's list, where a private CA belongs, or the one that the environment names. A system without any,
/// as a small container is, has Mozilla's.
///
/// # Errors
/// The environment names one that cannot be read, or that is empty.
pub fn config() -> Result<TlsConfig, Failure> {
    let loaded = rustls_native_certs::load_native_certs();
    let named = VARIABLES.into_iter().find(|name| var_os(name).is_some());
    let roots = match (loaded.certs.is_empty(), named) {
        (false, _) => loaded.certs.iter().map(|one| Certificate::from_der(one).to_owned()).collect::<Vec<_>>().into(),
        (true, None) => RootCerts::WebPki,
        (true, Some(name)) => {
            let reason =
                loaded.errors.first().map_or_else(|| "no certificate is there".to_owned(), ToString::to_string);
            return Err(Failure::usage(format!("{name}: {reason}")));
        }
    };
    Ok(TlsConfig::builder().root_certs(roots).build())
}
