//! The running feeds, by the page that they render.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::topic::{Region, Topic};

/// The most streams at a time.
pub const MAX_STREAMS: usize = 64;

/// The regions that a feed rendered last.
pub type Regions = Arc<Vec<Region>>;

/// The running feeds. There are at most as many feeds as streams.
#[derive(Default)]
pub struct Feeds(pub Mutex<HashMap<Topic, watch::Sender<Regions>>>);
