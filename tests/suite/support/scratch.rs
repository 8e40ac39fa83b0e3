//! Temporary folders of this test process, below one root folder.
//!
//! Statics are never dropped, so the shared servers cannot remove their folders. Instead, a small shell process waits
//! until its standard input ends, which happens when the test process ends, and then removes the root folder.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Removes the folder `$0` when its standard input ends. It tries repeatedly, since servers that are still ending may
/// write a last file.
const JANITOR: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
n=0
while [ -e "$0" ] && [ $n -lt 100 ]; do rm -rf -- "$0" 2>/dev/null; n=$((n+1)); sleep 0.1; done
"#;

struct Root {
    path: PathBuf,
    /// Its standard input stays open as long as this process runs.
    _janitor: Child,
}

/// A new folder. It is removed when dropped, or at the latest after the test process.
pub fn folder(name: &str) -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .tempdir_in(root())
        .expect("a temporary folder can be made");
    open_to_all(folder.path());
    folder
}

/// Writes `text` into a new file of `folder` and returns its path.
pub fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    let mut file = std::fs::File::create(&path).expect("a temporary file can be made");
    file.write_all(text.as_bytes()).expect("a temporary file can be written");
    path
}

fn root() -> &'static Path {
    static ROOT: OnceLock<Root> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        let path = tempfile::Builder::new()
            .prefix("sidecache-tests-")
            .tempdir()
            .expect("a temporary folder can be made")
            .keep();
        open_to_all(&path);
        let janitor = Command::new("sh")
            .arg("-c")
            .arg(JANITOR)
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh is on every Debian machine");
        Root { path, _janitor: janitor }
    });
    &root.path
}

/// PostgreSQL and the workers of nginx run as other users, and need access to the folder.
fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("our own folder");
}
