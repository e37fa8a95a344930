//! A store that was restored from a backup older than what was released.
//!
//! What was revoked after the backup is not known, so every consent given before the restore is lapsed, those to
//! market information too;
//! and which cells were fixed that day is not known either, so consents can be given again from the next
//! day on: INVARIANT (one answer a day) holds across a restore. One cell says from which instant consents
//! count; the first entry of the log that the restore began holds its digest, so a cell that is deleted
//! or rolled back keeps the gateway from starting instead of bringing consents back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Gateway, GatewayError, Refusal, StartError, at, next_version, unchanged};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::consent::{Consent, Presented};
use crate::ledger::Change;
use crate::ledger::restored::Held;
use crate::person::PersonId;
use crate::store::{Cell, Place, Store, Write};
use crate::tables;
use crate::vault::{Vault, VaultError};

/// The logs that a restore ended, as the store holds them.
pub type Ended = Vec<Held>;

#[derive(Serialize, Deserialize)]
struct Stored {
    /// Consents count that were made at this instant or later, in milliseconds.
    from: i64,
    /// The logs that ended, and with how many entries.
    logs: Vec<(String, u64)>,
}

impl Stored {
    fn instant(&self) -> Timestamp {
        Timestamp::from_millisecond(self.from).unwrap_or(Timestamp::MAX)
    }
}

/// The cell with its bytes; none where they are of an unknown form.
fn read(vault: &Vault, place: &Place, cell: &Cell) -> Result<Option<(Stored, Vec<u8>)>, VaultError> {
    let content = vault.open_indexed(at(place, cell.version), &cell.value)?;
    Ok(serde_json::from_slice(&content).ok().map(|stored| (stored, content.to_vec())))
}

/// The instant before which consents are lapsed, in a store that no gateway has opened here.
pub(super) async fn counts_from(store: &dyn Store, vault: &Vault) -> Result<Option<Timestamp>, GatewayError> {
    let place = place();
    let Some(cell) = store.get(&place).await? else { return Ok(None) };
    let broken = || GatewayError::Fault("the cell that says from when consents count does not read".into());
    Ok(Some(read(vault, &place, &cell)?.ok_or_else(broken)?.0.instant()))
}

fn place() -> Place {
    Place::new(tables::RESTORED, b"consents".as_slice())
}

impl Gateway {
    /// From which instant consents count, if the store was ever restored. `ended` are the logs that this start ends.
    pub(super) async fn after_restore(&self, ended: Option<&Ended>) -> Result<Option<Timestamp>, StartError> {
        let (own, place) = (self.ledger.log(), place());
        let first = if own.size() > 0 { Some(own.body(0).await.map_err(GatewayError::from)?) } else { None };
        let first = first.filter(|body| body.action == LogAction::Restore);
        let cell = self.get(&place).await.map_err(GatewayError::from)?;
        let mut stored = None;
        if let Some(cell) = &cell {
            let read = read(&self.vault, &place, cell)?;
            stored = Some(read.ok_or_else(|| StartError::Restored(own.verifier().name().to_owned()))?);
        }
        match (ended, first) {
            (Some(ended), None) if own.size() == 0 => stored = Some(self.restore(ended, stored, cell.as_ref()).await?),
            (Some(_), None) => return Err(StartError::RestoredUnderOld(own.verifier().name().to_owned())),
            (_, Some(body)) => {
                let digest = stored.as_ref().map(|(_, content)| Sha256::digest(content).into());
                if digest.map(Subject::Digest) != Some(body.subject) {
                    return Err(StartError::Restored(own.verifier().name().to_owned()));
                }
            }
            (None, None) => {}
        }
        Ok(stored.map(|(stored, _)| stored.instant()))
    }

    /// Begins the log with the entry that says so, and has consents count from the next day on.
    async fn restore(
        &self,
        ended: &Ended,
        stored: Option<(Stored, Vec<u8>)>,
        cell: Option<&Cell>,
    ) -> Result<(Stored, Vec<u8>), StartError> {
        let (now, day) = self.now()?;
        // Another gateway over the same store may have said it of this very restore.
        let said = stored
            .filter(|(stored, _)| ended.iter().all(|held| stored.logs.contains(&(held.origin.clone(), held.store))));
        let fresh = said.is_none();
        let (stored, content) = match said {
            Some(said) => said,
            None => {
                let next = day.tomorrow().map_err(|e| GatewayError::Fault(e.to_string()))?;
                let logs = ended.iter().map(|held| (held.origin.clone(), held.store)).collect();
                let stored = Stored { from: crate::clock::start_of(next).as_millisecond(), logs };
                let content = serde_json::to_vec(&stored).map_err(|e| GatewayError::Fault(e.to_string()))?;
                (stored, content)
            }
        };
        let body = Body {
            at: now,
            party: None,
            scenario: None,
            action: LogAction::Restore,
            rule: None,
            subject: Subject::Digest(Sha256::digest(&content).into()),
        };
        let (mut change, place) = (Change::entry(self.random()?, body), place());
        change.checks.push(unchanged(&place, cell));
        if fresh {
            let version = next_version(cell);
            let value = self.vault.seal_indexed(at(&place, version), &content, 1024)?;
            change.writes.push(Write::Put(place, Cell { version, value }));
        }
        match self.record(change, None).await? {
            Some(_) => Ok((stored, content)),
            None => {
                Err(GatewayError::Fault("another gateway began at the same moment; start this one again".into()).into())
            }
        }
    }

    /// That a consent given now counts: from the day after a restore on.
    pub(super) fn consents_count(&self, now: Timestamp) -> Result<(), Refusal> {
        match self.consents_from.filter(|from| now < *from) {
            Some(from) => Err(Refusal::AfterRestore(crate::clock::day_of(from))),
            None => Ok(()),
        }
    }

    /// The instant before which consents are lapsed; none where the store was never restored.
    pub fn consents_count_from(&self) -> Option<Timestamp> {
        self.consents_from
    }

    /// A consent that was lost with what came after the backup: nobody's, and lapsed like all of its time.
    pub(super) fn lost_consent(&self, presented: &Presented) -> Option<(u32, Consent)> {
        self.consents_from?;
        let key = presented.key_version()?;
        let nobody = PersonId(self.vault.lookup("nobody", &[presented.id().as_bytes()]));
        Some((key, presented.lost(nobody)))
    }
}
