//! The `sidecache` program: settings, then the service until it is asked to stop.

use std::process::ExitCode;

use sidecache::{app, cli, telemetry};

fn main() -> ExitCode {
    let config = match cli::config() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sidecache: {error}");
            return ExitCode::from(2);
        }
    };
    telemetry::start(&config.log);
    let ran =
        tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(app::run(config)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidecache: {error:#}");
            ExitCode::FAILURE
        }
    }
}
