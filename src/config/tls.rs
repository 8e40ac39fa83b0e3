//! TLS to Redis and PostgreSQL: which certificate authorities are trusted, and this process's client certificate.
//!
//! For Redis this file builds the TLS configuration. The client library's own configuration fails if one certificate
//! in the system's store is broken, supports no client certificate, and cannot check a name for a server that a
//! Sentinel named by its IP address. PostgreSQL connections only get the paths of the files.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::settings::{Error, Settings};

/// The TLS files of Redis or of PostgreSQL. All of them were read once and have the right format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate authorities. For Redis they replace the system's; for PostgreSQL they are added to the system's.
    pub ca: Option<PathBuf>,
    pub client: Option<ClientFiles>,
}

/// The client certificate for servers that ask for one, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads the settings `<store>_tls_ca`, `<store>_tls_cert` and `<store>_tls_key`, and checks the files.
    pub(super) fn parse(settings: &Settings, store: &str) -> Result<Self, Error> {
        let [ca, certificate, key] = ["ca", "cert", "key"].map(|part| format!("{store}_tls_{part}"));
        let path = |name: &str| {
            let text = settings.text(name).trim();
            (!text.is_empty()).then(|| PathBuf::from(text))
        };
        let files = Self {
            ca: path(&ca),
            client: match (path(&certificate), path(&key)) {
                (None, None) => None,
                (Some(certificate), Some(key)) => Some(ClientFiles { certificate, key }),
                (Some(_), None) => return Err(settings.error(&key, format!("{certificate} needs its private key"))),
                (None, Some(_)) => return Err(settings.error(&certificate, format!("{key} needs its certificate"))),
            },
        };
        if let Some(path) = &files.ca {
            authorities(path).map_err(|reason| settings.error(&ca, reason))?;
        }
        if let Some(client) = &files.client {
            client.load(&ring::default_provider()).map_err(|reason| settings.error(&certificate, reason))?;
        }
        Ok(files)
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The configuration of TLS connections. The certificate of a server that is reached by an IP address may carry
    /// one of `names` instead of the address.
    pub(super) fn client_config(&self, names: Vec<ServerName<'static>>) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let roots = match &self.ca {
            Some(path) => authorities(path)?,
            None => system_authorities()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { verifier, names }));
        Ok(match &self.client {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let last = Mutex::new(Arc::new(files.load(&provider)?));
                builder.with_client_cert_resolver(Arc::new(FromFiles { files: files.clone(), provider, last }))
            }
        })
    }
}

impl ClientFiles {
    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| about(&self.key, error))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| about(&self.certificate, error))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| about(path, error))?;
    if found.is_empty() { Err(about(path, "it contains no certificate")) } else { Ok(found) }
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    certificates(path)?.into_iter().try_for_each(|one| roots.add(one)).map_err(|error| about(path, error))?;
    Ok(roots)
}

fn about(path: &Path, error: impl Display) -> String {
    format!("{}: {error}", path.display())
}

/// The system's certificate authorities, without those that cannot be read.
fn system_authorities() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (_, broken) = roots.add_parsable_certificates(found.certs);
    for error in &found.errors {
        tracing::warn!(%error, "ignoring a certificate authority of the system");
    }
    if broken > 0 {
        tracing::warn!(broken, "ignoring certificate authorities of the system");
    }
    match roots.is_empty() {
        true => Err(
            "the system trusts no certificate authority: install ca-certificates, or set the CA file in the settings"
                .to_owned(),
        ),
        false => Ok(roots),
    }
}

/// Checks certificates as usual. If a server is reached by an IP address and its certificate is not for that address,
/// the certificate may be for one of `names` instead.
#[derive(Debug)]
struct Verifier {
    verifier: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError as C;
        let verify = |name| self.verifier.verify_server_cert(certificate, intermediates, name, ocsp, now);
        let verified = verify(server);
        let is_misnamed = matches!(
            verified,
            Err(rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }))
        );
        if !is_misnamed || !matches!(server, ServerName::IpAddress(_)) {
            return verified;
        }
        self.names.iter().map(verify).find(Result::is_ok).unwrap_or(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// The client certificate, read again for each connection, as it may have been renewed.
#[derive(Debug)]
struct FromFiles {
    files: ClientFiles,
    provider: Arc<CryptoProvider>,
    /// The last certificate that could be read.
    last: Mutex<Arc<CertifiedKey>>,
}

impl ResolvesClientCert for FromFiles {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let mut last = self.last.lock();
        match self.files.load(&self.provider) {
            Ok(found) => *last = Arc::new(found),
            Err(error) => {
                tracing::warn!(error, "cannot read the client certificate again; the previous one stays in use");
            }
        }
        Some(last.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
