//! The `sidecache` program: runs a command against a service, or runs the service itself until it is stopped.

use std::process::ExitCode;

use sidecache::config::Config;
use sidecache::{app, cli, telemetry, workers};

fn main() -> ExitCode {
    match cli::start() {
        Ok(config) => serve(*config),
        Err(code) => code,
    }
}

fn serve(config: Config) -> ExitCode {
    let log = telemetry::start(&config.log);
    let ran = workers::background().map_err(Into::into).and_then(|runtime| {
        let ran = runtime.block_on(app::run(config, log.dropped_lines()));
        // Do not wait for blocking calls that still run, such as a DNS lookup.
        runtime.shutdown_background();
        ran
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidecache: {error:#}");
            ExitCode::FAILURE
        }
    }
}
