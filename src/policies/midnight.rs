//! What of a new policy set holds at once, and what waits for the next day.

use super::PolicySet;
use crate::party::Party;
use crate::scenario::Scenario;

impl PolicySet {
    /// The set that holds from the load of `new` until midnight, where `old` is the set that holds until then (itself the
    /// result of this function, if one was loaded earlier the same day). From midnight on `new` holds.
    ///
    /// INVARIANT (policies are evidence): nobody can open a door and close it again within a day unseen. Rule by rule:
    ///
    /// | what | in `new` | until midnight |
    /// | --- | --- | --- |
    /// | cuts | changed | those of `old` |
    /// | days for comment on a model | more | those of `new` |
    /// | | fewer | those of `old` |
    /// | a scenario | gone | gone |
    /// | | added | not there yet |
    /// | its question | changed | that of `old` |
    /// | its parties | one gone | gone |
    /// | | one added | not there yet; a scenario that is left without a party is not there |
    /// | its most uses, most days, answer's minutes | lower | lower |
    /// | | higher | those of `old` |
    /// | its usual uses and days | changed | those of `new`, within the most that hold |
    /// | one a person | taken away | taken away: no pseudonym is given |
    /// | | added | not yet |
    /// | a party | gone | gone, from scenarios too |
    /// | | added | not there yet |
    /// | its roles, certificates, keys | one gone | gone |
    /// | | one added | not there yet; a key that changes under its id is both |
    /// | titles, benefits, names, organisations, catalogue, models, access, prohibited items, limits, time to answer | changed | those of `new` |
    ///
    /// Digest and files are those of `new`. What `new` was checked for holds in the result too: whoever asks in it asks in
    /// `new`, and organisations, catalogue and models, by which few cuts are kept against who asks and reports, are those
    /// of `new`; cuts and questions are those of `old`, which fit each other.
    pub fn until_midnight(old: &PolicySet, new: &PolicySet) -> PolicySet {
        let mut set = new.clone();
        set.city.cuts.clone_from(&old.city.cuts);
        set.city.model_comment_days = new.city.model_comment_days.max(old.city.model_comment_days);
        set.parties =
            new.parties.iter().filter_map(|(id, new)| Some((id.clone(), party(old.parties.get(id)?, new)))).collect();
        let scenarios =
            new.scenarios.iter().filter_map(|(id, new)| Some((id.clone(), scenario(old.scenarios.get(id)?, new)?)));
        set.scenarios = scenarios.collect();
        set
    }
}

fn party(old: &Party, new: &Party) -> Party {
    Party {
        id: new.id.clone(),
        name: new.name.clone(),
        organisation: new.organisation.clone(),
        roles: new.roles.intersection(&old.roles).copied().collect(),
        certificates: new.certificates.iter().filter(|c| old.certificates.contains(c)).copied().collect(),
        keys: new.keys.iter().filter(|k| old.keys.contains(k)).cloned().collect(),
    }
}

fn scenario(old: &Scenario, new: &Scenario) -> Option<Scenario> {
    let (uses_max, days_max) = (new.uses_max.min(old.uses_max), new.days_max.min(old.days_max));
    let held = Scenario {
        question: old.question.clone(),
        parties: new.parties.iter().filter(|p| old.parties.contains(p)).cloned().collect(),
        uses: new.uses.min(uses_max),
        uses_max,
        days: new.days.min(days_max),
        days_max,
        answer_minutes: new.answer_minutes.min(old.answer_minutes),
        one_a_person: new.one_a_person && old.one_a_person,
        ..new.clone()
    };
    (!held.parties.is_empty()).then_some(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::shipped;
    use crate::scenario::Question;

    fn set(edits: &[(&str, &str, &str)]) -> PolicySet {
        let mut files = shipped();
        // two parties with proofs, so that they can be taken away and added
        let proofs = [
            ("roles = [\"department\"]\n", format!("roles = [\"department\"]\ncertificates = [{}]\n", certificate(1))),
            ("roles = [\"merchant\"]\n", format!("roles = [\"merchant\"]\n{}", key("a"))),
        ];
        let proofs = proofs.iter().map(|(from, to)| ("parties.toml", *from, to.as_str()));
        for (name, from, to) in proofs.chain(edits.iter().copied()) {
            let text = String::from_utf8(files.remove(name).unwrap()).unwrap();
            assert!(text.contains(from), "{name} does not say {from}");
            files.insert(name.to_owned(), text.replacen(from, to, 1).into_bytes());
        }
        PolicySet::parse(files).unwrap_or_else(|m| panic!("{m}"))
    }

    fn certificate(n: usize) -> String {
        format!("\"sha256:{n:064}\"")
    }

    fn key(file: &str) -> String {
        format!("[[party.key]]\nid = \"bike-1\"\nalg = \"hmac-sha256\"\nfile = \"{file}\"\n")
    }

    /// What differs between two sets of what this file is about, a line each.
    fn differences(a: &PolicySet, b: &PolicySet) -> Vec<String> {
        let told = |set: &PolicySet| -> Vec<String> {
            let city = format!("city {:?} {:?}", set.city.cuts, set.city.limits.calls_burst);
            let scenarios = set.scenarios.values().map(|s| format!("{s:?}"));
            let parties = set.parties.values().map(|p| format!("{p:?}"));
            let catalogue = set.catalogue.iter().map(|i| format!("{i:?}"));
            [city].into_iter().chain(scenarios).chain(parties).chain(catalogue).collect()
        };
        let (a, b) = (told(a), told(b));
        a.iter().filter(|x| !b.contains(x)).chain(b.iter().filter(|x| !a.contains(x))).cloned().collect()
    }

    /// `edit` there and back: what it does holds at once one way, and waits the other.
    fn at_once_one_way_only(edit: (&str, &str, &str)) {
        let (with, without) = (set(&[]), set(&[edit]));
        assert_ne!(differences(&with, &without), Vec::<String>::new(), "{edit:?} changes nothing");
        let taken = PolicySet::until_midnight(&with, &without);
        assert_eq!(
            differences(&taken, &without),
            Vec::<String>::new(),
            "{edit:?} takes away, and does not hold at once"
        );
        let added = PolicySet::until_midnight(&without, &with);
        assert_eq!(differences(&added, &without), Vec::<String>::new(), "undoing {edit:?} adds, and does not wait");
        assert_eq!((taken.digest, added.digest), (without.digest, with.digest));
        assert_ne!(with.digest, without.digest);
    }

    /// `edit` there and back: the set before it holds until midnight both ways.
    fn waits(edit: (&str, &str, &str)) {
        let (a, b) = (set(&[]), set(&[edit]));
        assert_ne!(differences(&a, &b), Vec::<String>::new(), "{edit:?} changes nothing");
        for (old, new) in [(&a, &b), (&b, &a)] {
            assert_eq!(
                differences(&PolicySet::until_midnight(old, new), old),
                Vec::<String>::new(),
                "{edit:?} does not wait"
            );
        }
    }

    fn at_once(edit: (&str, &str, &str)) {
        let (a, b) = (set(&[]), set(&[edit]));
        assert_ne!(differences(&a, &b), Vec::<String>::new(), "{edit:?} changes nothing");
        for (old, new) in [(&a, &b), (&b, &a)] {
            assert_eq!(
                differences(&PolicySet::until_midnight(old, new), new),
                Vec::<String>::new(),
                "{edit:?} does not hold at once"
            );
        }
    }

    fn without_table(file: &'static str, head: &str, id: &str) -> (&'static str, String, String) {
        let text = String::from_utf8(shipped().remove(file).unwrap()).unwrap();
        let from = format!("\n{head}\nid = \"{id}\"");
        let start = text.find(&from).unwrap();
        let end = text[start + 1..].find("\n\n").map_or(text.len(), |n| start + 1 + n);
        (file, text[start..end].to_owned(), String::new())
    }

    #[test]
    fn what_is_taken_away_goes_at_once_and_what_is_added_waits() {
        let (file, from, to) = without_table("scenarios.toml", "[[scenario]]", "park-year-pass");
        at_once_one_way_only((file, &from, &to));
        at_once_one_way_only(("scenarios.toml", "[\"yx-library\", \"yx-hongta-library\"]", "[\"yx-library\"]"));
        at_once_one_way_only(("scenarios.toml", "uses_max = 300", "uses_max = 299"));
        at_once_one_way_only(("scenarios.toml", "days_max = 365", "days_max = 364"));
        at_once_one_way_only(("scenarios.toml", "answer_minutes = 30", "answer_minutes = 29"));
        at_once_one_way_only(("scenarios.toml", "one_a_person = true", "one_a_person = false"));
        at_once_one_way_only(("parties.toml", &format!("certificates = [{}]\n", certificate(1)), ""));
        at_once_one_way_only(("parties.toml", &key("a"), ""));
        at_once_one_way_only(("parties.toml", "[\"provider\", \"registrar\"]", "[\"provider\"]"));
    }

    #[test]
    fn a_party_that_is_taken_away_is_gone_from_its_scenarios_too() {
        let (file, from, to) = without_table("parties.toml", "[[party]]", "yx-hongta-library");
        let scenarios =
            ("scenarios.toml", "parties = [\"yx-library\", \"yx-hongta-library\"]", "parties = [\"yx-library\"]");
        let (with, without) = (set(&[]), set(&[(file, &from, &to), scenarios, scenarios]));
        for (old, new) in [(&with, &without), (&without, &with)] {
            let held = PolicySet::until_midnight(old, new);
            assert!(!held.parties.contains_key("yx-hongta-library"));
            assert!(held.scenarios.values().all(|s| s.parties.iter().all(|p| held.parties.contains_key(p))));
            assert_eq!(differences(&held, &without), Vec::<String>::new());
        }
    }

    #[test]
    fn cuts_and_questions_wait_both_ways() {
        waits(("scenarios.toml", "question = { score_at_least = 600 }", "question = { score_at_least = 800 }"));
        let fewer = |text: &str| {
            text.replace("score_at_least = 800", "score_at_least = 600").replace("excellent\" }", "good\" }")
        };
        let scenarios = String::from_utf8(shipped().remove("scenarios.toml").unwrap()).unwrap();
        let moved = [
            ("city.toml", "cuts = [600, 800]", "cuts = [600]"),
            ("scenarios.toml", scenarios.as_str(), &fewer(&scenarios)),
        ];
        let excellent =
            "[[grade]]\ncode = \"excellent\"\nname = { zh = \"信用优秀\", en = \"Excellent\" }\nmin = 800\n\n";
        let (old, new) = (set(&[]), set(&[moved[0], moved[1], ("models/yuxi-2026.toml", excellent, "")]));
        assert!(old.cuts_changed(&new) && !old.cuts_changed(&old));
        assert_eq!(PolicySet::until_midnight(&old, &new).city.cuts, [600, 800]);
        assert_eq!(PolicySet::until_midnight(&new, &old).city.cuts, [600]);
    }

    #[test]
    fn a_key_that_changes_is_gone_at_once_and_the_new_one_waits() {
        let (old, new) = (set(&[]), set(&[("parties.toml", &key("a"), &key("b"))]));
        let held = PolicySet::until_midnight(&old, &new);
        assert!(held.parties.values().all(|p| p.keys.is_empty()));
    }

    #[test]
    fn usual_uses_stay_within_the_most_that_hold() {
        let (old, new) =
            (set(&[]), set(&[("scenarios.toml", "uses = 5\nuses_max = 300", "uses = 400\nuses_max = 500")]));
        let held = PolicySet::until_midnight(&old, &new);
        let bike = held.scenarios.get("bike-deposit").unwrap();
        assert_eq!((bike.uses, bike.uses_max), (300, 300));
        assert_eq!(bike.question, Question::ScoreAtLeast(600));
    }

    #[test]
    fn everything_else_is_new_at_once() {
        at_once(("scenarios.toml", "免押金骑行", "信用骑行"));
        at_once(("scenarios.toml", "uses = 5", "uses = 6"));
        at_once(("parties.toml", "玉行单车", "玉行"));
        at_once(("parties.toml", "organisation = \"yx-ebike\"", "organisation = \"yx-bike\""));
        at_once(("catalogue.toml", "valid_for_years = 20", "valid_for_years = 19"));
        at_once(("city.toml", "calls_burst = 800", "calls_burst = 900"));
    }

    /// Twice in a day: what the first load took away does not come back with the second.
    #[test]
    fn what_was_taken_away_today_waits_even_if_it_is_put_back() {
        let (all, fewer) =
            (set(&[]), set(&[("scenarios.toml", "[\"yx-library\", \"yx-hongta-library\"]", "[\"yx-library\"]")]));
        let noon = PolicySet::until_midnight(&all, &fewer);
        let evening = PolicySet::until_midnight(&noon, &all);
        assert_eq!(differences(&evening, &fewer), Vec::<String>::new());
    }
}
