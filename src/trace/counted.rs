//! Wrappers around the SDK's queue and exporter that count every span.
//!
//! The SDK itself reports lost spans only in the log, and their number only at the end.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};

use super::counts::SPANS;

/// The standard's variable and default for the size of the queue
/// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#batch-span-processor>).
const PLACES: (&str, usize) = ("OTEL_BSP_MAX_QUEUE_SIZE", 2048);

/// The SDK's queue, which never receives more spans than it can hold.
#[derive(Debug)]
pub(super) struct CountedQueue {
    queue: BatchSpanProcessor,
    places: u64,
}

impl CountedQueue {
    pub(super) fn before(exporter: impl SpanExporter + 'static) -> Self {
        let (name, default) = PLACES;
        let set = std::env::var(name).ok().and_then(|places| places.parse().ok());
        let places = set.filter(|places| *places > 0).unwrap_or(default);
        let config = BatchConfigBuilder::default().with_max_queue_size(places).build();
        let queue = BatchSpanProcessor::builder(CountedExporter(exporter)).with_batch_config(config).build();
        Self { queue, places: places as u64 }
    }
}

impl SpanProcessor for CountedQueue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if SPANS.admit(self.places) {
            self.queue.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

#[derive(Debug)]
struct CountedExporter<E>(E);

impl<E: SpanExporter> SpanExporter for CountedExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let exported = self.0.export(batch).await;
        SPANS.settle(spans, exported.is_ok());
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}
