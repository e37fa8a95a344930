//! A model is tried: everybody is scored under it and under the one in force, and only protected counts come out.
//!
//! People are read page by page, and opened and scored on all cores. Nothing of one person leaves a page, and nothing is
//! written but the entry that a running gateway makes beforehand.

use std::sync::Arc;

use jiff::{Timestamp, civil::Date};
use tokio::task::JoinSet;

use super::dossier::{Opened, read_person};
use super::models::Registry;
use super::publish::Loaded;
use super::restored;
use super::sessions::Staff;
use super::{Gateway, GatewayError, Refusal};
use crate::access::Action;
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::authority;
use crate::disclosure::Standing;
use crate::entropy::Entropy;
use crate::keys::Keyring;
use crate::ledger::Change;
use crate::person::PersonId;
use crate::policies::{Candidate, PolicySet};
use crate::score::{Outcome, Status};
use crate::store::{Cell, KEYS_END, Snapshot, Store, StoreError, Table};
use crate::tables;
use crate::trial::{Impact, Moves, Trial};
use crate::vault::Vault;

/// How many people one page has.
const PAGE_PEOPLE: usize = 128;
/// How many cells of their records are read at once.
const PAGE_CELLS: usize = 512;

type Cells = Vec<(Vec<u8>, Cell)>;

/// Where people are read: one moment's view, where the store has one.
enum Reader {
    Moment(Box<dyn Snapshot>),
    Store(Arc<dyn Store>),
}

impl Reader {
    async fn open(store: &Arc<dyn Store>) -> Result<Self, StoreError> {
        Ok(store.snapshot().await?.map_or_else(|| Self::Store(store.clone()), Self::Moment))
    }

    async fn scan(&mut self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Cells, StoreError> {
        match self {
            Self::Moment(snapshot) => snapshot.scan(table, from, to, limit).await,
            Self::Store(store) => store.scan(table, from, to, limit).await,
        }
    }

    /// The next people with the cells of their records, and the key from which on to read.
    async fn page(&mut self, from: &[u8]) -> Result<Option<(Cells, Cells, Vec<u8>)>, StoreError> {
        let people = self.scan(tables::PERSON, from, &KEYS_END, PAGE_PEOPLE).await?;
        let (Some((first, _)), Some((last, _))) = (people.first(), people.last()) else { return Ok(None) };
        let (mut begin, end, next) = (first.clone(), tables::after(last), after_key(last));
        let mut records = Cells::new();
        loop {
            let some = self.scan(tables::DOSSIER, &begin, &end, PAGE_CELLS).await?;
            let (whole, last) = (some.len() == PAGE_CELLS, some.last().map(|(key, _)| after_key(key)));
            records.extend(some);
            match last.filter(|_| whole) {
                Some(next) => begin = next,
                None => return Ok(Some((people, records, next))),
            }
        }
    }
}

/// The key after this one.
fn after_key(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Scores everybody under both models.
async fn count(
    store: &Arc<dyn Store>,
    vault: &Arc<Vault>,
    trial: Trial,
    counts_from: Option<Timestamp>,
) -> Result<(Moves, Trial), GatewayError> {
    let (mut reader, trial) = (Reader::open(store).await?, Arc::new(trial));
    let (mut moves, mut tasks, mut from) = (trial.nobody(), JoinSet::new(), Vec::new());
    let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let ended = |ended: Result<Result<Moves, GatewayError>, tokio::task::JoinError>| {
        ended.map_err(|e| GatewayError::Fault(format!("counting ended: {e}")))?
    };
    while let Some((people, records, next)) = reader.page(&from).await? {
        from = next;
        if tasks.len() >= at_once
            && let Some(done) = tasks.join_next().await
        {
            moves.merge(&ended(done)?);
        }
        let (vault, trial) = (vault.clone(), trial.clone());
        tasks.spawn_blocking(move || count_page(&vault, &trial, counts_from, people, records));
    }
    while let Some(done) = tasks.join_next().await {
        moves.merge(&ended(done)?);
    }
    Ok((moves, Arc::unwrap_or_clone(trial)))
}

/// INVARIANT (no grant, no plaintext): people's cells open for the trial, and counts are all that is made of them.
fn count_page(
    vault: &Vault,
    trial: &Trial,
    counts_from: Option<Timestamp>,
    people: Cells,
    records: Cells,
) -> Result<Moves, GatewayError> {
    let (authority, mut moves) = (authority::Trial::begun(), trial.nobody());
    let mut records = records.into_iter().peekable();
    for (key, cell) in people {
        let id: [u8; 32] =
            key.as_slice().try_into().map_err(|_| GatewayError::Fault("a person's key is odd".into()))?;
        let person = PersonId(id);
        let (keys, entry) = vault.open_person(&authority, person, cell.version, &cell.value)?;
        let mut opened = Opened::new(counts_from);
        while let Some((at, cell)) = records.next_if(|(at, _)| at.as_slice() < key.as_slice() || at.starts_with(&key)) {
            // Those of somebody who came since the people were read belong to nobody here.
            if at.starts_with(&key) {
                opened.add(vault, &keys, at, cell)?;
            }
        }
        if entry.is_empty() {
            continue;
        }
        let held = opened.held(&trial.catalogue);
        let [a, b, c, d, e, f, g, h, ..] = id;
        trial.count(&mut moves, u64::from_be_bytes([a, b, c, d, e, f, g, h]), &read_person(&entry)?, &held);
    }
    Ok(moves)
}

/// What may be shown of it; rounding is drawn by a key of the gateway.
fn shown(vault: &Vault, trial: &Trial, moves: &Moves) -> Impact {
    let draw = |ids: u64| {
        let [a, b, c, d, e, f, g, h, ..] = vault.lookup("trial", &[&ids.to_be_bytes()]);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    };
    trial.shown(moves, &draw)
}

/// Tries a model on the store of a stopped deployment, or of a database that others use. Writes nothing.
pub async fn try_on_store(
    store: Arc<dyn Store>,
    keys: Keyring,
    entropy: Arc<dyn Entropy>,
    set: &PolicySet,
    day: Date,
    (file, bytes): (&str, &[u8]),
) -> Result<Impact, GatewayError> {
    let outcome = Outcome { status: Status::Scored, score: Some(500), grade: None };
    let decoy = Standing::new(outcome, day, Some(day), [0; 32]);
    let vault = Arc::new(Vault::new(Arc::new(keys), entropy, &decoy)?);
    let mistakes = |mistakes: crate::policy::Mistakes| Refusal::ModelMistakes(mistakes.to_string());
    let after = set.candidate(file, bytes).map_err(mistakes)?.model;
    let registry = Registry { store: &*store, vault: &vault };
    let list = registry.list().await?;
    let before = match list.on(day) {
        Some((_, listed)) => {
            set.read_model(&format!("{}.toml", listed.id), registry.text(listed).await?.as_bytes())
                .map_err(|e| GatewayError::Fault(format!("the model in force does not read with these policies: {e}")))?
                .model
        }
        None => set.model().clone(),
    };
    let counts_from = restored::counts_from(&*store, &vault).await?;
    let trial = Trial::new(set.catalogue.clone(), before, after, day);
    let (moves, trial) = count(&store, &vault, trial, counts_from).await?;
    Ok(shown(&vault, &trial, &moves))
}

impl Gateway {
    /// How grades would move under a model. An entry says so before anybody is scored; nothing else changes.
    pub async fn try_model(&self, by: &Staff, file: &str, bytes: &[u8]) -> Result<Impact, GatewayError> {
        let (now, day, policies) = self.moment().await?;
        let rule = Self::permit(&policies, &[by.role], Action::TryModel, &[])?;
        let candidate = self.fitting(&self.newest_policies(), file, bytes, now)?;
        let body = Body {
            at: now,
            party: None,
            scenario: None,
            action: LogAction::TryModel,
            rule: Some(rule),
            subject: Subject::Digest(candidate.model.digest),
        };
        self.record(Change::entry(self.random()?, body), None).await?.ok_or(Refusal::Busy)?;
        self.count_moves(&policies, &candidate, day).await
    }

    /// Scores everybody under the model in force and another one; one at a time.
    pub(super) async fn count_moves(
        &self,
        policies: &Loaded,
        candidate: &Candidate,
        day: Date,
    ) -> Result<Impact, GatewayError> {
        let _turn = self.trying.try_lock().map_err(|_| Refusal::Busy)?;
        let before = policies.model_in_force().clone();
        let trial = Trial::new(policies.catalogue.clone(), before, candidate.model.clone(), day);
        let (moves, trial) = count(&self.store, &self.vault, trial, self.consents_from).await?;
        Ok(shown(&self.vault, &trial, &moves))
    }
}
