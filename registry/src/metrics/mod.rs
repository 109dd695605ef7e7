//! What the registry counts about itself, and its OpenMetrics text. The lowest room: every other may count here.
//!
//! There is no global: whoever counts holds the same [`Metrics`]. Labels have few values each; names of repositories,
//! digests and clients are for the access log.

mod process;
mod requests;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use requests::{EndpointKind, EndpointLabels, KindLabels, LoginLabels, RequestLabels, RequestMetrics};

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Of requests and connections.
    pub requests: RequestMetrics,
    /// Of the collector.
    pub collector: CollectorMetrics,
    /// Requests to the store, by kind and result.
    pub store_requests: StoreRequests,
}

/// Requests to the store.
pub type StoreRequests = Family<StoreRequest, Counter>;

/// What kind of request to the store, and whether it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreRequest {
    /// What was asked.
    pub kind: StoreRequestKind,
    /// Whether the store answered with an error. That nothing is there is no error.
    pub failed: Failed,
    /// For whom: what a look at the whole store costs is the collector's.
    pub by: AskedBy,
}

/// For whom the store was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the values of the label")]
pub enum AskedBy {
    /// A client, or an operator.
    clients,
    /// The collector.
    collector,
}

/// Whether something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the values of the label")]
pub enum Failed {
    /// It did.
    yes,
    /// It did not.
    no,
}

/// What is asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the values of the label")]
pub enum StoreRequestKind {
    /// A whole object is written.
    put,
    /// An object, or a part of it, is read.
    get,
    /// Is an object there?
    head,
    /// An object is removed: one for each object, though drivers put many into a request.
    delete,
    /// A page of a list.
    list,
    /// An object is copied.
    copy,
    /// A multipart upload begins.
    create_multipart,
    /// A part is written.
    put_part,
    /// A multipart upload ends.
    complete_multipart,
    /// A multipart upload is given up.
    abort_multipart,
}

/// What a collector tells. Times are seconds.
#[derive(Clone, Debug, Default)]
pub struct CollectorMetrics {
    /// Age of the oldest thing that may be removed and is still there.
    pub oldest_candidate_seconds: Gauge<f64, AtomicU64>,
    /// Things marked for removal now: by this process, and by runs of any that died.
    pub marks: Gauge,
    /// How many of those are of runs that died.
    left_marks: Gauge,
    /// Everything in the store was looked at since then: seconds since 1970, 0 as long as something never was.
    pub last_audit_timestamp_seconds: Gauge<f64, AtomicU64>,
    /// 1 while the brake holds removals back until an operator confirms.
    pub brake: Gauge,
    /// Removed objects, by kind: the first part of their key.
    pub removed: Family<RemovedKind, Counter>,
    /// Bytes of data removed.
    pub removed_bytes: Counter,
    /// Runs that ended.
    pub runs: Counter,
    /// Runs that failed.
    pub failed_runs: Counter,
}

/// What kind of object was removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RemovedKind {
    /// data, link, copy, upload, ...
    pub kind: &'static str,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        // Everybody's names for what every process has, ours for the rest.
        registry.register_collector(Box::new(process::Process));
        let ours = registry.sub_registry_with_prefix("fluyt_registry");
        let store_requests = StoreRequests::default();
        ours.register("store_requests", "Requests to the store", store_requests.clone());
        let requests = RequestMetrics::default();
        requests.register(ours);
        let collector = CollectorMetrics::default();
        collector.register(ours.sub_registry_with_prefix("collector"));
        Self { registry, requests, collector, store_requests }
    }

    /// The OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl CollectorMetrics {
    /// So many marks are there of runs that died, of whichever process. They are looked for by one task at a time.
    pub fn set_left_marks(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let before = self.left_marks.set(count);
        self.marks.inc_by(count - before);
    }

    fn register(&self, registry: &mut Registry) {
        let help = "Age of the oldest object that may be removed and is still there";
        registry.register("oldest_candidate_seconds", help, self.oldest_candidate_seconds.clone());
        registry.register("marks", "Objects marked for removal now", self.marks.clone());
        let help = "Everything was looked at since then, as seconds since 1970; 0: something never was";
        registry.register("last_audit_timestamp_seconds", help, self.last_audit_timestamp_seconds.clone());
        let help = "1 while the brake holds removals back until an operator confirms";
        registry.register("brake", help, self.brake.clone());
        registry.register("removed_objects", "Objects removed", self.removed.clone());
        registry.register("removed_bytes", "Bytes of data removed", self.removed_bytes.clone());
        registry.register("runs", "Runs that ended", self.runs.clone());
        registry.register("failed_runs", "Runs that failed", self.failed_runs.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::new();
        let request = StoreRequest { kind: StoreRequestKind::put_part, failed: Failed::no, by: AskedBy::clients };
        metrics.store_requests.get_or_create(&request).inc();
        metrics.collector.oldest_candidate_seconds.set(1.5);
        metrics.collector.removed.get_or_create(&RemovedKind { kind: "data" }).inc_by(3);
        let text = metrics.encode();
        for line in [
            r#"fluyt_registry_store_requests_total{kind="put_part",failed="no",by="clients"} 1"#,
            "fluyt_registry_collector_oldest_candidate_seconds 1.5",
            r#"fluyt_registry_collector_removed_objects_total{kind="data"} 3"#,
            "fluyt_registry_collector_brake 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
