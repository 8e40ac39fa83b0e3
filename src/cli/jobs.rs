//! The command `jobs`: shows jobs, waits for them and cancels them. A job is a flush, or the deletion of a namespace,
//! that continues after its request.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use super::failure::{Exit, Failure};
use super::runtime::interrupts;
use super::screen::Side::{Left, Right};
use super::screen::{Screen, bar, with_spinner};
use super::service::{Service, encoded};
use crate::number;

const PATH: &str = "/api/v1/jobs";

/// How often the state of a job is read.
const POLL: Duration = Duration::from_millis(250);

/// After this many failed reads in a row, the command stops waiting. A short outage is no reason to stop: behind a
/// load balancer, another instance may answer soon.
const MAX_FAILURES: u32 = 40;

/// Show or cancel jobs: flushes and deletions of namespaces that continue after their request
#[derive(Args)]
#[command(subcommand_value_name = "COMMAND")]
#[command(after_help = "\
Examples:
  sidecache jobs
  sidecache jobs show 0f31c8f1b2a49d77-000001 --wait
  sidecache jobs cancel 0f31c8f1b2a49d77-000001

A job is shown until one hour after it ended.")]
pub struct Jobs {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show the jobs of all instances (the default)
    List,
    /// Show a job and its progress
    Show {
        /// Id of the job
        id: String,
        /// Wait until the job ends
        #[arg(long)]
        wait: bool,
    },
    /// Cancel a job; what it has deleted stays deleted
    Cancel {
        /// Id of the job
        id: String,
    },
}

/// A job, as the service describes it.
#[derive(Deserialize, Serialize)]
struct Job {
    id: String,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marked_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Listed {
    jobs: Vec<Job>,
}

impl Jobs {
    pub fn run(self, service: &Service, screen: &mut Screen) -> Result<(), Failure> {
        match self.command {
            None | Some(Command::List) => list(service, screen),
            Some(Command::Show { id, wait }) => show(service, screen, &id, wait),
            Some(Command::Cancel { id }) => cancel(service, screen, &id),
        }
    }
}

fn path(id: &str) -> String {
    format!("{PATH}/{}", encoded(id))
}

fn list(service: &Service, screen: &mut Screen) -> Result<(), Failure> {
    let listed: Listed = service.fetch(PATH)?;
    if screen.json {
        return screen.document(&listed);
    }
    let columns = [
        ("job", Left),
        ("state", Left),
        ("kind", Left),
        ("entries", Left),
        ("done", Right),
        ("estimate", Right),
        ("started", Left),
    ];
    let rows = listed.jobs.into_iter().map(|job| {
        let estimate = job.estimate.map_or("-".to_owned(), number::count);
        let target = job.target();
        vec![job.id, job.state, job.kind, target, number::count(job.done), estimate, job.started_at]
    });
    screen.table(&columns, rows.collect())
}

fn show(service: &Service, screen: &mut Screen, id: &str, is_waiting: bool) -> Result<(), Failure> {
    let job = if is_waiting { wait(service, id)? } else { service.fetch(&path(id))? };
    if screen.json {
        return screen.document(&job);
    }
    let target = job.target();
    let (does, done) = if job.is_mark() { ("marks", "marked") } else { ("deletes", "deleted") };
    let mut fields = vec![("job", job.id), ("state", job.state), (does, target)];
    fields.push((done, number::count(job.done)));
    fields.extend(job.estimate.map(|estimate| ("estimate", number::count(estimate))));
    fields.push(("started", job.started_at));
    fields.extend(job.ended_at.map(|ended| ("ended", ended)));
    let error = job.result.and_then(|result| Some(format!("{} ({})", result.error?, result.code?)));
    fields.extend(error.map(|error| ("error", error)));
    screen.fields(Left, fields)
}

fn cancel(service: &Service, screen: &mut Screen, id: &str) -> Result<(), Failure> {
    let job: Job = service.send(&Method::DELETE, &path(id), &[], Vec::new())?.parse(service)?;
    let done = format!("{} {}", number::of(job.done, "entry", "entries"), job.done_to_entries());
    let line = match &*job.state {
        "running" => format!("{id} is being cancelled; {done} so far"),
        state => format!("{id} is {state}; {done}"),
    };
    screen.result(&job, &line)
}

/// Sends a DELETE. If the service continues it as a job, waits for the job. Returns how many entries were deleted, or
/// marked as stale.
///
/// # Errors
/// The request or the job failed, or Ctrl-C ended the waiting.
pub fn delete(service: &Service, path: &str) -> Result<u64, Failure> {
    #[derive(Deserialize)]
    struct Deleted {
        deleted_count: Option<u64>,
        marked_count: Option<u64>,
    }
    let answer = with_spinner("working", || service.send(&Method::DELETE, path, &[], Vec::new()))?;
    if answer.is_accepted {
        let job: Job = answer.parse(service)?;
        return wait(service, &job.id)?.count();
    }
    let Deleted { deleted_count, marked_count } = answer.parse(service)?;
    Ok(deleted_count.or(marked_count).unwrap_or(0))
}

/// Waits for a job to end, and shows a progress bar. Ctrl-C ends only the waiting; the job continues.
///
/// # Errors
/// The state of the job cannot be read, or Ctrl-C ended the waiting.
fn wait(service: &Service, id: &str) -> Result<Job, Failure> {
    let later = || format!("`sidecache jobs show {id} --wait` waits for it, `sidecache jobs cancel {id}` cancels it");
    let interrupts = interrupts()?;
    let (mut shown, mut has_estimate, mut failures) = (bar("working", None, true), false, 0);
    let ended = loop {
        match service.fetch::<Job>(&path(id)) {
            Ok(job) if job.state != "running" => break Ok(job),
            Ok(job) => {
                failures = 0;
                if let Some(estimate) = job.estimate {
                    if !has_estimate {
                        shown.finish_and_clear();
                        (shown, has_estimate) = (bar("working", Some(estimate), true), true);
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
        if interrupts.recv_timeout(POLL).is_ok() {
            let text = format!("job {id} is still running: {}", later());
            break Err(Failure::new(Exit::Unknown, text));
        }
    };
    shown.finish_and_clear();
    ended
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

    /// Whether it marks entries as stale, and does not delete them.
    fn is_mark(&self) -> bool {
        self.kind == "mark_stale"
    }

    /// What the job does to entries, as a participle.
    fn done_to_entries(&self) -> &'static str {
        if self.is_mark() { "marked as stale" } else { "deleted" }
    }

    /// How many entries the job deleted or marked.
    ///
    /// # Errors
    /// The job failed, was cancelled, or has not ended.
    fn count(self) -> Result<u64, Failure> {
        let done = self.done_to_entries();
        let Some(JobResult { success, deleted_count, marked_count, error, code }) = self.result else {
            return Err(Failure::new(Exit::Unknown, format!("the job {} has not ended", self.id)));
        };
        let count = marked_count.or(deleted_count).unwrap_or(self.done);
        if success {
            return Ok(count);
        }
        let what = error.unwrap_or_else(|| "The job was cancelled".to_owned());
        let text = format!("{what}; {} had been {done} by then", number::of(count, "entry", "entries"));
        let exit = if code.as_deref() == Some("outcome_unknown") { Exit::Unknown } else { Exit::Failed };
        let mut failure = Failure::new(exit, text);
        failure.code = code;
        Err(failure)
    }
}
