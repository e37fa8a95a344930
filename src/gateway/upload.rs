//! Uploads of lines, from providers and the registrar: batches, an entry of the log each.
//!
//! Good lines are taken even when others are refused, and every line ends in one of four counts. What
//! a line means is not known here: `report` and `enrol` say what it does to whose dossier.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};

use super::batches::BatchView;
use super::dossier::Dossier;
use super::publish::Loaded;
use super::{Caller, Gateway, GatewayError};
use crate::access::{Action, Condition};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::attestation::batch::{self, Feed};
use crate::authority::Report;
use crate::code::RuleId;
use crate::disclosure::Cause;
use crate::intake::LineError;
use crate::ledger::Change;
use crate::person::PersonId;
use crate::store::Place;

/// How many lines one entry of the log covers.
const BATCH_LINES_MAX: usize = 500;

/// What became of an upload's lines: every line is in one of the four.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// New ones.
    pub accepted: u64,
    /// Sent before, the same.
    pub unchanged: u64,
    /// Sent before with other content.
    pub replaced: u64,
    /// Refused ones, by line.
    pub rejected: Vec<RejectedLine>,
    /// The batches that it was taken in, each with its receipt and proof.
    pub batches: Vec<BatchView>,
}

/// A refused line.
#[derive(Debug, PartialEq, Eq)]
pub struct RejectedLine {
    /// Counted from 1.
    pub line: u64,
    /// Why.
    pub error: LineError,
}

/// What one accepted line did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Accepted,
    Unchanged,
    Replaced,
}

impl Intake {
    /// Counts what a line did.
    pub(super) fn count(&mut self, effect: Effect) {
        match effect {
            Effect::Accepted => self.accepted += 1,
            Effect::Unchanged => self.unchanged += 1,
            Effect::Replaced => self.replaced += 1,
        }
    }

    fn add(&mut self, batch: Self) {
        self.accepted += batch.accepted;
        self.unchanged += batch.unchanged;
        self.replaced += batch.replaced;
        self.rejected.extend(batch.rejected);
        self.batches.extend(batch.batches);
    }
}

/// One batch's surroundings.
pub(super) struct Batch<'a> {
    pub(super) caller: &'a Caller,
    pub(super) rule: &'a RuleId,
    pub(super) policies: &'a Loaded,
    pub(super) now: Timestamp,
    pub(super) day: Date,
    /// Only what it would do is asked.
    pub(super) dry: bool,
    pub(super) feed: Feed,
    /// Of its lines as they were sent.
    pub(super) digest: [u8; 32],
}

/// The dossiers that a batch has read and changed so far.
pub(super) struct Touched {
    authority: Report,
    dossiers: BTreeMap<PersonId, Dossier>,
}

impl Touched {
    pub(super) fn none(rule: &RuleId) -> Self {
        Self { authority: Report::permitted(rule), dossiers: BTreeMap::new() }
    }

    pub(super) fn get(&self, person: &PersonId) -> Option<&Dossier> {
        self.dossiers.get(person)
    }

    pub(super) fn get_mut(&mut self, person: &PersonId) -> Option<&mut Dossier> {
        self.dossiers.get_mut(person)
    }
}

impl Gateway {
    /// Takes an upload of records.
    pub async fn report(&self, caller: &Caller, body: &[u8]) -> Result<Intake, GatewayError> {
        self.upload(caller, body, Feed::Records, false).await
    }

    /// Says what [`Self::report`] would do; of it all, only its entry is written.
    pub async fn try_report(&self, caller: &Caller, body: &[u8]) -> Result<Intake, GatewayError> {
        self.upload(caller, body, Feed::Records, true).await
    }

    /// Takes an upload of register lines.
    pub async fn enrol(&self, caller: &Caller, body: &[u8]) -> Result<Intake, GatewayError> {
        self.upload(caller, body, Feed::Register, false).await
    }

    /// Says what [`Self::enrol`] would do; of it all, only its entry is written.
    pub async fn try_enrol(&self, caller: &Caller, body: &[u8]) -> Result<Intake, GatewayError> {
        self.upload(caller, body, Feed::Register, true).await
    }

    async fn upload(&self, caller: &Caller, body: &[u8], feed: Feed, dry: bool) -> Result<Intake, GatewayError> {
        let (_, _, policies) = self.moment().await?;
        // Each line's indicator must name its provider; that is judged line by line, by its own code.
        let (action, holds): (_, &[Condition]) = match feed {
            Feed::Records => (Action::Report, &[Condition::IndicatorNamesProvider]),
            Feed::Register => (Action::Register, &[]),
        };
        let rule = self.permit_party(caller, &policies, action, holds).await?;
        let lines = batch::lines(body);
        let mut intake = Intake::default();
        let mut caller = caller.clone();
        for lines in lines.chunks(BATCH_LINES_MAX) {
            let (now, day, policies) = self.moment().await?;
            let digest = batch::digest(lines);
            let batch = Batch { caller: &caller, rule: &rule, policies: &policies, now, day, dry, feed, digest };
            intake.add(match feed {
                Feed::Records => self.report_batch(&batch, lines).await?,
                Feed::Register => self.enrol_batch(&batch, lines).await?,
            });
            // The signature's nonce is spent by the first batch.
            caller.signature = None;
        }
        if lines.is_empty() {
            self.log_refusal(&caller).await?;
        }
        Ok(intake)
    }

    /// Reads a person's dossier, once a batch.
    pub(super) async fn touch<'a>(
        &self,
        touched: &'a mut Touched,
        person: PersonId,
    ) -> Result<&'a mut Dossier, GatewayError> {
        use std::collections::btree_map::Entry;
        match touched.dossiers.entry(person) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(self.dossier_or_new(&touched.authority, person).await?)),
        }
    }

    /// The change that writes every dossier that is not as it was, and the place of the signature's nonce.
    pub(super) fn upload_change(
        &self,
        batch: &Batch<'_>,
        action: LogAction,
        touched: &Touched,
    ) -> Result<(Change, Option<Place>), GatewayError> {
        let body = Body {
            at: batch.now,
            party: Some(batch.caller.party.clone()),
            scenario: None,
            action,
            rule: Some(batch.rule.clone()),
            subject: Subject::None,
        };
        let mut change = Change::entry(self.random()?, body);
        let nonce = self.spend_nonce(batch.caller, &mut change);
        let cause = match batch.feed {
            Feed::Records => Cause::Records,
            Feed::Register => Cause::Register,
        };
        for dossier in touched.dossiers.values().filter(|dossier| dossier.changed() && !batch.dry) {
            self.add_dossier(&mut change, dossier, batch.policies, batch.day, cause)?;
        }
        Ok((change, nonce))
    }
}
