//! What must not lie about: numbers, names, scores, tokens, codes, session values and attestations, in every encoding that the
//! code uses, looked for in the store's files, backups, the logs at the most talkative level, error bodies, figures, what is
//! said of panics, and the memory of the process once it is idle.
//!
//! A score is three digits, which lie everywhere by chance. So it is looked for with its name before it, as JSON, logs and
//! `Debug` would write it, with what else only the score's own page says, and, for what only that page holds, as a detail of
//! a record that is chosen here. A bare score as two bytes inside something sealed could not be told from chance; that cells
//! are sealed is another test's matter.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, Method};
use jadegate::client::Client;
use jadegate::clock::SystemClock;
use serde_json::{Value, json};

use crate::support::deployment::{
    ANSWERS, Deployment, JSON, LIBRARY, NDJSON, P1, REGISTRAR, SCENARIO, ask, consent, make_code, outcome, question,
    text,
};
use crate::support::files_under;
use crate::support::nightly::figure;
use crate::support::process::{Serving, ended, jadegate, run};

const NAME: &str = "欧阳金丝雀";
const DETAIL: &str = "金丝雀的三百小时";
const RECORD: &str = "canary-record-7731-of-hours";
const WITHDRAWN_FOR: &str = "金丝雀撤回之缘由七三";
const OPENED_FOR: &str = "金丝雀立案之缘由八四";
const HOURS: &str = "yx-civil-affairs";

/// A text in the forms in which it could lie somewhere.
fn forms(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let escapes: String = secret.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    let mut forms = forms_of(secret.as_bytes());
    forms.extend([
        ("GB18030", encoding_rs::GB18030.encode(secret).0.into_owned()),
        ("UTF-16, little end first", secret.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("UTF-16, big end first", secret.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ("JSON escapes", escapes.clone().into_bytes()),
        ("JSON ESCAPES", escapes.to_uppercase().replace("\\U", "\\u").into_bytes()),
    ]);
    forms.sort_by(|a, b| a.1.cmp(&b.1));
    forms.dedup_by(|a, b| a.1 == b.1);
    forms
}

/// Bytes in the forms in which they could lie somewhere; as a list of numbers too, which is what `Debug` makes of them.
fn forms_of(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
    let numbers = |between: &str| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(between).into_bytes();
    let mut forms = vec![
        ("plain", bytes.to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("HEX", hex.to_uppercase().into_bytes()),
        ("percent", percent.clone().into_bytes()),
        ("percent, small", percent.to_lowercase().into_bytes()),
        ("numbers", numbers(", ")),
        ("numbers, close", numbers(",")),
    ];
    // Inside a longer base64 text it begins at one of three places of a group; what neighbours decide is cut off.
    for (at, name) in ["base64", "base64, one on", "base64, two on"].into_iter().enumerate() {
        let shifted = [vec![0; at], bytes.to_vec()].concat();
        for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            let begin = [0, 2, 3][at];
            let end = text.len() - usize::from(shifted.len() % 3 != 0);
            forms.push((name, text.as_bytes()[begin..end].to_vec()));
        }
    }
    forms.sort_by(|a, b| a.1.cmp(&b.1));
    forms.dedup_by(|a, b| a.1 == b.1);
    forms
}

/// How often each of these is there, in one pass.
fn counts(haystack: &[u8], needles: &[&[u8]]) -> Vec<usize> {
    let mut found = vec![0; needles.len()];
    let mut begins = vec![Vec::new(); 1 << 16];
    for (which, needle) in needles.iter().enumerate() {
        begins[usize::from(u16::from_be_bytes([needle[0], needle[1]]))].push(which);
    }
    for (at, pair) in haystack.windows(2).enumerate() {
        for &which in &begins[usize::from(u16::from_be_bytes([pair[0], pair[1]]))] {
            found[which] += usize::from(haystack[at..].starts_with(needles[which]));
        }
    }
    found
}

struct Canary {
    kind: &'static str,
    forms: Vec<(&'static str, Vec<u8>)>,
}

fn canary(kind: &'static str, secret: &str) -> Canary {
    Canary { kind, forms: forms(secret) }
}

/// How often each canary is there, in any form, with the forms.
fn found_in(canaries: &[Canary], bytes: &[u8]) -> Vec<(&'static str, usize, Vec<&'static str>)> {
    let needles: Vec<&[u8]> = canaries.iter().flat_map(|c| c.forms.iter().map(|(_, n)| n.as_slice())).collect();
    let mut found = counts(bytes, &needles).into_iter();
    let of_one = |canary: &Canary| {
        let there: Vec<(&str, usize)> = canary.forms.iter().map(|(form, _)| (*form, found.next().unwrap())).collect();
        let forms = there.iter().filter(|(_, n)| *n > 0).map(|(form, _)| *form).collect();
        (canary.kind, there.iter().map(|(_, n)| n).sum(), forms)
    };
    canaries.iter().map(of_one).collect()
}

/// Nothing of any canary in any form.
fn holds_none(canaries: &[Canary], place: &str, bytes: &[u8]) {
    for (kind, found, forms) in found_in(canaries, bytes) {
        assert_eq!(found, 0, "the {kind}, as {forms:?}, is in {place}");
    }
}

/// All that a process may read and write of its own memory; `None` where the system does not let us look.
fn memory(process: u32) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let memory = std::fs::File::open(format!("/proc/{process}/mem")).ok()?;
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|may| may.starts_with("rw"))) {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        // In pieces: a part of a mapping may not be there.
        for at in (from..to).step_by(4096) {
            let mut page = [0; 4096];
            if memory.read_exact_at(&mut page, at).is_ok() && page != [0; 4096] {
                all.extend_from_slice(&page);
            }
        }
    }
    Some(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_canary_lies_in_the_store_a_log_an_error_or_a_figure() {
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    let output = city.dir().join("output");
    let mut serving = Serving::start(&city.config_file(), &output, &[("JADEGATE_LOG", "trace")]).await;
    city.populate(2).await;
    let line = json!({"id_number": P1, "name": NAME, "resident": true, "full_capacity": true}).to_string();
    city.feed(REGISTRAR, "/v1/register", &line).await;
    let hours = json!({"id": RECORD, "provider": "yx-civil-affairs", "indicator": "volunteer-hours",
        "person": {"id_number": P1, "name": NAME}, "occurred_on": "2026-06-01", "quantity": 300, "detail": DETAIL});
    city.feed("yx-civil-affairs", "/v1/records", &hours.to_string()).await;

    let mut browser = city.public();
    let form = "application/x-www-form-urlencoded";
    let logged_in = browser.post("/demo/login", form, format!("as={P1}"), vec![]).await.unwrap();
    let cookies: Vec<String> = logged_in
        .headers
        .get_all("set-cookie")
        .iter()
        .filter_map(|cookie| {
            cookie.to_str().ok()?.split(';').next()?.split_once('=').map(|(_, value)| value.to_owned())
        })
        .filter(|value| value.len() >= 16)
        .collect();
    assert_eq!(cookies.len(), 1, "the session's cookie");
    let mut me = city.login(P1).await;
    let given = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 200})).await;
    let (token, code) = (text(&given, "token"), make_code(&mut me, &given).await);
    let mut library = city.party(LIBRARY);
    let answered = ask(&mut library, SCENARIO, &code).await;
    assert_eq!(outcome(&answered), (200, "met".to_owned()));
    let attestation = text(&answered.json().unwrap(), "attestation");
    let (_, signed) = attestation.rsplit_once('.').unwrap();
    let mut canaries = vec![
        canary("identity number", P1),
        canary("name", NAME),
        canary("detail of a record", DETAIL),
        canary("token", &token),
        canary("code", &code),
        canary("code without hyphens", &code.replace('-', "")),
        canary("session", &cookies[0]),
        canary("attestation's signature", signed),
    ];
    canaries.extend(scores(&me.get("/v1/me/score").await.unwrap()));
    canaries.extend(everything_else(&city, &mut me, &given).await);
    let imports = imports(&city).await;
    holds_none(&canaries, "what imports with refused lines say and leave", &imports);

    // Errors at every stage, with all of them in every place.
    let all = format!("{P1} {NAME} {token} {code} {} {attestation}", cookies[0]);
    let mut errors = Vec::new();
    let good = question(SCENARIO, &token).to_string();
    for body in [
        format!("{{\"scenario\": {all}"),
        json!({"scenario": all, "consent": token, "nonce": all}).to_string(),
        json!({all.as_str(): token}).to_string(),
        question(SCENARIO, &format!("{token}A")).to_string(),
        question(SCENARIO, &all).to_string(),
        format!("{good}{}{all}", " ".repeat(70_000)),
    ] {
        errors.push(library.post(ANSWERS, JSON, body.clone(), vec![]).await.unwrap());
        let mut wrong = city.signed(LIBRARY, body.as_bytes());
        wrong[2].1 = HeaderValue::from_static("sig1=:AAAA:");
        errors.push(city.nobody().post(ANSWERS, JSON, body.clone(), wrong).await.unwrap());
        errors.push(city.party(REGISTRAR).post("/v1/register", NDJSON, body.clone(), vec![]).await.unwrap());
        errors.push(me.post("/v1/me/consents", JSON, body, vec![]).await.unwrap());
    }
    for secret in [P1, &token, &code, &cookies[0]] {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "cookie", "x-request-id", "traceparent"] {
            headers.insert(name, HeaderValue::from_str(secret).unwrap());
        }
        for path in [format!("/{secret}"), format!("/v1/me/consents/{secret}?q={secret}")] {
            errors.push(city.public().send(Method::GET, &path, headers.clone(), vec![].into()).await.unwrap());
        }
    }
    let figures = Client::new(&admin_of(&serving), None).unwrap().get("/metrics").await.unwrap();
    for error in &errors {
        holds_none(&canaries, "the body of an error or a receipt", &error.body);
    }
    holds_none(&canaries, "the figures", &figures.body);
    let beside = backup(&city, "beside").await;
    holds_none(&canaries, "a backup made beside the gateway", &beside);

    // Idle: nobody is connected any more. What is found in memory is said and not asserted: freed memory is not wiped.
    drop((library, me, browser));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let root = String::from_utf8(city.read("keys/root.key")).unwrap();
    let root = root.trim_end().rsplit(' ').next().unwrap().to_owned();
    match memory(serving.id()) {
        None => figure("canaries in the memory of an idle process", "could not be read on this system"),
        Some(memory) => {
            let found: Vec<String> = found_in(&canaries, &memory)
                .iter()
                .map(|(kind, found, forms)| format!("{kind} {found} {forms:?}"))
                .collect();
            let root = counts(&memory, &[root.as_bytes()])[0];
            let size = memory.len() / (1024 * 1024);
            figure(
                "canaries in the memory of an idle process",
                format_args!("{size} MiB: {}, text of the root key {root}", found.join(", ")),
            );
        }
    }
    serving.signal("-TERM");
    assert_eq!(serving.ended(Duration::from_secs(20)).await.unwrap().code(), Some(0));
    holds_none(&canaries, "the log", serving.wrote().as_bytes());
    for outcome in ["withheld", "\"met\"", "=met", "declin", "Grant", "Lapsed"] {
        assert!(!serving.wrote().contains(outcome), "no log holds an outcome, and this one {outcome}");
    }
    let offline = imports_again(&city).await;
    holds_none(&canaries, "what imports into a stopped deployment say", &offline);
    let ids = ids_of_people(&city).await;
    assert!(ids.len() >= 3);
    let ids: Vec<Canary> = ids.iter().map(|id| Canary { kind: "id of a person", forms: forms_of(id) }).collect();
    for (place, bytes) in [
        ("the log", serving.wrote().as_bytes()),
        ("the figures", &figures.body),
        ("imports", &imports),
        ("imports offline", &offline),
    ] {
        holds_none(&ids, place, bytes);
    }
    for error in &errors {
        holds_none(&ids, "the body of an error or a receipt", &error.body);
    }
    let mut looked_at = backup(&city, "stopped").await.len();
    holds_none(&canaries, "a backup of the stopped store", &backup(&city, "again").await);
    assert!(beside.len() > 10_000 && looked_at > 10_000, "{} and {looked_at} bytes of backups", beside.len());
    looked_at = 0;
    for folder in ["store", "checkpoints"] {
        for path in files_under(&city.dir().join(folder)) {
            let bytes = std::fs::read(&path).unwrap();
            looked_at += bytes.len();
            holds_none(&canaries, &path.display().to_string(), &bytes);
        }
    }
    assert!(looked_at > 10_000, "{looked_at} bytes of the store");
}

/// What else people, parties and officers do, so that whatever it leaves is there to be searched; and what it must not leave.
async fn everything_else(city: &Deployment, me: &mut Client, given: &Value) -> Vec<Canary> {
    let form = "application/x-www-form-urlencoded";
    let none = HeaderMap::new;
    // A counter, by code and by token, and what it is shown that is neither.
    let mut counter = city.login(LIBRARY).await;
    let (code, by_page) = (make_code(me, given).await, text(given, "token"));
    for shown in [code.as_str(), code.as_str(), by_page.as_str(), "7K3M-9QXT-2WVB", P1] {
        let page = counter.post("/counter", form, format!("scenario={SCENARIO}&code={shown}"), vec![]).await.unwrap();
        assert!(page.status == 200 || page.status == 403, "{}", page.status);
    }
    // A consent that is declined, one that is taken back, by API and by page, and a code that nobody uses.
    let declined = consent(me, SCENARIO, LIBRARY, json!({"decline": true})).await;
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &text(&declined, "token")).await).1, "withheld");
    let taken_back = consent(me, SCENARIO, LIBRARY, json!({"uses": 3})).await;
    let unused = make_code(me, &taken_back).await;
    let path = format!("/v1/me/consents/{}", text(&taken_back, "id"));
    assert_eq!(me.send(Method::DELETE, &path, none(), vec![].into()).await.unwrap().status, 204);
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &unused).await).1, "withheld");
    // Market information: the consent, a record that rests on it, and both gone.
    let market = me.post_json("/v1/me/market-consents", &json!({"provider": "yx-rental-association"})).await.unwrap();
    assert_eq!(market.status, 201);
    let market = text(&market.json().unwrap(), "id");
    let tenancy = json!({"id": "canary-tenancy-4417-of-rent", "provider": "yx-rental-association",
        "indicator": "rental-contract-kept", "person": {"id_number": P1, "name": NAME}, "occurred_on": "2026-06-02",
        "consent_ref": market});
    city.feed("yx-rental-association", "/v1/records", &tenancy.to_string()).await;
    let path = format!("/v1/me/market-consents/{market}");
    assert_eq!(me.send(Method::DELETE, &path, none(), vec![].into()).await.unwrap().status, 204);
    // A record that its provider takes back, whoever tries; lists of what was sent.
    let path = format!("/v1/records/{RECORD}/withdrawal");
    for (party, status) in [("yx-court", 404), (HOURS, 200), (HOURS, 200)] {
        let done = city.party(party).post_json(&path, &json!({"reason": WITHDRAWN_FOR})).await.unwrap();
        assert_eq!(done.status, status, "{party}");
    }
    assert_eq!(city.party(HOURS).get("/v1/records").await.unwrap().status, 200);
    // Two officers and a case, and the person's own view of it.
    let case = json!({"reason": OPENED_FOR, "person": {"id_number": P1}});
    let mut officer = city.login("officer-one").await;
    let opened = officer.post_json("/v1/cases", &case).await.unwrap();
    assert_eq!(opened.status, 201);
    let id = text(&opened.json().unwrap(), "id");
    let path = format!("/v1/cases/{id}/confirm");
    let confirmed = city.login("officer-two").await.send(Method::POST, &path, none(), vec![].into()).await.unwrap();
    assert!(confirmed.status.is_success(), "{}", confirmed.status);
    for (client, path) in [(&mut officer, format!("/v1/access-log?case={id}")), (me, "/v1/me/accesses".to_owned())] {
        assert_eq!(client.get(&path).await.unwrap().status, 200, "{path}");
    }
    vec![
        canary("number but for its check digit", &P1[..17]),
        canary("id of a record", RECORD),
        canary("id of a market record", "canary-tenancy-4417-of-rent"),
        canary("reason of a withdrawal", WITHDRAWN_FOR),
        canary("reason of a case", OPENED_FOR),
        canary("code at a counter", &code),
        canary("code that nobody used", &unused),
        canary("token of a consent that was declined", &text(&declined, "token")),
        canary("token of a consent that was taken back", &text(&taken_back, "token")),
    ]
}

/// Imports of files in which lines are refused for every kind of reason, at the most talkative level: all that they say, and what
/// they leave beside the files.
async fn imports(city: &Deployment) -> Vec<u8> {
    let files = city.dir().join("imports");
    std::fs::create_dir_all(&files).unwrap();
    let wrong_number = P1.replace("0015", "0016");
    let line = |number: &str| json!({"id_number": number, "name": NAME, "resident": true, "full_capacity": true});
    let mut more = line(P1);
    more["nick_name"] = json!([P1, NAME]);
    let register = [
        line(&wrong_number).to_string(),
        format!("{{\"id_number\": \"{P1}\", {NAME}"),
        more.to_string(),
        json!({"id_number": P1, "name": NAME, "resident": NAME, "full_capacity": P1}).to_string(),
        json!([P1, NAME]).to_string(),
    ];
    let record = |id: &str, day: &str| {
        json!({"id": id, "provider": HOURS, "indicator": "volunteer-hours",
            "person": {"id_number": P1, "name": NAME}, "occurred_on": day, "quantity": 3, "detail": DETAIL})
    };
    let mut unknown = record("canary-1", "2026-06-01");
    unknown["indicator"] = json!(NAME);
    let records = [
        record(RECORD, "2099-06-01").to_string(),
        record(DETAIL, "2026-06-01").to_string(),
        record("canary-2", NAME).to_string(),
        unknown.to_string(),
        format!("{P1}{NAME}"),
    ];
    std::fs::write(files.join("register.ndjson"), register.join("\n")).unwrap();
    std::fs::write(files.join("records.ndjson"), records.join("\n")).unwrap();
    let table =
        format!("id_number,name,resident,full_capacity\n{wrong_number},{NAME},true,true\n{P1},{NAME},{NAME},{P1}\n");
    std::fs::write(files.join("register.csv"), table).unwrap();
    imports_again(city).await
}

/// The same files once more: a gateway that runs takes them over its API, a stopped deployment by itself.
async fn imports_again(city: &Deployment) -> Vec<u8> {
    let (config, files) = (city.config_file(), city.dir().join("imports"));
    let work = move || {
        let mut said = Vec::new();
        for (kind, name) in [
            (vec!["--register"], "register.ndjson"),
            (vec!["--register", "--dry-run"], "register.ndjson"),
            (vec!["--register"], "register.csv"),
            (vec!["--provider", HOURS], "records.ndjson"),
            (vec!["--provider", HOURS, "--dry-run"], "records.ndjson"),
        ] {
            let mut command = jadegate();
            command.args(["import", "--config", config.to_str().unwrap()]).args(&kind).arg(files.join(name));
            let output = command.env("JADEGATE_LOG", "trace").stdin(Stdio::null()).output().unwrap();
            let (code, out, err) = ended(&output);
            assert_eq!(code, 3, "{kind:?} {name}: {out}{err}");
            said.extend([output.stdout, output.stderr].concat());
        }
        for left in files_under(&files).iter().filter(|path| path.to_str().unwrap().contains(".re")) {
            if ["register.ndjson", "records.ndjson", "register.csv"].iter().all(|own| !left.ends_with(own)) {
                said.extend(std::fs::read(left).unwrap());
            }
        }
        said
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// The ids by which people lie in the stopped store: its keys show them, and nothing else may.
async fn ids_of_people(city: &Deployment) -> Vec<Vec<u8>> {
    use jadegate::store::sled::{SledOptions, SledStore};
    use jadegate::store::{KEYS_END, Store as _};
    let store = SledStore::open(&city.dir().join("store"), SledOptions::default()).unwrap();
    let cells = store.scan(jadegate::tables::PERSON, &[], &KEYS_END, 10_000).await.unwrap();
    store.close().await;
    cells.into_iter().map(|(id, _)| id).collect()
}

/// A score as it could be written somewhere, and the words around it that only its own page has.
fn scores(page: &jadegate::client::Response) -> Vec<Canary> {
    let said = page.json().unwrap();
    let score = said["score"].as_u64().unwrap();
    assert!((100..=1_000).contains(&score), "{said}");
    let body = std::str::from_utf8(&page.body).unwrap();
    let named = format!("\"score\":{score}");
    let at = body.find(&named).unwrap();
    let around = body[at..].chars().take(40).collect::<String>();
    vec![
        canary("score, in JSON", &named),
        canary("score, in JSON with a blank", &format!("\"score\": {score}")),
        canary("score, in a line of a log", &format!("score={score}")),
        canary("score, in Debug", &format!("score: {score}")),
        canary("score, in Debug of an option", &format!("score: Some({score}")),
        canary("score with what its page says next", &around),
    ]
}

/// A backup's bytes.
async fn backup(city: &Deployment, name: &str) -> Vec<u8> {
    let (config, out): (PathBuf, PathBuf) = (city.config_file(), city.dir().join(format!("{name}.backup")));
    let made = out.clone();
    let work = move || run(&["store", "export", "--config", config.to_str().unwrap(), out.to_str().unwrap()]);
    let (code, said, err) = tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(code, 0, "{said}{err}");
    std::fs::read(made).unwrap()
}

const PANICS_WITH: &str = "JADEGATE_TEST_PANICS_WITH";

/// A program that does what `serve` does about panics, and then panics in every way with what it was given.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a child process of the next test"]
async fn child_panics_with_what_it_was_given() {
    use axum::routing::post;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    let Ok(given) = std::env::var(PANICS_WITH) else { return };
    tracing_subscriber::fmt().json().with_env_filter("trace").with_writer(std::io::stderr).init();
    jadegate::http::layers::quiet_panics();
    let routes = axum::Router::new()
        .route(
            "/v1/said",
            post(async |body: String| {
                if !body.is_empty() {
                    panic!("it was {body}")
                }
            }),
        )
        .route("/v1/unwrapped", post(async |body: String| body.parse::<u64>().map(drop).map_err(|_| body).unwrap()))
        .route("/v1/cut", post(async |body: String| body[body.find('欧').unwrap() + 1..].to_owned()))
        .route(
            "/v1/thrown",
            post(async |body: String| {
                if !body.is_empty() {
                    std::panic::panic_any(body)
                }
            }),
        )
        .route(
            "/v1/spawned",
            post(async |body: String| {
                tokio::spawn(async move {
                    if !body.is_empty() {
                        panic!("in a task: {body}")
                    }
                })
                .await
                .unwrap();
            }),
        );
    let numbers = jadegate::http::layers::Numbers::new(&jadegate::entropy::SystemEntropy::new()).unwrap();
    let router = jadegate::http::layers::surround(routes, &numbers);
    for path in ["said", "unwrapped", "cut", "thrown", "spawned"] {
        let request =
            http::Request::post(format!("/v1/{path}?q=1")).body(axum::body::Body::from(given.clone())).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let (status, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
        println!("answered {path} {status} {}", String::from_utf8_lossy(&body));
    }
    let thread = std::thread::spawn(move || {
        if !given.is_empty() {
            panic!("in a thread: {given}")
        }
    });
    assert!(thread.join().is_err());
}

/// What is logged and answered of a panic has its place and its number, and nothing of what the code was working on.
#[test]
fn no_canary_is_in_what_is_said_of_a_panic() {
    let token = "jg1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let secrets =
        [("number", P1), ("name", NAME), ("token", token), ("code", "7K3M-9QXT-2WVB"), ("score", "\"score\":731")];
    let all: Vec<&str> = secrets.iter().map(|(_, secret)| *secret).collect();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "edge::canaries::child_panics_with_what_it_was_given", "--ignored", "--nocapture"])
        .env(PANICS_WITH, all.join(" "))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (code, out, err) = ended(&child);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(out.matches(" 500 Internal Server Error ").count(), 5, "{out}");
    assert!(out.matches("\"incident\"").count() == 5, "{out}");
    assert_eq!(err.matches("\"message\":\"a handler panicked\"").count(), 5, "{err}");
    // Five handlers, the task of one of them, and the thread.
    assert_eq!(err.matches("\"message\":\"panic\"").count(), 7, "{err}");
    assert!(err.contains("canaries.rs:"), "where it happened: {err}");
    let canaries: Vec<Canary> = secrets.iter().map(|(kind, secret)| canary(kind, secret)).collect();
    holds_none(&canaries, "what is said of a panic", format!("{out}{err}").as_bytes());
}

/// The address of the figures, which the program says when it is ready.
pub fn admin_of(serving: &Serving) -> String {
    let ready = serving.wrote().lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["fields"]["admin"].as_str().map(str::to_owned)
    });
    format!("http://{}", ready.unwrap())
}

/// The search itself: a canary is found in each form, inside something longer.
#[test]
fn a_canary_is_found_in_each_form() {
    let canaries = [canary("name", NAME)];
    let found = |bytes: &[u8]| found_in(&canaries, bytes)[0].1 > 0;
    assert!(found(format!("x{NAME}x").as_bytes()));
    for before in 0..3 {
        let long = format!("{}{NAME}tail", "x".repeat(before));
        assert!(found(STANDARD_NO_PAD.encode(&long).as_bytes()) && found(URL_SAFE_NO_PAD.encode(&long).as_bytes()));
    }
    assert!(found(json!([NAME]).to_string().as_bytes()) && found(b"\\u6b27\\u9633\\u91d1\\u4e1d\\u96c0"));
    assert!(found(&encoding_rs::GB18030.encode(NAME).0) && !found("欧阳".as_bytes()));
    assert_eq!(counts(b"aaab", &[b"aa", b"ab", b"ba"]), [2, 1, 0]);
}
