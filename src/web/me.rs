//! What a person sees: the score and why, what answers would be today, who asked.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use super::WebState;
use super::figures::{self, Bar, Tick};
use super::page::{Area, Page, show};
use super::request::{Fields, Resident, Seen};
use super::say::{points, time};
use super::stop::Stop;
use super::words::Lang;
use crate::catalogue::Indicator;
use crate::gateway::{AccessView, EntryId, ScoreView};
use crate::score::{Counting, DimensionHold, RecordPart, ScoreHold, Status, Suggestion};

/// How many entries of who asked are on one page.
const ACCESSES_PAGE: usize = 50;

#[derive(Template)]
#[template(path = "score.html")]
struct ScorePage {
    page: Page,
    score: Option<Scored>,
    none: &'static str,
    as_of: String,
    next_change: String,
    held: Option<String>,
    raise: Vec<String>,
    base: String,
    parts: Vec<Part>,
    others: Vec<Line>,
    changes: Vec<String>,
    model: String,
}

struct Scored {
    number: u16,
    grade: String,
    ticks: Vec<Tick>,
}

/// A dimension with its records.
struct Part {
    name: String,
    points: String,
    range: String,
    count: String,
    held: Option<&'static str>,
    bar: Bar,
    lines: Vec<Line>,
}

struct Line {
    name: String,
    from: String,
    points: String,
    day: String,
    until: String,
    why: String,
}

pub(super) async fn score(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Resident(login): Resident,
) -> Result<Response, Stop> {
    let view = state.gateway().score(&login).await?;
    show(&score_page(&state, &seen, &view))
}

fn score_page(state: &WebState, seen: &Seen, view: &ScoreView) -> ScorePage {
    let (lang, w) = (seen.lang, seen.lang.words());
    let (explanation, policies) = (&view.explanation, &view.policies);
    let model = policies.model_in_force();
    let outcome = &explanation.outcome;
    let indicator = |code: &str| policies.catalogue.get(code);
    let line = |record: &RecordPart| {
        let mut line = line(lang, record, indicator(record.indicator.as_str()), &policies.parties);
        let said = view.withdrawals.iter().find(|(by, id, _)| *by == record.provider && *id == record.id);
        if let Some((.., reason)) = said {
            line.why.push_str(&format!("{}{reason}", lang.pick("：", ": ")));
        }
        line
    };
    let score = outcome.score.map(|number| {
        let code = outcome.grade.as_ref().map_or("", |grade| grade.as_str());
        let grade = model.grades.iter().find(|grade| grade.code.as_str() == code);
        let grade = lang.name(grade.and_then(|grade| grade.name.as_ref()), code);
        Scored { number, grade, ticks: figures::ticks(&policies.city.cuts) }
    });
    let most = model.dimensions.values().map(|part| part.max_gain.max(part.max_loss)).max().unwrap_or(1);
    let in_part = |record: &&RecordPart, code: &str| {
        let rule = model.rules.get(&record.indicator).filter(|_| record.counting != Counting::NotInModel);
        rule.is_some_and(|rule| rule.dimension.as_str() == code)
    };
    let parts = explanation.dimensions.iter().map(|sum| {
        let dimension = model.dimensions.get(&sum.code);
        let lines: Vec<Line> =
            explanation.records.iter().filter(|record| in_part(record, sum.code.as_str())).map(line).collect();
        Part {
            name: lang.name(dimension.and_then(|dimension| dimension.name.as_ref()), sum.code.as_str()),
            points: points(sum.counted),
            range: lang.part_of(sum.max_loss, sum.max_gain),
            count: lang.records(lines.len()),
            held: sum.held_by.map(|hold| match hold {
                DimensionHold::MaxGain => w.held_gain,
                DimensionHold::MaxLoss => w.held_loss,
            }),
            bar: figures::bar(sum.counted, sum.max_gain, sum.max_loss, most),
            lines,
        }
    });
    let parts: Vec<Part> = parts.collect();
    let scored = score.is_some();
    let outside = |record: &&RecordPart| !scored || !model.rules.contains_key(&record.indicator);
    ScorePage {
        page: Page::new(state, seen, Area::Person, "/me", w.score_title),
        none: match outcome.status {
            Status::Scored => "",
            Status::UnderAge => w.score_none_under_age,
            Status::NotResident => w.score_none_not_resident,
            Status::NoFullCapacity => w.score_none_no_capacity,
        },
        score,
        as_of: lang.as_of(view.day),
        next_change: lang.next_change(explanation.next_change),
        held: explanation.held_by.map(|hold| match hold {
            ScoreHold::Floor => w.score_held_floor.to_owned(),
            ScoreHold::Ceiling => w.score_held_ceiling.to_owned(),
            ScoreHold::Limit(limit) => lang.limited_to(limit),
        }),
        raise: explanation.would_raise.iter().map(|s| suggestion(lang, s, &indicator)).collect(),
        base: explanation.base.to_string(),
        parts,
        others: explanation.records.iter().filter(outside).map(line).collect(),
        changes: view.changes.iter().map(|change| lang.changed(change)).collect(),
        model: explanation.model.clone(),
    }
}

fn suggestion<'a>(lang: Lang, suggestion: &Suggestion, indicator: &impl Fn(&str) -> Option<&'a Indicator>) -> String {
    let name = |code: &str| lang.name(indicator(code).and_then(|known| known.name.as_ref()), code);
    match suggestion {
        Suggestion::Earn { indicator: code, quantity, gain } => {
            let unit = indicator(code.as_str()).and_then(|known| known.unit.as_deref());
            lang.earn(&name(code.as_str()), quantity.zip(unit), *gain)
        }
        Suggestion::Outlast { indicator: code, ends_on, gain, .. } => {
            lang.outlast(&name(code.as_str()), *ends_on, *gain)
        }
    }
}

fn line(
    lang: Lang,
    record: &RecordPart,
    indicator: Option<&Indicator>,
    parties: &std::collections::BTreeMap<crate::code::PartyId, crate::party::Party>,
) -> Line {
    let provider = parties.get(&record.provider).map(|party| &party.name);
    let mut why = vec![lang.why(record.counting).to_owned()];
    if let Some((quantity, unit)) = record.quantity.zip(indicator.and_then(|known| known.unit.as_deref())) {
        why.push(lang.quantity(quantity, unit));
    }
    if record.counting == Counting::Counts && record.weight != 100 {
        why.push(lang.weighed(record.weight));
    }
    if let Some(limit) = record.limits_score_to.filter(|_| record.counting == Counting::Counts) {
        why.push(lang.limited_to(limit));
    }
    let counts = record.counting == Counting::Counts;
    Line {
        name: lang.name(indicator.and_then(|known| known.name.as_ref()), record.indicator.as_str()),
        from: lang.name(provider, record.provider.as_str()),
        points: points(if counts { record.points } else { 0 }),
        day: lang.short_day(record.occurred_on),
        until: record.counts_until.map_or_else(|| "—".to_owned(), |day| lang.short_day(day)),
        why: why.join(lang.pick("；", "; ")),
    }
}

#[derive(Template)]
#[template(path = "answers.html")]
struct AnswersPage {
    page: Page,
    fixed: bool,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    title: String,
    benefit: String,
    met: bool,
    basic: bool,
}

pub(super) async fn answers(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Resident(login): Resident,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let (mut rows, mut fixed) = (Vec::new(), false);
    for scenario in policies.scenarios.values() {
        let look = state.gateway().look(&login, scenario.id.as_str()).await?;
        fixed = look.fixed;
        rows.push(Row {
            id: scenario.id.to_string(),
            title: seen.lang.of(&scenario.title).to_owned(),
            benefit: seen.lang.of(&scenario.benefit).to_owned(),
            met: look.decision.met,
            basic: scenario.basic_service,
        });
    }
    // A stable order: what there is for the person first.
    rows.sort_by_key(|row| !row.met);
    let page = Page::new(&state, &seen, Area::Person, "/me/answers", seen.lang.words().answers_title);
    show(&AnswersPage { page, fixed, rows })
}

#[derive(Template)]
#[template(path = "accesses.html")]
struct AccessesPage {
    page: Page,
    days: Vec<Day>,
    older: Option<EntryId>,
}

struct Day {
    day: String,
    entries: Vec<Asked>,
}

struct Asked {
    index: EntryId,
    time: String,
    say: String,
    look_up: bool,
}

pub(super) async fn accesses(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    fields: Fields,
    Resident(login): Resident,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let before = fields.said("before").map(|id| EntryId::parse(id).ok_or(Stop::Form)).transpose()?;
    let views = state.gateway().accesses(&login, before, ACCESSES_PAGE).await?;
    let older = views.last().filter(|_| views.len() == ACCESSES_PAGE).map(AccessView::id);
    let mut days: Vec<Day> = Vec::new();
    for view in &views {
        let day = seen.lang.day(crate::clock::day_of(view.at));
        if days.last().is_none_or(|last| last.day != day) {
            days.push(Day { day, entries: Vec::new() });
        }
        if let Some(last) = days.last_mut() {
            last.entries.push(asked(seen.lang, view, &policies));
        }
    }
    let page = Page::new(&state, &seen, Area::Person, "/me/accesses", seen.lang.words().accesses_title);
    show(&AccessesPage { page, days, older })
}

fn asked(lang: Lang, view: &AccessView, policies: &crate::policies::PolicySet) -> Asked {
    let party = view.party.as_ref().map(|id| lang.name(policies.parties.get(id).map(|p| &p.name), id.as_str()));
    let scenario = view.scenario.as_ref();
    let benefit = scenario.map(|id| lang.name(policies.scenarios.get(id).map(|s| &s.title), id.as_str()));
    Asked {
        index: view.id(),
        time: time(view.at),
        say: lang.asked(party.as_deref(), benefit.as_deref()),
        look_up: party.is_none(),
    }
}

/// The proof of one entry of who asked, as a file: only of the person's own entries.
pub(super) async fn proof(
    State(state): State<Arc<WebState>>,
    Path(index): Path<String>,
    Resident(login): Resident,
) -> Result<Response, Stop> {
    let id = EntryId::parse(&index).ok_or(Stop::Gone)?;
    let proof = state.gateway().access_proof(&login, id).await?.ok_or(Stop::Gone)?;
    Ok(file(id, proof.to_text()))
}

fn file(index: EntryId, text: String) -> Response {
    let named = format!("attachment; filename=\"jadegate-{index}.tlog-proof\"");
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.extend(HeaderValue::try_from(named).map(|named| (header::CONTENT_DISPOSITION, named)));
    response
}
