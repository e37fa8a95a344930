//! When an answer may leave: at a fixed time after the last byte of its call arrived.
//!
//! INVARIANT (one withheld): every outcome after authentication waits here, so the time of an answer
//! says nothing about it. The wait starts at the stamp that the socket took, not in the handler; an
//! answer that is late leaves at the next multiple. Answers have one size, made here as well.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The size of every answer, whatever it says.
pub const ANSWER_BYTES: usize = 4096;

/// When a call that arrived whole at `arrival` may be answered, if the answer is ready at `now`.
pub fn departure(arrival: Instant, now: Instant, floor: Duration) -> Instant {
    if floor.is_zero() {
        return now;
    }
    let whole = now.saturating_duration_since(arrival).as_nanos() / floor.as_nanos();
    let steps = u32::try_from(whole).unwrap_or(u32::MAX).saturating_add(1);
    arrival.checked_add(floor.saturating_mul(steps)).unwrap_or(now)
}

/// Waits until the answer may leave: `arrival` plus the smallest multiple of `floor` that is still ahead.
pub async fn leave(arrival: Instant, floor: Duration) {
    sleep_until(departure(arrival, Instant::now(), floor)).await;
}

/// An answer that does not fit: a scenario that can make one should not have loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an answer of {bytes} bytes does not fit into {ANSWER_BYTES}")]
pub struct AnswerTooLarge {
    /// How long it is.
    pub bytes: usize,
}

/// Fills an answer with trailing spaces to `size`, which JSON allows.
pub fn pad_to(mut body: Vec<u8>, size: usize) -> Result<Vec<u8>, AnswerTooLarge> {
    if body.len() > size {
        return Err(AnswerTooLarge { bytes: body.len() });
    }
    body.resize(size, b' ');
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const FLOOR: Duration = Duration::from_millis(50);

    #[tokio::test(start_paused = true)]
    async fn answers_leave_at_multiples_of_the_floor_after_the_last_byte() {
        for (worked_ms, leaves_ms) in [(0, 50), (1, 50), (49, 50), (50, 100), (51, 100), (149, 150), (150, 200)] {
            let arrival = Instant::now();
            advance(Duration::from_millis(worked_ms)).await;
            leave(arrival, FLOOR).await;
            assert_eq!(arrival.elapsed().as_millis(), leaves_ms, "after {worked_ms} ms of work");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_floor_is_no_wait() {
        let arrival = Instant::now();
        leave(arrival, Duration::ZERO).await;
        assert!(arrival.elapsed().is_zero());
    }

    #[test]
    fn answers_have_one_size() {
        let met = pad_to(br#"{"answer":"met"}"#.to_vec(), ANSWER_BYTES).unwrap();
        let withheld = pad_to(br#"{"answer":"withheld"}"#.to_vec(), ANSWER_BYTES).unwrap();
        assert_eq!((met.len(), withheld.len()), (4096, 4096));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&met).unwrap()["answer"], "met");
        assert_eq!(pad_to(vec![0; 4097], ANSWER_BYTES), Err(AnswerTooLarge { bytes: 4097 }));
    }
}
