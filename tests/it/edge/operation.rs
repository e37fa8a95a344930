//! What operators do and see: logs without personal data, policies read again, days in Shanghai.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jadegate::clock::{self, Clock, ManualClock, SystemClock};
use serde_json::{Value, json};

use crate::support::deployment::{
    ANSWERS, COURT, Deployment, JSON, LIBRARY, NDJSON, OTHER_LIBRARY, P1, REGISTRAR, SCENARIO, ask, consent, make_code,
    outcome, question, rewrite, text, token,
};
use crate::support::process::Serving;

const NAME: &str = "欧阳测试甲";

/// Every run of eight characters of a secret; a shorter secret whole.
fn parts(secret: &str) -> Vec<String> {
    let characters: Vec<char> = secret.chars().collect();
    if characters.len() <= 8 {
        return vec![secret.to_owned()];
    }
    characters.windows(8).map(|window| window.iter().collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_holds_a_person_a_token_or_a_code() {
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    let environment = [("JADEGATE_LOG", "trace"), ("RUST_BACKTRACE", "full")];
    let mut serving = Serving::start(&city.config_file(), &city.dir().join("output"), &environment).await;
    city.populate(2).await;
    let line = json!({"id_number": P1, "name": NAME, "resident": true, "full_capacity": true}).to_string();
    city.feed(REGISTRAR, "/v1/register", &line).await;
    let mut me = city.login(P1).await;
    let given = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 200})).await;
    let (token, code) = (text(&given, "token"), make_code(&mut me, &given).await);
    let (mut library, mut nobody, mut court) = (city.party(LIBRARY), city.nobody(), city.party(COURT));

    // In headers, query and path, everywhere.
    for secret in [P1, token.as_str(), code.as_str()] {
        let mut headers = HeaderMap::new();
        for name in
            ["authorization", "cookie", "user-agent", "referer", "x-request-id", "x-forwarded-for", "traceparent"]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(secret).unwrap());
        }
        for path in [format!("/{secret}"), format!("/v1/me/consents?q={secret}"), format!("/v1/me/answers/{secret}")] {
            city.public().send(Method::GET, &path, headers.clone(), vec![].into()).await.unwrap();
            library.send(Method::GET, &path, headers.clone(), vec![].into()).await.unwrap();
            me.get(&path).await.unwrap();
        }
        let login = format!("as={secret}x");
        city.public().post("/demo/login", "application/x-www-form-urlencoded", login, vec![]).await.unwrap();
        me.send(Method::DELETE, &format!("/v1/me/consents/{secret}"), HeaderMap::new(), vec![].into()).await.unwrap();
    }
    // At each stage of a question: JSON, digest, MAC, scenario, token, size, form.
    let secrets = format!("{P1} {NAME} {token} {code}");
    let good = question(SCENARIO, &token).to_string();
    let bodies = [
        format!("{{\"scenario\": {secrets}"),
        json!({"scenario": secrets, "consent": token, "nonce": secrets}).to_string(),
        json!({secrets.as_str(): token, NAME: P1}).to_string(),
        question("no-such", &token).to_string(),
        question(SCENARIO, &format!("{token}A")).to_string(),
        question(SCENARIO, &secrets).to_string(),
        format!("{good}{}", secrets.repeat(2000)),
    ];
    let mut statuses = Vec::new();
    for body in &bodies {
        statuses.push(library.post(ANSWERS, JSON, body.clone(), vec![]).await.unwrap().status.as_u16());
        let headers = city.signed(LIBRARY, body.as_bytes());
        statuses.push(nobody.post(ANSWERS, JSON, body.clone(), headers.clone()).await.unwrap().status.as_u16());
        statuses.push(nobody.post(ANSWERS, JSON, good.clone(), headers).await.unwrap().status.as_u16());
        let mut wrong = city.signed(LIBRARY, body.as_bytes());
        wrong[2].1 = HeaderValue::from_static("sig1=:AAAA:");
        statuses.push(nobody.post(ANSWERS, JSON, body.clone(), wrong).await.unwrap().status.as_u16());
    }
    assert!(statuses.iter().all(|status| (400..500).contains(status)), "{statuses:?}");
    // And what goes well, and lines that are refused.
    assert_eq!(ask(&mut library, SCENARIO, &token).await.status, 200);
    assert_eq!(ask(&mut library, SCENARIO, &code).await.status, 200);
    for bad in [format!("{{{secrets}"), line.replace(P1, "530499199001010016"), line.replace("resident", P1)] {
        city.party(REGISTRAR).post("/v1/register", NDJSON, bad.clone(), vec![]).await.unwrap();
        court.post("/v1/records", NDJSON, bad, vec![]).await.unwrap();
    }
    let case = json!({"reason": secrets, "person": {"id_number": P1}});
    city.login("officer-one").await.post_json("/v1/cases", &case).await.unwrap();
    let session = me.post_json("/v1/me/consents", &json!({"scenario": secrets})).await.unwrap();
    assert!(session.status.is_client_error());
    serving.signal("-HUP");
    serving.writes("the policies were loaded", 1).await;
    let ready: Value = serving
        .wrote()
        .lines()
        .find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["fields"]["admin"].is_string().then_some(line)
        })
        .unwrap();
    let admin = format!("http://{}", text(&ready["fields"], "admin"));
    let figures = jadegate::client::Client::new(&admin, None).unwrap().get("/metrics").await.unwrap();
    serving.signal("-TERM");
    assert_eq!(serving.ended(Duration::from_secs(20)).await.unwrap().code(), Some(0));

    let figures = std::str::from_utf8(&figures.body).unwrap();
    assert!(figures.contains("jadegate_calls_total{route=\"/v1/answers\""), "{figures}");
    let wrote = format!("{}\n{figures}", serving.wrote());
    assert!(wrote.matches("\"call\"").count() > 50, "the calls are logged at all");
    for secret in [P1, NAME, &token, &code, &code.replace('-', ""), &city.people[0], &city.people[1]] {
        for part in parts(secret) {
            let line = wrote.lines().find(|line| line.contains(&part));
            assert!(line.is_none(), "{part:?} of {secret:?} is in {line:?}");
        }
    }
}

/// Puts a party into a scenario's list, or takes one out.
fn parties_of(text: &str, from: &str, to: &str) -> String {
    let (before, after) = text.split_once("id = \"library-deposit\"").unwrap();
    format!("{before}id = \"library-deposit\"{}", after.replacen(from, to, 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_policies_changes_nothing_and_a_repair_holds_by_its_rule() {
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    let serving = Serving::start(&city.config_file(), &city.dir().join("output"), &[]).await;
    city.populate(1).await;
    let mut me = city.person(0).await;
    let (one, two) = (token(&mut me, LIBRARY).await, token(&mut me, OTHER_LIBRARY).await);
    let (mut library, mut other, mut bike) = (city.party(LIBRARY), city.party(OTHER_LIBRARY), city.party("yx-bike"));
    let policies = city.dir().join("policies");
    let (scenarios, catalogue) = (policies.join("scenarios.toml"), policies.join("catalogue.toml"));

    // Two scenarios changed, and a third file broken.
    let list = r#"["yx-library", "yx-hongta-library"]"#;
    rewrite(&scenarios, |text| {
        parties_of(text, list, r#"["yx-library", "yx-bike"]"#).replacen("uses_max = 300", "uses_max = 299", 1)
    });
    let good = std::fs::read_to_string(&catalogue).unwrap();
    let line = 1 + good.lines().position(|line| line.starts_with("valid_for_years")).unwrap();
    rewrite(&catalogue, |text| text.replacen("\nvalid_for_years =", "\nvalid_for_year =", 1));
    serving.signal("-HUP");
    serving.writes("the policies were not loaded; the old ones hold", 1).await;
    let wrote = serving.wrote();
    let told = wrote.lines().find(|line| line.contains("were not loaded")).unwrap();
    assert!(told.contains(&format!("catalogue.toml:{line}:")) && told.contains("valid_for_year"), "{told}");
    assert_eq!(outcome(&ask(&mut library, SCENARIO, &one).await), (200, "met".to_owned()));
    assert_eq!(outcome(&ask(&mut other, SCENARIO, &two).await), (200, "met".to_owned()), "the whole old set holds");
    let scenarios_served = async || {
        let listed = city.public().get("/v1/scenarios").await.unwrap().json().unwrap();
        listed.as_array().unwrap().iter().find(|s| s["id"] == SCENARIO).unwrap()["parties"].clone()
    };
    assert_eq!(scenarios_served().await, json!([LIBRARY, OTHER_LIBRARY]));

    // Repaired: what it takes away is gone at once, what it adds waits for the next day.
    std::fs::write(&catalogue, good).unwrap();
    serving.signal("-HUP");
    serving.writes("the policies were loaded", 1).await;
    assert_eq!(outcome(&ask(&mut library, SCENARIO, &one).await), (200, "met".to_owned()));
    assert_eq!(outcome(&ask(&mut other, SCENARIO, &two).await), (403, "unknown-scenario".to_owned()));
    assert_eq!(outcome(&ask(&mut bike, SCENARIO, &one).await), (403, "unknown-scenario".to_owned()));
    assert_eq!(scenarios_served().await, json!([LIBRARY]));

    // Two signals in a row, under load: no call fails.
    let calls = (0..40).map(|_| {
        let (mut library, one) = (city.party(LIBRARY), one.clone());
        tokio::spawn(async move { outcome(&ask(&mut library, SCENARIO, &one).await) })
    });
    let calls: Vec<_> = calls.collect();
    serving.signal("-HUP");
    serving.signal("-HUP");
    for call in calls {
        assert_eq!(call.await.unwrap(), (200, "met".to_owned()));
    }
    serving.writes("the policies were loaded", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_and_formulas_in_a_name_stay_what_they_are() {
    let city = Deployment::empty().await;
    for (number, name) in [
        (P1, "<img src=x onerror=alert(1)>"),
        ("53049919880307004X", "=HYPERLINK(\"http://example.test\",\"x\")"),
        ("53049919901015001X", "\"><script>alert(1)</script>"),
    ] {
        let person = json!({"id_number": number, "name": name, "resident": true, "full_capacity": true});
        city.feed(REGISTRAR, "/v1/register", &person.to_string()).await;
        let record = json!({"id": number, "provider": COURT, "indicator": "civil-judgment-unperformed", "detail": "{{7*7}}",
            "person": {"id_number": number, "name": name}, "occurred_on": "2026-03-01"});
        city.feed(COURT, "/v1/records", &record.to_string()).await;
        let export = city.login(number).await.get("/v1/me/export").await.unwrap();
        // A browser that is led here sees data, and runs nothing of it.
        assert_eq!(export.headers["content-type"], "application/json");
        assert_eq!(export.headers["x-content-type-options"], "nosniff");
        let policy = export.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let export = export.json().unwrap();
        assert_eq!(export["register"][0]["name"], name);
        assert_eq!(export["records"][0]["detail"], "{{7*7}}");
        assert_eq!(export["records"][0]["person"]["name"], name);
    }
}

/// The claims of an attestation, unverified.
fn claims(attestation: &str) -> Value {
    use base64::Engine as _;
    let part = attestation.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

async fn days(city: &Deployment) -> (Value, Value) {
    let mut me = city.person(0).await;
    let score = me.get("/v1/me/score").await.unwrap().json().unwrap();
    let token = token(&mut me, LIBRARY).await;
    let met = ask(&mut city.party(LIBRARY), SCENARIO, &token).await.json().unwrap();
    (score["day"].clone(), claims(&text(&met, "attestation"))["as_of"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_shanghais_wherever_the_machine_is() {
    // Half past midnight in Shanghai is yesterday in UTC.
    let today = clock::day_of(SystemClock::new().now());
    let half_past = clock::start_of(today) + Duration::from_secs(1800);
    let mut city = Deployment::provisioned(Arc::new(ManualClock::new(half_past)));
    city.start().await;
    city.populate(1).await;
    assert_eq!(days(&city).await, (json!(today), json!(today)));
    city.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_time_zone_has_no_say() {
    // At any moment one of these has another day than Shanghai.
    for zone in ["Etc/GMT+12", "Pacific/Kiritimati", "America/Los_Angeles"] {
        let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
        let _serving = Serving::start(&city.config_file(), &city.dir().join("output"), &[("TZ", zone)]).await;
        city.populate(1).await;
        let before = clock::day_of(city.clock.now());
        let (day, as_of) = days(&city).await;
        let after = clock::day_of(city.clock.now());
        for said in [day, as_of] {
            assert!(said == json!(before) || said == json!(after), "{zone}: {said}");
        }
    }
}
