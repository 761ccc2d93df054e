//! What came of a run, and the object that machines read of it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Wanted;
use super::desk::Desk;
use super::histogram::{Histogram, Nanos};
use super::pace::{Rate, SECOND};
use super::tally::{Tally, Wrong};

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    pub(super) wanted: Wanted,
    pub(super) tally: Tally,
    pub(super) latencies: Histogram,
    pub(super) sent: u64,
    pub(super) unsent: u64,
    pub(super) seconds: f64,
    cpu: Duration,
}

impl Report {
    /// What a run has counted, and the CPU time that it took.
    #[must_use]
    pub fn new(wanted: &Wanted, desk: Desk, cpu: Duration) -> Self {
        let Desk { pace, mut tally, .. } = desk;
        let span = pace.span().map_or(0, |(begin, end)| end - begin);
        let latencies = tally.finish();
        let seconds = span as f64 / SECOND as f64;
        Self { wanted: wanted.clone(), tally, latencies, sent: pace.count(), unsent: pace.unsent(), seconds, cpu }
    }

    /// Answers a second, of those that came in the measured time: what came later would make a slow server a fast one.
    #[must_use]
    pub fn queries_per_second(&self) -> f64 {
        let in_time = self.latencies.count() - self.tally.late;
        if self.seconds > 0.0 { in_time as f64 / self.seconds } else { 0.0 }
    }

    /// Whether any answer came.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.latencies.count() > 0
    }

    /// One object.
    #[must_use]
    pub fn json(&self) -> Value {
        let tally = &self.tally;
        let answered = self.latencies.count();
        let errors: Map<_, _> = Wrong::ALL
            .map(|wrong| (wrong.key().to_owned(), tally.wrong.get(&wrong).map_or(0, |(count, _)| *count).into()))
            .into_iter()
            .collect();
        let rcodes: Map<_, _> =
            tally.rcodes.iter().map(|(rcode, count)| (rcode.to_string(), (*count).into())).collect();
        let second = |(at, second): (usize, &super::tally::Second)| {
            json!({ "second": at, "answered": second.answered, "p50_us": us(second.p50), "p99_us": us(second.p99),
                "max_us": us(second.max) })
        };
        let bucket = |(longest, count)| json!({ "up_to_us": us(longest), "count": count });
        let [full, resumed] = tally.handshakes;
        json!({
            "protocol": self.wanted.protocol.to_string(),
            "target": self.wanted.target,
            "connections": self.wanted.connections,
            "in_flight": self.wanted.in_flight,
            "rate": match self.wanted.rate {
                Rate::Max => Value::Null,
                Rate::PerSecond(rate) => rate.get().into(),
            },
            "resume": self.wanted.resume,
            "pad": self.wanted.pad,
            "get": self.wanted.get,
            "queries_per_connection": self.wanted.queries_per_connection,
            "seconds": self.seconds,
            "queries_per_second": rounded(self.queries_per_second()),
            "sent": self.sent,
            "unsent": self.unsent,
            "answered": answered,
            "errors": errors,
            "rcodes": rcodes,
            "answers_with_records": tally.with_records,
            "handshakes": { "full": full, "resumed": resumed },
            "latency_us": times(&self.latencies),
            "first_answer_us": times(&tally.first_answers),
            "per_second": tally.seconds.iter().enumerate().map(second).collect::<Vec<_>>(),
            "histogram": self.latencies.buckets().map(bucket).collect::<Vec<_>>(),
            "cpu_us_per_query": rounded(self.cpu_us_per_query()),
        })
    }

    /// Microseconds of CPU that a query took here.
    #[must_use]
    pub fn cpu_us_per_query(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.sent.max(1) as f64
    }
}

fn times(times: &Histogram) -> Value {
    json!({
        "min": us(times.min()),
        "mean": rounded(times.mean() / 1e3),
        "p50": us(times.percentile(0.5)),
        "p90": us(times.percentile(0.9)),
        "p99": us(times.percentile(0.99)),
        "p999": us(times.percentile(0.999)),
        "max": us(times.max()),
    })
}

/// Microseconds, to three figures behind the point.
fn us(time: Nanos) -> f64 {
    time as f64 / 1e3
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
