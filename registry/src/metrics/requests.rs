//! Requests and connections.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What is counted of requests and connections.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    /// Requests that ended, by what they were and how they ended.
    pub ended: Family<RequestLabels, Counter>,
    /// How long they took, to the end of the reply.
    pub duration_seconds: Family<KindLabels, Histogram, fn() -> Histogram>,
    /// Requests that run.
    pub in_flight: Family<EndpointLabels, Gauge>,
    /// Bytes of bodies that came.
    pub received_bytes: Counter,
    /// Bytes of bodies that were handed to the system for sending.
    pub sent_bytes: Counter,
    /// Memory lent to bodies under way.
    pub body_memory_bytes: Gauge,
    /// Memory that can be lent to them.
    pub body_memory_limit_bytes: Gauge,
    /// Logins, by what came of them.
    pub logins: Family<LoginLabels, Counter>,
    /// Open connections.
    pub connections: Gauge,
    /// Connections that ended before a request, by why.
    pub failed_handshakes: Counter,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// The method; `other` where it is none of HTTP's.
    pub method: &'static str,
    /// Which part of the API.
    pub endpoint: EndpointKind,
}

/// What was asked, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The method; `other` where it is none of HTTP's.
    pub method: &'static str,
    /// Which part of the API.
    pub endpoint: EndpointKind,
    /// The status; 0 where the client went before there was one.
    pub status: u16,
}

/// Which part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndpointLabels {
    /// Which part.
    pub endpoint: EndpointKind,
}

/// What came of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LoginLabels {
    /// ok, wrong, token_invalid, too_many, busy.
    pub result: &'static str,
}

/// Parts of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the values of the label")]
pub enum EndpointKind {
    /// `/v2/`
    base,
    /// `/v2/_catalog`
    catalog,
    /// Lists of tags.
    tags,
    /// Lists of referrers.
    referrers,
    /// Blobs.
    blob,
    /// Uploads: where they begin, and each.
    upload,
    /// Manifests.
    manifest,
    /// `/v2/token`
    token,
    /// Everything else.
    other,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        // From half a millisecond to half an hour: a manifest from memory, and a layer over a slow line.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 4.0, 12));
        Self {
            ended: Family::default(),
            duration_seconds: Family::new_with_constructor(histogram),
            in_flight: Family::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            body_memory_bytes: Gauge::default(),
            body_memory_limit_bytes: Gauge::default(),
            logins: Family::default(),
            connections: Gauge::default(),
            failed_handshakes: Counter::default(),
        }
    }
}

impl RequestMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests that ended; status 0: the client went first", self.ended.clone());
        let help = "How long requests took, to the end of the reply";
        registry.register("request_duration_seconds", help, self.duration_seconds.clone());
        registry.register("requests_in_flight", "Requests that run", self.in_flight.clone());
        registry.register("received_body_bytes", "Bytes of requests' bodies", self.received_bytes.clone());
        registry.register("sent_body_bytes", "Bytes of replies' bodies", self.sent_bytes.clone());
        registry.register("body_memory_bytes", "Memory lent to bodies under way", self.body_memory_bytes.clone());
        let help = "Memory that can be lent to bodies under way";
        registry.register("body_memory_limit_bytes", help, self.body_memory_limit_bytes.clone());
        registry.register("logins", "Credentials shown, by what came of it", self.logins.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        let help = "Connections that failed before their first request";
        registry.register("failed_handshakes", help, self.failed_handshakes.clone());
    }
}
