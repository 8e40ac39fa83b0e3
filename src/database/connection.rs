//! A connection outside the pool.

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::error::Error;

/// # Errors
/// [`Error::Unreachable`] names the server and the cause.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    options.connect().await.map_err(|cause| {
        let server = match options.get_socket() {
            Some(path) => path.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        Error::Unreachable { server, cause }
    })
}
