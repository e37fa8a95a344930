//! How much is too much: calls by party, failed authentication by address, wrong codes by party.
//!
//! An address is the socket's; no header has a say in it. It limits only calls that failed to
//! authenticate, so a neighbour behind the same address is not locked out, and what a party may do
//! is limited by party alone. Time is the clock's monotonic one. What is remembered is bounded.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use governor::{
    Quota, RateLimiter, clock::Clock as Ticks, middleware::NoOpMiddleware, nanos::Nanos,
    state::keyed::HashMapStateStore,
};

use super::problem::{Problem, code};
use crate::{clock::Clock, code::PartyId};

/// The most addresses that are remembered; beyond them new ones count as already over the limit.
pub const ADDRESSES_MAX: usize = 65_536;
/// Wrong codes within [`CODES_WINDOW`] after which a party's codes are refused.
pub const WRONG_CODES_MAX: usize = 10;
/// The window for wrong codes, and how long codes are then refused.
pub const CODES_WINDOW: Duration = Duration::from_secs(60);

const FORGET_EVERY: Duration = Duration::from_secs(1);

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// On the long run.
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}

/// Too early: come again after this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// How long to wait.
    pub wait: Duration,
}

impl TooMany {
    /// As a refusal with Retry-After.
    pub fn problem(self, code: &'static str) -> Problem {
        Problem::plain(code).retry_after(self.wait)
    }
}

#[derive(Clone)]
struct Monotonic(Arc<dyn Clock>);

impl Ticks for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.monotonic().into()
    }
}

type Keyed<K> = RateLimiter<K, HashMapStateStore<K>, Monotonic, NoOpMiddleware<Nanos>>;

fn keyed<K: std::hash::Hash + Eq + Clone>(rate: Rate, clock: &Arc<dyn Clock>) -> Keyed<K> {
    let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst));
    RateLimiter::new(quota, HashMapStateStore::default(), Monotonic(Arc::clone(clock)))
}

fn check<K: std::hash::Hash + Eq + Clone>(keyed: &Keyed<K>, key: &K, clock: &dyn Clock) -> Result<(), TooMany> {
    keyed.check_key(key).map_err(|until| TooMany { wait: until.wait_time_from(clock.monotonic().into()) })
}

/// What one gateway lets through.
pub struct Limiter {
    clock: Arc<dyn Clock>,
    calls: RwLock<(Rate, Keyed<PartyId>)>,
    failures: RwLock<(Rate, Keyed<IpAddr>)>,
    forgot: Mutex<Option<Duration>>,
    wrong_codes: Mutex<HashMap<PartyId, WrongCodes>>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct WrongCodes {
    at: VecDeque<Duration>,
    refused_until: Option<Duration>,
}

impl Limiter {
    /// `calls` limits a party, `failures` failed authentication from an address.
    pub fn new(calls: Rate, failures: Rate, clock: Arc<dyn Clock>) -> Self {
        Self {
            calls: RwLock::new((calls, keyed(calls, &clock))),
            failures: RwLock::new((failures, keyed(failures, &clock))),
            forgot: Mutex::default(),
            wrong_codes: Mutex::default(),
            clock,
        }
    }

    /// Takes over the rates of a new policy set; where a rate is the same, what was counted stays.
    pub fn reconfigure(&self, calls: Rate, failures: Rate) {
        let mut held = self.calls.write().unwrap_or_else(PoisonError::into_inner);
        if held.0 != calls {
            *held = (calls, keyed(calls, &self.clock));
        }
        drop(held);
        let mut held = self.failures.write().unwrap_or_else(PoisonError::into_inner);
        if held.0 != failures {
            *held = (failures, keyed(failures, &self.clock));
        }
    }

    /// One more call of an authenticated party.
    pub fn call(&self, party: &PartyId) -> Result<(), TooMany> {
        check(&self.calls.read().unwrap_or_else(PoisonError::into_inner).1, party, self.clock.as_ref())
    }

    /// One more call from this address that failed to authenticate: refused as what it is, or as one too many.
    pub fn failure(&self, address: IpAddr) -> Result<(), TooMany> {
        let held = self.failures.read().unwrap_or_else(PoisonError::into_inner);
        let key = network(address);
        if held.1.len() >= ADDRESSES_MAX && !self.forget(&held.1) {
            return Err(TooMany { wait: FORGET_EVERY });
        }
        check(&held.1, &key, self.clock.as_ref())
    }

    /// What a call that failed to authenticate is told: why, or that it was one too many from this address.
    pub fn refuse(&self, address: IpAddr, why: Problem) -> Problem {
        match self.failure(address) {
            Ok(()) => why,
            Err(too_many) => problem(too_many),
        }
    }

    /// Forgets addresses that have paused, at most once a second; whether there is room again.
    fn forget(&self, failures: &Keyed<IpAddr>) -> bool {
        let now = self.clock.monotonic();
        let mut last = self.forgot.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.saturating_sub(last) >= FORGET_EVERY) {
            *last = Some(now);
            failures.retain_recent();
        }
        failures.len() < ADDRESSES_MAX
    }

    /// Whether this party's codes are read at all now; its tokens always are.
    pub fn codes(&self, party: &PartyId) -> Result<(), TooMany> {
        let now = self.clock.monotonic();
        match self.wrong().get(party).and_then(|wrong| wrong.refused_until) {
            Some(until) if now < until => Err(TooMany { wait: until.saturating_sub(now) }),
            _ => Ok(()),
        }
    }

    /// A code of this party was answered 4xx.
    pub fn wrong_code(&self, party: &PartyId) {
        let now = self.clock.monotonic();
        let mut all = self.wrong();
        let wrong = all.entry(party.clone()).or_default();
        wrong.at.retain(|&then| now.saturating_sub(then) < CODES_WINDOW);
        wrong.at.push_back(now);
        if wrong.at.len() >= WRONG_CODES_MAX {
            wrong.refused_until = Some(now.saturating_add(CODES_WINDOW));
            wrong.at.clear();
        }
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<PartyId, WrongCodes>> {
        self.wrong_codes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one customer of a network commonly has to itself: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6((six.to_bits() & (u128::MAX << 64)).into()),
        four => four,
    }
}

/// The code under which a call of too many is refused.
pub fn problem(too_many: TooMany) -> Problem {
    too_many.problem(code::TOO_MANY_REQUESTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn limiter() -> (Arc<ManualClock>, Limiter) {
        let clock = Arc::new(ManualClock::new("2026-11-25T00:00:00Z".parse().unwrap()));
        let rate = Rate { per_second: 10, burst: 20 };
        (Arc::clone(&clock), Limiter::new(rate, Rate { per_second: 1, burst: 5 }, clock))
    }

    fn party(id: &str) -> PartyId {
        PartyId::parse(id).unwrap()
    }

    #[test]
    fn a_party_has_its_burst_and_then_its_rate() {
        let (clock, limiter) = limiter();
        let taken = |p: &str| (0..100).filter(|_| limiter.call(&party(p)).is_ok()).count();
        assert_eq!((taken("a"), taken("b")), (20, 20));
        clock.advance(Duration::from_secs(1));
        assert_eq!(taken("a"), 10);
        let wait = limiter.call(&party("a")).unwrap_err().wait;
        clock.advance(wait);
        assert!(limiter.call(&party("a")).is_ok());
    }

    #[test]
    fn failures_are_counted_by_address_and_touch_no_party() {
        let (_, limiter) = limiter();
        let failed = |address: &str| (0..50).filter(|_| limiter.failure(address.parse().unwrap()).is_ok()).count();
        assert_eq!((failed("192.0.2.1"), failed("192.0.2.2"), failed("::ffff:192.0.2.1")), (5, 5, 0));
        assert_eq!((failed("2001:db8::1"), failed("2001:db8::2"), failed("2001:db8:0:1::1")), (5, 0, 5));
        assert!(limiter.call(&party("a")).is_ok());
        let told =
            |address: &str| limiter.refuse(address.parse().unwrap(), Problem::plain(code::SIGNATURE_WRONG)).code();
        assert_eq!((told("192.0.2.1"), told("192.0.2.3")), (code::TOO_MANY_REQUESTS, code::SIGNATURE_WRONG));
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded() {
        let (clock, limiter) = limiter();
        let address = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(n));
        for n in 0..ADDRESSES_MAX as u32 {
            limiter.failure(address(n)).unwrap();
        }
        assert!(limiter.failure(address(u32::MAX)).is_err());
        clock.advance(Duration::from_secs(10));
        assert!(limiter.failure(address(u32::MAX)).is_ok());
        assert_eq!(limiter.failures.read().unwrap().1.len(), 1);
    }

    #[test]
    fn ten_wrong_codes_in_a_minute_stop_a_partys_codes_for_a_minute() {
        let (clock, limiter) = limiter();
        let (a, b) = (party("a"), party("b"));
        for n in 0..10 {
            assert!(limiter.codes(&a).is_ok(), "{n}");
            limiter.wrong_code(&a);
        }
        assert_eq!(limiter.codes(&a), Err(TooMany { wait: CODES_WINDOW }));
        assert!(limiter.codes(&b).is_ok());
        clock.advance(Duration::from_millis(59_999));
        assert!(limiter.codes(&a).is_err());
        clock.advance(Duration::from_millis(1));
        assert!(limiter.codes(&a).is_ok());
        for _ in 0..9 {
            limiter.wrong_code(&a);
        }
        clock.advance(CODES_WINDOW);
        limiter.wrong_code(&a);
        assert!(limiter.codes(&a).is_ok(), "nine of them are older than a minute");
    }

    #[test]
    fn new_rates_take_over_and_equal_ones_keep_their_count() {
        let (_, limiter) = limiter();
        let taken = || (0..100).filter(|_| limiter.call(&party("a")).is_ok()).count();
        assert_eq!(taken(), 20);
        let (calls, failures) = (Rate { per_second: 10, burst: 20 }, Rate { per_second: 1, burst: 5 });
        limiter.reconfigure(calls, failures);
        assert_eq!(taken(), 0);
        limiter.reconfigure(Rate { per_second: 10, burst: 30 }, failures);
        assert_eq!(taken(), 30);
    }
}
