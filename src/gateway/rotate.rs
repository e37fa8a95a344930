//! New keys in a running gateway, and people's data keys wrapped anew by the new working key.
//!
//! A rotation re-wraps keys and no data: it opens a person's two wrapped keys, seals them again, and
//! leaves every byte that they seal as it is. It goes through the people in batches, an entry each,
//! and needs no record of how far it came: a cell tells by which key its keys are wrapped, so after a
//! crash the next pass finds what is left. Several gateways may do it at once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Gateway, GatewayError, StartError, TRIES_MAX, unchanged};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::authority::KeyRotation;
use crate::keys::{Keyring, KeyringError};
use crate::ledger::Change;
use crate::person::PersonId;
use crate::store::{Cell, KEYS_END, Place, Store, Write};
use crate::tables;
use crate::vault::{Vault, VaultError};

/// How many people one entry covers.
const BATCH_PEOPLE: usize = 100;
/// How many people are looked at between two rests.
const PAGE_PEOPLE: usize = 500;
/// How many people are looked at, from either end, before a gateway starts.
const LOOKED_AT: usize = 100;
/// A batch that was sealed before the new keys came has been written after this long.
const SETTLED_SECONDS: u64 = 120;

/// Why a keyring is not taken over by a running gateway. The old keys hold.
#[derive(Debug, thiserror::Error)]
pub enum TakeKeysError {
    /// It is another deployment's.
    #[error("keyring.json has another pseudonym, index or log key: it is of another deployment. Put this one's back")]
    Other,
    /// It is older than the one in use.
    #[error("keyring.json is older than the one in use: it lacks the newest keys. Put the newest one back")]
    Older,
    /// It lacks a key that is still needed: one that may wrap people's keys, of consents that have not ended, of
    /// attestations that have not, or of a log.
    #[error(transparent)]
    Needed(#[from] KeyringError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl Gateway {
    /// Goes on with another keyring of this deployment, without a pause; tells whether anything is new.
    pub fn take_keys(&self, keys: Keyring) -> Result<bool, TakeKeysError> {
        let before = self.keys();
        if !before.same_deployment(&keys) {
            return Err(TakeKeysError::Other);
        }
        let (old, new) = (before.newest(), keys.newest());
        if new.0 < old.0 || new.1 < old.1 || new.2 < old.2 {
            return Err(TakeKeysError::Older);
        }
        let now = self.clock.now();
        before.kept_by(&keys, now, self.wrapped_from())?;
        keys.whole(now)?;
        let changed = new != old || !keys.working_versions().eq(before.working_versions());
        self.vault.take_keys(keys.into())?;
        self.keys_taken.store(self.monotonic_seconds(), Ordering::SeqCst);
        Ok(changed)
    }

    fn monotonic_seconds(&self) -> u64 {
        self.clock.monotonic().as_secs()
    }

    /// The working key that everybody's keys are known to be wrapped by at least; 0 where it is not known yet.
    pub fn wrapped_from(&self) -> u32 {
        self.wrapped.load(Ordering::SeqCst)
    }

    /// Whether a pass over the people is due.
    pub fn rewrap_due(&self) -> bool {
        let keys = self.keys();
        let current = keys.working_at(self.clock.now()).map_or(0, |(version, _)| version);
        keys.working_versions().any(|version| version < current) && self.wrapped_from() < current
    }

    /// Wraps the keys of everybody by the working key of now; gives how many were not yet.
    ///
    /// After each page it rests for `rest` times as long as the page took.
    pub async fn rewrap(&self, rest: u32) -> Result<u64, GatewayError> {
        let current = self.keys().working_at(self.clock.now()).map_or(0, |(version, _)| version);
        let begun = self.monotonic_seconds();
        let (mut moved, mut next) = (0, Vec::new());
        loop {
            let began = self.clock.monotonic();
            let cells = self.store.scan(tables::PERSON, &next, &KEYS_END, PAGE_PEOPLE).await?;
            let Some((last, _)) = cells.last() else { break };
            next = [last.as_slice(), &[0]].concat();
            let behind = |cell: &Cell| Vault::wrapped_by(&cell.value).is_none_or(|version| version < current);
            let people: Vec<PersonId> = cells
                .iter()
                .filter(|(_, cell)| behind(cell))
                .filter_map(|(key, _)| key.as_slice().try_into().ok().map(PersonId))
                .collect();
            for people in people.chunks(BATCH_PEOPLE) {
                moved += self.rewrap_batch(people).await?;
            }
            let took = self.clock.monotonic().saturating_sub(began);
            tokio::time::sleep(took.saturating_mul(rest)).await;
        }
        // Who was written by the old key while the pass went on is met by the next one.
        let settled = begun >= self.keys_taken.load(Ordering::SeqCst).saturating_add(SETTLED_SECONDS) || rest == 0;
        if moved == 0 && settled {
            self.wrapped.fetch_max(current, Ordering::SeqCst);
        }
        Ok(moved)
    }

    async fn rewrap_batch(&self, people: &[PersonId]) -> Result<u64, GatewayError> {
        for _ in 0..TRIES_MAX {
            if let Some(moved) = self.rewrap_once(people).await? {
                return Ok(moved);
            }
        }
        // Somebody writes one of them all the time; the next pass meets them again.
        let mut moved = 0;
        for person in people {
            moved += self.rewrap_once(std::slice::from_ref(person)).await?.unwrap_or(1);
        }
        Ok(moved)
    }

    async fn rewrap_once(&self, people: &[PersonId]) -> Result<Option<u64>, GatewayError> {
        let (at, _) = self.now()?;
        let body =
            Body { at, party: None, scenario: None, action: LogAction::Rotate, rule: None, subject: Subject::None };
        let mut change = Change::entry(self.random()?, body);
        let rotation = KeyRotation::begun();
        for person in people {
            let place = Place::new(tables::PERSON, person.0);
            let Some(cell) = self.get(&place).await? else { continue };
            if let Some(value) = self.vault.rewrap_person(&rotation, *person, cell.version, &cell.value, at)? {
                change.checks.push(unchanged(&place, Some(&cell)));
                change.writes.push(Write::Put(place, Cell { version: cell.version + 1, value }));
            }
        }
        let moved = change.writes.len() as u64;
        if moved == 0 {
            return Ok(Some(0));
        }
        Ok(self.record(change, None).await?.map(|_| moved))
    }

    /// That people's keys can be opened: the first and the last few of them are looked at, since a pass goes from one to
    /// the other, and one cell that somebody damaged is no reason not to start.
    pub(super) async fn people_open(store: &dyn Store, keys: &Keyring) -> Result<(), StartError> {
        for from in [Vec::new(), vec![0xf0]] {
            let cells = store.scan(tables::PERSON, &from, &KEYS_END, LOOKED_AT).await.map_err(GatewayError::from)?;
            let versions = cells.iter().filter_map(|(_, cell)| Vault::wrapped_by(&cell.value));
            let unknown: Vec<u32> =
                versions.filter(|version| !keys.working_versions().any(|v| v == *version)).collect();
            if let Some(version) = unknown.first().filter(|_| unknown.len() * 2 > cells.len()) {
                return Err(StartError::Keys(KeyringError::Lacks("working", *version)));
            }
        }
        Ok(())
    }

    /// Keeps everybody's keys wrapped by the newest working key, for as long as the gateway runs.
    pub async fn keep_wrapped(&self, rest: u32) {
        let mut told = String::new();
        loop {
            if self.rewrap_due() {
                match self.rewrap(rest).await {
                    Ok(0) => told.clear(),
                    Ok(people) => tracing::info!(people, "people's keys were wrapped by the new working key"),
                    Err(error) if error.to_string() != told => {
                        told = error.to_string();
                        tracing::error!(%error, "people's keys cannot be wrapped by the new working key; tried again");
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
