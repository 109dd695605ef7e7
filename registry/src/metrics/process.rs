//! What the kernel says of this process, read when it is asked for. Names and units are the ones that Prometheus'
//! client libraries share.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Ticks of a second in `/proc/<pid>/stat`: fixed in Linux' interface.
const TICKS: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        // Without /proc there is nothing to tell.
        if let Some((cpu_seconds, threads)) = times() {
            let metric = ConstCounter::new(cpu_seconds);
            let help = "Processor time of user and system";
            let cpu = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), metric.metric_type())?;
            metric.encode(cpu)?;
            let metric = ConstGauge::new(threads);
            metric.encode(encoder.encode_descriptor("process_threads", "Threads", None, metric.metric_type())?)?;
        }
        for (field, name, help) in [
            ("VmRSS:", "process_resident_memory", "Resident memory"),
            ("VmHWM:", "process_resident_memory_peak", "Most resident memory so far"),
        ] {
            if let Some(bytes) = status_bytes(field) {
                let metric = ConstGauge::new(bytes);
                metric.encode(encoder.encode_descriptor(name, help, Some(&Unit::Bytes), metric.metric_type())?)?;
            }
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            let metric = ConstGauge::new(i64::try_from(open.count()).unwrap_or(i64::MAX));
            metric.encode(encoder.encode_descriptor(
                "process_open_fds",
                "Open files",
                None,
                metric.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// Processor seconds and threads.
fn times() -> Option<(f64, i64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold anything; the fields after it count from the third.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u32>().ok();
    Some(((f64::from(field(14)?) + f64::from(field(15)?)) / TICKS, i64::from(field(20)?)))
}

fn status_bytes(field: &str) -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok()? * 1024)
}
