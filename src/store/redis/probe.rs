//! Asks each shard once whether it is there: for who looks before anything is started.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike as _, EventInterface as _};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::shard::{EVENTS, connect};
use crate::config::{RedisConfig, ShardConfig};

/// Asks all shards at once; each has `patience` to answer. The reasons of failures hold no password.
pub async fn probe(config: &RedisConfig, patience: Duration) -> Vec<(String, Result<(), String>)> {
    let answers = config.shards.iter().map(|shard| async move {
        let answer = timeout(patience, ask(shard, config)).await;
        (shard.name.clone(), answer.unwrap_or_else(|_| Err(format!("no answer within {patience:?}"))))
    });
    join_all(answers).await
}

async fn ask(shard: &ShardConfig, config: &RedisConfig) -> Result<(), String> {
    let client = connect(shard.endpoint.clone(), config, EVENTS).map_err(|error| error.details().to_owned())?;
    let answered = async {
        // It tries again and again; the first failure is what is asked for.
        let mut errors = client.error_rx();
        tokio::select! {
            connected = client.wait_for_connect() => connected,
            Ok((error, _)) = errors.recv() => Err(error),
        }?;
        client.ping::<String>(None).await.map(drop)
    };
    let answer = answered.await.map_err(|error| error.details().to_owned());
    close(&client).await;
    answer
}

async fn close(client: &Client) {
    // A connection that does not end in time ends with the process.
    let _ = timeout(Duration::from_millis(100), client.quit()).await;
}
