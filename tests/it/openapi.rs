//! `/openapi.json` describes what is there: every route, every code, and nothing else.

use std::collections::BTreeSet;

use jadegate::client::{Client, Response};
use jadegate::http::problem::code::{CODES, LINE_CODES};
use serde_json::{Value, json};

use crate::support::deployment::{ANSWERS, COURT, Deployment, LIBRARY, NDJSON, REGISTRAR, SCENARIO, question, text};

fn document() -> Value {
    serde_json::from_str(include_str!("../../src/http/openapi.json")).unwrap()
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The routes that a source file makes, as `get /v1/answers`.
fn routes(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap().replace("{*", "{");
        let made = route.split("\n        .").next().unwrap().split(';').next().unwrap();
        for method in ["get", "post", "delete", "put", "patch"] {
            if made.contains(&format!(" {method}(")) || made.contains(&format!(").{method}(")) {
                found.insert(format!("{method} {path}"));
            }
        }
    }
    found
}

#[test]
fn every_route_is_described_and_no_other() {
    let document = document();
    let described: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
        .collect();
    let mut there = routes(include_str!("../../src/http/routes.rs"));
    there.extend(routes(include_str!("../../src/http/health.rs").split("#[cfg(test)]").next().unwrap()));
    // Of the pages, which are for people, scripts need the demo's log-in alone.
    there.extend(routes(include_str!("../../src/web.rs")).into_iter().filter(|route| route.ends_with("/demo/login")));
    assert!(there.contains("delete /v1/me/consents/{id}") && there.contains("post /v1/me/consents"), "{there:?}");
    assert_eq!(described, there);
}

#[test]
fn every_code_is_listed_and_known() {
    let document = document();
    let problem = &document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
    assert_eq!(texts(problem), CODES.iter().map(|info| info.code).collect());
    let line = &document["components"]["schemas"]["Intake"]["properties"]["rejected"]["items"]["properties"]["code"];
    assert_eq!(texts(&line["enum"]), LINE_CODES.iter().map(|info| info.code).collect());
    for operation in document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values())
    {
        let unknown: Vec<_> = texts(&operation["x-codes"]).difference(&texts(problem)).copied().collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", operation["operationId"]);
    }
}

/// Every reference leads somewhere, and every schema is used.
#[test]
fn references_lead_somewhere() {
    fn collect<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| collect(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    collect(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.contains(format!("#/components/schemas/{name}").as_str()), "{name} is not used");
    }
}

/// What of a value a schema does not allow; strict where JSON Schema is not: a member must be described.
fn faults(document: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        return faults(document, document.pointer(&reference[1..]).unwrap(), value, place, found);
    }
    if let Some(forms) = schema["oneOf"].as_array() {
        let of = |form| {
            let mut found = Vec::new();
            faults(document, form, value, place, &mut found);
            found
        };
        if forms.iter().filter(|form| of(form).is_empty()).count() != 1 {
            found.push(format!("{place}: not exactly one of the forms"));
        }
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    if !schema["type"].is_null()
        && !fits(&schema["type"])
        && !schema["type"].as_array().is_some_and(|t| t.iter().any(fits))
    {
        found.push(format!("{place}: is {kind}"));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        found.push(format!("{place}: is none of the words"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{place}: is another word"));
    }
    for item in value.as_array().into_iter().flatten() {
        faults(document, &schema["items"], item, &format!("{place}[]"), found);
    }
    let (Some(members), Some(known)) =
        (value.as_object(), schema.get("properties").or(schema.get("additionalProperties")))
    else {
        return;
    };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            found.push(format!("{place}: lacks {name}"));
        }
    }
    for (name, member) in members {
        let place = format!("{place}.{name}");
        match (schema.get("properties"), known.get(name)) {
            (None, _) => faults(document, known, member, &place, found),
            (Some(_), Some(schema)) => faults(document, schema, member, &place, found),
            (Some(_), None) => found.push(format!("{place}: is not described")),
        }
    }
}

/// Holds an answer against what the document says of the operation.
#[track_caller]
fn described(document: &Value, operation: &str, response: &Response) {
    let (method, path) = operation.split_once(' ').unwrap();
    let operation = &document["paths"][path][method];
    let status = response.status.as_str();
    let said = match operation["responses"].get(status) {
        Some(said) => said,
        None => document.pointer("/components/responses/Problem").unwrap(),
    };
    let Some((kind, content)) = said["content"].as_object().and_then(|content| content.iter().next()) else {
        assert!(response.body.is_empty(), "{method} {path} {status}: a body that is not described");
        return;
    };
    let sent = response.headers["content-type"].to_str().unwrap().split(';').next().unwrap();
    assert_eq!(sent, kind, "{method} {path} {status}");
    if kind.ends_with("json") {
        let (mut found, value) = (Vec::new(), response.json().unwrap());
        faults(document, &content["schema"], &value, "", &mut found);
        assert!(found.is_empty(), "{method} {path} {status}: {found:?}\n{value:#}");
        if status >= "400" {
            let code = value["code"].as_str().unwrap();
            assert!(texts(&operation["x-codes"]).contains(code), "{method} {path}: {code} is not listed");
        }
    }
}

async fn without_body(client: &mut Client, method: http::Method, path: &str) -> Response {
    client.send(method, path, http::HeaderMap::new(), vec![].into()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_they_are_described() {
    let (document, city) = (document(), Deployment::city().await);
    let (mut public, mut me, mut library) = (city.public(), city.person(0).await, city.party(LIBRARY));
    let (mut one, mut two) = (city.login("officer-one").await, city.login("officer-two").await);
    let is = |operation: &str, response: &Response| described(&document, operation, response);

    let given = me.post_json("/v1/me/consents", &json!({ "scenario": SCENARIO, "party": LIBRARY })).await.unwrap();
    is("post /v1/me/consents", &given);
    let given = given.json().unwrap();
    let id = text(&given, "id");
    for wrong in [json!({ "scenario": SCENARIO }), json!({ "scenario": SCENARIO, "party": LIBRARY, "uses": 1_000_000 })]
    {
        is("post /v1/me/consents", &me.post_json("/v1/me/consents", &wrong).await.unwrap());
    }
    is("post /v1/answers", &library.post_json(ANSWERS, &question(SCENARIO, &text(&given, "token"))).await.unwrap());
    is("post /v1/answers", &library.post_json(ANSWERS, &question(SCENARIO, "nothing")).await.unwrap());
    is("post /v1/answers", &library.post_json(ANSWERS, &question("nothing", "nothing")).await.unwrap());
    let codes = format!("/v1/me/consents/{id}/codes");
    is("post /v1/me/consents/{id}/codes", &without_body(&mut me, http::Method::POST, &codes).await);
    let consent = format!("/v1/me/consents/{id}");
    is("delete /v1/me/consents/{id}", &without_body(&mut me, http::Method::DELETE, &consent).await);
    is("post /v1/me/consents/{id}/codes", &without_body(&mut me, http::Method::POST, &codes).await);

    for path in ["/v1/me/score", "/v1/me/consents", "/v1/me/accesses", "/v1/me/export"] {
        is(&format!("get {path}"), &me.get(path).await.unwrap());
        is(&format!("get {path}"), &public.get(path).await.unwrap());
    }
    is("get /v1/me/consents", &me.get("/v1/me/consents?limit=0").await.unwrap());
    for nth in 0..2 {
        let mut somebody = city.person(nth).await;
        for scenario in [SCENARIO, "library-more-books", "nothing"] {
            let response = somebody.get(&format!("/v1/me/answers/{scenario}")).await.unwrap();
            is("get /v1/me/answers/{scenario}", &response);
        }
        is("get /v1/me/score", &somebody.get("/v1/me/score").await.unwrap());
    }

    let case = json!({ "reason": "a question", "person": { "id_number": city.people[0] } });
    let opened = one.post_json("/v1/cases", &case).await.unwrap();
    is("post /v1/cases", &opened);
    let case = text(&opened.json().unwrap(), "id");
    is("get /v1/access-log", &one.get(&format!("/v1/access-log?case={case}")).await.unwrap());
    let confirm = format!("/v1/cases/{case}/confirm");
    is("post /v1/cases/{id}/confirm", &without_body(&mut one, http::Method::POST, &confirm).await);
    is("post /v1/cases/{id}/confirm", &without_body(&mut two, http::Method::POST, &confirm).await);
    is("get /v1/access-log", &one.get(&format!("/v1/access-log?case={case}")).await.unwrap());
    is("get /v1/access-log", &one.get("/v1/access-log?action=ask").await.unwrap());
    is("get /v1/access-log/summary", &one.get("/v1/access-log/summary").await.unwrap());
    is("get /v1/me/accesses", &me.get("/v1/me/accesses").await.unwrap());

    let market = "/v1/me/market-consents";
    let given = me.post_json(market, &json!({ "provider": "yx-telecom" })).await.unwrap();
    is("post /v1/me/market-consents", &given);
    let given = text(&given.json().unwrap(), "id");
    for wrong in [json!({ "provider": "yx-bike" }), json!({}), json!({ "provider": "yx-telecom", "indicators": [] })] {
        is("post /v1/me/market-consents", &me.post_json(market, &wrong).await.unwrap());
    }
    is("get /v1/me/market-consents", &me.get(market).await.unwrap());
    is("get /v1/me/market-consents", &me.get("/v1/me/market-consents?limit=0").await.unwrap());
    is("get /v1/me/market-consents", &public.get(market).await.unwrap());
    for id in [given.as_str(), &given, "nothing"] {
        let one = format!("{market}/{id}");
        is("delete /v1/me/market-consents/{id}", &without_body(&mut me, http::Method::DELETE, &one).await);
    }

    let mut court = city.party(COURT);
    let record = json!({ "id": "w-1", "provider": COURT, "indicator": "civil-judgment-unperformed",
        "person": { "id_number": city.people[0], "name": "某" }, "occurred_on": "2026-03-01" });
    let taken = court.post("/v1/records", NDJSON, record.to_string(), vec![]).await.unwrap();
    is("post /v1/records", &taken);
    let batch = taken.json().unwrap()["batches"][0].as_str().unwrap().to_owned();
    is("get /v1/batches/{id}", &court.get(&format!("/v1/batches/{batch}")).await.unwrap());
    is("get /v1/batches/{id}", &library.get(&format!("/v1/batches/{batch}")).await.unwrap());
    is("get /v1/batches/{id}", &court.get("/v1/batches/nothing").await.unwrap());
    let withdrawal = "/v1/records/w-1/withdrawal";
    for body in [json!({ "reason": "x" }), json!({ "reason": " " }), json!({}), json!({ "reason": "x", "more": 1 })] {
        is("post /v1/records/{id}/withdrawal", &court.post_json(withdrawal, &body).await.unwrap());
    }
    is(
        "post /v1/records/{id}/withdrawal",
        &court.post_json("/v1/records/no%2Fthing/withdrawal", &json!({ "reason": "x" })).await.unwrap(),
    );
    for path in ["/v1/records", "/v1/records/summary"] {
        is(&format!("get {path}"), &court.get(path).await.unwrap());
        is(&format!("get {path}"), &city.nobody().get(path).await.unwrap());
    }
    for query in ["limit=0", "before=nothing", "by=id"] {
        is("get /v1/records", &court.get(&format!("/v1/records?{query}")).await.unwrap());
    }

    let mut registrar = city.party(REGISTRAR);
    for (operation, body) in [("post /v1/register", "{}\n"), ("post /v1/records", "{}\n")] {
        let path = operation.trim_start_matches("post ");
        is(operation, &registrar.post(path, NDJSON, body, vec![]).await.unwrap());
        is(operation, &registrar.post(path, "text/plain", body, vec![]).await.unwrap());
        is(operation, &city.nobody().post(path, NDJSON, body, vec![]).await.unwrap());
    }

    let mut operator = city.login("operator-one").await;
    let model = String::from_utf8(jadegate::policies::shipped()["models/yuxi-2026.toml"].clone()).unwrap();
    let model = model.replace("id = \"yuxi-2026\"", "id = \"yuxi-2027\"");
    const TOML: &str = "application/toml";
    for (operation, path) in [("post /v1/models/trials", "/v1/models/trials"), ("post /v1/models", "/v1/models")] {
        is(operation, &operator.post(path, TOML, model.clone(), vec![]).await.unwrap());
        is(operation, &operator.post(path, TOML, "nothing", vec![]).await.unwrap());
        is(operation, &operator.post(path, "text/plain", "nothing", vec![]).await.unwrap());
        is(operation, &one.post(path, TOML, model.clone(), vec![]).await.unwrap());
        is(operation, &public.post(path, TOML, model.clone(), vec![]).await.unwrap());
    }
    is("post /v1/models", &operator.post("/v1/models", TOML, format!("{model}\n"), vec![]).await.unwrap());
    is("get /v1/models", &public.get("/v1/models").await.unwrap());
    let second = public.get("/v1/models?limit=1&before=yuxi-2027").await.unwrap();
    is("get /v1/models", &second);
    assert_eq!(second.json().unwrap()[0]["id"], "yuxi-2026");
    for wrong in ["?limit=0", "?before=nothing", "?other=1"] {
        is("get /v1/models", &public.get(&format!("/v1/models{wrong}")).await.unwrap());
    }
    is("get /v1/models/{id}", &public.get("/v1/models/yuxi-2027").await.unwrap());
    is("get /v1/models/{id}", &public.get("/v1/models/nothing").await.unwrap());
    let approval = "/v1/models/yuxi-2027/approval";
    is("post /v1/models/{id}/approval", &without_body(&mut one, http::Method::POST, approval).await);
    is("post /v1/models/{id}/approval", &without_body(&mut me, http::Method::POST, approval).await);
    for body in [json!({ "from": "2027-06-01" }), json!({ "from": "soon" }), json!({})] {
        let answer = operator.post_json("/v1/models/yuxi-2027/publication", &body).await.unwrap();
        is("post /v1/models/{id}/publication", &answer);
    }

    let paths = [
        "/log/checkpoint",
        "/log/key",
        "/.well-known/jwks.json",
        "/v1/scenarios",
        "/v1/catalogue",
        "/v1/model",
        "/openapi.json",
        "/docs/errors",
        "/healthz",
        "/readyz",
    ];
    for path in paths {
        is(&format!("get {path}"), &public.get(path).await.unwrap());
    }
    is("get /log/tile/{path}", &public.get("/log/tile/0/000.p/1").await.unwrap());
    is("get /log/tile/{path}", &public.get("/log/tile/0/999").await.unwrap());
}
