//! The `sidecache` program: a command to a service, or the service itself until it is asked to stop.

use std::process::ExitCode;

use sidecache::config::Config;
use sidecache::{app, cli, telemetry, workers};

fn main() -> ExitCode {
    match cli::start() {
        cli::Start::Serve(config) => serve(*config),
        cli::Start::Ended(code) => code,
    }
}

fn serve(config: Config) -> ExitCode {
    let log = telemetry::start(&config.log);
    let ran = workers::background().map_err(Into::into).and_then(|runtime| {
        let ran = runtime.block_on(app::run(config, log.dropped_lines()));
        // What still blocks, the look-up of a name perhaps, is not waited for.
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
