//! Examines a shard over a separate connection: is it reachable, and can it be used?

use std::io::ErrorKind;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike as _, EventInterface as _};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::client::{EVENTS, connect};
use super::preflight::{Examination, examine};

use crate::config::{RedisConfig, ShardConfig};

/// Examines all shards at the same time; each must answer within `patience`. The error texts contain no passwords.
pub async fn probe(config: &RedisConfig, patience: Duration) -> Vec<(String, Result<Examination, String>)> {
    let answers =
        config.shards.iter().map(|shard| async move { (shard.name.clone(), visit(shard, config, patience).await) });
    join_all(answers).await
}

/// Examines a shard over a new connection. Connecting and examining may take `patience` together.
pub(super) async fn visit(
    shard: &ShardConfig,
    config: &RedisConfig,
    patience: Duration,
) -> Result<Examination, String> {
    let client = connect(shard.endpoint.clone(), config, EVENTS).map_err(|error| words(error.details()))?;
    let answered = async {
        // The library reconnects repeatedly; only the first error matters.
        let mut errors = client.error_rx();
        tokio::select! {
            connected = client.wait_for_connect() => connected,
            Ok((error, _)) = errors.recv() => Err(error),
        }?;
        client.ping::<String>(None).await?;
        examine(&client, &shard.name, shard.endpoint.username.as_deref().unwrap_or("default")).await
    };
    let answer = match timeout(patience, answered).await {
        Ok(answer) => answer.map_err(|error| words(error.details())),
        Err(_) => Err(format!("no answer within {patience:?}")),
    };
    // Close it in any case, because the library would reconnect again and again.
    close(&client).await;
    answer
}

/// The readable text of an error. For errors of the operating system the library keeps only the debug format, such as
/// `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
pub(super) fn words(details: &str) -> String {
    // A kind without its own message gets the text of the standard library.
    const KINDS: [ErrorKind; 6] = [
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionAborted,
        ErrorKind::BrokenPipe,
        ErrorKind::TimedOut,
        ErrorKind::UnexpectedEof,
    ];
    if let Some(name) = details.strip_prefix("Kind(").and_then(|rest| rest.strip_suffix(')')) {
        let kind = KINDS.iter().find(|kind| format!("{kind:?}") == name);
        return kind.map_or_else(|| name.to_owned(), ToString::to_string);
    }
    let is_of_the_system = ["Os {", "Custom {", "Error {"].iter().any(|start| details.starts_with(start));
    let said = ["message: ", "error: "].iter().find_map(|field| Some(details.split_once(field)?.1));
    let Some(said) = said.and_then(|said| said.strip_suffix(" }")).filter(|_| is_of_the_system) else {
        return details.to_owned();
    };
    match said.strip_prefix('"').and_then(|said| said.strip_suffix('"')) {
        Some(text) => text.replace("\\\"", "\""),
        // An error inside the error.
        None => words(said),
    }
}

async fn close(client: &Client) {
    // If this takes too long, the connection ends with the process.
    let _ = timeout(Duration::from_millis(100), client.quit()).await;
}

#[cfg(test)]
mod tests {
    use std::io;

    use fred::error::Error;

    use super::*;

    fn words_of(error: io::Error) -> String {
        words(Error::from(error).details())
    }

    #[test]
    fn errors_of_the_operating_system_have_readable_texts() {
        assert_eq!(words_of(io::Error::from_raw_os_error(111)), "Connection refused");
        assert_eq!(words_of(ErrorKind::UnexpectedEof.into()), "unexpected end of file");
        assert_eq!(words_of(ErrorKind::NotConnected.into()), "NotConnected");
        let lookup = "failed to lookup address information: Name or service not known";
        assert_eq!(words_of(io::Error::other(lookup)), lookup);
        assert_eq!(words_of(io::Error::other("a \"quoted\" word")), "a \"quoted\" word");
        // Errors without a text keep their debug format.
        assert_eq!(words_of(io::Error::other(io::Error::other("x"))), "x");
    }

    #[test]
    fn error_texts_of_a_server_stay_unchanged() {
        for text in ["WRONGPASS invalid username-password pair", "ERR error: { \"a\" }", "Kind of a failure", ""] {
            assert_eq!(words(text), text);
        }
    }
}
