//! A small city of our own, tables of expected scores, and properties over drawn records.

use jiff::ToSpan;
use jiff::civil::date;
use proptest::prelude::*;

use super::*;
use crate::code::{PartyId, RecordId};
use crate::person::{IdType, Identity, Name};
use crate::policy::{Mistakes, Source};
use crate::record::{Record, Repair};

const CATALOGUE: &str = r#"
[[indicator]]
code = "judgment"
category = "judicial"
providers = ["yx-court"]
valid_for_years = 2
valid_for_years_max = 5
[[indicator]]
code = "dishonesty"
category = "serious-dishonesty"
providers = ["yx-court"]
[[indicator]]
code = "fine"
category = "compliance"
providers = ["yx-court"]
unit = "fine"
[[indicator]]
code = "honour"
category = "honour"
providers = ["yx-office"]
valid_for_years = 5
[[indicator]]
code = "rating"
category = "evaluation"
providers = ["yx-office"]
counts_until = "2027-01-01"
[[indicator]]
code = "hours"
category = "social-activity"
providers = ["yx-office"]
unit = "hour"
[[indicator]]
code = "unnamed"
category = "basic"
providers = ["yx-office"]
"#;

const MODEL: &str = r#"
[model]
id = "small"
base = 500
floor = 100
ceiling = 700
[[grade]]
code = "fair"
min = 500
[[grade]]
code = "good"
min = 600
[[grade]]
code = "low"
min = 0
[[dimension]]
code = "lawfulness"
max_gain = 0
max_loss = 450
[[dimension]]
code = "merit"
max_gain = 220
max_loss = 30
[[indicator]]
code = "judgment"
dimension = "lawfulness"
points = -90
weight_by_year = [100, 60]
[[indicator]]
code = "dishonesty"
dimension = "lawfulness"
points = -10
limits_score_to = 499
[[indicator]]
code = "fine"
dimension = "lawfulness"
points = -1
per = 3
cap = 20
[[indicator]]
code = "honour"
dimension = "merit"
points = 80
count = "highest"
weight_by_year = [100, 90, 75, 50, 25]
[[indicator]]
code = "rating"
dimension = "merit"
points = -15
count = "latest"
[[indicator]]
code = "hours"
dimension = "merit"
points = 1
per = 3
cap = 150
weight_by_year = [100, 66, 33]
"#;

fn city() -> (Catalogue, Model) {
    let mut mistakes = Mistakes::default();
    let catalogue = Catalogue::parse(&Source::new("catalogue.toml", CATALOGUE), None, &mut mistakes).unwrap();
    let model = Model::parse(&Source::new("model.toml", MODEL), &catalogue, &mut mistakes).unwrap();
    (catalogue, model)
}

fn born(number: &str) -> Person {
    let identity = Identity::parse(IdType::ResidentId, number, date(2026, 11, 24)).unwrap();
    let born_on = identity.birth_date().unwrap();
    Person { identity, name: Name::parse("王芳").unwrap(), born_on, resident: true, full_capacity: true }
}

fn adult() -> Person {
    born("530499199001010015")
}

fn a(indicator: &str, occurred_on: Date) -> Held {
    Held::new(Record {
        id: RecordId::parse(&format!("{indicator} of {occurred_on}")).unwrap(),
        provider: PartyId::parse("yx-court").unwrap(),
        indicator: IndicatorCode::parse(indicator).unwrap(),
        identity: adult().identity,
        name: Name::parse("王芳").unwrap(),
        occurred_on,
        valid_until: None,
        quantity: None,
        consent_ref: None,
        detail: None,
    })
}

fn many(indicator: &str, occurred_on: Date, quantity: u32) -> Held {
    let mut held = a(indicator, occurred_on);
    held.record.quantity = Some(quantity);
    held
}

fn until(mut held: Held, day: Date) -> Held {
    held.record.valid_until = Some(day);
    held
}

fn repaired(mut held: Held, repair: Repair) -> Held {
    held.repair = Some(repair);
    held
}

fn score(records: &[Held], on: Date) -> i64 {
    let (catalogue, model) = city();
    evaluate(&adult(), records, &catalogue, &model, on).score.unwrap().into()
}

const ON: Date = date(2026, 11, 24);

#[test]
fn what_records_give() {
    let recent = date(2026, 6, 1);
    for (what, records, expected) in [
        ("nothing", vec![], 500),
        ("one this year", vec![a("judgment", recent)], 410),
        ("60 percent after a full year", vec![a("judgment", date(2025, 11, 24))], 446),
        ("a full year not yet", vec![a("judgment", date(2025, 11, 25))], 410),
        ("rounded toward zero: 200 units / 3", vec![many("hours", recent, 200)], 566),
        ("66 percent of 200 / 3 is 44.00", vec![many("hours", date(2025, 1, 1), 200)], 544),
        ("a third below zero rounds the score down", vec![many("fine", recent, 1)], 499),
        ("held by its cap", vec![many("fine", recent, 1_000_000)], 480),
        ("the most of everything does not wrap", vec![many("hours", recent, 1_000_000); 2_000], 650),
        ("highest: the one furthest from zero", vec![a("honour", date(2024, 1, 1)), a("honour", recent)], 580),
        ("the ceiling of a dimension", vec![a("honour", recent), many("hours", recent, 450)], 700),
        ("the floor of a dimension", vec![a("judgment", recent); 6], 100),
        ("limits_score_to", vec![a("dishonesty", recent), a("honour", recent)], 499),
        ("limits_score_to of a record that does not count yet", vec![a("dishonesty", date(2026, 11, 25))], 500),
        ("not in the model", vec![a("unnamed", recent)], 500),
        ("latest: only one", vec![a("rating", recent), a("rating", date(2026, 1, 1))], 485),
    ] {
        assert_eq!(score(&records, ON), expected, "{what}");
    }
}

#[test]
fn the_days_on_which_a_record_counts() {
    let judgment = || a("judgment", date(2025, 6, 1));
    let on = date(2026, 1, 1);
    let shorten = |until| Repair::Shorten { on, until };
    for (what, held, first, day_after) in [
        ("the catalogue's years", judgment(), date(2025, 6, 1), date(2027, 6, 1)),
        ("its own end", until(judgment(), date(2026, 3, 1)), date(2025, 6, 1), date(2026, 3, 1)),
        ("its own end, held by the law", until(judgment(), date(2099, 1, 1)), date(2025, 6, 1), date(2030, 6, 1)),
        ("a leap day", a("judgment", date(2024, 2, 29)), date(2024, 2, 29), date(2026, 2, 28)),
        ("an indicator that the city ended", a("rating", date(2026, 6, 1)), date(2026, 6, 1), date(2027, 1, 1)),
        ("excluded", repaired(judgment(), Repair::Exclude { on }), date(2025, 6, 1), on),
        ("shortened", repaired(judgment(), shorten(date(2026, 2, 1))), date(2025, 6, 1), date(2026, 2, 1)),
        ("shortened to a day that has passed", repaired(judgment(), shorten(date(2025, 7, 1))), date(2025, 6, 1), on),
    ] {
        let counts = |day: Date| score(std::slice::from_ref(&held), day) != 500;
        assert!(counts(first), "{what}: first day");
        assert!(!counts(first.yesterday().unwrap()), "{what}: the day before the first");
        assert!(counts(day_after.yesterday().unwrap()), "{what}: last day");
        assert!(!counts(day_after), "{what}: the day after");
    }
    for (withdrawn, frozen) in [(true, false), (false, true)] {
        assert_eq!(score(&[Held { withdrawn, frozen, ..judgment() }], on), 500);
    }
}

#[test]
fn who_is_scored() {
    let (catalogue, model) = city();
    let status = |person: &Person, on| evaluate(person, &[], &catalogue, &model, on).status;
    let leap = born("530499200802290016");
    assert_eq!(status(&leap, date(2026, 2, 27)), Status::UnderAge);
    assert_eq!(status(&leap, date(2026, 2, 28)), Status::Scored);
    let gone = Person { resident: false, full_capacity: false, ..born("530499200802290016") };
    assert_eq!(status(&gone, date(2026, 2, 27)), Status::UnderAge);
    assert_eq!(status(&gone, date(2026, 2, 28)), Status::NotResident);
    assert_eq!(status(&Person { full_capacity: false, ..adult() }, ON), Status::NoFullCapacity);
    let outcome = evaluate(&gone, &[a("honour", ON)], &catalogue, &model, ON);
    assert_eq!((outcome.score, outcome.grade), (None, None));
    assert_eq!(next_change(&leap, &[], &catalogue, &model, date(2026, 2, 1)), Some(date(2026, 2, 28)));
    assert_eq!(next_boundary(&gone, &[a("honour", ON)], &catalogue, &model, ON), None);
}

#[test]
fn a_grade_holds_from_its_min() {
    let (catalogue, model) = city();
    let grade =
        |records: &[Held]| evaluate(&adult(), records, &catalogue, &model, ON).grade.unwrap().as_str().to_owned();
    let day = date(2026, 6, 1);
    assert_eq!(grade(&[]), "fair");
    assert_eq!(grade(&[many("fine", day, 1)]), "low");
    assert_eq!(grade(&[many("hours", day, 300)]), "good");
    assert_eq!(grade(&[many("hours", day, 299)]), "fair");
}

#[test]
fn an_explanation_names_what_held_what() {
    let (catalogue, model) = city();
    let day = date(2026, 6, 1);
    let older = a("honour", date(2025, 6, 1));
    let records = [
        a("honour", day),
        older,
        many("hours", day, 900),
        many("fine", day, 90),
        a("dishonesty", day),
        a("unnamed", day),
        a("judgment", date(2027, 1, 1)),
        a("judgment", date(2020, 1, 1)),
        repaired(a("judgment", day), Repair::Exclude { on: ON }),
        Held { withdrawn: true, ..a("judgment", day) },
        Held { frozen: true, ..a("judgment", day) },
    ];
    let told = explain(&adult(), &records, &catalogue, &model, ON);
    assert_eq!(told.outcome, evaluate(&adult(), &records, &catalogue, &model, ON));
    assert_eq!(told.held_by, Some(ScoreHold::Limit(499)));
    let counting: Vec<_> = told.records.iter().map(|part| part.counting.as_str()).collect();
    let expected = "counts not-highest counts counts counts not-in-model not-yet ended repaired withdrawn frozen";
    assert_eq!(counting.join(" "), expected);
    let older = &told.records[1];
    assert_eq!((older.points, older.whole_points(), older.full_years, older.weight), (7_200, 72, 1, 90));
    assert_eq!((older.counts_from, older.counts_until), (Some(date(2025, 6, 1)), Some(date(2030, 6, 1))));
    let merit = told.dimensions.iter().find(|dimension| dimension.code.as_str() == "merit").unwrap();
    assert_eq!((merit.sum, merit.counted, merit.held_by), (23_000, 22_000, Some(DimensionHold::MaxGain)));
    let hours = merit.indicators.iter().find(|indicator| indicator.code.as_str() == "hours").unwrap();
    assert_eq!((hours.sum, hours.counted, hours.capped()), (30_000, 15_000, true));
    // Nothing can be earned while the limit holds; the record that sets it can be outlasted.
    let Suggestion::Outlast { record, ends_on, gain, .. } = &told.would_raise[0] else { panic!("{told:?}") };
    assert_eq!((record.as_str(), *ends_on, *gain), ("dishonesty of 2026-06-01", date(2029, 6, 1), 20_100));
    assert_eq!(told.would_raise.len(), 1);
}

#[test]
fn suggestions_give_what_they_promise() {
    let (catalogue, model) = city();
    let records = [a("judgment", date(2026, 6, 1)), many("hours", date(2026, 6, 1), 447)];
    let told = explain(&adult(), &records, &catalogue, &model, ON);
    let said: Vec<_> = told.would_raise.iter().map(|s| (matches!(s, Suggestion::Earn { .. }), s.gain())).collect();
    // 90 without the judgment, 80 by an honour, and 1 by the three hours left below the cap.
    assert_eq!(said, [(false, 9_000), (true, 7_100), (true, 100)]);
    for (suggestion, more) in told.would_raise.iter().zip([None, Some(a("honour", ON)), Some(many("hours", ON, 3))]) {
        let mut changed = records.to_vec();
        match more {
            None => drop(changed.remove(0)),
            Some(more) => changed.push(more),
        }
        assert_eq!(score(&changed, ON) - score(&records, ON), suggestion.gain() / 100);
    }
    let gone = Person { resident: false, ..adult() };
    let told = explain(&gone, &records, &catalogue, &model, ON);
    assert!(told.would_raise.is_empty() && told.dimensions.is_empty() && told.next_change.is_none());
    assert_eq!(told.records.len(), 2);
}

/// What lies below the floor has to be made up for first: nothing is promised that would not show.
#[test]
fn suggestions_at_the_floor_promise_what_shows() {
    let (catalogue, mut model) = city();
    model.floor = 200;
    let judgments: Vec<_> = (0..4i32).map(|n| a("judgment", date(2026, 6, 1).saturating_sub(n.days()))).collect();
    let told = explain(&adult(), &judgments, &catalogue, &model, ON);
    assert_eq!((told.total, told.held_by), (14_000, Some(ScoreHold::Floor)));
    let without = evaluate(&adult(), &judgments[1..], &catalogue, &model, ON).score.unwrap();
    assert_eq!(without, 230, "90 points less against them, 60 of which the floor had swallowed");
    assert_eq!(told.would_raise.iter().map(Suggestion::gain).collect::<Vec<_>>(), [3_000, 3_000, 3_000]);
}

const CODES: [&str; 7] = ["judgment", "dishonesty", "fine", "honour", "rating", "hours", "unnamed"];

fn some_day() -> impl Strategy<Value = Date> {
    (0i64..2_600).prop_map(|days| date(2020, 2, 29).checked_add(jiff::Span::new().days(days)).unwrap())
}

fn some_record() -> impl Strategy<Value = Held> {
    let repair = prop_oneof![
        4 => Just(None),
        1 => some_day().prop_map(|on| Some(Repair::Exclude { on })),
        1 => (some_day(), some_day()).prop_map(|(on, until)| Some(Repair::Shorten { on, until })),
    ];
    let drawn = (0..CODES.len(), some_day(), prop::option::of(1i64..2_000), 1u32..400, repair, 0u8..20);
    drawn.prop_map(|(code, day, valid, quantity, repair, state)| {
        let code = CODES[code];
        let mut held = a(code, day);
        held.record.valid_until = valid.map(|days| day.checked_add(jiff::Span::new().days(days)).unwrap());
        held.record.quantity = ["fine", "hours"].contains(&code).then_some(quantity);
        Held { repair, withdrawn: state == 0, frozen: state == 1, ..held }
    })
}

fn some_records() -> impl Strategy<Value = Vec<Held>> {
    prop::collection::vec(some_record(), 0..25)
}

proptest! {
    #[test]
    fn the_order_of_records_changes_nothing(
        (records, shuffled) in some_records().prop_flat_map(|r| (Just(r.clone()), Just(r).prop_shuffle())),
        on in some_day(),
    ) {
        let (catalogue, model) = city();
        let told = explain(&adult(), &records, &catalogue, &model, on);
        let again = explain(&adult(), &shuffled, &catalogue, &model, on);
        prop_assert_eq!(evaluate(&adult(), &shuffled, &catalogue, &model, on), told.outcome);
        prop_assert_eq!(told.dimensions, again.dimensions);
        prop_assert_eq!(told.next_change, again.next_change);
        let gains = |s: &[Suggestion]| s.iter().map(Suggestion::gain).collect::<Vec<_>>();
        prop_assert_eq!(gains(&told.would_raise), gains(&again.would_raise));
    }

    #[test]
    fn caps_and_limits_hold(records in some_records(), on in some_day()) {
        let (catalogue, model) = city();
        let told = explain(&adult(), &records, &catalogue, &model, on);
        let score = i64::from(told.outcome.score.unwrap());
        prop_assert!((model.floor..=model.ceiling).contains(&score));
        prop_assert_eq!(told.outcome, evaluate(&adult(), &records, &catalogue, &model, on));
        let mut total = model.base * 100;
        for dimension in &told.dimensions {
            prop_assert!((-dimension.max_loss * 100..=dimension.max_gain * 100).contains(&dimension.counted));
            prop_assert_eq!(dimension.sum, dimension.indicators.iter().map(|i| i.counted).sum::<i64>());
            for indicator in &dimension.indicators {
                prop_assert!(indicator.cap.is_none_or(|cap| indicator.counted.abs() <= cap * 100));
                let counting = told.records.iter()
                    .filter(|part| part.indicator == indicator.code && part.counting == Counting::Counts);
                prop_assert_eq!(indicator.sum, counting.map(|part| part.points).sum::<i64>());
            }
            total += dimension.counted;
        }
        prop_assert_eq!(told.total, total);
        if told.held_by.is_none() {
            prop_assert_eq!(score, total.div_euclid(100));
        }
        for part in told.records.iter().filter(|part| part.counting == Counting::Counts) {
            prop_assert!(part.limits_score_to.is_none_or(|limit| score <= limit));
        }
    }

    #[test]
    fn nothing_changes_before_the_next_boundary_nor_before_the_next_change(
        records in some_records(), on in some_day(), resident in prop::bool::weighted(0.9),
    ) {
        let (catalogue, model) = city();
        let person = Person { resident, ..born("530499200802290016") };
        let outcome = |day| evaluate(&person, &records, &catalogue, &model, day);
        let boundary = next_boundary(&person, &records, &catalogue, &model, on);
        let change = next_change(&person, &records, &catalogue, &model, on);
        prop_assert_eq!(explain(&person, &records, &catalogue, &model, on).next_change, change);
        let (today, mut day) = (outcome(on), on);
        for _ in 0..4_000 {
            day = day.tomorrow().unwrap();
            if outcome(day) != today {
                break;
            }
        }
        let really = (outcome(day) != today).then_some(day);
        prop_assert_eq!(change, really);
        if let Some(change) = change {
            prop_assert!(boundary.is_some_and(|boundary| on < boundary && boundary <= change));
        }
    }
}

#[test]
fn full_years_are_counted_by_the_anniversaries_of_add_years() {
    for since in [date(2020, 2, 29), date(2019, 2, 28), date(2019, 3, 1), date(2019, 12, 31), date(2020, 1, 1)] {
        for day in 0..1_600 {
            let on = since.checked_add(day.days()).unwrap();
            let years = (1..).take_while(|years| add_years(since, *years) <= on).count();
            assert_eq!(full_years(since, on), years, "{since} {on}");
        }
    }
}
