//! Errors of database operations, and what each means. The text of an error begins with its cause.

use sqlx::migrate::MigrateError;

/// An error of a database operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database did not answer in time")]
    Timeout,
    /// Cannot connect.
    #[error("{}: cannot connect to the database at {server}", words(.cause))]
    Unreachable { server: String, cause: sqlx::Error },
    #[error("{}", words_of_migration(.0))]
    Migration(#[from] MigrateError),
    #[error("{}", words(.0))]
    Sql(#[from] sqlx::Error),
    /// A change was sent but not answered: it may or may not have happened.
    #[error("the outcome of a change is unknown: {0}")]
    OutcomeUnknown(Box<Error>),
    /// A row that this release would not have written.
    #[error("cannot understand a row of {table}: {reason}")]
    Row { table: &'static str, reason: String },
}

/// The message of an error without the library's prefix: the words of the operating system or of the server.
fn words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        sqlx::Error::Database(error) => match error.code() {
            Some(code) => format!("{} ({code})", error.message()),
            None => error.message().to_owned(),
        },
        error => error.to_string(),
    }
}

fn words_of_migration(error: &MigrateError) -> String {
    match error {
        MigrateError::Execute(error) => format!("{}: the schema cannot be brought up to date", words(error)),
        MigrateError::ExecuteMigration(error, step) => format!("{}: migration {step} failed", words(error)),
        error => format!("the schema cannot be brought up to date: {error}"),
    }
}

impl Error {
    /// Whether the database could not be reached or used. False if it rejected the data.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Timeout | Self::Migration(_) | Self::Unreachable { .. } => true,
            Self::OutcomeUnknown(error) => error.is_outage(),
            Self::Sql(_) => !self.is_refused_data(),
            Self::Row { .. } => false,
        }
    }

    /// Whether the database rejected the data, so that a retry is useless.
    /// SQLSTATE classes 22 and 23 (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
    pub fn is_refused_data(&self) -> bool {
        self.sql_state().is_some_and(|state| state.len() == 5 && (state.starts_with("22") || state.starts_with("23")))
    }

    /// Whether a retry may succeed a moment later: the database is unreachable, starting, out of connections, or a
    /// replica after a failover; or another session holds a lock. SQLSTATE 57P.., 53300, 25006 and 55P03, or SQLite's
    /// `SQLITE_BUSY` with any of its extended codes, such as 517 (<https://www.sqlite.org/rescode.html>).
    pub fn may_pass(&self) -> bool {
        use sqlx::Error as E;
        let passes = |error: &E| match error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::WorkerCrashed => true,
            E::Database(error) => error.code().is_some_and(|code| {
                code.starts_with("57P")
                    || ["53300", "25006", "55P03"].contains(&code.as_ref())
                    || is_sqlite_busy(&code)
            }),
            _ => false,
        };
        match self {
            Self::OutcomeUnknown(error) => error.may_pass(),
            Self::Timeout => true,
            error => error.sql().is_some_and(passes),
        }
    }

    /// Whether the error is a timeout that does not tell its cause.
    pub(super) fn hides_its_cause(&self) -> bool {
        matches!(self, Self::Timeout) || matches!(self.sql(), Some(sqlx::Error::PoolTimedOut))
    }

    /// Whether the server is read-only: a replica, as after a failover.
    pub(super) fn is_read_only(&self) -> bool {
        self.sql_state().as_deref() == Some("25006")
    }

    pub(super) fn is_missing_table(&self) -> bool {
        // PostgreSQL has a code for this; SQLite has only the message.
        let words = matches!(self, Self::Sql(error) if error.to_string().contains("no such table"));
        words || self.sql_state().as_deref() == Some("42P01")
    }

    fn sql(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Sql(error)
            | Self::Unreachable { cause: error, .. }
            | Self::Migration(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => Some(error),
            _ => None,
        }
    }

    fn sql_state(&self) -> Option<String> {
        match self.sql() {
            Some(sqlx::Error::Database(error)) => error.code().map(Into::into),
            _ => None,
        }
    }
}

/// The lowest byte of an extended code is the primary code; a SQLSTATE has five characters.
fn is_sqlite_busy(code: &str) -> bool {
    const SQLITE_BUSY: u32 = 5;
    code.len() < 5 && code.parse::<u32>().is_ok_and(|code| code & 0xff == SQLITE_BUSY)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_begins_with_its_cause() {
        let cause = sqlx::Error::Io(io::Error::from_raw_os_error(111));
        let error = Error::Unreachable { server: "db:5432".to_owned(), cause };
        assert!(error.to_string().starts_with("Connection refused"), "{error}");
        assert!(error.may_pass() && error.is_outage());
        assert!(Error::Sql(sqlx::Error::PoolTimedOut).hides_its_cause() && Error::Timeout.hides_its_cause());
        let reset = Error::Sql(sqlx::Error::Io(io::Error::from_raw_os_error(104)));
        assert!(reset.to_string().starts_with("Connection reset"), "{reset}");
    }

    #[test]
    fn sqlite_is_busy_with_every_extended_code() {
        for (code, is_busy) in
            [("5", true), ("261", true), ("517", true), ("6", false), ("1", false), ("00517", false)]
        {
            assert_eq!(is_sqlite_busy(code), is_busy, "{code}");
        }
    }
}
