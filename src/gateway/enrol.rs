//! The registrar sends lines of the register; of several about one person the last counts.

use super::upload::{Batch, Effect, Intake, RejectedLine, Touched};
use super::{Gateway, GatewayError, Refusal, TRIES_MAX};
use crate::access_log::entry::LogAction;
use crate::intake::{self, LineError};
use crate::person::{Person, PersonId};

impl Gateway {
    pub(super) async fn enrol_batch(&self, batch: &Batch<'_>, lines: &[(u64, &[u8])]) -> Result<Intake, GatewayError> {
        let prohibited = &batch.policies.prohibited;
        let read = |line: &[u8]| {
            let person = intake::person(line, batch.day, prohibited)?;
            Ok((self.vault.person_id(&person.identity), person))
        };
        let parsed: Vec<Line> = lines.iter().map(|(number, line)| (*number, read(line))).collect();
        let people = parsed.iter().filter_map(|(_, person)| Some(person.as_ref().ok()?.0.0.as_slice()));
        let _turn = self.person_lanes.enter(people).await;
        for _ in 0..TRIES_MAX {
            if let Some(intake) = self.enrol_once(batch, lines, &parsed).await? {
                return Ok(intake);
            }
        }
        Err(Refusal::Busy.into())
    }

    async fn enrol_once(
        &self,
        batch: &Batch<'_>,
        lines: &[(u64, &[u8])],
        parsed: &[Line],
    ) -> Result<Option<Intake>, GatewayError> {
        let mut touched = Touched::none(batch.rule);
        let mut intake = Intake::default();
        for (line, person) in parsed {
            let (id, person) = match person {
                Ok(read) => read,
                Err(error) => {
                    intake.rejected.push(RejectedLine { line: *line, error: error.clone() });
                    continue;
                }
            };
            let dossier = self.touch(&mut touched, *id).await?;
            intake.count(match &dossier.person {
                Some(earlier) if earlier == person => Effect::Unchanged,
                Some(_) => Effect::Replaced,
                None => Effect::Accepted,
            });
            if dossier.person.as_ref() != Some(person) {
                dossier.register(person.clone());
            }
        }
        let (mut change, nonce) = self.upload_change(batch, LogAction::Register, &touched)?;
        let signed = match batch.dry {
            false => Some(self.add_receipt(&mut change, batch, lines, &intake)?),
            true => None,
        };
        let Some(entry) = self.record(change, nonce.as_ref()).await? else { return Ok(None) };
        intake.batches.extend(signed.map(|signed| signed.logged(&entry)).transpose()?);
        Ok(Some(intake))
    }
}

/// A line's number, and who it is about and what it says, or why it is refused.
type Line = (u64, Result<(PersonId, Person), LineError>);
