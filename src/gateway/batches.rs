//! Receipts of what departments sent: a batch each, signed, with the proof that it was logged.
//!
//! The receipt is signed before the batch is committed, and the batch's entry commits to its SHA-256: so there is
//! none without the entry, and the log proves it even when the key that signed it is gone. It is shown to the party
//! that sent the batch alone; somebody else's is as one that never was.

use sha2::{Digest, Sha256};

use super::upload::{Batch, Intake};
use super::{Caller, Gateway, GatewayError, Refusal, at};
use crate::access::Action;
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::access_log::proof::Proof;
use crate::attestation::{self, batch};
use crate::code::{PartyId, RuleId};
use crate::entropy;
use crate::ledger::{Change, LeafPlace, PlacedWrite, Receipt};
use crate::store::Place;
use crate::tables;

/// The room of a receipt's cell: the longest ids fit.
const RECEIPT_BYTES: usize = 2_048;

/// The id of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId([u8; 16]);

impl BatchId {
    /// The id as text: 22 characters of base64url.
    pub fn to_text(self) -> String {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
        BASE64URL.encode(self.0)
    }

    /// Reads an id in its one spelling.
    pub fn parse(text: &str) -> Option<Self> {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
        BASE64URL.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(Self)
    }
}

/// A receipt and its proof.
#[derive(Clone, PartialEq, Eq)]
pub struct BatchView {
    /// The batch's id.
    pub id: BatchId,
    /// The receipt, a compact JWS.
    pub receipt: String,
    /// That its entry is in the log.
    pub proof: Proof,
}

impl std::fmt::Debug for BatchView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BatchView(..)")
    }
}

/// The receipt of a batch whose entry is not in the log yet: nobody is given it like this.
pub(super) struct Signed {
    /// The batch's id.
    pub(super) id: BatchId,
    receipt: String,
}

impl Signed {
    /// The receipt with the proof of the entry that was made with it.
    pub(super) fn logged(self, entry: &Receipt) -> Result<BatchView, GatewayError> {
        Ok(BatchView { id: self.id, receipt: self.receipt, proof: entry.proof()? })
    }
}

impl Gateway {
    /// Signs the receipt of a batch, and has the entry commit to it.
    pub(super) fn add_receipt(
        &self,
        change: &mut Change,
        batch: &Batch<'_>,
        lines: &[(u64, &[u8])],
        intake: &Intake,
    ) -> Result<Signed, GatewayError> {
        let id = BatchId(entropy::bytes::<16>(&*self.entropy)?);
        let number = |line: Option<&(u64, &[u8])>| line.map_or(0, |(number, _)| *number);
        let rejected = u64::try_from(intake.rejected.len()).unwrap_or(u64::MAX);
        let claims = batch::Claims {
            iss: self.issuer.clone(),
            aud: batch.caller.party.clone(),
            iat: batch.now.as_second(),
            jti: id.to_text(),
            feed: batch.feed,
            first_line: number(lines.first()),
            last_line: number(lines.last()),
            lines: u64::try_from(lines.len()).unwrap_or(u64::MAX),
            sha256: batch.digest,
            counts: [intake.accepted, intake.unchanged, intake.replaced, rejected],
        };
        let keys = self.keys();
        let key = keys.signing(batch.now).ok_or_else(|| GatewayError::Fault("no signing key".into()))?;
        let input = batch::signing_input(key.kid(), &claims);
        let receipt = attestation::compact(&input, &key.sign(input.as_bytes())?);
        change.commitment = Sha256::digest(&receipt).into();
        let (party, vault, place) = (batch.caller.party.clone(), self.vault.clone(), batch_place(id));
        let (sealed, signed) = (place.clone(), Signed { id, receipt: receipt.clone() });
        let seal = Box::new(move |own: LeafPlace| {
            let stored = Stored { party: party.clone(), own, receipt: receipt.clone() };
            vault.seal_indexed(at(&sealed, 1), &stored.encode(), RECEIPT_BYTES).map_err(|e| e.to_string())
        });
        change.placed.push(PlacedWrite { place, version: 1, seal });
        Ok(signed)
    }

    /// The receipt of a batch again, for the party that sent it.
    pub async fn batch(&self, caller: &Caller, id: &str) -> Result<BatchView, GatewayError> {
        let (_, _, policies) = self.moment().await?;
        let rule = self.permit_party(caller, &policies, Action::ReadSent, &[]).await?;
        match self.find_batch(&caller.party, id).await? {
            Some(view) => {
                self.log_reading(caller, &rule).await?;
                Ok(view)
            }
            None => Err(self.refuse(caller, Refusal::NotFound).await),
        }
    }

    async fn find_batch(&self, party: &PartyId, id: &str) -> Result<Option<BatchView>, GatewayError> {
        let Some(id) = BatchId::parse(id) else { return Ok(None) };
        let place = batch_place(id);
        let Some(cell) = self.get(&place).await? else { return Ok(None) };
        let content = self.vault.open_indexed(at(&place, cell.version), &cell.value)?;
        let broken = || GatewayError::Fault("a batch's cell does not read".into());
        let stored = Stored::decode(&content).ok_or_else(broken)?;
        if stored.party != *party {
            return Ok(None);
        }
        let proof = self.logs().log(stored.own.log).await?.proof(stored.own).await?;
        Ok(Some(BatchView { id, receipt: stored.receipt, proof }))
    }

    /// Leaves an entry of a reading of what was sent, and spends the signature's nonce.
    pub(super) async fn log_reading(&self, caller: &Caller, rule: &RuleId) -> Result<(), GatewayError> {
        let (at, _) = self.now()?;
        let body = Body {
            at,
            party: Some(caller.party.clone()),
            scenario: None,
            action: LogAction::ReadSent,
            rule: Some(rule.clone()),
            subject: Subject::None,
        };
        let mut change = Change::entry(self.random()?, body);
        let nonce = self.spend_nonce(caller, &mut change);
        // Nothing but the nonce is checked.
        self.record(change, nonce.as_ref()).await?.ok_or(Refusal::Busy)?;
        Ok(())
    }
}

fn batch_place(id: BatchId) -> Place {
    Place::new(tables::BATCH, id.0)
}

/// A receipt in its cell.
struct Stored {
    party: PartyId,
    own: LeafPlace,
    receipt: String,
}

impl Stored {
    fn encode(&self) -> Vec<u8> {
        let LeafPlace { log, index, size } = self.own;
        serde_json::to_vec(&(self.party.as_str(), log, index, size, &self.receipt)).unwrap_or_default()
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let (party, log, index, size, receipt): (String, u16, u64, u64, String) =
            serde_json::from_slice(content).ok()?;
        Some(Self { party: PartyId::parse(&party).ok()?, own: LeafPlace { log, index, size }, receipt })
    }
}
