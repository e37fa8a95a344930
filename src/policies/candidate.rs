//! A model that is not in the folder, held against the set: whether it could be in force.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::PolicySet;
use crate::model::Model;
use crate::party::PartyRole;
use crate::policy::{Document, Mistakes, Source};
use crate::scenario::Question;

/// A model with the text that it was read from.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The model.
    pub model: Model,
    /// Its file, to the byte.
    pub text: Arc<str>,
}

impl PolicySet {
    /// The model that `city.toml` names, with its text.
    pub fn own_candidate(&self) -> Candidate {
        let text = self.model_file(self.in_force.id.as_str()).unwrap_or_default();
        Candidate { model: self.in_force.clone(), text: text.into() }
    }

    /// Reads a model by this set's catalogue; `name` is what mistakes call its file.
    pub fn read_model(&self, name: &str, bytes: &[u8]) -> Result<Candidate, Mistakes> {
        self.candidate_if(name, bytes, false)
    }

    /// Reads a model and holds it against the whole set: that every question can be asked under it, that grades tell no
    /// more than the cuts do, and that nobody who asks could move a score by a step of their choice.
    pub fn candidate(&self, name: &str, bytes: &[u8]) -> Result<Candidate, Mistakes> {
        self.candidate_if(name, bytes, true)
    }

    fn candidate_if(&self, name: &str, bytes: &[u8], fits: bool) -> Result<Candidate, Mistakes> {
        let mut mistakes = Mistakes::new();
        let source = Source::from_bytes(name, bytes, &mut mistakes);
        let document = Document::parse(&source, &mut mistakes);
        let model = Model::read(&source, &document, &self.catalogue, true, &mut mistakes);
        if let Some(model) = model.as_ref().filter(|_| fits) {
            self.cuts_are_grades_of(model, &document, &mut mistakes);
            self.questions_fit(model, &document, &mut mistakes);
            self.steps_are_fixed(model, &document, &mut mistakes);
        }
        mistakes.or(model.map(|model| Candidate { model, text: source.text.clone() }))
    }

    /// INVARIANT (few cuts), as for the model in force: each cut is where a grade begins, and no grade begins between.
    fn cuts_are_grades_of(&self, model: &Model, document: &Document<'_>, mistakes: &mut Mistakes) {
        let cuts = format!("a grade that begins at each of the city's cuts {:?}", self.city.cuts);
        for cut in self.city.cuts.iter().filter(|cut| !model.grades.iter().any(|g| g.min == i64::from(**cut))) {
            let asked: Vec<&str> =
                self.scenarios.values().filter(|s| self.asks_at(s, *cut)).map(|s| s.id.as_str()).collect();
            let asked = match asked.as_slice() {
                [] => String::new(),
                ids => format!(", about which {} ask", ids.join(", ")),
            };
            let what = format!("no grade begins at the cut {cut}{asked}");
            document.wrong(mistakes, &["grade"], what, cuts.clone(), "let a grade begin there; city.toml has the cuts");
        }
        let lowest = self.city.cuts.first().map_or(i64::MAX, |cut| i64::from(*cut));
        let between = |min: i64| min > lowest && !self.city.cuts.iter().any(|cut| i64::from(*cut) == min);
        for grade in model.grades.iter().filter(|grade| between(grade.min)) {
            let what = format!("the grade \"{}\" begins at {}, which is no cut of the city", grade.code, grade.min);
            let help = "move the grade: a named grade must not tell more than the cuts";
            document.wrong(mistakes, &["grade", grade.code.as_str(), "min"], what, cuts.clone(), help);
        }
    }

    fn asks_at(&self, scenario: &crate::scenario::Scenario, cut: u16) -> bool {
        match &scenario.question {
            Question::ScoreAtLeast(score) => *score == cut,
            Question::GradeAtLeast(code) => {
                self.in_force.grades.iter().any(|g| g.code == *code && g.min == i64::from(cut))
            }
            Question::GradeNamed => true,
        }
    }

    fn questions_fit(&self, model: &Model, document: &Document<'_>, mistakes: &mut Mistakes) {
        let lowest = self.city.cuts.first().map_or(i64::MAX, |cut| i64::from(*cut));
        for scenario in self.scenarios.values() {
            let named = scenario.question == Question::GradeNamed;
            let code = match &scenario.question {
                Question::ScoreAtLeast(_) => continue,
                Question::GradeAtLeast(code) => code.as_str(),
                Question::GradeNamed => "good",
            };
            let path = ["grade", code, "min"];
            let Some(grade) = model.grades.iter().find(|grade| grade.code.as_str() == code) else {
                let what = format!("no grade \"{code}\", about which the scenario {} asks", scenario.id);
                let help = "add the grade, or change the question in scenarios.toml first";
                document.wrong(mistakes, &["grade"], what, format!("a grade with the code \"{code}\""), help);
                continue;
            };
            if named && lowest < grade.min {
                let what =
                    format!("\"good\" begins at {}, and {} names grades from {lowest} up", grade.min, scenario.id);
                let expected = format!("at most {lowest}, the lowest cut");
                document.wrong(mistakes, &path, what, expected, "let it begin at the lowest cut");
            }
            if !named && !self.city.cuts.iter().any(|cut| i64::from(*cut) == grade.min) {
                let what = format!("the grade \"{code}\", about which {} asks, begins at {}", scenario.id, grade.min);
                let expected = format!("one of the city's cuts {:?}", self.city.cuts);
                document.wrong(mistakes, &path, what, expected, "let it begin at a cut");
            }
        }
    }

    /// INVARIANT (few cuts), second half, for a model that is not in the folder.
    fn steps_are_fixed(&self, model: &Model, document: &Document<'_>, mistakes: &mut Mistakes) {
        let asking = self.scenarios.values().flat_map(|scenario| &scenario.parties);
        let asking = asking
            .filter_map(|id| self.parties.get(id))
            .filter(|party| party.roles.contains(&PartyRole::Merchant) || party.roles.contains(&PartyRole::Department));
        let asking: BTreeSet<&str> = asking.map(|party| party.organisation.as_str()).collect();
        for indicator in self.catalogue.iter() {
            let code = indicator.code.as_str();
            if model.rules.get(code).is_none_or(crate::model::Rule::is_one_fixed_step) {
                continue;
            }
            let asks = |id: &&crate::code::PartyId| {
                self.parties.get(*id).is_some_and(|party| asking.contains(party.organisation.as_str()))
            };
            if let Some(provider) = indicator.providers.iter().find(asks) {
                let what = format!(
                    "\"{provider}\" provides \"{code}\" and its organisation asks, so it could move a score by its choice"
                );
                let expected = "one fixed step: one weight, `count` \"highest\" or \"latest\"";
                document.wrong(
                    mistakes,
                    &["indicator", code],
                    what,
                    expected,
                    "give it one weight, and count one record",
                );
            }
        }
    }
}
