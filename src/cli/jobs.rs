//! The command `jobs`: shows jobs, waits for them and cancels them. A job is a flush, or the deletion of a namespace,
//! that continues after its request.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use super::entry::entries;
use super::failure::{Exit, Failure};
use super::options::{text, with_service_options};
use super::screen::{Side, bar};
use super::service::{Service, encoded};
use super::session::{Session, runtime};
use crate::number;

const PATH: &str = "/api/v1/jobs";

/// How often the state of a job is read.
const POLL: Duration = Duration::from_millis(250);

/// After this many failed reads in a row, the command stops waiting. A short outage is no reason to stop: behind a
/// load balancer, another instance may answer soon.
const MAX_FAILURES: u32 = 40;

pub fn command() -> Command {
    let id = || Arg::new("id").value_name("ID").required(true).help("Id of the job");
    let list = Command::new("list").about("Show the jobs of all instances (the default)");
    let wait = Arg::new("wait").long("wait").action(ArgAction::SetTrue).help("Wait until the job ends");
    let show = Command::new("show").about("Show a job and its progress").arg(id()).arg(wait);
    let cancel = Command::new("cancel").about("Cancel a job; what it has deleted stays deleted").arg(id());
    let command = Command::new("jobs")
        .about("Show or cancel jobs: flushes and deletions of namespaces that continue after their request")
        .subcommand_value_name("COMMAND")
        .subcommands([list, show, cancel].map(with_service_options))
        .after_help(
            "Examples:\n  sidecache jobs\n  sidecache jobs show 0f31c8f1b2a49d77-000001 --wait\n  \
             sidecache jobs cancel 0f31c8f1b2a49d77-000001\n\nA job is shown until one hour after it ended.",
        );
    with_service_options(command)
}

/// A job, as the service describes it.
#[derive(Deserialize, Serialize)]
pub struct Job {
    pub id: String,
    kind: String,
    state: String,
    namespace: String,
    pattern: Option<String>,
    tag: Option<String>,
    done: u64,
    estimate: Option<u64>,
    started_at: String,
    ended_at: Option<String>,
    result: Option<JobResult>,
}

#[derive(Deserialize, Serialize)]
struct JobResult {
    success: bool,
    deleted_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Listed {
    jobs: Vec<Job>,
}

pub fn run(session: &mut Session, matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("show", matches)) => show(session, text(matches, "id"), matches.get_flag("wait")),
        Some(("cancel", matches)) => cancel(session, text(matches, "id")),
        _ => list(session),
    }
}

fn path(id: &str) -> String {
    format!("{PATH}/{}", encoded(id))
}

fn list(session: &mut Session) -> Result<(), Failure> {
    let Session { service, screen } = session;
    let listed: Listed = service.fetch(PATH)?;
    if screen.json {
        return screen.document(&listed);
    }
    let (left, right) = (|name| (name, Side::Left), |name| (name, Side::Right));
    let columns = [left("job"), left("state"), left("deletes"), right("deleted"), right("estimate"), left("started")];
    let rows = listed.jobs.into_iter().map(|job| {
        let estimate = job.estimate.map_or("-".to_owned(), number::count);
        let target = job.target();
        vec![job.id, job.state, target, number::count(job.done), estimate, job.started_at]
    });
    screen.table(&columns, rows.collect())
}

fn show(session: &mut Session, id: &str, may_wait: bool) -> Result<(), Failure> {
    let Session { service, screen } = session;
    let job = if may_wait { wait(service, id)? } else { service.fetch(&path(id))? };
    if screen.json {
        return screen.document(&job);
    }
    let target = job.target();
    let mut fields = vec![("job", job.id), ("state", job.state), ("deletes", target)];
    fields.push(("deleted", number::count(job.done)));
    fields.extend(job.estimate.map(|estimate| ("estimate", number::count(estimate))));
    fields.push(("started", job.started_at));
    fields.extend(job.ended_at.map(|ended| ("ended", ended)));
    let error = job.result.and_then(|result| Some(format!("{} ({})", result.error?, result.code?)));
    fields.extend(error.map(|error| ("error", error)));
    screen.fields(Side::Left, fields)
}

fn cancel(session: &mut Session, id: &str) -> Result<(), Failure> {
    let Session { service, screen } = session;
    let job: Job = service.send(&Method::DELETE, &path(id), &[], Vec::new())?.parse(service)?;
    if screen.json {
        return screen.document(&job);
    }
    let deleted = entries(job.done);
    screen.line(&match &*job.state {
        "running" => format!("{id} is being cancelled; {deleted} deleted so far"),
        state => format!("{id} is {state}; {deleted} deleted"),
    })
}

/// Waits for a job to end, and shows a progress bar. Ctrl-C ends only the waiting; the job continues.
///
/// # Errors
/// The state of the job cannot be read, or Ctrl-C ended the waiting.
pub fn wait(service: &Service, id: &str) -> Result<Job, Failure> {
    let later = || format!("`sidecache jobs show {id} --wait` waits for it, `sidecache jobs cancel {id}` cancels it");
    let interrupted = on_interrupt()?;
    let (mut shown, mut has_estimate, mut failures) = (bar("deleting", None, true), false, 0);
    let ended = loop {
        match service.fetch::<Job>(&path(id)) {
            Ok(job) if job.state != "running" => break Ok(job),
            Ok(job) => {
                failures = 0;
                if let Some(estimate) = job.estimate {
                    if !has_estimate {
                        shown.finish_and_clear();
                        (shown, has_estimate) = (bar("deleting", Some(estimate), true), true);
                    }
                    shown.set_length(estimate);
                }
                shown.set_position(job.done);
            }
            Err(failure) if failure.exit == Exit::NotFound => break Err(failure),
            Err(failure) => {
                failures += 1;
                if failures >= MAX_FAILURES {
                    break Err(failure.and(&format!("job {id} may still be running: {}", later())));
                }
            }
        }
        if interrupted.recv_timeout(POLL).is_ok() {
            let text = format!("job {id} is still running: {}", later());
            break Err(Failure::new(Exit::Unknown, text));
        }
    };
    shown.finish_and_clear();
    ended
}

/// Returns a channel that receives Ctrl-C. After this call, Ctrl-C does not end the process.
fn on_interrupt() -> Result<mpsc::Receiver<()>, Failure> {
    let (sender, receiver) = mpsc::channel();
    let runtime = runtime()?;
    let signal =
        runtime.block_on(async { tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()) });
    let mut signal =
        signal.map_err(|error| Failure::new(Exit::Failed, format!("cannot listen for Ctrl-C: {error}")))?;
    thread::spawn(move || {
        runtime.block_on(signal.recv());
        // The receiver no longer exists once the job has ended.
        let _ = sender.send(());
    });
    Ok(receiver)
}

impl Job {
    /// The namespace and the selected part of it, in words.
    fn target(&self) -> String {
        match (&self.pattern, &self.tag) {
            _ if self.kind == "delete_namespace" => format!("the namespace {}", self.namespace),
            (Some(pattern), _) => format!("{} that match {pattern:?}", self.namespace),
            (None, Some(tag)) => format!("{} with the tag {tag:?}", self.namespace),
            (None, None) => self.namespace.clone(),
        }
    }

    /// How many entries the job deleted.
    ///
    /// # Errors
    /// The job failed, was cancelled, or has not ended.
    pub fn deleted(self) -> Result<u64, Failure> {
        let Some(JobResult { success, deleted_count, error, code }) = self.result else {
            return Err(Failure::new(Exit::Unknown, format!("the job {} has not ended", self.id)));
        };
        if success {
            return Ok(deleted_count);
        }
        let what = error.unwrap_or_else(|| "The job was cancelled".to_owned());
        let text = format!("{what}; {} had been deleted by then", entries(deleted_count));
        let exit = if code.as_deref() == Some("outcome_unknown") { Exit::Unknown } else { Exit::Failed };
        let failure = Failure::new(exit, text);
        Err(match code {
            Some(code) => failure.with_code(code),
            None => failure,
        })
    }
}
