//! The one reader of the system's clocks.
//!
//! Everything that depends on time takes a [`Clock`], so tests move it. Days are civil days in
//! Asia/Shanghai, which has kept UTC+8 without summer time since 1991, so no time-zone table is
//! needed. [`Steady`] notices a wall clock that steps against the monotonic one.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::{Timestamp, civil::Date, tz::Offset};

/// Where the time comes from: the system's clocks, or a test's.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;
    /// A clock that only goes forward, from an arbitrary origin.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic origin is now.
    #[allow(clippy::disallowed_methods, reason = "this is the one reader of the system's clock")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one reader of the system's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { state: Mutex::new((now, Duration::ZERO)) }
    }

    /// Time passes: both clocks move forward alike.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.0 = state.0.saturating_add(by).unwrap_or(Timestamp::MAX);
        state.1 = state.1.saturating_add(by);
    }

    /// The wall clock alone is set, as by an operator or a broken time server.
    pub fn step_to(&self, now: Timestamp) {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0 = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1
    }
}

/// The civil day in Asia/Shanghai at this instant.
pub fn day_of(now: Timestamp) -> Date {
    Offset::constant(8).to_datetime(now).date()
}

/// The instant at which this civil day begins in Asia/Shanghai.
pub fn start_of(day: Date) -> Timestamp {
    Offset::constant(8).to_timestamp(day.at(0, 0, 0, 0)).unwrap_or(if day.year() > 0 {
        Timestamp::MAX
    } else {
        Timestamp::MIN
    })
}

/// The wall clock moved by more than a minute against the monotonic one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the system clock stepped by about {seconds} s against the monotonic clock; nothing is answered until it is set right or the gateway is restarted"
)]
pub struct ClockStepped {
    /// Seconds that the wall clock gained (or lost, negative) against the monotonic one.
    pub seconds: i64,
}

/// How far the wall clock may move against the monotonic one between two readings.
pub const STEP_MAX: Duration = Duration::from_secs(60);

/// Reads a clock and refuses it while it has stepped; its day never goes back.
#[derive(Debug, Default)]
pub struct Steady {
    last: Mutex<Option<(Timestamp, Duration, Date)>>,
}

impl Steady {
    /// The instant and the civil day, or the step that makes both doubtful.
    ///
    /// Slow drift is followed; a step is not, so that setting the clock right again is enough.
    pub fn read(&self, clock: &dyn Clock) -> Result<(Timestamp, Date), ClockStepped> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (now, mono) = (clock.now(), clock.monotonic());
        let mut day = day_of(now);
        if let Some((then, then_mono, then_day)) = *last {
            let wall = now.duration_since(then).as_millis();
            let passed = i128::try_from(mono.saturating_sub(then_mono).as_millis()).unwrap_or(i128::MAX);
            let step = wall.saturating_sub(passed);
            if step.unsigned_abs() > STEP_MAX.as_millis() {
                return Err(ClockStepped { seconds: i64::try_from(step / 1000).unwrap_or(i64::MAX) });
            }
            day = day.max(then_day);
        }
        *last = Some((now, mono, day));
        Ok((now, day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn days_are_shanghais() {
        assert_eq!(day_of(at("2026-11-24T15:59:59Z")).to_string(), "2026-11-24");
        assert_eq!(day_of(at("2026-11-24T16:00:00Z")).to_string(), "2026-11-25");
        assert_eq!(start_of(day_of(at("2026-11-24T16:30:00Z"))), at("2026-11-24T16:00:00Z"));
    }

    #[test]
    fn a_step_is_refused_until_it_is_undone() {
        let (clock, steady) = (ManualClock::new(at("2026-11-25T00:00:00Z")), Steady::default());
        steady.read(&clock).unwrap();
        clock.advance(Duration::from_secs(3600));
        steady.read(&clock).unwrap();
        clock.step_to(at("2026-11-25T01:02:00Z"));
        assert_eq!(steady.read(&clock), Err(ClockStepped { seconds: 120 }));
        clock.step_to(at("2026-11-25T01:00:30Z"));
        assert!(steady.read(&clock).is_ok());
    }

    #[test]
    fn a_minute_either_way_is_no_step_and_a_second_more_is() {
        for (to, stepped) in [
            ("2026-11-25T01:01:00Z", None),
            ("2026-11-25T01:01:01Z", Some(61)),
            ("2026-11-25T00:59:00Z", None),
            ("2026-11-25T00:58:59Z", Some(-61)),
        ] {
            let (clock, steady) = (ManualClock::new(at("2026-11-25T01:00:00Z")), Steady::default());
            steady.read(&clock).unwrap();
            clock.step_to(at(to));
            assert_eq!(steady.read(&clock).err().map(|step| step.seconds), stepped, "{to}");
        }
    }

    #[test]
    fn the_day_never_goes_back() {
        let (clock, steady) = (ManualClock::new(at("2026-11-24T16:00:10Z")), Steady::default());
        let (_, day) = steady.read(&clock).unwrap();
        clock.step_to(at("2026-11-24T15:59:50Z"));
        assert_eq!(steady.read(&clock).unwrap().1, day);
    }
}
