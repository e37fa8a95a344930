//! What is counted for operators: calls, times, connections, refusals.
//!
//! INVARIANT (one withheld): nothing here knows an outcome. Calls are counted by route template,
//! method and status class; every 200 of an answer is the same. No label holds anything of a caller's
//! making, so labels are few and none is personal.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::keys::SIGNATURES;

const CONNECTIONS: &str = "jadegate_connections";
const CONNECTIONS_REFUSED: &str = "jadegate_connections_refused_total";
const CALLS: &str = "jadegate_calls_total";
const CALL_SECONDS: &str = "jadegate_call_seconds";
const REFUSED: &str = "jadegate_refused_total";

/// The bounds of the histogram of times, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.06, 0.11, 0.26, 0.51, 1.0, 2.5, 10.0];

/// The figures could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the figures for /metrics could not be set up: {0}")]
pub struct FiguresError(String);

impl From<BuildError> for FiguresError {
    fn from(error: BuildError) -> Self {
        Self(error.to_string())
    }
}

/// What `/metrics` shows.
#[derive(Clone)]
pub struct Figures(PrometheusHandle);

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures")
    }
}

impl Figures {
    /// Makes this process count; the second time it gives the same figures again.
    pub fn install() -> Result<Self, FiguresError> {
        static HELD: Mutex<Option<Figures>> = Mutex::new(None);
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(figures) = held.as_ref() {
            return Ok(figures.clone());
        }
        let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS)?.build_recorder();
        let figures = Self(recorder.handle());
        metrics::set_global_recorder(recorder).map_err(|error| FiguresError(error.to_string()))?;
        describe_gauge!(CONNECTIONS, "Open connections, by listener");
        describe_counter!(CONNECTIONS_REFUSED, "Connections closed at once because there were too many, by listener");
        describe_counter!(CALLS, "Calls answered, by route, method and class of status");
        describe_histogram!(CALL_SECONDS, metrics::Unit::Seconds, "Time from head to answer, by route");
        describe_counter!(REFUSED, "Calls refused, by code");
        describe_counter!(
            SIGNATURES,
            "Signatures made for answers and receipts, as many for each answer whatever it says"
        );
        *held = Some(figures.clone());
        Ok(figures)
    }

    /// The figures as Prometheus reads them.
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

/// One open connection, for as long as it lives.
#[derive(Debug)]
pub(super) struct OpenConnection(&'static str);

impl OpenConnection {
    /// Counts a connection that has been opened.
    pub fn new(listener: &'static str) -> Self {
        gauge!(CONNECTIONS, "listener" => listener).increment(1.0);
        Self(listener)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!(CONNECTIONS, "listener" => self.0).decrement(1.0);
    }
}

pub(super) fn connection_refused(listener: &'static str) {
    counter!(CONNECTIONS_REFUSED, "listener" => listener).increment(1);
}

pub(super) fn call(route: &str, method: &'static str, status: u16, took: Duration) {
    let class = match status {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    counter!(CALLS, "route" => route.to_owned(), "method" => method, "class" => class).increment(1);
    histogram!(CALL_SECONDS, "route" => route.to_owned()).record(took.as_secs_f64());
}

pub(super) fn refused(code: &'static str) {
    counter!(REFUSED, "code" => code).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_route_and_class() {
        let figures = Figures::install().unwrap();
        let again = Figures::install().unwrap();
        call("/figures/{id}", "GET", 204, Duration::from_millis(3));
        call("/figures/{id}", "GET", 404, Duration::from_millis(3));
        refused("not-found");
        let text = again.render();
        for line in [
            r#"jadegate_calls_total{route="/figures/{id}",method="GET",class="2xx"} 1"#,
            r#"jadegate_call_seconds_count{route="/figures/{id}"} 2"#,
            r#"jadegate_refused_total{code="not-found"}"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(figures.render().contains("jadegate_calls_total"));
    }
}
