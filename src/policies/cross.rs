//! What files of a policy set say about each other.
//!
//! Whatever could not be read is passed over, so that each mistake is told once, where it was made.

use std::collections::{BTreeMap, BTreeSet};

use super::{CATALOGUE, CITY, SCENARIOS};
use crate::catalogue::{Catalogue, Indicator};
use crate::city::City;
use crate::code::{ModelId, PartyId, ScenarioId};
use crate::model::Model;
use crate::party::{self, Party, PartyRole};
use crate::policy::{Document, Mistakes};
use crate::scenario::{Question, Scenario};
use crate::text::nearest;

/// What could be read of each file.
pub(super) struct Parts<'a> {
    pub(super) documents: &'a BTreeMap<&'a str, Document<'a>>,
    pub(super) city: Option<&'a City>,
    pub(super) catalogue: &'a Catalogue,
    pub(super) models: &'a BTreeMap<ModelId, Model>,
    pub(super) model_files: &'a BTreeMap<ModelId, String>,
    /// Whether every model could be read.
    pub(super) all_models: bool,
    pub(super) scenarios: Option<&'a BTreeMap<ScenarioId, Scenario>>,
    pub(super) parties: Option<&'a party::Read>,
}

impl Parts<'_> {
    pub(super) fn check(&self, mistakes: &mut Mistakes) {
        let in_force = self.city.and_then(|city| self.models.get(&city.model));
        if let Some(city) = self.city {
            match in_force {
                Some(model) => self.cuts_are_grades(city, model, mistakes),
                None if self.all_models && !self.models.is_empty() => {
                    let known = self.models.keys().map(ModelId::as_str);
                    let help = nearest(city.model.as_str(), known)
                        .map_or("add its file to models/".into(), |near| format!("did you mean \"{near}\"?"));
                    self.wrong(
                        mistakes,
                        CITY,
                        &["model"],
                        format!("no model has the id \"{}\"", city.model),
                        "the id of a model in models/",
                        help,
                    );
                }
                None => {}
            }
        }
        for scenario in self.scenarios.into_iter().flat_map(BTreeMap::values) {
            if let (Some(city), Some(model)) = (self.city, in_force) {
                self.question_uses_a_cut(scenario, city, model, mistakes);
            }
            self.parties_of(scenario, mistakes);
        }
        let asking = self.asking();
        for indicator in self.catalogue.iter() {
            self.providers_of(indicator, &asking, mistakes);
        }
    }

    fn wrong(
        &self,
        mistakes: &mut Mistakes,
        file: &str,
        path: &[&str],
        what: String,
        expected: impl Into<String>,
        help: impl Into<String>,
    ) {
        if let Some(document) = self.documents.get(file) {
            document.wrong(mistakes, path, what, expected, help);
        }
    }

    /// INVARIANT (few cuts), first half: what can be asked are the city's cuts. Each is where a grade begins, and no grade
    /// begins between them, so that naming a grade tells no more than the cuts do.
    fn cuts_are_grades(&self, city: &City, model: &Model, mistakes: &mut Mistakes) {
        let mins: BTreeSet<i64> = model.grades.iter().map(|g| g.min).collect();
        let begins = model.grades.iter().map(|g| format!("{} ({})", g.min, g.code)).collect::<Vec<_>>().join(", ");
        for cut in city.cuts.iter().filter(|cut| !mins.contains(&i64::from(**cut))) {
            let what = format!("the cut {cut} is no grade's `min` in the model in force, \"{}\"", model.id);
            self.wrong(
                mistakes,
                CITY,
                &["cuts", &cut.to_string()],
                what,
                format!("one of {begins}"),
                "move the cut, or name another model",
            );
        }
        let lowest = city.cuts.first().map_or(i64::MAX, |cut| i64::from(*cut));
        for grade in
            model.grades.iter().filter(|g| g.min > lowest && !city.cuts.iter().any(|cut| i64::from(*cut) == g.min))
        {
            let what = format!("the grade \"{}\" begins at {}, which is no cut", grade.code, grade.min);
            let Some(file) = self.model_files.get(&model.id) else { continue };
            let help = "make it a cut of the city, or move the grade: a named grade must not tell more than the cuts";
            self.wrong(
                mistakes,
                file,
                &["grade", grade.code.as_str(), "min"],
                what,
                format!("one of the cuts {:?} above the first", city.cuts),
                help,
            );
        }
    }

    /// INVARIANT (few cuts), first half: no scenario asks about another score.
    fn question_uses_a_cut(&self, scenario: &Scenario, city: &City, model: &Model, mistakes: &mut Mistakes) {
        let cuts = format!("one of the city's cuts {:?}", city.cuts);
        let is_cut = |score: i64| city.cuts.iter().any(|cut| i64::from(*cut) == score);
        let path = ["scenario", scenario.id.as_str(), "question"];
        match &scenario.question {
            Question::ScoreAtLeast(score) if !is_cut(i64::from(*score)) => {
                self.wrong(
                    mistakes,
                    SCENARIOS,
                    &path,
                    format!("it asks about {score}"),
                    cuts,
                    "ask about a cut; all parties use the same few",
                );
            }
            Question::GradeAtLeast(code) => match model.grades.iter().find(|g| g.code == *code) {
                Some(grade) if is_cut(grade.min) => {}
                Some(grade) => {
                    let what = format!("it asks about the grade \"{code}\", which begins at {}", grade.min);
                    self.wrong(mistakes, SCENARIOS, &path, what, cuts, "ask about a grade that begins at a cut");
                }
                None => {
                    let known: Vec<_> =
                        model.grades.iter().filter(|g| is_cut(g.min)).map(|g| g.code.as_str()).collect();
                    let help = nearest(code.as_str(), known.iter().copied())
                        .map_or("choose one of these".into(), |near| format!("did you mean \"{near}\"?"));
                    let expected = format!("one of {}", known.join(", "));
                    self.wrong(
                        mistakes,
                        SCENARIOS,
                        &path,
                        format!("the model in force has no grade \"{code}\""),
                        expected,
                        help,
                    );
                }
            },
            // INVARIANT (few cuts), first half: a grade is named only from `good` up.
            Question::GradeNamed => {
                let good = model.grades.iter().find(|g| g.code.as_str() == "good").map(|g| g.min);
                let lowest = city.cuts.first().map(|cut| i64::from(*cut));
                if let (Some(good), Some(lowest)) = (good, lowest)
                    && lowest < good
                {
                    self.wrong(
                        mistakes,
                        SCENARIOS,
                        &path,
                        format!("it names the grade, and the lowest cut is {lowest}"),
                        format!("no cut below {good}, where \"good\" begins, while a scenario names grades"),
                        "ask for a score or a grade, or take the lowest cut out",
                    );
                }
            }
            Question::ScoreAtLeast(_) => {}
        }
    }

    fn parties_of(&self, scenario: &Scenario, mistakes: &mut Mistakes) {
        for id in &scenario.parties {
            let path = ["scenario", scenario.id.as_str(), "parties", id.as_str()];
            self.known_as(
                id,
                SCENARIOS,
                &path,
                may_ask,
                "a party with the role \"merchant\" or \"department\"",
                mistakes,
            );
        }
    }

    /// The party, if it is known and is what it should be.
    fn known_as(
        &self,
        id: &PartyId,
        file: &str,
        path: &[&str],
        is_right: impl Fn(&Party) -> bool,
        expected: &str,
        mistakes: &mut Mistakes,
    ) -> Option<&Party> {
        let parties = self.parties?;
        match parties.parties.get(id) {
            Some(party) if is_right(party) => return Some(party),
            Some(party) => {
                let roles = party.roles.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", ");
                let what = format!("the party \"{id}\" has only the roles {roles}");
                self.wrong(mistakes, file, path, what, expected, "give it the role in parties.toml, or name another");
            }
            None if parties.may_know(id.as_str()) => {}
            None => {
                let help = nearest(id.as_str(), parties.ids())
                    .map_or("add it to parties.toml, or take it out".into(), |near| {
                        format!("did you mean \"{near}\"?")
                    });
                self.wrong(mistakes, file, path, format!("no party has the id \"{id}\""), expected, help);
            }
        }
        None
    }

    /// Organisations with a party that a scenario names, and that party.
    fn asking(&self) -> BTreeMap<&str, &PartyId> {
        let named = self.scenarios.into_iter().flat_map(BTreeMap::values).flat_map(|s| &s.parties);
        let known = named.filter_map(|id| Some((self.parties?.parties.get(id)?, id)));
        known.filter(|(party, _)| may_ask(party)).map(|(party, id)| (party.organisation.as_str(), id)).collect()
    }

    /// INVARIANT (few cuts), second half: an organisation that asks may provide only indicators whose record gives one
    /// fixed step, else it could move a score by what it chooses, ask again, and so find the score itself.
    fn providers_of(&self, indicator: &Indicator, asking: &BTreeMap<&str, &PartyId>, mistakes: &mut Mistakes) {
        const EXPECTED: &str = "one fixed step: no unit, one weight, `count` \"highest\" or \"latest\"";
        let code = indicator.code.as_str();
        for id in &indicator.providers {
            let path = ["indicator", code, "providers", id.as_str()];
            let provides = |p: &Party| p.roles.contains(&PartyRole::Provider);
            let Some(party) =
                self.known_as(id, CATALOGUE, &path, provides, "a party with the role \"provider\"", mistakes)
            else {
                continue;
            };
            let Some(asks) = asking.get(party.organisation.as_str()) else { continue };
            let steps = self.models.values().find(|m| m.rules.get(code).is_some_and(|rule| !rule.is_one_fixed_step()));
            let why = match (&indicator.unit, steps) {
                (Some(unit), _) => format!("its records carry a quantity of {unit}"),
                (None, Some(model)) => {
                    format!("in the model \"{}\" its records give more than one fixed step", model.id)
                }
                (None, None) => continue,
            };
            let what = format!(
                "\"{id}\" provides \"{code}\", {why}, while its organisation \"{}\" asks as \"{asks}\"",
                party.organisation
            );
            self.wrong(
                mistakes,
                CATALOGUE,
                &path,
                what,
                EXPECTED,
                "let another organisation provide it, or take the asking party out of its scenarios",
            );
        }
    }
}

fn may_ask(party: &Party) -> bool {
    party.roles.contains(&PartyRole::Merchant) || party.roles.contains(&PartyRole::Department)
}
