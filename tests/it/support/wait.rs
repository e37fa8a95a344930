//! Waiting for what another process or task does.

use std::time::Duration;

/// Looks again and again until it holds, half a minute at most.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..10_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    panic!("waited in vain: {what}");
}
