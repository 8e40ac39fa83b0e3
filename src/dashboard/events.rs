//! Live pages: `GET /dashboard/events?page=...` sends the regions of a page that changed, as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! All browsers that show the same page share one *feed*. The feed renders the regions once per tick, and ends
//! after its last browser has left. The number of streams is limited. Streams end when the process drains, so that
//! the process does not wait for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::extract::Parameters;
use super::feeds::Regions;
use super::problem::Problem;
use super::state::{Dashboard, Shared};
use super::topic::{EventsQuery, Region, Topic};
use super::{job, namespace, overview};

/// After this time without an event a stream sends a comment, because some proxies close silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Tells the browser after how many milliseconds to reconnect.
const RETRY: &str = "retry: 1000\n\n";

/// The response if there are too many streams. Its status is 200, because `retry` has no effect in a response with an
/// error status: the script would reconnect after `AGAIN_MS`, which is much shorter. The script has the same time in
/// `FULL_MS`.
const FULL: &str = "retry: 30000\nevent: full\ndata: too many live pages are open on this instance\n\n";

/// The regions of a page as they are now.
async fn regions(topic: &Topic, dashboard: &Dashboard) -> Vec<Region> {
    let snapshot = dashboard.snapshot().await;
    let mut regions = vec![("status", snapshot.condition.status()), ("notices", snapshot.condition.notices())];
    match topic {
        Topic::Overview(asked) => regions.extend(overview::regions(dashboard, &snapshot, asked)),
        Topic::Namespace(name) => regions.extend(namespace::regions(dashboard, name).await),
        Topic::Job(id) => regions.extend(job::regions(dashboard, id).await),
        Topic::Condition => {}
    }
    regions
}

impl Dashboard {
    /// Subscribes to the feed of a topic, and starts the feed for the first stream.
    fn join(self: &Arc<Self>, topic: &Topic) -> watch::Receiver<Regions> {
        let mut feeds = self.feeds.0.lock();
        if let Some(feed) = feeds.get(topic) {
            let mut receiver = feed.subscribe();
            receiver.mark_changed();
            return receiver;
        }
        let (sender, receiver) = watch::channel(Regions::default());
        feeds.insert(topic.clone(), sender.clone());
        // A feed is background work, so it does not run on the worker of the first stream.
        self.runtime.spawn(feed(RunningFeed { dashboard: self.clone(), topic: topic.clone(), sender }));
        receiver
    }
}

/// A running feed. Dropping it removes it from `Feeds`, also after a panic. Then its streams end as well, and the
/// browsers reconnect.
struct RunningFeed {
    dashboard: Shared,
    topic: Topic,
    sender: watch::Sender<Regions>,
}

impl RunningFeed {
    /// Whether the feed has no streams left. If so, it is removed at once, so that no new stream can join
    /// it.
    fn is_left(&self) -> bool {
        let mut feeds = self.dashboard.feeds.0.lock();
        let is_left = self.sender.receiver_count() == 0;
        if is_left {
            self.take_out(&mut feeds);
        }
        is_left
    }

    /// Removes this feed, but not a newer one of the same topic.
    fn take_out(&self, feeds: &mut HashMap<Topic, watch::Sender<Regions>>) {
        if feeds.get(&self.topic).is_some_and(|feed| feed.same_channel(&self.sender)) {
            feeds.remove(&self.topic);
        }
    }
}

impl Drop for RunningFeed {
    fn drop(&mut self) {
        self.take_out(&mut self.dashboard.feeds.0.lock());
    }
}

async fn feed(running: RunningFeed) {
    let RunningFeed { dashboard, topic, sender } = &running;
    let mut ticks = dashboard.ticks();
    loop {
        sender.send_replace(Arc::new(regions(topic, dashboard).await));
        tokio::select! {
            () = dashboard.app.draining.cancelled() => return,
            () = sender.closed() => {}
            () = ticks.next() => {}
        }
        if running.is_left() {
            return;
        }
    }
}

/// The event stream of one browser.
struct Stream {
    made: watch::Receiver<Regions>,
    /// The regions that the browser has, by id.
    sent: HashMap<&'static str, String>,
    draining: CancellationToken,
    has_ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        if self.has_ended {
            return None;
        }
        loop {
            tokio::select! {
                biased;
                () = self.draining.cancelled() => {
                    self.has_ended = true;
                    return Some("event: leaving\ndata: the service is stopping\n\n".to_owned());
                }
                changed = self.made.changed() => {
                    changed.ok()?;
                    let made = self.made.borrow_and_update().clone();
                    let news = self.news(&made);
                    if !news.is_empty() {
                        return Some(news);
                    }
                }
                () = sleep(KEEP_ALIVE) => return Some(": alive\n\n".to_owned()),
            }
        }
    }

    /// The events for regions that changed. The event for the status is always sent: it shows the browser that the
    /// service is alive.
    fn news(&mut self, made: &[Region]) -> String {
        let mut news = String::new();
        for (id, region) in made {
            if *id == "status" || self.sent.get(id).is_none_or(|sent| *sent != region.0) {
                put_event(&mut news, id, &region.0);
                self.sent.insert(id, region.0.clone());
            }
        }
        news
    }
}

/// Appends an event. The first line of its data is the id of the region. The other lines are the element.
fn put_event(text: &mut String, id: &str, element: &str) {
    text.push_str("event: region\ndata: ");
    text.push_str(id);
    // A line of data cannot contain a line break of any kind.
    for line in element.split("\r\n").flat_map(|line| line.split(['\n', '\r'])) {
        text.push_str("\ndata: ");
        text.push_str(line);
    }
    text.push_str("\n\n");
}

pub async fn events(
    State(dashboard): State<Shared>,
    Parameters(query): Parameters<EventsQuery>,
) -> Result<Response, Problem> {
    let topic = Topic::try_from(query)?;
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    let Ok(place) = dashboard.streams.clone().try_acquire_owned() else { return Ok((headers, FULL).into_response()) };
    let stream = Stream {
        made: dashboard.join(&topic),
        sent: HashMap::new(),
        draining: dashboard.app.draining.clone(),
        has_ended: false,
        _place: place,
    };
    let first = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(RETRY.to_owned())]);
    let rest =
        futures_util::stream::unfold(stream, async |mut stream| stream.next().await.map(|text| (Ok(text), stream)));
    let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
    Ok((headers, [("x-accel-buffering", "no")], body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_of_several_lines_is_one_event() {
        let mut text = String::new();
        put_event(&mut text, "x", "<p>\r\na\rb\n</p>");
        assert_eq!(text, "event: region\ndata: x\ndata: <p>\ndata: a\ndata: b\ndata: </p>\n\n");
    }

    #[tokio::test]
    async fn only_changed_regions_are_sent_but_the_status_always() {
        let (sender, made) = watch::channel(Regions::default());
        let semaphore = Arc::new(tokio::sync::Semaphore::new(1));
        let mut stream = Stream {
            made,
            sent: HashMap::new(),
            draining: CancellationToken::new(),
            has_ended: false,
            _place: semaphore.try_acquire_owned().unwrap(),
        };
        let regions = |number: u32| {
            let region = |id: &'static str, text: String| (id, maud::PreEscaped(text));
            Arc::new(vec![region("status", "ok".into()), region("a", "same".into()), region("b", number.to_string())])
        };
        sender.send_replace(regions(1));
        let first = stream.next().await.unwrap();
        assert!(["status", "a", "b"].iter().all(|id| first.contains(&format!("data: {id}\n"))), "{first}");
        sender.send_replace(regions(2));
        let second = stream.next().await.unwrap();
        assert!(second.contains("data: status\n") && second.contains("data: b\ndata: 2\n"), "{second}");
        assert!(!second.contains("data: a\n"), "{second}");
        stream.draining.cancel();
        assert!(stream.next().await.unwrap().starts_with("event: leaving"));
        assert_eq!(stream.next().await, None);
    }
}
