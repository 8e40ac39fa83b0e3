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
    let log = telemetry::start(&config.log);
    let ran = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
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
