//! What holds on which day: a policy set with the model of that day, as far as it is decided.

use std::ops::Deref;
use std::sync::Arc;

use jiff::{Timestamp, civil::Date};
use sha2::{Digest, Sha256};

use super::LoadError;
use crate::disclosure::Cause;
use crate::gateway::GatewayError;
use crate::gateway::models::{List, Listed};
use crate::hex::hex;
use crate::model::Model;
use crate::policies::{Candidate, PolicySet};

/// A policy set with the model that is in force on the days on which it holds.
pub struct Loaded {
    pub(super) set: PolicySet,
    model: Candidate,
    rules: [u8; 32],
}

/// How much of a digest of rules is of catalogue and model; the rest says after which restore, too.
const OF_POLICIES: usize = 16;

impl Loaded {
    /// `counts_from` is the instant before which consents are lapsed, where the store was restored.
    pub(in crate::gateway) fn new(set: PolicySet, model: Candidate, counts_from: Option<Timestamp>) -> Self {
        let catalogue = set.file("catalogue.toml").unwrap_or_default();
        let digest = model.model.digest;
        let of_policies = Sha256::new().chain_update(Sha256::digest(catalogue)).chain_update(digest);
        let mut rules: [u8; 32] = of_policies.clone().finalize().into();
        if let Some(from) = counts_from {
            // Which market records count is another matter since: no standing of before is fresh.
            let restored = of_policies.chain_update(from.as_millisecond().to_be_bytes()).finalize();
            rules.iter_mut().zip(restored).skip(OF_POLICIES).for_each(|(byte, restored)| *byte = restored);
        }
        Self { set, model, rules }
    }

    /// The model in force.
    pub fn model_in_force(&self) -> &Model {
        &self.model.model
    }

    /// The text of its file, to the byte.
    pub fn model_text(&self) -> &str {
        &self.model.text
    }

    /// A digest of everything that a score follows from, beside the person's cells.
    pub fn rules(&self) -> &[u8; 32] {
        &self.rules
    }

    /// Why a standing that was computed by these rules is not fresh: catalogue or model, or a restore of the store alone.
    pub(in crate::gateway) fn cause(&self, before: &[u8; 32]) -> Cause {
        let same = self.rules.iter().zip(before).take_while(|(now, before)| now == before).count();
        if (OF_POLICIES..self.rules.len()).contains(&same) { Cause::Restore } else { Cause::Rules }
    }
}

impl Deref for Loaded {
    type Target = PolicySet;

    fn deref(&self) -> &PolicySet {
        &self.set
    }
}

/// What holds today and on later days, as far as that is decided.
///
/// INVARIANT (same in, same score): each day has one set with one model, so an answer is of one model, and at
/// midnight all calls go over to the next at once.
pub(in crate::gateway) struct InForce {
    /// The versions of the cells that this follows from: the sets' history, and the list of models.
    pub(super) seen: (u64, u64),
    /// By first day.
    pub(super) holds: Vec<(Date, Arc<Loaded>)>,
    /// What [`Self::on`] says of a day before all of them.
    first: Arc<Loaded>,
}

impl InForce {
    pub(in crate::gateway) fn first(set: PolicySet, day: Date) -> Self {
        let model = set.own_candidate();
        let first = Arc::new(Loaded::new(set, model, None));
        Self { seen: (0, 0), holds: vec![(day, first.clone())], first }
    }

    pub(in crate::gateway) fn on(&self, day: Date) -> Arc<Loaded> {
        self.holds.iter().rev().find(|(from, _)| *from <= day).map_or(&self.first, |(_, loaded)| loaded).clone()
    }

    pub(in crate::gateway) fn newest(&self) -> Arc<Loaded> {
        self.holds.last().map_or(&self.first, |(_, loaded)| loaded).clone()
    }
}

/// Models with the day from which each holds, in their order.
type Schedule = [(Date, Listed, Arc<str>)];

/// INVARIANT (same in, same score): the model of each day on which the set will hold fits it; no file of the set changes
/// a model that was drafted or published; and `city.toml` names one that was published.
pub(super) fn check_models(set: &PolicySet, list: &List, schedule: &Schedule, day: Date) -> Result<(), LoadError> {
    for (id, model) in &set.models {
        if list.get(id.as_str()).is_some_and(|known| known.digest != hex(&model.digest)) {
            return Err(LoadError::ModelChanged { id: id.clone(), file: set.model_path(id.as_str()).to_owned() });
        }
    }
    let named = &set.city.model;
    if list.get(named.as_str()).and_then(|listed| listed.from).is_none() {
        let in_force = list.on(day).map(|(_, listed)| listed.id.clone()).unwrap_or_default();
        return Err(LoadError::ModelNotPublished { named: named.clone(), in_force });
    }
    let tomorrow = day.tomorrow().unwrap_or(day);
    for (at, (_, listed, text)) in schedule.iter().enumerate() {
        let ends = schedule.get(at + 1).is_some_and(|(next, ..)| *next <= tomorrow);
        let file = format!("models/{}.toml", listed.id);
        let read = if ends { set.read_model(&file, text.as_bytes()) } else { set.candidate(&file, text.as_bytes()) };
        read.map_err(|mistakes| LoadError::ModelDoesNotFit { id: listed.id.clone(), mistakes })?;
    }
    Ok(())
}

/// What holds from this day on: one set until midnight, another from then on, and the model of each day.
pub(super) fn in_force(
    seen: (u64, u64),
    day: Date,
    today: PolicySet,
    next: PolicySet,
    schedule: &Schedule,
    counts_from: Option<Timestamp>,
) -> Result<InForce, LoadError> {
    let tomorrow = day.tomorrow().unwrap_or(day);
    let model = |set: &PolicySet, on: Date| {
        let (_, listed, text) = schedule
            .iter()
            .rev()
            .find(|(from, ..)| *from <= on)
            .or(schedule.first())
            .ok_or_else(|| GatewayError::Fault("no model is in force".into()))?;
        let read = set.read_model(&format!("models/{}.toml", listed.id), text.as_bytes());
        read.map_err(|mistakes| LoadError::ModelDoesNotFit { id: listed.id.clone(), mistakes })
    };
    let first = Arc::new(Loaded::new(today.clone(), model(&today, day)?, counts_from));
    let mut holds = vec![(day, first.clone())];
    let later = schedule.iter().map(|(from, ..)| *from).filter(|from| *from > tomorrow);
    for from in std::iter::once(tomorrow).chain(later) {
        holds.push((from, Arc::new(Loaded::new(next.clone(), model(&next, from)?, counts_from))));
    }
    Ok(InForce { seen, holds, first })
}
