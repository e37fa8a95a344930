//! The one source of randomness.
//!
//! Ids, nonces, tokens and decoys take an [`Entropy`], so that a test can replay a world.
//! Signing and key making need ring's own generator, which [`system`] lends.

use ring::rand::{SecureRandom, SystemRandom};

/// Randomness could not be had from the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct EntropyError;

/// Where random bytes come from: the system, or a test's seed.
pub trait Entropy: Send + Sync {
    /// Fills `out` whole, or fails.
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError>;
}

/// `N` random bytes.
pub fn bytes<const N: usize>(entropy: &dyn Entropy) -> Result<[u8; N], EntropyError> {
    let mut out = [0; N];
    entropy.fill(&mut out)?;
    Ok(out)
}

/// The system's generator.
#[derive(Debug)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// The system's generator, through ring.
    #[allow(clippy::disallowed_methods, reason = "this is the one source of randomness")]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        self.0.fill(out).map_err(|_| EntropyError)
    }
}

/// ring's generator, for the calls of ring that take no other.
#[allow(clippy::disallowed_methods, reason = "this is the one source of randomness")]
pub fn system() -> SystemRandom {
    SystemRandom::new()
}
