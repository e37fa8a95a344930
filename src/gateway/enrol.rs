//! The registrar sends lines of the register; of several about one person the last counts.

use std::collections::BTreeMap;

use super::dossier::Dossier;
use super::report::{BATCH_LINES_MAX, Effect, Intake, RejectedLine, lines};
use super::{Caller, Gateway, GatewayError, Refusal, TRIES_MAX};
use crate::access::Action;
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::authority::Report;
use crate::code::RuleId;
use crate::intake::{self, LineError};
use crate::ledger::Change;
use crate::person::{Person, PersonId};

impl Gateway {
    /// Takes an upload of register lines: good ones are taken even when others are refused.
    pub async fn enrol(&self, caller: &Caller, body: &[u8]) -> Result<Intake, GatewayError> {
        let (_, day) = self.now()?;
        let policies = self.policies_on(day);
        let roles = super::roles(&policies, &caller.party);
        let rule = match Self::permit(&policies, &roles, Action::Register, &[]) {
            Ok(rule) => rule,
            Err(refusal) => return Err(self.refuse(caller, refusal).await),
        };
        let lines = lines(body);
        let mut intake = Intake::default();
        let mut caller = caller.clone();
        for batch in lines.chunks(BATCH_LINES_MAX) {
            let parsed: Vec<(u64, Result<Person, LineError>)> =
                batch.iter().map(|(number, line)| (*number, intake::person(line, day, &policies.prohibited))).collect();
            self.enrol_batch(&caller, &rule, &parsed, &mut intake).await?;
            caller.signature = None;
        }
        if lines.is_empty() {
            self.log_refusal(&caller).await?;
        }
        Ok(intake)
    }

    async fn enrol_batch(
        &self,
        caller: &Caller,
        rule: &RuleId,
        parsed: &[(u64, Result<Person, LineError>)],
        intake: &mut Intake,
    ) -> Result<(), GatewayError> {
        let people: Vec<PersonId> = parsed
            .iter()
            .filter_map(|(_, person)| person.as_ref().ok())
            .map(|person| self.vault.person_id(&person.identity))
            .collect();
        let _turn = self.person_lanes.enter(people.iter().map(|person| person.0.as_slice())).await;
        for _ in 0..TRIES_MAX {
            if let Some(effects) = self.enrol_once(caller, rule, parsed).await? {
                effects.into_iter().for_each(|effect| intake.count(effect));
                let rejected = parsed.iter().filter_map(|(line, person)| {
                    person.as_ref().err().map(|error| RejectedLine { line: *line, error: error.clone() })
                });
                intake.rejected.extend(rejected);
                return Ok(());
            }
        }
        Err(Refusal::Busy.into())
    }

    async fn enrol_once(
        &self,
        caller: &Caller,
        rule: &RuleId,
        parsed: &[(u64, Result<Person, LineError>)],
    ) -> Result<Option<Vec<Effect>>, GatewayError> {
        let (now, day) = self.now()?;
        let policies = self.policies_on(day);
        let authority = Report::permitted(rule);
        let mut dossiers: BTreeMap<PersonId, Dossier> = BTreeMap::new();
        let mut effects = Vec::new();
        for person in parsed.iter().filter_map(|(_, person)| person.as_ref().ok()) {
            let id = self.vault.person_id(&person.identity);
            let dossier = match dossiers.entry(id) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(self.dossier_or_new(&authority, id).await?)
                }
            };
            effects.push(match &dossier.person {
                Some(earlier) if earlier == person => Effect::Unchanged,
                Some(_) => Effect::Replaced,
                None => Effect::Accepted,
            });
            if dossier.person.as_ref() != Some(person) {
                dossier.register(person.clone());
            }
        }
        let body = Body {
            at: now,
            party: Some(caller.party.clone()),
            scenario: None,
            action: LogAction::Register,
            rule: Some(rule.clone()),
            subject: Subject::None,
        };
        let mut change = Change::entry(self.random()?, body);
        let nonce = self.spend_nonce(caller, &mut change);
        for dossier in dossiers.values().filter(|dossier| dossier.changed()) {
            self.add_dossier(&mut change, dossier, &policies, day)?;
        }
        let receipt = self.record(change, nonce.as_ref()).await?;
        Ok(receipt.map(|_| effects))
    }
}
