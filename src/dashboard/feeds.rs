//! The table of running feeds. `events` runs the feeds.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::topic::{Region, Topic};

/// The most event streams that may be open at a time.
pub const MAX_STREAMS: usize = 64;

/// The regions that a feed rendered last.
pub type Regions = Arc<Vec<Region>>;

/// The running feeds, by the page that each one renders. A feed ends soon after its last stream, so the limit on
/// streams also limits the feeds.
#[derive(Default)]
pub struct Feeds(pub Mutex<HashMap<Topic, watch::Sender<Regions>>>);
