//! Live pages: `GET /dashboard/events?page=...` sends the regions of a page that changed, as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! All browsers that show the same page share one *feed*. The feed renders the regions once per tick, and ends
//! after its last browser has left. The number of streams is limited. A slow browser skips what it missed: it gets the
//! latest regions. Streams end when the process drains, so that the process does not wait for them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::problem::Problem;
use super::state::{Dashboard, Regions, Shared};
use super::topic::{EventsQuery, Region, Topic};
use super::{job, namespace, overview};
use crate::http::query;
use crate::trends::Trends;

/// After this time without an event a stream sends a comment, because some proxies close silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// After this time the browser reconnects.
const RETRY: Duration = Duration::from_secs(1);

/// The same if there are too many streams. The script has this time in `FULL_MS`.
const RETRY_FULL: Duration = Duration::from_secs(30);

/// `GET /dashboard/events`.
pub async fn get(State(dashboard): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    let topic = Topic::try_from(query::<EventsQuery>(&uri)?)?;
    let Ok(place) = dashboard.streams.clone().try_acquire_owned() else {
        // The status is 200, because `retry` has no effect in a response with an error status: the script would
        // reconnect after `AGAIN_MS`, which is much shorter.
        let full = Event::default().retry(RETRY_FULL).event("full");
        return Ok(respond(stream::iter([full.data("too many live pages are open on this instance")])));
    };
    let listener = Listener {
        regions: dashboard.join(topic),
        sent: HashMap::new(),
        draining: dashboard.app.draining.clone(),
        _place: place,
    };
    let updates = stream::unfold(Some(listener), Listener::next).flat_map(stream::iter);
    Ok(respond(stream::once(ready(Event::default().retry(RETRY))).chain(updates)))
}

fn respond(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    // nginx would collect the events.
    let headers = [("cache-control", "no-store"), ("x-accel-buffering", "no")];
    (headers, Sse::new(events.map(Ok::<_, Infallible>))).into_response()
}

/// The stream of one browser.
struct Listener {
    regions: watch::Receiver<Regions>,
    /// The regions that the browser has, by id.
    sent: HashMap<&'static str, String>,
    draining: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// Waits for the next events. `None` after the last event, and if the feed has ended.
    async fn next(listener: Option<Self>) -> Option<(Vec<Event>, Option<Self>)> {
        let mut listener = listener?;
        tokio::select! {
            biased;
            () = listener.draining.cancelled() => {
                Some((vec![Event::default().event("leaving").data("the service is stopping")], None))
            }
            changed = listener.regions.changed() => {
                changed.ok()?;
                let regions = listener.regions.borrow_and_update().clone();
                Some((listener.changed(&regions), Some(listener)))
            }
            () = sleep(KEEP_ALIVE) => Some((vec![Event::default().comment("alive")], Some(listener))),
        }
    }

    /// The events for regions that changed. The event for the status is always sent: it shows the browser that the
    /// service is alive. The first line of an event's data is the id of the region, the other lines are the element.
    fn changed(&mut self, regions: &[Region]) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, element) in regions {
            if *id == "status" || self.sent.get(id) != Some(&element.0) {
                events.push(Event::default().event("region").data(format!("{id}\n{}", element.0)));
                self.sent.insert(id, element.0.clone());
            }
        }
        events
    }
}

impl Dashboard {
    /// Subscribes to the feed of a topic, and starts the feed for the first stream.
    fn join(self: &Arc<Self>, topic: Topic) -> watch::Receiver<Regions> {
        let mut feeds = self.feeds.lock();
        if let Some(feed) = feeds.get(&topic).and_then(Weak::upgrade) {
            let mut regions = feed.subscribe();
            regions.mark_changed();
            return regions;
        }
        let (feed, regions) = watch::channel(Regions::default());
        let feed = Arc::new(feed);
        // A feed that ended with a panic is still in the map.
        feeds.retain(|_, feed| feed.strong_count() > 0);
        feeds.insert(topic.clone(), Arc::downgrade(&feed));
        // A feed is background work, so it does not run on the worker of the first stream.
        self.app.background.spawn(render(self.clone(), topic, feed));
        regions
    }
}

/// Runs a feed until its last stream has left. If it ends with a panic, `feed` is dropped: then its streams end as
/// well, and the browsers reconnect.
async fn render(dashboard: Shared, topic: Topic, feed: Arc<watch::Sender<Regions>>) {
    let mut steps = dashboard.app.trends.ticks();
    loop {
        feed.send_replace(Arc::new(regions(&topic, &dashboard).await));
        tokio::select! {
            () = dashboard.app.draining.cancelled() => return,
            () = feed.closed() => {}
            () = tick(&mut steps) => {}
        }
        // Under the lock, so that no stream joins a feed that is about to end.
        let mut feeds = dashboard.feeds.lock();
        if feed.receiver_count() == 0 {
            feeds.remove(&topic);
            return;
        }
    }
}

/// Waits for the next step of the trends, or until it is late. A step waits for the shards. If they do not answer,
/// pages must still be updated, to show this.
async fn tick(steps: &mut watch::Receiver<u64>) {
    let late = Trends::STEP + Trends::STEP / 4;
    if let Ok(Err(_)) = timeout(late, steps.changed()).await {
        // The sender no longer exists: the process is ending.
        sleep(late).await;
    }
}

/// The regions of a page as they are now.
async fn regions(topic: &Topic, dashboard: &Dashboard) -> Vec<Region> {
    let snapshot = dashboard.snapshot().await;
    let mut regions = vec![("status", snapshot.condition.status()), ("notices", snapshot.condition.notices())];
    match topic {
        Topic::Overview(query) => regions.extend(overview::regions(dashboard, &snapshot, query)),
        Topic::Namespace(name) => regions.extend(namespace::regions(dashboard, name).await),
        Topic::Job(id) => regions.extend(job::regions(dashboard, id).await),
        Topic::Condition => {}
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;
    use maud::PreEscaped;
    use tokio::sync::Semaphore;

    fn listener() -> (watch::Sender<Regions>, Listener) {
        let (feed, regions) = watch::channel(Regions::default());
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (feed, Listener { regions, sent: HashMap::new(), draining: CancellationToken::new(), _place: place })
    }

    /// The events as the browser gets them.
    async fn sent(events: Vec<Event>) -> String {
        let body = respond(stream::iter(events)).into_body();
        String::from_utf8(axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_element_of_several_lines_is_one_event() {
        let (_feed, mut listener) = listener();
        let text = sent(listener.changed(&[("x", PreEscaped("<p>\r\na\rb\n</p>".to_owned()))])).await;
        // The browser ends a line at a line feed or a carriage return. An empty line more does not matter.
        let lines = "event: region\ndata: x\ndata: <p>\ndata: \ndata: a\ndata: b\ndata: </p>\n\n";
        assert_eq!(text.replace('\r', "\n"), lines);
    }

    #[tokio::test]
    async fn only_changed_regions_are_sent_but_the_status_always() {
        let (feed, listener) = listener();
        let regions = |number: u32| {
            let region = |id: &'static str, text: String| (id, PreEscaped(text));
            Arc::new(vec![region("status", "ok".into()), region("a", "same".into()), region("b", number.to_string())])
        };
        feed.send_replace(regions(1));
        let (events, listener) = Listener::next(Some(listener)).await.unwrap();
        let first = sent(events).await;
        assert!(["status", "a", "b"].iter().all(|id| first.contains(&format!("data: {id}\n"))), "{first}");
        feed.send_replace(regions(2));
        let (events, listener) = Listener::next(listener).await.unwrap();
        let second = sent(events).await;
        assert!(second.contains("data: status\n") && second.contains("data: b\ndata: 2\n"), "{second}");
        assert!(!second.contains("data: a\n"), "{second}");
        let listener = listener.unwrap();
        listener.draining.cancel();
        let (events, end) = Listener::next(Some(listener)).await.unwrap();
        assert!(sent(events).await.starts_with("event: leaving"));
        assert!(Listener::next(end).await.is_none());
    }
}
