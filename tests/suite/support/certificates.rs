//! A certificate authority for tests, made with openssl.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{process, scratch};

pub struct Authority {
    folder: TempDir,
    certificate: PathBuf,
}

/// A certificate and its key, in PEM files.
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Authority {
        let folder = scratch::folder("authority");
        let certificate = folder.path().join("ca.pem");
        openssl(folder.path(), &format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -days 30 -subj /CN=tests"));
        Authority { folder, certificate }
    }

    /// The authority's own certificate, for the programs that should trust it.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Issues a certificate for `name`, with alternative names such as `DNS:localhost`.
    pub fn issue(&self, name: &str, alternatives: &str) -> Issued {
        let folder = self.folder.path();
        let text = format!("subjectAltName={alternatives}\nbasicConstraints=critical,CA:FALSE\n");
        scratch::file(folder, &format!("{name}.ext"), &text);
        openssl(folder, &format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile {name}.ext \
                 -out {name}.pem"
            ),
        );
        let key = folder.join(format!("{name}.key"));
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("our own file");
        Issued { certificate: folder.join(format!("{name}.pem")), key }
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

fn openssl(folder: &Path, words: &str) {
    let mut command = Command::new(process::program_named("openssl", "openssl"));
    let output = command.args(words.split_whitespace()).current_dir(folder).output().expect("openssl runs");
    assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
}
