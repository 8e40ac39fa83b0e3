//! Exports spans to an OpenTelemetry collector: one for each operation of the cache, created when the operation has
//! ended.
//!
//! The SDK reads the standard's variables: `OTEL_EXPORTER_OTLP_ENDPOINT` (without it nothing is exported),
//! `OTEL_EXPORTER_OTLP_PROTOCOL` (`http/protobuf` or `http/json`), `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`,
//! `OTEL_BSP_...` (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>). A thread of
//! the SDK exports from a bounded queue; every span is counted ([`super::SPANS`]). TLS is not built in: use a
//! collector on the same machine, which may forward to a distant one.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::caller::{Caller, EndedOperation};
use super::counted::CountedQueue;
use crate::model::Answer;

/// Nothing is exported unless one of these is set.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// How long the process waits at its end for the export of the last spans.
const LAST_EXPORT: Duration = Duration::from_secs(2);

static EXPORTING: OnceLock<Exporting> = OnceLock::new();

struct Exporting {
    tracer: SdkTracer,
    /// Whether the caller's sampling flag decides if a span is exported. True unless the configured sampler is not
    /// parent-based.
    follows_caller: bool,
}

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL: {0:?} is not supported; use http/protobuf or http/json")]
    Protocol(String),
    #[error(
        "{name}: TLS is not supported, so {endpoint:?} cannot be reached; use http:// to a collector on this machine"
    )]
    Tls { name: &'static str, endpoint: String },
    #[error(transparent)]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The running export. Dropping it exports the queued spans.
pub struct Export(SdkTracerProvider);

impl Export {
    /// Starts exporting, if the environment names an endpoint. Call it once.
    ///
    /// # Errors
    /// The environment asks for something that is invalid or not supported.
    pub fn start() -> Result<Option<Self>, Error> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some((name, endpoint)) = ENDPOINTS.iter().find_map(|name| Some((*name, set(name)?))) else {
            return Ok(None);
        };
        if endpoint.starts_with("https:") {
            return Err(Error::Tls { name, endpoint });
        }
        let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let protocol = match protocol.as_deref() {
            None | Some("http/protobuf") => Protocol::HttpBinary,
            Some("http/json") => Protocol::HttpJson,
            Some(other) => return Err(Error::Protocol(other.to_owned())),
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_protocol(protocol).build()?;
        let is_named = set("OTEL_SERVICE_NAME").is_some()
            || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name"));
        let resource = Resource::builder();
        let resource = if is_named { resource } else { resource.with_service_name("sidecache") };
        let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
        let provider =
            SdkTracerProvider::builder().with_resource(resource).with_span_processor(CountedQueue::before(exporter));
        let provider = provider.build();
        let follows_caller = set("OTEL_TRACES_SAMPLER").is_none_or(|sampler| sampler.starts_with("parentbased"));
        let _ = EXPORTING.set(Exporting { tracer: provider.tracer("sidecache"), follows_caller });
        Ok(Some(Self(provider)))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%error, "the last spans may not have been exported");
        }
    }
}

/// Exports a span of this operation, as a child of the caller's span.
pub(super) fn span(ended: &EndedOperation<'_>, caller: Option<&Caller>) {
    let Some(Exporting { tracer, follows_caller }) = EXPORTING.get() else { return };
    let trace = caller.and_then(|caller| caller.trace);
    if *follows_caller && trace.is_some_and(|trace| !trace.is_sampled()) {
        return;
    }
    let parent = trace.map_or_else(Context::new, |trace| {
        let remote = SpanContext::new(
            TraceId::from(trace.trace_id),
            SpanId::from(trace.parent_id),
            TraceFlags::new(trace.flags),
            true,
            TraceState::default(),
        );
        Context::new().with_remote_span_context(remote)
    });
    let end = SystemTime::now();
    let mut attributes = vec![
        KeyValue::new("sidecache.namespace", ended.namespace.to_owned()),
        KeyValue::new("sidecache.result", ended.answer.as_str()),
    ];
    if let Some(caller) = caller {
        let id = String::from_utf8_lossy(caller.request_id()).into_owned();
        attributes.push(KeyValue::new("sidecache.request_id", id));
    }
    let mut span = tracer
        .span_builder(format!("cache {}", ended.operation.as_str()))
        .with_kind(SpanKind::Server)
        .with_start_time(end.checked_sub(ended.latency).unwrap_or(end))
        .with_attributes(attributes)
        .start_with_context(tracer, &parent);
    if ended.answer == Answer::Failed {
        span.set_status(Status::error("the store failed"));
    }
    span.end_with_timestamp(end);
}
