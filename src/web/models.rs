//! Models for everybody: drafts open for comment, the one in force, those before it, and how grades would move.
//!
//! Officers and operators find on the same page what they may do: try, draft, approve, publish.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::civil::Date;

use super::WebState;
use super::page::{Area, Page, show};
use super::request::{Anybody, Posted, Seen, StaffOnly};
use super::say::time;
use super::stop::Stop;
use super::words::Lang;
use crate::access::Role;
use crate::clock::day_of;
use crate::gateway::{APPROVALS, ModelState, ModelView, Staff, Who};
use crate::trial::{Impact, Named, Ways, drawing};

/// What mistakes call a file that came by a form.
const FILE: &str = "model.toml";

#[derive(Template)]
#[template(path = "models.html")]
struct ModelsPage {
    page: Page,
    models: Vec<Shown>,
    operator: bool,
}

#[derive(Template)]
#[template(path = "model_tried.html")]
struct TriedPage {
    page: Page,
    impact: Tables,
}

/// A model on the page.
struct Shown {
    id: String,
    name: String,
    state: &'static str,
    history: Vec<String>,
    impact: Option<Tables>,
    may_approve: bool,
    may_publish: bool,
    /// What it still lacks, for whoever could publish it.
    waits: Option<String>,
}

/// A trial as tables.
struct Tables {
    says: String,
    heads: Vec<String>,
    grades: Vec<Row>,
    ages: Vec<Row>,
    dimensions: Vec<Row>,
    drawing: String,
}

struct Row {
    label: String,
    cells: Vec<String>,
}

fn said(count: Option<u64>) -> String {
    count.map_or_else(|| "·".to_owned(), |count| count.to_string())
}

fn ways(label: String, ways: &Ways) -> Row {
    Row { label, cells: [ways.up, ways.same, ways.down].map(said).to_vec() }
}

fn tables(lang: Lang, impact: &Impact) -> Tables {
    let name = |name: &Named| lang.pick(&name.zh, &name.en).to_owned();
    let row = |grade: &crate::trial::Part| {
        let moved = impact.moves.iter().filter(|moved| moved.from == grade.code).map(|moved| said(moved.people));
        Row { label: name(&grade.name), cells: moved.chain([said(grade.people)]).collect() }
    };
    let after = impact.grades_after.iter().map(|grade| said(grade.people));
    let totals = Row { label: lang.words().model_all.to_owned(), cells: after.chain([said(impact.people)]).collect() };
    let age = |age: &crate::trial::AgeMoves| ways(lang.ages(age.from, age.to), &age.ways);
    Tables {
        says: lang.tried(impact.people, impact.on),
        heads: impact.grades_after.iter().map(|grade| name(&grade.name)).collect(),
        grades: impact.grades_before.iter().map(row).chain([totals]).collect(),
        ages: impact.ages.iter().map(age).chain([ways(lang.words().model_all.to_owned(), &impact.ways)]).collect(),
        dimensions: impact.dimensions.iter().map(|d| ways(name(&d.name), &d.ways)).collect(),
        drawing: drawing::svg(impact),
    }
}

fn shown(lang: Lang, view: &ModelView, staff: Option<&Staff>) -> Shown {
    let w = lang.words();
    let mut history = vec![lang.model_drafted(day_of(view.drafted_at))];
    history.extend(view.comment_until.map(|until| lang.model_comment(until)));
    let officials = |a: &crate::gateway::Approval| {
        // Who it was is for those who work here.
        let who = staff.map(|_| a.login.as_str());
        lang.model_approved(a.role == Role::Officer, who, day_of(a.at), &time(a.at))
    };
    history.extend(view.approvals.iter().map(officials));
    history.extend(view.published_at.map(|at| lang.model_published(day_of(at))));
    history.extend(view.from.map(|from| lang.model_holds(from, view.until)));
    let open = view.from.is_none();
    let operator = open && staff.is_some_and(|staff| staff.role == Role::Operator);
    let ready = view.state != ModelState::Comment && view.approvals.len() >= APPROVALS;
    let open_until = view.comment_until.filter(|_| view.state == ModelState::Comment);
    let approved = |staff: &Staff| view.approvals.iter().any(|approval| approval.login == staff.login);
    Shown {
        id: view.id.to_string(),
        name: format!("{}#sha256-{}", view.id, view.digest),
        state: match view.state {
            ModelState::Comment => w.model_comment,
            ModelState::Draft => w.model_draft,
            ModelState::Scheduled => w.model_scheduled,
            ModelState::InForce => w.model_in_force,
            ModelState::Past => w.model_past,
        },
        history,
        impact: view.impact.as_ref().map(|impact| tables(lang, impact)),
        may_approve: open && staff.is_some_and(|staff| !approved(staff)),
        may_publish: operator && ready,
        waits: (operator && !ready).then(|| lang.model_waits(open_until, view.approvals.len())),
    }
}

fn area(staff: Option<&Staff>) -> Area {
    match staff.map(|staff| staff.role) {
        Some(Role::Operator) => Area::Operator,
        Some(_) => Area::Officer,
        None => Area::Public,
    }
}

pub(super) async fn models(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    Anybody(who): Anybody,
) -> Result<Response, Stop> {
    let logged_in = who.is_some();
    let staff = match who {
        Some(Who::Staff(staff)) => Some(staff),
        _ => None,
    };
    let views = state.gateway().models().await?;
    let mut page = Page::new(&state, &seen, area(staff.as_ref()), "/models", seen.lang.words().models_title);
    page.logged_in = logged_in;
    show(&ModelsPage {
        page,
        models: views.iter().map(|view| shown(seen.lang, view, staff.as_ref())).collect(),
        operator: staff.is_some_and(|staff| staff.role == Role::Operator),
    })
}

pub(super) async fn try_one(
    State(state): State<Arc<WebState>>,
    seen: Seen,
    StaffOnly(staff): StaffOnly,
    posted: Posted,
) -> Result<Response, Stop> {
    let file = posted.fields.get("file").to_owned();
    let impact = state.gateway().try_model(&staff, FILE, file.as_bytes()).await?;
    let page = Page::new(&state, &seen, area(Some(&staff)), "/models", seen.lang.words().model_tried);
    show(&TriedPage { page: page.reached_from("/models"), impact: tables(seen.lang, &impact) })
}

pub(super) async fn draft(
    State(state): State<Arc<WebState>>,
    StaffOnly(staff): StaffOnly,
    posted: Posted,
) -> Result<Response, Stop> {
    let file = posted.fields.get("file").to_owned();
    state.gateway().draft_model(Some(&staff), FILE, file.as_bytes()).await?;
    Ok(Redirect::to("/models").into_response())
}

pub(super) async fn approve(
    State(state): State<Arc<WebState>>,
    StaffOnly(staff): StaffOnly,
    Path(id): Path<String>,
    _posted: Posted,
) -> Result<Response, Stop> {
    state.gateway().approve_model(&staff, &id).await?;
    Ok(Redirect::to("/models").into_response())
}

pub(super) async fn publish(
    State(state): State<Arc<WebState>>,
    StaffOnly(staff): StaffOnly,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response, Stop> {
    let from: Date = posted.fields.get("from").parse().map_err(|_| Stop::Form)?;
    state.gateway().publish_draft(Some(&staff), &id, from).await?;
    Ok(Redirect::to("/models").into_response())
}
