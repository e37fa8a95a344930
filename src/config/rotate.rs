//! `jadegate rotate` from the side of the key folder: the next keyring put in the place of the last, and
//! the people's keys wrapped anew where no gateway runs to do it.
//!
//! The keyring is replaced whole or not at all, and every keyring that ever lies there opens the whole
//! store: a rotation that was interrupted at any point leaves a deployment that starts and answers, and
//! the next `rotate` or the next gateway finishes it. A working key is destroyed only here, in a stopped
//! deployment, after everybody was seen to be wrapped by a newer one.

use std::io;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::Config;
use super::deployment::{DeploymentError, replace_secret};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::gateway::{Gateway, GatewayError, TakeKeysError};
use crate::keys::{Keyring, KeyringError, NewKeyring, Rotated, Rotation};
use crate::store::sled::OpenError;

/// A rotation younger than this is finished, and no other begun: old backups need the keys before it.
const YOUNG_HOURS: i64 = 24;
/// How many passes over the people end at the latest with one that finds nothing to do.
const PASSES_MAX: usize = 100;
/// How long is waited for a gateway's listener.
const KNOCK: std::time::Duration = std::time::Duration::from_secs(2);

/// What is wanted of a rotation.
#[derive(Debug, Clone, Copy)]
pub struct RotateWish {
    /// How long the new keys are known before they are used.
    pub lead: SignedDuration,
    /// The keys have leaked: nothing waits.
    pub at_once: bool,
}

/// What a rotation did.
#[derive(Debug)]
pub struct RotateReport {
    /// The new keys; none where an earlier rotation was finished instead.
    pub rotated: Option<Rotated>,
    /// From when the working and consent keys are used, and from when the signing key.
    pub from: (Timestamp, Timestamp),
    /// How many people's keys were wrapped anew here.
    pub people: u64,
    /// Whether a gateway runs on the store, which takes the keys by itself.
    pub running: bool,
    /// Whether other gateways need a copy of the file.
    pub shared: bool,
}

/// Why there was no rotation, or it is not finished.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The deployment does not open, or its key folder cannot be written.
    #[error(transparent)]
    Deployment(#[from] DeploymentError),
    /// The keyring.
    #[error("{0}")]
    Keyring(#[from] KeyringError),
    /// Another rotation.
    #[error("another `jadegate rotate` works in this key folder; wait for it")]
    Busy,
    /// People's keys could not be wrapped anew.
    #[error(
        "the new keys are in place, but not everybody's keys are wrapped by them yet: {0}; run `jadegate rotate` again"
    )]
    Unfinished(GatewayError),
    /// The new keys could not be taken.
    #[error(transparent)]
    Taken(#[from] TakeKeysError),
}

/// Told before each step that changes a file; an error there is one of the step.
pub type BeforeStep<'a> = &'a mut dyn FnMut(&'static str) -> io::Result<()>;

impl Config {
    /// Makes new working, consent and signing keys, or finishes an earlier rotation.
    pub async fn rotate(
        &self,
        wish: RotateWish,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        before: BeforeStep<'_>,
    ) -> Result<RotateReport, RotateError> {
        let folder = std::fs::File::open(&self.keys).map_err(|e| DeploymentError::file(&self.keys, &e))?;
        folder.try_lock().map_err(|_| RotateError::Busy)?;
        let keys = self.open_keys()?;
        let now = clock.now();
        // A database lets a second process in, and two must never write one log: so whoever listens is asked first.
        let listens = std::net::TcpStream::connect_timeout(&self.listen, KNOCK).is_ok();
        let gateway = match listens {
            true => None,
            false => match self.open(clock.clone(), entropy.clone()).await {
                Ok(deployment) => Some(deployment.gateway),
                Err(DeploymentError::Store(OpenError::InUse { .. })) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let done = self.rotate_over(gateway.as_ref(), &keys, wish, now, &*entropy, before).await;
        if let Some(gateway) = gateway {
            gateway.close().await;
        }
        done
    }

    async fn rotate_over(
        &self,
        gateway: Option<&Gateway>,
        keys: &Keyring,
        wish: RotateWish,
        now: Timestamp,
        entropy: &dyn Entropy,
        before: BeforeStep<'_>,
    ) -> Result<RotateReport, RotateError> {
        let people = wrap_all(gateway).await?;
        let (working_from, signing_from) = keys.newest_from();
        let young = now.duration_since(working_from).as_hours() < YOUNG_HOURS && keys.newest().0 > 1;
        let (running, shared) = (gateway.is_none(), keys.logs().len() > 1);
        if people > 0 || (young && !wish.at_once) {
            let from = (working_from, signing_from);
            return Ok(RotateReport { rotated: None, from, people, running, shared });
        }
        let later = if wish.at_once { now } else { now.saturating_add(wish.lead).unwrap_or(now) };
        // A gateway alone on its store has the file at once; verifiers keep copies of the public keys in any case.
        let from = if shared { later } else { now };
        // Under a running gateway nobody here has seen by which keys people's are wrapped.
        let wrapped_from = gateway.filter(|_| !young).map_or(0, Gateway::wrapped_from);
        let rotation = Rotation { now, from, signing_from: later, wrapped_from };
        let (root, text, path) = self.read_keyring()?;
        let rotated = NewKeyring::rotate(&text, &root, &rotation, entropy)?;
        replace_secret(&path, rotated.text.as_bytes(), before)?;
        let mut people = 0;
        if let Some(gateway) = gateway {
            gateway.take_keys(self.open_keys()?)?;
            people = wrap_all(Some(gateway)).await?;
        }
        Ok(RotateReport { rotated: Some(rotated), from: (from, later), people, running, shared })
    }
}

/// Passes over the people until one finds nothing to do.
async fn wrap_all(gateway: Option<&Gateway>) -> Result<u64, RotateError> {
    let Some(gateway) = gateway else { return Ok(0) };
    let mut people = 0;
    for _ in 0..PASSES_MAX {
        match gateway.rewrap(0).await.map_err(RotateError::Unfinished)? {
            0 => return Ok(people),
            moved => people += moved,
        }
    }
    Err(RotateError::Unfinished(GatewayError::Fault("other gateways wrap people's keys by an older one".into())))
}
