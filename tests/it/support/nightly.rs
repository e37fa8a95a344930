//! Short runs for every change, long ones at night.

use std::fmt::Display;

/// How often something random is tried: `ci` times, or `nightly` times where `JADEGATE_NIGHTLY` is set.
pub fn rounds(ci: usize, nightly: usize) -> usize {
    if std::env::var_os("JADEGATE_NIGHTLY").is_some() { nightly } else { ci }
}

/// Says what a run came to; `scripts/nightly` gathers these lines.
pub fn figure(claim: &str, value: impl Display) {
    println!("figure | {claim} | {value}");
}
