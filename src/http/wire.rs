//! What goes over the wire: JSON made from core types, which know nothing of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::catalogue::Catalogue;
use crate::code::{PartyId, RecordId};
use crate::consent::Consent;
use crate::disclosure::ScoreChange;
use crate::gateway::{
    AccessView, ConsentView, ExportView, Loaded, LogLine, LookView, NewCode, NewConsent, ScoreView, Summary,
};
use crate::ledger::LogName;
use crate::policies::PolicySet;
use crate::scenario::Scenario;
use crate::score::{DimensionHold, RecordPart, ScoreHold, Suggestion};
use crate::text::Bilingual;

/// A text in both languages.
fn both(text: &Bilingual) -> Value {
    json!({ "zh": text.zh, "en": text.en })
}

fn indicator_name(catalogue: &Catalogue, code: &str) -> Value {
    catalogue.get(code).and_then(|indicator| indicator.name.as_ref()).map_or(Value::Null, both)
}

/// Hundredths of a point as points.
fn points(hundredths: i64) -> Value {
    if hundredths % 100 == 0 { json!(hundredths / 100) } else { json!(hundredths as f64 / 100.0) }
}

/// `GET /v1/me/score`.
pub(super) fn score(view: &ScoreView) -> Value {
    let explained = &view.explanation;
    let (catalogue, model) = (&view.policies.catalogue, view.policies.model_in_force());
    let grade = explained.outcome.grade.as_ref();
    let grade_name = model.grades.iter().find(|known| Some(&known.code) == grade).and_then(|known| known.name.as_ref());
    let dimensions: Vec<Value> = explained
        .dimensions
        .iter()
        .map(|dimension| {
            let name = model.dimensions.get(&dimension.code).and_then(|known| known.name.as_ref());
            let held = dimension.held_by.map(|held| match held {
                DimensionHold::MaxGain => "max-gain",
                DimensionHold::MaxLoss => "max-loss",
            });
            json!({
                "code": dimension.code.as_str(),
                "name": name.map(both),
                "points": points(dimension.counted),
                "sum": points(dimension.sum),
                "held_by": held,
                "max_gain": dimension.max_gain,
                "max_loss": dimension.max_loss,
                "indicators": dimension.indicators.iter().map(|indicator| json!({
                    "code": indicator.code.as_str(),
                    "name": indicator_name(catalogue, indicator.code.as_str()),
                    "records": indicator.records,
                    "points": points(indicator.counted),
                    "sum": points(indicator.sum),
                    "cap": indicator.cap,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    let records: Vec<Value> = explained
        .records
        .iter()
        .map(|record| {
            json!({
                "id": record.id.as_str(),
                "provider": record.provider.as_str(),
                "indicator": record.indicator.as_str(),
                "name": indicator_name(catalogue, record.indicator.as_str()),
                "occurred_on": record.occurred_on,
                "quantity": record.quantity,
                "points": points(record.points),
                "weight": record.weight,
                "counting": record.counting.as_str(),
                "counts_from": record.counts_from,
                "counts_until": record.counts_until,
                "limits_score_to": record.limits_score_to,
                "withdrawn_because": withdrawn_because(view, record),
            })
        })
        .collect();
    let held = explained.held_by.map(|held| match held {
        ScoreHold::Floor => json!({ "by": "floor" }),
        ScoreHold::Ceiling => json!({ "by": "ceiling" }),
        ScoreHold::Limit(limit) => json!({ "by": "limit", "limit": limit }),
    });
    json!({
        "status": explained.outcome.status.as_str(),
        "score": explained.outcome.score,
        "grade": grade.map(|grade| grade.as_str()),
        "grade_name": grade_name.map(both),
        "day": view.day,
        "model": explained.model,
        "next_change": explained.next_change,
        "base": explained.base,
        "held_by": held,
        "dimensions": dimensions,
        "records": records,
        "changes": view.changes.iter().map(score_change).collect::<Vec<_>>(),
        "would_raise": explained.would_raise.iter().map(|s| suggestion(s, catalogue)).collect::<Vec<_>>(),
    })
}

/// What its provider said when it withdrew a record.
fn withdrawn_because<'a>(view: &'a ScoreView, record: &RecordPart) -> Option<&'a str> {
    let of = |(provider, id, _): &&(PartyId, RecordId, String)| *provider == record.provider && *id == record.id;
    view.withdrawals.iter().find(of).map(|(.., reason)| reason.as_str())
}

fn score_change(change: &ScoreChange) -> Value {
    json!({ "on": change.on, "from": change.from, "to": change.to, "because": change.cause.as_str() })
}

fn suggestion(suggestion: &Suggestion, catalogue: &Catalogue) -> Value {
    match suggestion {
        Suggestion::Earn { indicator, quantity, gain } => json!({
            "kind": "earn",
            "indicator": indicator.as_str(),
            "name": indicator_name(catalogue, indicator.as_str()),
            "quantity": quantity,
            "points": points(*gain),
        }),
        Suggestion::Outlast { provider, record, indicator, ends_on, gain } => json!({
            "kind": "outlast",
            "provider": provider.as_str(),
            "record": record.as_str(),
            "indicator": indicator.as_str(),
            "name": indicator_name(catalogue, indicator.as_str()),
            "ends_on": ends_on,
            "points": points(*gain),
        }),
    }
}

/// `GET /v1/me/answers/{scenario}`.
pub(super) fn look(view: &LookView) -> Value {
    if view.decision.met {
        json!({ "answer": "met", "met": view.decision.claim, "fixed_today": view.fixed })
    } else {
        json!({ "answer": "withheld", "fixed_today": view.fixed })
    }
}

/// The answer to `POST /v1/me/consents`.
pub(super) fn new_consent(made: &NewConsent) -> Value {
    let mut value = consent(made.id.to_text(), &made.consent);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("token".into(), json!(made.token));
    }
    value
}

/// One line of `GET /v1/me/consents`.
pub(super) fn consent_view(view: &ConsentView) -> Value {
    let mut value = consent(view.id.to_text(), &view.consent);
    if let (Some(from), Some(fields)) = (view.lapsed, value.as_object_mut()) {
        fields.insert("lapsed_before".into(), json!(from));
    }
    value
}

fn consent(id: String, consent: &Consent) -> Value {
    json!({
        "id": id,
        "scenario": consent.scenario.as_str(),
        "party": consent.party.as_str(),
        "made_at": consent.made,
        "expires_at": consent.ends,
        "uses": consent.uses,
        "uses_left": consent.uses_left,
        "decline": consent.decline,
        "revoked_at": consent.revoked,
    })
}

/// `POST /v1/me/consents/{id}/codes`.
pub(super) fn new_code(code: &NewCode) -> Value {
    json!({ "code": code.code.to_text(), "expires_in": code.expires_in })
}

/// One line of `GET /v1/me/accesses`.
pub(super) fn access(view: &AccessView) -> Value {
    json!({
        "id": view.id().to_string(),
        "at": view.at,
        "party": view.party.as_ref().map(|party| party.as_str()),
        "scenario": view.scenario.as_ref().map(|scenario| scenario.as_str()),
        "action": view.action,
        "consent": view.consent.map(|id| id.to_text()),
        "proof": view.proof.to_text(),
    })
}

/// `GET /v1/me/export`: what `jadegate evaluate` reads.
pub(super) fn export(view: &ExportView) -> Value {
    json!({
        "register": [view.person.to_json()],
        "records": view.records.iter().map(|held| held.to_json()).collect::<Vec<_>>(),
        "consents": view.consents.iter().map(consent_view).collect::<Vec<_>>(),
        "market_consents": view.market.iter().map(super::market::shown).collect::<Vec<_>>(),
        "catalogue": view.policies.file("catalogue.toml"),
        "model": view.policies.model_text(),
    })
}

/// One line of `GET /v1/access-log`.
pub(super) fn log_line(line: &LogLine) -> Value {
    json!({
        "id": line.id().to_string(),
        "at": line.at,
        "party": line.party.as_ref().map(|party| party.as_str()),
        "scenario": line.scenario.as_ref().map(|scenario| scenario.as_str()),
        "action": line.action,
        "rule": line.rule.as_ref().map(|rule| rule.as_str()),
    })
}

/// `GET /log/origins`.
pub(super) fn origins(logs: &[LogName]) -> Value {
    let log = |log: &LogName| {
        let path = format!("/log/{}", log.name);
        json!({ "origin": log.verifier.name(), "path": path, "key": log.verifier.to_string() })
    };
    logs.iter().map(log).collect()
}

/// `GET /v1/access-log/summary`.
pub(super) fn summary(summary: &Summary) -> Value {
    let rows: Vec<Value> = summary
        .rows
        .iter()
        .map(|row| {
            json!({
                "day": row.day,
                "party": row.party.as_ref().map(|party| party.as_str()),
                "scenario": row.scenario.as_ref().map(|scenario| scenario.as_str()),
                "action": row.action,
                "count": row.count,
            })
        })
        .collect();
    json!({ "rows": rows, "truncated": summary.truncated })
}

/// `GET /v1/scenarios`.
pub(super) fn scenarios(policies: &PolicySet) -> Value {
    let scenario = |scenario: &Scenario| {
        json!({
            "id": scenario.id.as_str(),
            "title": both(&scenario.title),
            "benefit": both(&scenario.benefit),
            "category": scenario.category.as_str(),
            "question": scenario.question.to_json(),
            "parties": scenario.parties.iter().map(|party| party.as_str()).collect::<Vec<_>>(),
            "uses": scenario.uses,
            "uses_max": scenario.uses_max,
            "days": scenario.days,
            "days_max": scenario.days_max,
            "answer_minutes": scenario.answer_minutes,
            "one_a_person": scenario.one_a_person,
        })
    };
    Value::Array(policies.scenarios.values().map(scenario).collect())
}

/// `GET /v1/catalogue`.
pub(super) fn catalogue(policies: &PolicySet) -> Value {
    let indicators: Vec<Value> = policies
        .catalogue
        .iter()
        .map(|indicator| {
            // Where a bound has no basis of its own, it rests on what allows the indicator to be collected.
            let own = |basis: &Option<String>, said: bool| {
                if said { basis.clone().or(indicator.legal_basis.clone()) } else { None }
            };
            json!({
                "code": indicator.code.as_str(),
                "name": indicator.name.as_ref().map(both),
                "category": indicator.category.as_str(),
                "providers": indicator.providers.iter().map(|provider| provider.as_str()).collect::<Vec<_>>(),
                "former_providers": indicator.former_providers.iter().map(|provider| provider.as_str()).collect::<Vec<_>>(),
                "former_providers_basis": own(&indicator.former_providers_basis, !indicator.former_providers.is_empty()),
                "valid_for_years": indicator.valid_for_years,
                "valid_for_years_max": indicator.valid_for_years_max,
                "valid_for_years_max_basis": own(&indicator.valid_for_years_max_basis, indicator.valid_for_years_max.is_some()),
                "counts_until": indicator.counts_until,
                "counts_until_basis": own(&indicator.counts_until_basis, indicator.counts_until.is_some()),
                "unit": indicator.unit,
                "legal_basis": indicator.legal_basis,
            })
        })
        .collect();
    json!({ "indicators": indicators, "toml": policies.file("catalogue.toml") })
}

/// `GET /v1/model`.
pub(super) fn model(policies: &Loaded) -> Value {
    let model = policies.model_in_force();
    let grades: Vec<Value> = model
        .grades
        .iter()
        .map(|grade| json!({ "code": grade.code.as_str(), "min": grade.min, "name": grade.name.as_ref().map(both) }))
        .collect();
    let dimensions: BTreeMap<&str, Value> = model
        .dimensions
        .iter()
        .map(|(code, dimension)| {
            let name = dimension.name.as_ref().map(both);
            let value = json!({ "name": name, "max_gain": dimension.max_gain, "max_loss": dimension.max_loss });
            (code.as_str(), value)
        })
        .collect();
    json!({
        "id": model.id.as_str(),
        "model": model.name(),
        "base": model.base,
        "floor": model.floor,
        "ceiling": model.ceiling,
        "grades": grades,
        "dimensions": dimensions,
        "toml": policies.model_text(),
    })
}
