//! The life of a model: a draft for comment, two approvals, a day of effect, and then history.
//!
//! INVARIANT (same in, same score): a model's text is kept in the store from its draft on, to the byte, and its id never
//! stands for other bytes again. Which model holds on which day is one cell, the list; a day has one model, decided at
//! least an hour before the day begins, so that every gateway has read it by then and no day sees two.

mod registry;

pub(super) use registry::{List, Listed, Registry, digest_of, list_place};
use registry::{Stored, model_place, text_place};

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date};
use serde::Serialize;

use super::publish::{LoadError, Loaded};
use super::sessions::Staff;
use super::{Gateway, GatewayError, Refusal, TRIES_MAX, unchanged};
use crate::access::{Action, Condition, Role};
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::clock::start_of;
use crate::code::{ModelId, RuleId};
use crate::hex::hex;
use crate::ledger::Change;
use crate::policies::{Candidate, PolicySet};
use crate::store::{Cell, Place};
use crate::trial::Impact;

/// The most bytes of a model's file.
pub const MODEL_BYTES_MAX: usize = 256 * 1024;
/// How many models a deployment has over its life.
pub const MODELS_MAX: usize = 300;
/// How many different officers or operators approve a model.
pub const APPROVALS: usize = 2;
/// How long before a day begins its model is decided: no clock of a gateway is off by so much.
const LEAD: SignedDuration = SignedDuration::from_hours(1);
/// How far ahead a day of effect may lie.
const AHEAD_DAYS: i32 = 3_660;

/// Where a model is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Open for comment.
    Comment,
    /// The period for comment is over, and it is not published.
    Draft,
    /// Published, for a day to come.
    Scheduled,
    /// In force.
    InForce,
    /// It was in force.
    Past,
}

impl ModelState {
    /// Its word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Comment => "comment",
            Self::Draft => "draft",
            Self::Scheduled => "scheduled",
            Self::InForce => "in-force",
            Self::Past => "past",
        }
    }
}

/// One approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who, for officers and operators; the public sees the role alone.
    pub login: String,
    /// As what.
    pub role: Role,
    /// When.
    pub at: Timestamp,
}

/// A model with its history.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelView {
    /// Its id.
    pub id: ModelId,
    /// SHA-256 of its file, in hexadecimal.
    pub digest: String,
    /// Where it is in its life.
    pub state: ModelState,
    /// When it was published for comment, or by `init`.
    pub drafted_at: Timestamp,
    /// The first day after the period for comment; none for the first model of a deployment.
    pub comment_until: Option<Date>,
    /// Who approved it.
    pub approvals: Vec<Approval>,
    /// When it was published.
    pub published_at: Option<Timestamp>,
    /// The first day on which it holds.
    pub from: Option<Date>,
    /// The day from which another one holds in its place.
    pub until: Option<Date>,
    /// How grades would move, as of its draft.
    pub impact: Option<Impact>,
}

impl Gateway {
    pub(super) fn registry(&self) -> Registry<'_> {
        Registry { store: &*self.store, vault: &self.vault }
    }

    /// All models with their history, the newest draft first.
    pub async fn models(&self) -> Result<Vec<ModelView>, GatewayError> {
        let (_, day) = self.now()?;
        let list = self.registry().list().await?;
        let mut views = Vec::with_capacity(list.models.len());
        for listed in list.models.iter().rev() {
            views.push(self.view(&list, listed, day).await?);
        }
        Ok(views)
    }

    /// One of them, with its file to the byte.
    pub async fn model(&self, id: &str) -> Result<(ModelView, Arc<str>), GatewayError> {
        let (_, day) = self.now()?;
        let list = self.registry().list().await?;
        let listed = list.get(id).ok_or(Refusal::NotFound)?;
        Ok((self.view(&list, listed, day).await?, self.registry().text(listed).await?))
    }

    async fn view(&self, list: &List, listed: &Listed, day: Date) -> Result<ModelView, GatewayError> {
        let (stored, ..) = self.registry().stored(listed).await?;
        let bad = || GatewayError::Fault("a cell of the models does not read".into());
        let until = listed.from.and_then(|from| list.dated().iter().map(|(from, _)| *from).find(|next| *next > from));
        let state = match (listed.from, until, stored.comment_until) {
            (Some(from), ..) if from > day => ModelState::Scheduled,
            (Some(_), Some(until), _) if until <= day => ModelState::Past,
            (Some(_), ..) => ModelState::InForce,
            (None, _, Some(until)) if day < until => ModelState::Comment,
            (None, ..) => ModelState::Draft,
        };
        let approval = |(login, role, at): &(String, String, Timestamp)| {
            let role = Role::ALL.iter().find(|(word, _)| word == role).map(|(_, role)| *role)?;
            Some(Approval { login: login.clone(), role, at: *at })
        };
        Ok(ModelView {
            id: ModelId::parse(&listed.id).map_err(|_| bad())?,
            digest: listed.digest.clone(),
            state,
            drafted_at: stored.drafted_at,
            comment_until: stored.comment_until,
            approvals: stored.approvals.iter().filter_map(approval).collect(),
            published_at: stored.published_at,
            from: listed.from,
            until,
            impact: stored.impact,
        })
    }

    /// Publishes a draft for comment, with how grades would move. The same file again changes nothing.
    ///
    /// `by` is none at the command line, where whoever holds the machine stands for the operator.
    pub async fn draft_model(&self, by: Option<&Staff>, file: &str, bytes: &[u8]) -> Result<ModelView, GatewayError> {
        for _ in 0..TRIES_MAX {
            let (now, day, policies) = self.moment().await?;
            let rule = self.staff_rule(by, Action::DraftModel, &[])?;
            let newest = self.newest_policies();
            let candidate = self.fitting(&newest, file, bytes, now)?;
            let (id, digest) = (candidate.model.id.clone(), hex(&candidate.model.digest));
            let list = self.registry().list().await?;
            let own = newest.models.get(&id).filter(|own| own.digest != candidate.model.digest);
            match list.get(id.as_str()) {
                Some(listed) if listed.digest == digest => return self.view(&list, listed, day).await,
                None if own.is_none() => {}
                _ => return Err(Refusal::ModelChanged(id).into()),
            }
            if list.models.len() >= MODELS_MAX {
                let expected = format!("a deployment keeps {MODELS_MAX} models");
                return Err(Refusal::OutOfRange { field: "model", expected }.into());
            }
            let impact = self.count_moves(&policies, &candidate, day).await?;
            let days = i32::from(newest.city.model_comment_days.max(policies.city.model_comment_days));
            let comment_until = Some(day.checked_add(days.days()).unwrap_or(Date::MAX));
            let stored = Stored {
                drafted_at: now,
                comment_until,
                approvals: Vec::new(),
                published_at: None,
                impact: Some(impact),
            };
            let change = self.new_model(&list, &candidate, None, &stored, LogAction::DraftModel, rule)?;
            if self.record(change, None).await?.is_some() {
                return Ok(self.model(id.as_str()).await?.0);
            }
        }
        Err(Refusal::Busy.into())
    }

    /// The change that adds a model to the list.
    fn new_model(
        &self,
        list: &List,
        candidate: &Candidate,
        from: Option<Date>,
        stored: &Stored,
        action: LogAction,
        rule: Option<RuleId>,
    ) -> Result<Change, GatewayError> {
        let digest = hex(&candidate.model.digest);
        let mut change = self.model_change(action, rule, candidate.model.digest)?;
        let mut models = list.models.clone();
        models.push(Listed { id: candidate.model.id.to_string(), digest: digest.clone(), from });
        self.put(&mut change, list_place(), list.cell.as_ref(), &models)?;
        self.put(&mut change, model_place(&digest), None, stored)?;
        self.put_pieces(&mut change, |piece| text_place(&digest, piece), candidate.text.as_bytes())?;
        Ok(change)
    }

    fn put<T: Serialize>(
        &self,
        change: &mut Change,
        place: Place,
        read: Option<&Cell>,
        content: &T,
    ) -> Result<(), GatewayError> {
        let content = serde_json::to_vec(content).map_err(|e| GatewayError::Fault(e.to_string()))?;
        self.put_indexed(change, place, read, &content, 1024)
    }

    fn model_change(&self, action: LogAction, rule: Option<RuleId>, digest: [u8; 32]) -> Result<Change, GatewayError> {
        let (at, _) = self.now()?;
        let body = Body { at, party: None, scenario: None, action, rule, subject: Subject::Digest(digest) };
        Ok(Change::entry(self.random()?, body))
    }

    /// The rule that lets somebody do this; none is needed at the command line.
    fn staff_rule(
        &self,
        by: Option<&Staff>,
        action: Action,
        holds: &[Condition],
    ) -> Result<Option<RuleId>, GatewayError> {
        let Some(by) = by else { return Ok(None) };
        let (_, day) = self.now()?;
        Ok(Some(Self::permit(&self.policies_on(day), &[by.role], action, holds)?))
    }

    /// A model that could be in force with this set.
    pub(super) fn fitting(
        &self,
        set: &PolicySet,
        file: &str,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<Candidate, GatewayError> {
        if bytes.len() > MODEL_BYTES_MAX {
            let expected = format!("a model's file has at most {MODEL_BYTES_MAX} bytes");
            return Err(Refusal::OutOfRange { field: "model", expected }.into());
        }
        let candidate = set.candidate(file, bytes).map_err(|mistakes| Refusal::ModelMistakes(mistakes.to_string()))?;
        match self.check_answers(set, [&candidate.model].into_iter(), now) {
            Ok(()) => Ok(candidate),
            Err(LoadError::Gateway(error)) => Err(error),
            Err(error) => Err(Refusal::ModelMistakes(error.to_string()).into()),
        }
    }

    /// Approves a draft. What changes nothing is refused, and says why: the same person again, or a model that is
    /// published already. Nobody is to believe that an approval of theirs was recorded when it was not.
    pub async fn approve_model(&self, by: &Staff, id: &str) -> Result<(), GatewayError> {
        for _ in 0..TRIES_MAX {
            self.follow_policies().await?;
            let rule = self.staff_rule(Some(by), Action::ApproveModel, &[])?;
            let list = self.registry().list().await?;
            let listed = list.get(id).ok_or(Refusal::NotFound)?;
            let (mut stored, place, cell) = self.registry().stored(listed).await?;
            if let Some(from) = listed.from {
                return Err(Refusal::ModelPublished(from).into());
            }
            if let Some((.., at)) = stored.approvals.iter().find(|(login, ..)| *login == by.login) {
                return Err(Refusal::ModelApproved(*at).into());
            }
            let (now, _) = self.now()?;
            stored.approvals.push((by.login.clone(), by.role.as_str().to_owned(), now));
            let digest = digest_of(&listed.digest)?;
            let mut change = self.model_change(LogAction::ApproveModel, rule, digest)?;
            // Published in the meantime, it can no longer be approved.
            change.checks.push(unchanged(&list_place(), list.cell.as_ref()));
            self.put(&mut change, place, Some(&cell), &stored)?;
            if self.record(change, None).await?.is_some() {
                return Ok(());
            }
        }
        Err(Refusal::Busy.into())
    }

    /// Publishes a draft, to hold from a day on. The same again changes nothing.
    pub async fn publish_draft(&self, by: Option<&Staff>, id: &str, from: Date) -> Result<ModelView, GatewayError> {
        self.follow_policies().await?;
        let _turn = self.loading.lock().await;
        for _ in 0..TRIES_MAX {
            let (now, day) = self.now()?;
            let list = self.registry().list().await?;
            let listed = list.get(id).ok_or(Refusal::NotFound)?;
            match listed.from {
                Some(said) if said == from => return self.view(&list, listed, day).await,
                Some(said) => return Err(Refusal::ModelPublished(said).into()),
                None => {}
            }
            let (mut stored, place, cell) = self.registry().stored(listed).await?;
            let rule = self.may_publish(by, &stored, day)?;
            day_is_free(&list, from, now, day)?;
            let newest = self.newest_policies();
            let text = self.registry().text(listed).await?;
            // The policies may have changed since it was drafted.
            self.fitting(&newest, &format!("{id}.toml"), text.as_bytes(), now)?;
            stored.published_at = Some(now);
            let mut change = self.model_change(LogAction::Model, rule, digest_of(&listed.digest)?)?;
            let mut models = list.models.clone();
            models.iter_mut().filter(|listed| listed.id == id).for_each(|listed| listed.from = Some(from));
            self.put(&mut change, list_place(), list.cell.as_ref(), &models)?;
            self.put(&mut change, place, Some(&cell), &stored)?;
            // A set that is loaded meanwhile was not held against this model.
            change.checks.push(self.policies_unchanged());
            let done = self.record(change, None).await?.is_some();
            self.take_over().await?;
            if !done {
                continue;
            }
            let list = self.registry().list().await?;
            let listed = list.get(id).ok_or(Refusal::NotFound)?;
            return self.view(&list, listed, day).await;
        }
        Err(Refusal::Busy.into())
    }

    /// That the period for comment is over and two have approved; by which rule.
    fn may_publish(&self, by: Option<&Staff>, stored: &Stored, day: Date) -> Result<Option<RuleId>, GatewayError> {
        // Whoever may not publish at all learns nothing more.
        let holds = [Condition::CommentPeriodOver, Condition::TwoApprovals];
        let rule = self.staff_rule(by, Action::PublishModel, &holds)?;
        if let Some(until) = stored.comment_until.filter(|until| day < *until) {
            return Err(Refusal::ModelInComment(until).into());
        }
        match APPROVALS.saturating_sub(stored.approvals.len()) {
            0 => Ok(rule),
            lacking => Err(Refusal::ModelNotApproved(lacking).into()),
        }
    }

    /// Publishes the first model of a deployment, from today on.
    pub(super) async fn publish_first(&self, set: &PolicySet, day: Date) -> Result<(), GatewayError> {
        let (now, _) = self.now()?;
        let stored = Stored {
            drafted_at: now,
            comment_until: None,
            approvals: Vec::new(),
            published_at: Some(now),
            impact: None,
        };
        let list = List::default();
        let candidate = set.own_candidate();
        let mut change = self.new_model(&list, &candidate, Some(day), &stored, LogAction::Model, None)?;
        self.add_first_state(&mut change, Loaded::new(set.clone(), candidate, self.consents_from).rules(), day)?;
        // Another gateway may have published it in the meantime, which is as good.
        self.record(change, None).await.map(drop)
    }
}

/// That no other model begins on this day, and that the day is neither too near nor too far.
fn day_is_free(list: &List, from: Date, now: Timestamp, day: Date) -> Result<(), Refusal> {
    let wrong = |expected: String| Refusal::OutOfRange { field: "from", expected };
    if from <= day || start_of(from).duration_since(now) < LEAD {
        return Err(wrong("a day that begins an hour from now or later: every gateway must know it by then".into()));
    }
    if day.checked_add(AHEAD_DAYS.days()).is_ok_and(|last| from > last) {
        return Err(wrong(format!("a day within {AHEAD_DAYS} days")));
    }
    match list.dated().iter().find(|(taken, _)| *taken == from) {
        Some((_, other)) => Err(wrong(format!("another day: the model {} begins on {from}", other.id))),
        None => Ok(()),
    }
}
