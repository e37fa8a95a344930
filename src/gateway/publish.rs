//! Which policies and which model hold today.
//!
//! INVARIANT (policies are evidence): each set that is loaded is a log entry with its digest, and is
//! kept in the store, so that what a later set adds in cuts, questions and parties waits for the
//! next day even over a restart. The model in force is a cell with a day of effect.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use jiff::{Timestamp, ToSpan, civil::Date};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ask::ANSWER_BYTES;
use super::{Gateway, GatewayError, TRIES_MAX, at, next_version, unchanged};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::access_log::proof::Proof;
use crate::attestation::{self, Claims};
use crate::code::{ModelId, ScenarioId};
use crate::keys::hex;
use crate::ledger::Change;
use crate::model::Model;
use crate::policies::PolicySet;
use crate::scenario::Question;
use crate::store::{Cell, Place, Write};
use crate::tables;

/// The city's cuts change at most once in so many days.
const CUTS_DAYS: i32 = 365;
/// How much of a stored policy set one cell takes.
const CHUNK_BYTES: usize = 48 * 1024;
/// A log of so many entries (2 to this power) still fits its proofs into an answer.
const LOG_LEVELS: usize = 32;

/// Why a policy set is not loaded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The set lacks the model that is in force.
    #[error(
        "models/: no file there is the model in force, {id} with sha256-{digest}, to the byte; put it back as it was published, a comment counts too, and give a changed one an id of its own"
    )]
    ModelMissing {
        /// The model's id.
        id: ModelId,
        /// The digest of its file.
        digest: String,
    },
    /// `city.toml` names another model than the one in force.
    #[error(
        "city.toml: names the model {named}, but {in_force} is in force; a model comes into force by being published"
    )]
    ModelNotPublished {
        /// The model named.
        named: ModelId,
        /// The model in force.
        in_force: ModelId,
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

/// A policy set with the model in force picked out of it.
pub struct Loaded {
    set: PolicySet,
    model: ModelId,
    rules: [u8; 32],
}

impl Loaded {
    fn new(set: PolicySet, model: ModelId) -> Self {
        let catalogue = set.file("catalogue.toml").unwrap_or_default();
        let digest = set.models.get(&model).map(|model| model.digest).unwrap_or_default();
        let rules = Sha256::new().chain_update(Sha256::digest(catalogue)).chain_update(digest).finalize().into();
        Self { set, model, rules }
    }

    /// The model in force.
    pub fn model_in_force(&self) -> &Model {
        self.set.models.get(&self.model).unwrap_or_else(|| self.set.model())
    }

    /// A digest of everything that a score follows from, beside the person's cells.
    pub fn rules(&self) -> &[u8; 32] {
        &self.rules
    }
}

impl Deref for Loaded {
    type Target = PolicySet;

    fn deref(&self) -> &PolicySet {
        &self.set
    }
}

/// What holds today, and what from the next day on.
pub(super) struct InForce {
    /// The version of the history's cell that this follows from.
    version: u64,
    day: Date,
    today: Arc<Loaded>,
    next: Arc<Loaded>,
}

impl InForce {
    pub(super) fn first(set: PolicySet, day: Date) -> Self {
        let model = set.model().id.clone();
        let loaded = Arc::new(Loaded::new(set, model));
        Self { version: 0, day, today: loaded.clone(), next: loaded }
    }

    pub(super) fn on(&self, day: Date) -> Arc<Loaded> {
        if day > self.day { self.next.clone() } else { self.today.clone() }
    }
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

#[derive(Serialize, Deserialize)]
struct StoredModel {
    id: String,
    digest: String,
    from: Date,
}

fn history_place() -> Place {
    Place::new(tables::POLICY, b"history".as_slice())
}

fn model_place() -> Place {
    Place::new(tables::MODEL, b"in-force".as_slice())
}

fn set_place(digest: &str, chunk: u16) -> Place {
    Place::new(tables::POLICY, tables::key(&[b"set ", digest.as_bytes(), b" ", &chunk.to_be_bytes()]))
}

impl Gateway {
    /// Loads the set that the gateway was opened with.
    pub(super) async fn load_first(&self) -> Result<(), LoadError> {
        let (_, day) = self.now()?;
        let set = self.policies_on(day).set.clone();
        let set = self.newer_than(&set).await?.unwrap_or(set);
        if self.published_model().await?.is_none() {
            let rules = *Loaded::new(set.clone(), set.model().id.clone()).rules();
            self.publish_model(set.model(), day, &rules).await?;
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

    /// Takes over what another gateway has loaded since; tells whether there was anything.
    ///
    /// Read before each call that rests on policies: what one gateway takes away is gone at the next call of all.
    pub async fn follow_policies(&self) -> Result<bool, GatewayError> {
        if !self.is_one_of_several() {
            return Ok(false);
        }
        let place = history_place();
        let seen = || self.policies.read().unwrap_or_else(std::sync::PoisonError::into_inner).version;
        let fault = |what: &str| GatewayError::Fault(format!("the policies in force cannot be followed: {what}"));
        match self.get(&place).await? {
            Some(cell) if cell.version == seen() => return Ok(false),
            // INVARIANT (the store is distrusted): a row that is gone or old grants nothing.
            None if seen() > 0 => return Err(fault("their history is gone")),
            _ => {}
        }
        let _turn = self.loading.lock().await;
        let cell = self.get(&place).await?.ok_or_else(|| fault("their history is gone"))?;
        if cell.version == seen() {
            return Ok(false);
        }
        if cell.version < seen() {
            return Err(fault("their history was rolled back"));
        }
        let (now, day) = self.now()?;
        let history = self.read_history(&place, &cell)?.on(day);
        let (today, newest) = self.held(&history).await?;
        let newest = newest.filter(|set| hex(&set.digest) == history.newest());
        let (Some(today), Some(newest)) = (today, newest) else {
            return Err(fault("the newest set does not read here; is this gateway of an older build?"));
        };
        let model = self.check_model(&newest).await.map_err(|e| fault(&e.to_string()))?;
        self.check_answers(&newest, now).map_err(|e| fault(&e.to_string()))?;
        tracing::info!(digest = history.newest(), "the policies that another gateway loaded hold");
        self.put_in_force(cell.version, day, today, newest, model);
        Ok(true)
    }

    fn is_one_of_several(&self) -> bool {
        self.keys().logs().len() > 1
    }

    fn put_in_force(&self, version: u64, day: Date, today: PolicySet, next: PolicySet, model: ModelId) {
        let (today, next) = (Arc::new(Loaded::new(today, model.clone())), Arc::new(Loaded::new(next, model)));
        let in_force = InForce { version, day, today, next };
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
        let model = self.check_model(set).await?;
        self.check_answers(set, now)?;
        let place = history_place();
        let cell = self.get(&place).await?;
        let earlier = match &cell {
            Some(cell) => Some(self.read_history(&place, cell)?),
            None => None,
        };
        let digest = hex(&set.digest);
        let (history, today) = self.follow(earlier, set, &digest, day).await?;
        let body = Body {
            at: now,
            party: None,
            scenario: None,
            action: LogAction::Policy,
            rule: None,
            subject: Subject::Digest(set.digest),
        };
        let mut change = Change::entry(self.random()?, body);
        let version = next_version(cell.as_ref());
        let content = serde_json::to_vec(&history).map_err(|e| GatewayError::Fault(e.to_string()))?;
        let value = self.vault.seal_indexed(at(&place, version), &content, 1024)?;
        change.checks.push(unchanged(&place, cell.as_ref()));
        change.writes.push(Write::Put(place, Cell { version, value }));
        self.add_set(&mut change, set, &digest).await?;
        if self.record(change, None).await?.is_none() {
            return Ok(false);
        }
        self.put_in_force(version, day, today, set.clone(), model);
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
        for (chunk, bytes) in (0..).zip(content.chunks(CHUNK_BYTES)) {
            let place = set_place(digest, chunk);
            let value = self.vault.seal_indexed(at(&place, 1), bytes, 64)?;
            change.writes.push(Write::Put(place, Cell { version: 1, value }));
        }
        Ok(())
    }

    async fn stored_set(&self, digest: &str) -> Result<Option<PolicySet>, GatewayError> {
        let mut content = Vec::new();
        for chunk in 0.. {
            let place = set_place(digest, chunk);
            let Some(cell) = self.get(&place).await? else { break };
            content.extend(self.vault.open_indexed(at(&place, cell.version), &cell.value)?.iter());
        }
        let files: Option<BTreeMap<String, String>> = serde_json::from_slice(&content).ok();
        let bytes =
            |files: BTreeMap<String, String>| files.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
        Ok(files.and_then(|files| PolicySet::parse(bytes(files)).ok()))
    }

    /// INVARIANT (same in, same score): the model in force must be in the set, to the byte, and `city.toml` must
    /// name it; a gateway that lacks it loads nothing and so answers nothing.
    async fn check_model(&self, set: &PolicySet) -> Result<ModelId, LoadError> {
        let Some(in_force) = self.published_model().await? else { return Ok(set.model().id.clone()) };
        match set.models.get(&in_force.id) {
            Some(model) if model.digest == in_force.digest => {}
            _ => return Err(LoadError::ModelMissing { id: in_force.id, digest: hex(&in_force.digest) }),
        }
        let named = &set.city.model;
        if *named != in_force.id {
            return Err(LoadError::ModelNotPublished { named: named.clone(), in_force: in_force.id });
        }
        Ok(in_force.id)
    }

    /// INVARIANT (one withheld): an answer has one size, so the largest of each scenario must fit it.
    fn check_answers(&self, set: &PolicySet, now: Timestamp) -> Result<(), LoadError> {
        // A repeat may carry a proof from any log.
        let keys = self.keys();
        let origins = keys.logs().iter().map(|log| log.origin());
        let origin = origins.max_by_key(|origin| origin.len()).unwrap_or_default();
        let note = format!("{origin}\n{}\n{}\n\n— {origin} {}\n", u64::MAX, "A".repeat(44), "A".repeat(92));
        let (path, extra) = (vec![[0; 32]; LOG_LEVELS], vec![0; crate::access_log::ENTRY_BYTES]);
        let proof = Proof { extra, index: u64::MAX, path, checkpoint: note }.to_text();
        let longest_grade = set.model().grades.iter().map(|grade| grade.code.as_str().len()).max().unwrap_or(0);
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
                    model: set.model().name(),
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

    /// The model in force, as its cell has it.
    pub async fn published_model(&self) -> Result<Option<ModelInForce>, GatewayError> {
        let place = model_place();
        let Some(cell) = self.get(&place).await? else { return Ok(None) };
        let content = self.vault.open_indexed(at(&place, cell.version), &cell.value)?;
        let bad = || GatewayError::Fault("the cell of the model in force does not read".into());
        let stored: StoredModel = serde_json::from_slice(&content).map_err(|_| bad())?;
        let mut digest = [0; 32];
        let digits = stored.digest.as_bytes().chunks(2);
        for (byte, pair) in digest.iter_mut().zip(digits) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Some(ModelInForce { id: ModelId::parse(&stored.id).map_err(|_| bad())?, digest, from: stored.from }))
    }

    /// Publishes the first model of a deployment, from today on.
    async fn publish_model(&self, model: &Model, day: Date, rules: &[u8; 32]) -> Result<(), GatewayError> {
        let (now, _) = self.now()?;
        let stored = StoredModel { id: model.id.as_str().to_owned(), digest: hex(&model.digest), from: day };
        let body = Body {
            at: now,
            party: None,
            scenario: None,
            action: LogAction::Model,
            rule: None,
            subject: Subject::Digest(model.digest),
        };
        let mut change = Change::entry(self.random()?, body);
        let place = model_place();
        let content = serde_json::to_vec(&stored).map_err(|e| GatewayError::Fault(e.to_string()))?;
        let value = self.vault.seal_indexed(at(&place, 1), &content, 256)?;
        change.checks.push(unchanged(&place, None));
        change.writes.push(Write::Put(place, Cell { version: 1, value }));
        self.add_first_state(&mut change, rules, day)?;
        // Another gateway may have published it in the meantime, which is as good.
        self.record(change, None).await.map(drop)
    }
}
