//! Which policies and which model hold today.
//!
//! INVARIANT (policies are evidence): each set that is loaded is a log entry with its digest, and is
//! kept in the store, so that what a later set adds in cuts, questions and parties waits for the
//! next day even over a restart. Which model holds on which day is the list of `models`.

mod in_force;

pub use in_force::Loaded;

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan, civil::Date};
use serde::{Deserialize, Serialize};

use super::ask::ANSWER_BYTES;
use super::cells::pieces;
use super::models::{digest_of, list_place};
use super::{Gateway, GatewayError, TRIES_MAX, at, next_version, unchanged};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::access_log::proof::Proof;
use crate::attestation::{self, Claims};
use crate::code::{ModelId, ScenarioId};
use crate::hex::hex;
use crate::ledger::Change;
use crate::model::Model;
use crate::policies::PolicySet;
use crate::policy::Mistakes;
use crate::scenario::Question;
use crate::store::{Cell, Check, Place};
use crate::tables;
pub(super) use in_force::InForce;
use in_force::{check_models, in_force};

/// The city's cuts change at most once in so many days.
const CUTS_DAYS: i32 = 365;
/// A log of so many entries (2 to this power) still fits its proofs into an answer.
const LOG_LEVELS: usize = 32;

/// Why a policy set is not loaded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file of the set has the id of a model that was drafted or published, and other bytes.
    #[error(
        "{file}: the model {id} was drafted or published with other bytes, and such a model never changes; put the file back as it was, a comment counts too, and give a changed one an id of its own"
    )]
    ModelChanged {
        /// The model's id.
        id: ModelId,
        /// Its file in the set.
        file: String,
    },
    /// `city.toml` names a model that was never published.
    #[error(
        "city.toml: names the model {named}, which was never published ({in_force} is in force); a model comes into force by `jadegate model publish`"
    )]
    ModelNotPublished {
        /// The model named.
        named: ModelId,
        /// The model in force.
        in_force: String,
    },
    /// A model that is in force, or will be, does not fit the set.
    #[error("the model {id} is in force or will be, and does not fit these policies: {mistakes}")]
    ModelDoesNotFit {
        /// The model's id.
        id: String,
        /// What does not fit, with places in the model.
        mistakes: Mistakes,
    },
    /// The cuts were changed less than a year ago.
    #[error(
        "city.toml: the cuts were last changed on {0}, and they change at most once in {CUTS_DAYS} days; set them back"
    )]
    CutsTooSoon(Date),
    /// An answer of this scenario would not fit.
    #[error(
        "scenarios.toml: the largest answer of {scenario} has {bytes} bytes, and an answer has {ANSWER_BYTES}; shorten the ids of scenario, party, model or issuer"
    )]
    AnswerTooLarge {
        /// The scenario.
        scenario: ScenarioId,
        /// What its largest answer has.
        bytes: usize,
    },
    /// The gateway itself failed.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

impl From<crate::store::StoreError> for LoadError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Gateway(error.into())
    }
}

impl From<crate::vault::VaultError> for LoadError {
    fn from(error: crate::vault::VaultError) -> Self {
        Self::Gateway(error.into())
    }
}

/// The model that scores are computed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInForce {
    /// Its id.
    pub id: ModelId,
    /// The digest of its file.
    pub digest: [u8; 32],
    /// From when it holds.
    pub from: Date,
}

/// Which sets were loaded: the one that held as `day` began, and those loaded since, in order.
#[derive(Serialize, Deserialize, Clone, PartialEq)]
struct History {
    day: Date,
    base: String,
    loads: Vec<String>,
    cuts_changed_on: Option<Date>,
}

impl History {
    /// The digest of the set that was loaded last.
    fn newest(&self) -> &str {
        self.loads.last().unwrap_or(&self.base)
    }

    /// The history as it stands on a day: what was loaded on earlier ones is what held as this one began.
    fn on(self, day: Date) -> Self {
        if self.day >= day {
            return self;
        }
        Self { day, base: self.newest().to_owned(), loads: Vec::new(), cuts_changed_on: self.cuts_changed_on }
    }
}

fn history_place() -> Place {
    Place::new(tables::POLICY, b"history".as_slice())
}

fn set_place(digest: &str, piece: u16) -> Place {
    Place::new(tables::POLICY, tables::key(&[b"set ", digest.as_bytes(), b" ", &piece.to_be_bytes()]))
}

impl Gateway {
    /// Loads the set that the gateway was opened with.
    pub(super) async fn load_first(&self) -> Result<(), LoadError> {
        let (_, day) = self.now()?;
        let set = self.policies_on(day).set.clone();
        let set = self.newer_than(&set).await?.unwrap_or(set);
        if self.published_model().await?.is_none() {
            // INVARIANT (the store is distrusted): a list that is gone is no new deployment.
            if self.get(&history_place()).await?.is_some() {
                return Err(GatewayError::Fault("the list of models is gone: the store was changed".into()).into());
            }
            self.publish_first(&set, day).await?;
        }
        self.load_policies(set).await
    }

    /// What others have loaded since this set, where several gateways share the store: one that starts from a folder that
    /// nobody brought up to date does not take the city back to it.
    async fn newer_than(&self, set: &PolicySet) -> Result<Option<PolicySet>, LoadError> {
        let place = history_place();
        let digest = hex(&set.digest);
        let Some(cell) = self.get(&place).await?.filter(|_| self.is_one_of_several()) else { return Ok(None) };
        let history = self.read_history(&place, &cell)?;
        if history.newest() == digest || self.get(&set_place(&digest, 0)).await?.is_none() {
            return Ok(None);
        }
        tracing::warn!(
            digest,
            newest = history.newest(),
            "the policy folder is older than what is in force; bring it up to date"
        );
        self.stored_set(history.newest()).await.map_err(LoadError::from)
    }

    /// Takes over what another gateway has loaded or published since; tells whether there was anything.
    ///
    /// Read before each call that rests on policies: what one gateway takes away is gone at the next call of all.
    pub async fn follow_policies(&self) -> Result<bool, GatewayError> {
        if !self.is_one_of_several() {
            return Ok(false);
        }
        let seen = self.seen();
        let [history, models] = self.get_all([history_place(), list_place()]).await?;
        let versions = (version(history.as_ref()), version(models.as_ref()));
        if versions == seen {
            return Ok(false);
        }
        let _turn = self.loading.lock().await;
        self.take_over().await
    }

    fn seen(&self) -> (u64, u64) {
        self.policies.read().unwrap_or_else(std::sync::PoisonError::into_inner).seen
    }

    /// Takes over what the store says of policies and models; whoever calls holds the turn.
    pub(super) async fn take_over(&self) -> Result<bool, GatewayError> {
        let fault = |what: &str| GatewayError::Fault(format!("the policies in force cannot be followed: {what}"));
        let place = history_place();
        let (cell, list, seen) = (self.get(&place).await?, self.registry().list().await?, self.seen());
        // INVARIANT (the store is distrusted): a row that is gone or old grants nothing.
        let cell = cell.ok_or_else(|| fault("their history is gone"))?;
        let versions = (cell.version, list.version());
        if versions == seen {
            return Ok(false);
        }
        if versions.0 < seen.0 || versions.1 < seen.1 {
            return Err(fault("their history was rolled back"));
        }
        let (now, day) = self.now()?;
        let history = self.read_history(&place, &cell)?.on(day);
        let (today, newest) = self.held(&history).await?;
        let newest = newest.filter(|set| hex(&set.digest) == history.newest());
        let (Some(today), Some(newest)) = (today, newest) else {
            return Err(fault("the newest set does not read here; is this gateway of an older build?"));
        };
        let schedule = self.registry().schedule(&list, day).await?;
        check_models(&newest, &list, &schedule, day).map_err(|e| fault(&e.to_string()))?;
        let in_force = in_force(versions, day, today, newest.clone(), &schedule, self.consents_from)
            .map_err(|e| fault(&e.to_string()))?;
        let models = in_force.holds.iter().map(|(_, loaded)| loaded.model_in_force());
        self.check_answers(&newest, models, now).map_err(|e| fault(&e.to_string()))?;
        tracing::info!(digest = history.newest(), "the policies and models of the store hold");
        self.put_in_force(in_force);
        Ok(true)
    }

    /// That no set was loaded since the one that holds here.
    pub(super) fn policies_unchanged(&self) -> Check {
        let (history, _) = self.seen();
        Check::Version(history_place(), history)
    }

    fn is_one_of_several(&self) -> bool {
        self.keys().logs().len() > 1
    }

    fn put_in_force(&self, in_force: InForce) {
        *self.policies.write().unwrap_or_else(std::sync::PoisonError::into_inner) = in_force;
    }

    /// Loads another policy set, or says why not and changes nothing.
    pub async fn load_policies(&self, set: PolicySet) -> Result<(), LoadError> {
        let _turn = self.loading.lock().await;
        for _ in 0..TRIES_MAX {
            if self.load_once(&set).await? {
                return Ok(());
            }
        }
        Err(GatewayError::from(super::Refusal::Busy).into())
    }

    async fn load_once(&self, set: &PolicySet) -> Result<bool, LoadError> {
        let (now, day) = self.now()?;
        let list = self.registry().list().await?;
        let schedule = self.registry().schedule(&list, day).await?;
        check_models(set, &list, &schedule, day)?;
        let place = history_place();
        let cell = self.get(&place).await?;
        let earlier = match &cell {
            Some(cell) => Some(self.read_history(&place, cell)?),
            None => None,
        };
        let digest = hex(&set.digest);
        let (history, today) = self.follow(earlier, set, &digest, day).await?;
        let version = next_version(cell.as_ref());
        let in_force = in_force((version, list.version()), day, today, set.clone(), &schedule, self.consents_from)?;
        self.check_answers(set, in_force.holds.iter().map(|(_, loaded)| loaded.model_in_force()), now)?;
        let body = Body {
            at: now,
            party: None,
            scenario: None,
            action: LogAction::Policy,
            rule: None,
            subject: Subject::Digest(set.digest),
        };
        let mut change = Change::entry(self.random()?, body);
        let content = serde_json::to_vec(&history).map_err(|e| GatewayError::Fault(e.to_string()))?;
        self.put_indexed(&mut change, place, cell.as_ref(), &content, 1024)?;
        // A model that is published meanwhile was not held against this set.
        change.checks.push(unchanged(&list_place(), list.cell.as_ref()));
        self.add_set(&mut change, set, &digest).await?;
        if self.record(change, None).await?.is_none() {
            return Ok(false);
        }
        self.put_in_force(in_force);
        Ok(true)
    }

    /// The history with this set loaded, and what holds until midnight because of it.
    async fn follow(
        &self,
        earlier: Option<History>,
        set: &PolicySet,
        digest: &str,
        day: Date,
    ) -> Result<(History, PolicySet), LoadError> {
        let Some(mut history) = earlier else {
            let history = History { day, base: digest.to_owned(), loads: Vec::new(), cuts_changed_on: None };
            return Ok((history, set.clone()));
        };
        history = history.on(day);
        let newest = history.newest().to_owned();
        let (today, last) = self.held(&history).await?;
        if last.as_ref().is_some_and(|last| last.cuts_changed(set)) {
            if let Some(changed) = history.cuts_changed_on
                && changed.checked_add(CUTS_DAYS.days()).is_ok_and(|free| day < free)
            {
                return Err(LoadError::CutsTooSoon(changed));
            }
            history.cuts_changed_on = Some(day);
        }
        if newest != digest {
            history.loads.push(digest.to_owned());
        }
        let today = today.map_or_else(|| set.clone(), |held| PolicySet::until_midnight(&held, set));
        Ok((history, today))
    }

    /// What holds until midnight by this history, and the newest set of it; none where nothing of it reads.
    async fn held(&self, history: &History) -> Result<(Option<PolicySet>, Option<PolicySet>), GatewayError> {
        let (mut today, mut last): (Option<PolicySet>, _) = (None, None);
        for digest in std::iter::once(&history.base).chain(&history.loads) {
            let Some(stored) = self.stored_set(digest).await? else {
                tracing::warn!(digest, "an earlier policy set no longer reads; what it held is taken as it is now");
                continue;
            };
            today = Some(today.map_or_else(|| stored.clone(), |held| PolicySet::until_midnight(&held, &stored)));
            last = Some(stored);
        }
        Ok((today, last))
    }

    fn read_history(&self, place: &Place, cell: &Cell) -> Result<History, GatewayError> {
        let content = self.vault.open_indexed(at(place, cell.version), &cell.value)?;
        serde_json::from_slice(&content).map_err(|_| GatewayError::Fault("the policy history does not read".into()))
    }

    async fn add_set(&self, change: &mut Change, set: &PolicySet, digest: &str) -> Result<(), GatewayError> {
        if self.get(&set_place(digest, 0)).await?.is_some() {
            return Ok(());
        }
        let files: BTreeMap<&str, &str> = set.files().collect();
        let content = serde_json::to_vec(&files).map_err(|e| GatewayError::Fault(e.to_string()))?;
        self.put_pieces(change, |piece| set_place(digest, piece), &content)
    }

    async fn stored_set(&self, digest: &str) -> Result<Option<PolicySet>, GatewayError> {
        let content = pieces(&*self.store, &self.vault, |piece| set_place(digest, piece)).await?;
        let files: Option<BTreeMap<String, String>> = serde_json::from_slice(&content).ok();
        let bytes =
            |files: BTreeMap<String, String>| files.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
        Ok(files.and_then(|files| PolicySet::parse(bytes(files)).ok()))
    }

    /// INVARIANT (one withheld): an answer has one size, so the largest of each scenario must fit it.
    pub(super) fn check_answers<'a>(
        &self,
        set: &PolicySet,
        models: impl Iterator<Item = &'a Model> + Clone,
        now: Timestamp,
    ) -> Result<(), LoadError> {
        // A repeat may carry a proof from any log.
        let keys = self.keys();
        let origins = keys.logs().iter().map(|log| log.origin());
        let origin = origins.max_by_key(|origin| origin.len()).unwrap_or_default();
        let note = format!("{origin}\n{}\n{}\n\n— {origin} {}\n", u64::MAX, "A".repeat(44), "A".repeat(92));
        let (path, extra) = (vec![[0; 32]; LOG_LEVELS], vec![0; crate::access_log::ENTRY_BYTES]);
        let proof = Proof { extra, index: u64::MAX, path, checkpoint: note }.to_text();
        let grades = models.clone().flat_map(|model| &model.grades);
        let longest_grade = grades.map(|grade| grade.code.as_str().len()).max().unwrap_or(0);
        let longest_model = models.map(Model::name).max_by_key(String::len).unwrap_or_default();
        for scenario in set.scenarios.values() {
            let met = match &scenario.question {
                Question::GradeNamed => serde_json::json!({ "grade": "0".repeat(longest_grade) }),
                asked => asked.to_json(),
            };
            for party in &scenario.parties {
                let claims = Claims {
                    iss: self.issuer.clone(),
                    aud: party.clone(),
                    iat: now.as_second(),
                    exp: now.as_second(),
                    jti: "0".repeat(32),
                    nonce: "0".repeat(128),
                    scenario: scenario.id.clone(),
                    as_of: crate::clock::day_of(now),
                    sub: scenario.one_a_person.then(|| "0".repeat(43)),
                    met: met.clone(),
                    model: longest_model.clone(),
                };
                let input = attestation::signing_input("0123456789abcdef", &claims);
                let compact = attestation::compact(&input, &[0; 64]);
                let body = serde_json::json!({ "answer": "met", "attestation": compact, "proof": proof });
                let bytes = body.to_string().len();
                if bytes > ANSWER_BYTES {
                    return Err(LoadError::AnswerTooLarge { scenario: scenario.id.clone(), bytes });
                }
            }
        }
        Ok(())
    }

    /// The model in force today, as the store has it.
    pub async fn published_model(&self) -> Result<Option<ModelInForce>, GatewayError> {
        let (_, day) = self.now()?;
        let list = self.registry().list().await?;
        let Some((from, listed)) = list.on(day) else { return Ok(None) };
        let bad = || GatewayError::Fault("the list of models does not read".into());
        let id = ModelId::parse(&listed.id).map_err(|_| bad())?;
        Ok(Some(ModelInForce { id, digest: digest_of(&listed.digest)?, from }))
    }
}

fn version(cell: Option<&Cell>) -> u64 {
    cell.map_or(0, |cell| cell.version)
}
