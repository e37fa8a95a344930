//! What an officer sees: the log by its filters, counts, and cases. No outcome, no score, no name.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use jiff::ToSpan;
use jiff::civil::Date;

use super::WebState;
use super::figures::{self, Column};
use super::page::{Area, Page, show, show_as};
use super::request::{Fields, Officer, Posted, Seen};
use super::say::time;
use super::stop::Stop;
use crate::access_log::entry::LogAction;
use crate::clock::{day_of, start_of};
use crate::code::{PartyId, ScenarioId};
use crate::gateway::{CaseRequest, EntryId, LogFilter, LogLine, Summary};
use crate::person::{IdType, Identity};
use crate::policies::PolicySet;

/// How many lines are on one page.
const LINES_PAGE: usize = 100;
/// How many days the chart shows at most.
const CHART_DAYS_MAX: i32 = 60;
/// How many rows of counts are listed at most.
const COUNTS_MAX: usize = 500;

/// What the filters offer.
const ACTIONS: [LogAction; 22] = [
    LogAction::Ask,
    LogAction::Refuse,
    LogAction::Report,
    LogAction::Register,
    LogAction::Withdraw,
    LogAction::ReadSent,
    LogAction::Consent,
    LogAction::Revoke,
    LogAction::MarketConsent,
    LogAction::MarketWithdrawal,
    LogAction::MakeCode,
    LogAction::OpenCase,
    LogAction::ConfirmCase,
    LogAction::LookUp,
    LogAction::Policy,
    LogAction::Model,
    LogAction::TryModel,
    LogAction::DraftModel,
    LogAction::ApproveModel,
    LogAction::Restore,
    LogAction::Rotate,
    LogAction::Sweep,
];

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    page: Page,
    parties: Vec<Choice>,
    scenarios: Vec<Choice>,
    actions: Vec<Choice>,
    from: String,
    to: String,
    lines: Vec<Line>,
    older: Option<String>,
    chart: Vec<Column>,
    chart_width: usize,
    first_day: String,
    last_day: String,
    counts: Vec<Count>,
    truncated: bool,
}

/// What a filter offers.
struct Choice {
    value: String,
    label: String,
    chosen: bool,
}

struct Line {
    index: EntryId,
    day: String,
    time: String,
    party: String,
    scenario: String,
    action: String,
    rule: String,
}

struct Count {
    day: String,
    party: String,
    scenario: String,
    action: String,
    count: u64,
}

pub(super) async fn log(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    fields: Fields,
    Officer(staff): Officer,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let filter = filter(&fields)?;
    let lines = state.gateway().access_log(&staff, &filter).await?;
    let summary = state.gateway().summary(&staff, &filter).await?;
    let older = lines.last().filter(|_| lines.len() == LINES_PAGE).map(|last| older(&fields, last.id()));
    let (lang, w) = (seen.lang, seen.lang.words());
    let party_choice =
        |(id, party): (&PartyId, &crate::party::Party)| choice(id.as_str(), lang.of(&party.name), fields.get("party"));
    let scenario_choice = |(id, scenario): (&ScenarioId, &crate::scenario::Scenario)| {
        choice(id.as_str(), lang.of(&scenario.title), fields.get("scenario"))
    };
    let chart = chart(&seen, &summary);
    let days = |row: Option<&crate::gateway::SummaryRow>| row.map_or_else(String::new, |row| lang.short_day(row.day));
    show(&LogPage {
        page: Page::new(&state, &seen, Area::Officer, "/officer", w.log_title),
        parties: policies.parties.iter().map(party_choice).collect(),
        scenarios: policies.scenarios.iter().map(scenario_choice).collect(),
        actions: ACTIONS.map(|a| choice(a.as_str(), lang.action(a.as_str()), fields.get("action"))).into(),
        from: fields.get("from").to_owned(),
        to: fields.get("to").to_owned(),
        lines: lines.iter().map(|line| row(&seen, line, &policies)).collect(),
        older,
        chart_width: (chart.len() * 16).max(160),
        chart,
        first_day: days(summary.rows.first()),
        last_day: days(summary.rows.last()),
        counts: counts(&seen, &summary, &policies),
        truncated: summary.truncated,
    })
}

fn choice(value: &str, label: &str, chosen: &str) -> Choice {
    Choice { value: value.to_owned(), label: label.to_owned(), chosen: value == chosen }
}

/// What the form says; an empty field filters nothing.
fn filter(fields: &Fields) -> Result<LogFilter, Stop> {
    let day = |name: &str| fields.said(name).map(str::parse::<Date>).transpose().map_err(|_| Stop::Form);
    let to = day("to")?.map(|day| day.checked_add(1.day())).transpose().map_err(|_| Stop::Form)?;
    Ok(LogFilter {
        from: day("from")?.map(start_of),
        to: to.map(start_of),
        party: fields.said("party").map(PartyId::parse).transpose().map_err(|_| Stop::Form)?,
        scenario: fields.said("scenario").map(ScenarioId::parse).transpose().map_err(|_| Stop::Form)?,
        action: fields.said("action").map(|word| LogAction::parse(word).ok_or(Stop::Form)).transpose()?,
        case: None,
        limit: LINES_PAGE,
        before: fields.said("before").map(|id| EntryId::parse(id).ok_or(Stop::Form)).transpose()?,
    })
}

/// The address of the page after this one. What filters say is ids and days, so nothing is to be escaped.
fn older(fields: &Fields, before: EntryId) -> String {
    let kept = ["party", "scenario", "action", "from", "to"];
    let kept = kept.iter().filter_map(|name| fields.said(name).map(|value| format!("{name}={value}&")));
    format!("/officer?{}before={before}", kept.collect::<String>())
}

fn row(seen: &Seen, line: &LogLine, policies: &PolicySet) -> Line {
    let scenario = line.scenario.as_ref();
    Line {
        index: line.id(),
        day: day_of(line.at).to_string(),
        time: time(line.at),
        party: party_name(seen, line.party.as_ref(), policies),
        scenario: scenario.map_or_else(|| "—".to_owned(), |id| scenario_name(seen, id, policies)),
        action: seen.lang.action(line.action).to_owned(),
        rule: line.rule.as_ref().map_or_else(|| "—".to_owned(), ToString::to_string),
    }
}

fn party_name(seen: &Seen, party: Option<&PartyId>, policies: &PolicySet) -> String {
    let name = |id: &PartyId| seen.lang.name(policies.parties.get(id).map(|party| &party.name), id.as_str());
    party.map_or_else(|| "—".to_owned(), name)
}

fn scenario_name(seen: &Seen, id: &ScenarioId, policies: &PolicySet) -> String {
    seen.lang.name(policies.scenarios.get(id).map(|scenario| &scenario.title), id.as_str())
}

/// A column for each day from the first to the last, days without entries among them.
fn chart(seen: &Seen, summary: &Summary) -> Vec<Column> {
    let mut by_day: BTreeMap<Date, u64> = BTreeMap::new();
    for row in &summary.rows {
        *by_day.entry(row.day).or_default() += row.count;
    }
    let Some((last, _)) = by_day.last_key_value() else { return Vec::new() };
    let earliest = last.checked_sub((CHART_DAYS_MAX - 1).days()).unwrap_or(*last);
    let first = by_day.first_key_value().map_or(*last, |(first, _)| (*first).max(earliest));
    let days = first.series(1.day()).take_while(|day| day <= last);
    figures::columns(days.map(|day| day_count(seen, day, by_day.get(&day).copied().unwrap_or(0))).collect())
}

fn day_count(seen: &Seen, day: Date, count: u64) -> (String, u64) {
    (seen.lang.entries_on(day, count), count)
}

fn counts(seen: &Seen, summary: &Summary, policies: &PolicySet) -> Vec<Count> {
    let row = |row: &crate::gateway::SummaryRow| Count {
        day: row.day.to_string(),
        party: party_name(seen, row.party.as_ref(), policies),
        scenario: row.scenario.as_ref().map_or_else(|| "—".to_owned(), |id| scenario_name(seen, id, policies)),
        action: seen.lang.action(row.action).to_owned(),
        count: row.count,
    };
    summary.rows.iter().rev().take(COUNTS_MAX).map(row).collect()
}

#[derive(Template)]
#[template(path = "cases.html")]
struct CasesPage {
    page: Page,
    wrong: Option<String>,
    done: Option<&'static str>,
    opened: Option<String>,
    reason: String,
    case: String,
}

fn cases_page(state: &WebState, seen: &Seen) -> CasesPage {
    let page = Page::new(state, seen, Area::Officer, "/officer/cases", seen.lang.words().case_title);
    let page = page.reached_from("/officer/cases");
    CasesPage { page, wrong: None, done: None, opened: None, reason: String::new(), case: String::new() }
}

pub(super) async fn cases(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Officer(_): Officer,
) -> Result<Response, Stop> {
    show(&cases_page(&state, &seen))
}

pub(super) async fn open(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Officer(staff): Officer,
    posted: Posted,
) -> Result<Response, Stop> {
    let fields = &posted.fields;
    let today = day_of(state.app.clock.now());
    let id_type = IdType::parse(fields.get("id_type")).unwrap_or(IdType::ResidentId);
    let reason = fields.get("reason").to_owned();
    let Ok(person) = Identity::parse(id_type, fields.get("id_number"), today) else {
        let wrong = Some(seen.lang.words().case_bad_number.to_owned());
        let page = CasesPage { wrong, reason, ..cases_page(&state, &seen) };
        return show_as(http::StatusCode::UNPROCESSABLE_ENTITY, &page);
    };
    let opened = state.gateway().open_case(&staff, &CaseRequest { reason, person }).await?;
    show(&CasesPage { opened: Some(opened), ..cases_page(&state, &seen) })
}

pub(super) async fn confirm(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Officer(staff): Officer,
    posted: Posted,
) -> Result<Response, Stop> {
    let case = posted.fields.get("case").to_owned();
    state.gateway().confirm_case(&staff, &case).await?;
    show(&CasesPage { done: Some(seen.lang.words().case_confirmed), case, ..cases_page(&state, &seen) })
}

#[derive(Template)]
#[template(path = "look_up.html")]
struct LookUpPage {
    page: Page,
    case: String,
    lines: Vec<Line>,
}

/// A look-up is sent as a form, so that no link and no reload makes one by itself.
pub(super) async fn look_up(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Officer(staff): Officer,
    posted: Posted,
) -> Result<Response, Stop> {
    let policies = state.gateway().policies()?;
    let case = posted.fields.get("case").to_owned();
    let filter = LogFilter { case: Some(case.clone()), limit: 1_000, ..LogFilter::default() };
    let lines = state.gateway().access_log(&staff, &filter).await?;
    let page = Page::new(&state, &seen, Area::Officer, "/officer/cases", seen.lang.words().case_result);
    let page = page.reached_from("/officer/cases");
    show(&LookUpPage { page, case, lines: lines.iter().map(|line| row(&seen, line, &policies)).collect() })
}
