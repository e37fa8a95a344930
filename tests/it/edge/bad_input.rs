//! Every kind of bad input: its code, its sentence, and a state that is as it was.

use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jadegate::cli::pki::Authority;
use jadegate::client::{Client, Tls};
use jiff::ToSpan;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use crate::support::deployment::{
    ANSWERS, COURT, Deployment, JSON, LIBRARY, NDJSON, OTHER_LIBRARY, P1, REGISTRAR, SCENARIO, consent, log_size,
    make_code, nonce, outcome, problem, question, rewrite, text, token,
};

pub const NAME: &str = "王小明甲乙";
pub const FORM: &str = "application/x-www-form-urlencoded";
pub const RECORDS: &str = "/v1/records";
pub const REGISTER: &str = "/v1/register";
const CONSENTS: &str = "/v1/me/consents";

/// Limits that a test can reach, each another number.
fn low_limits(dir: &Path) {
    rewrite(&dir.join("policies/city.toml"), |text| {
        text.replace("body_bytes_max = 67108864", "body_bytes_max = 65537")
            .replace("feed_lines_max = 500000", "feed_lines_max = 41")
            .replace("call_bytes_max = 65536", "call_bytes_max = 4099")
            .replace("header_bytes_max = 16384", "header_bytes_max = 8209")
    });
}

/// Who sends it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum By {
    Library,
    OtherLibrary,
    Court,
    Registrar,
    Person,
    Officer,
    Nobody,
    NobodyApi,
}

use By::{Court, Library, Nobody, NobodyApi, Officer, OtherLibrary, Person, Registrar};

struct Row {
    name: &'static str,
    by: By,
    method: Method,
    path: String,
    kind: &'static str,
    body: Vec<u8>,
    headers: Vec<(HeaderName, HeaderValue)>,
    status: u16,
    code: &'static str,
}

fn post(name: &'static str, by: By, path: &str, body: impl Into<Vec<u8>>, status: u16, code: &'static str) -> Row {
    let kind = if path == RECORDS || path == REGISTER { NDJSON } else { JSON };
    Row { name, by, method: Method::POST, path: path.into(), kind, body: body.into(), headers: vec![], status, code }
}

fn get(name: &'static str, by: By, path: &str, status: u16, code: &'static str) -> Row {
    Row { method: Method::GET, kind: "", ..post(name, by, path, "", status, code) }
}

impl Row {
    fn kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((HeaderName::from_static(name), HeaderValue::from_bytes(value.as_ref()).unwrap()));
        self
    }

    fn headers(mut self, more: Vec<(HeaderName, HeaderValue)>) -> Self {
        self.headers.extend(more);
        self
    }
}

/// Somebody's view of everything that bad input must not change.
pub struct Witness {
    me: Client,
    officer: Client,
    public: Client,
}

impl Witness {
    pub async fn new(city: &Deployment) -> Self {
        Self { me: city.person(0).await, officer: city.login("officer-one").await, public: city.public() }
    }

    pub async fn state(&mut self) -> Vec<Value> {
        let mut seen = Vec::new();
        for path in ["/v1/me/score", CONSENTS, "/v1/me/export", "/v1/me/accesses"] {
            let response = self.me.get(path).await.unwrap();
            assert_eq!(response.status, 200, "{path}");
            seen.push(response.json().unwrap());
        }
        // The proofs of the same entries grow with the log.
        for access in seen.last_mut().unwrap().as_array_mut().unwrap() {
            access.as_object_mut().unwrap().remove("proof").unwrap();
        }
        seen
    }

    pub async fn size(&mut self) -> u64 {
        log_size(&mut self.public).await
    }

    /// What was done in the newest entries.
    async fn newest(&mut self, entries: u64) -> Vec<String> {
        if entries == 0 {
            return Vec::new();
        }
        let path = format!("/v1/access-log?limit={entries}");
        let lines = self.officer.get(&path).await.unwrap().json().unwrap();
        lines.as_array().unwrap().iter().map(|line| text(line, "action")).collect()
    }
}

fn rows(city: &Deployment, good: &str, others: &str, code: &str, unconfirmed: &str) -> Vec<Row> {
    let ask = |scenario: &str, consent: &str| question(scenario, consent).to_string();
    let with = |field: &str, value: Value| {
        let mut body = question(SCENARIO, good);
        body[field] = value;
        body.to_string()
    };
    let deep = format!(r#"{{"scenario":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
    let mut forged = good.to_owned().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let body = ask(SCENARIO, good);
    let now = city.clock.now();
    let signed_at = |seconds: i64| city.signed_at(LIBRARY, body.as_bytes(), now + seconds.seconds(), &nonce());
    let unknown_key = {
        let signer = jadegate::client::signing::Signer::new("yx-nobody-1", [7; 32]);
        signer.post_json(&city.target(), body.as_bytes(), now, &nonce()).unwrap()
    };
    let wrong_key = {
        let signer = jadegate::client::signing::Signer::new("yx-library-1", [7; 32]);
        signer.post_json(&city.target(), body.as_bytes(), now, &nonce()).unwrap()
    };
    let two_scenarios =
        format!(r#"{{"scenario":"{SCENARIO}","scenario":"{SCENARIO}","consent":"x","nonce":"{}"}}"#, nonce());
    let wish = |more: Value| {
        let mut wish = json!({"scenario": SCENARIO, "party": LIBRARY});
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wish.to_string()
    };
    let case = |person: Value| json!({"reason": "a complaint", "person": person}).to_string();
    let long = "x".repeat(9000);
    vec![
        // The form of a question.
        post("no JSON", Library, ANSWERS, format!("{{\"scenario\": {NAME}"), 400, "malformed-json"),
        post("no body", Library, ANSWERS, "", 400, "malformed-json"),
        post("something behind the JSON", Library, ANSWERS, format!("{body} {P1}"), 400, "malformed-json"),
        post("invalid UTF-8", Library, ANSWERS, b"{\"scenario\":\"\xff\xfe\"}".to_vec(), 400, "malformed-json"),
        post("an unknown field", Library, ANSWERS, with("threshold", json!(613)), 400, "unknown-field"),
        post("a missing field", Library, ANSWERS, json!({"scenario": SCENARIO}).to_string(), 400, "missing-field"),
        post("a key said twice", Library, ANSWERS, two_scenarios, 400, "duplicate-field"),
        post("a wrong type", Library, ANSWERS, with("consent", json!({"token": NAME})), 400, "wrong-type"),
        post("null", Library, ANSWERS, with("nonce", Value::Null), 400, "wrong-type"),
        post("a list", Library, ANSWERS, "[1,2,3]", 400, "wrong-type"),
        post("a number beyond all range", Library, ANSWERS, r#"{"scenario":1e999}"#, 400, "out-of-range"),
        post("deep nesting", Library, ANSWERS, deep, 400, "too-deep"),
        post("a body too large", Library, ANSWERS, with("consent", json!("x".repeat(5000))), 413, "too-large"),
        post("a wrong content type", Library, ANSWERS, body.clone(), 415, "wrong-content-type").kind("text/plain"),
        post("another charset", Library, ANSWERS, body.clone(), 415, "wrong-content-type")
            .kind("application/json; charset=gbk"),
        post("a short nonce", Library, ANSWERS, with("nonce", json!("short")), 400, "out-of-range"),
        post(
            "a nonce of other characters",
            Library,
            ANSWERS,
            with("nonce", json!("0123456789abcdef é")),
            400,
            "out-of-range",
        ),
        post("headers too large", Library, ANSWERS, body.clone(), 431, "header-too-large").header("x-more", &long),
        get("a target too long", Nobody, &format!("/v1/scenarios?{long}"), 431, "header-too-large"),
        // Who asks, and for what.
        post("nobody", NobodyApi, ANSWERS, body.clone(), 401, "unauthenticated"),
        post("nobody reports", NobodyApi, RECORDS, "{}", 401, "unauthenticated"),
        post("an unknown scenario", Library, ANSWERS, ask("no-such-scenario", good), 403, "unknown-scenario"),
        post(
            "a scenario that is no name",
            Library,
            ANSWERS,
            ask("../etc/passwd\u{202e}", good),
            403,
            "unknown-scenario",
        ),
        post("another party's scenario", Library, ANSWERS, ask("bike-deposit", good), 403, "unknown-scenario"),
        post("a forged token", Library, ANSWERS, ask(SCENARIO, &forged), 403, "consent-not-recognised"),
        post("no token at all", Library, ANSWERS, ask(SCENARIO, NAME), 403, "consent-not-recognised"),
        post(
            "a token cut short",
            Library,
            ANSWERS,
            ask(SCENARIO, &good[..good.len() - 1]),
            403,
            "consent-not-recognised",
        ),
        post(
            "a token in another spelling",
            Library,
            ANSWERS,
            ask(SCENARIO, &format!("{good}=")),
            403,
            "consent-not-recognised",
        ),
        post("another party's token", Library, ANSWERS, ask(SCENARIO, others), 403, "consent-not-recognised"),
        post(
            "a token of another scenario",
            Library,
            ANSWERS,
            ask("library-more-books", good),
            403,
            "consent-not-recognised",
        ),
        post("a code that never was", Library, ANSWERS, ask(SCENARIO, "0000-0000-0000"), 403, "consent-not-recognised"),
        post("another party's code", OtherLibrary, ANSWERS, ask(SCENARIO, code), 403, "consent-not-recognised"),
        post("a merchant reports", Library, RECORDS, "{}", 403, "not-permitted"),
        post("a provider registers", Court, REGISTER, "{}", 403, "not-permitted"),
        // Signatures.
        post("a stale signature", NobodyApi, ANSWERS, body.clone(), 401, "signature-stale").headers(signed_at(-400)),
        post("a future signature", NobodyApi, ANSWERS, body.clone(), 401, "signature-stale").headers(signed_at(400)),
        post(
            "a tampered body",
            NobodyApi,
            ANSWERS,
            body.replace(SCENARIO, "library-depozit"),
            400,
            "content-digest-mismatch",
        )
        .headers(signed_at(0)),
        post("an unknown key", NobodyApi, ANSWERS, body.clone(), 401, "signature-wrong").headers(unknown_key),
        post("a wrong key", NobodyApi, ANSWERS, body.clone(), 401, "signature-wrong").headers(wrong_key),
        post("a signature without its input", NobodyApi, ANSWERS, body.clone(), 401, "signature-missing")
            .header("signature", "sig1=:AAAA:"),
        post("a signature of nonsense", NobodyApi, ANSWERS, body.clone(), 400, "signature-malformed")
            .header("signature", ":::")
            .header("signature-input", "((("),
        post("certificate and signature of two", OtherLibrary, ANSWERS, body.clone(), 401, "two-parties")
            .headers(signed_at(0)),
        // Feeds as a whole.
        post("a feed of another type", Court, RECORDS, "{}", 415, "wrong-content-type").kind(JSON),
        post("a feed too large", Court, RECORDS, " ".repeat(65_538), 413, "too-large"),
        post("too many lines", Registrar, REGISTER, "{}\n".repeat(42), 413, "too-large"),
        // Consents.
        post("a consent that is no JSON", Person, CONSENTS, "{", 400, "malformed-json"),
        post("a consent in UTF-16", Person, CONSENTS, b"\xff\xfe{\0}\0".to_vec(), 400, "malformed-json"),
        post("a consent too large", Person, CONSENTS, wish(json!({"scenario": "x".repeat(17_000)})), 413, "too-large"),
        post("a consent as a form", Person, CONSENTS, "scenario=library-deposit", 415, "wrong-content-type").kind(FORM),
        post("no uses", Person, CONSENTS, wish(json!({"uses": 0})), 422, "consent-beyond-limits"),
        post("too many uses", Person, CONSENTS, wish(json!({"uses": 201})), 422, "consent-beyond-limits"),
        post("too many days", Person, CONSENTS, wish(json!({"days": 366})), 422, "consent-beyond-limits"),
        post("uses beyond 32 bits", Person, CONSENTS, wish(json!({"uses": 4_294_967_296_u64})), 400, "out-of-range"),
        post("uses below nothing", Person, CONSENTS, wish(json!({"uses": -1})), 400, "out-of-range"),
        post("half a use", Person, CONSENTS, wish(json!({"uses": 1.5})), 400, "wrong-type"),
        post("uses in words", Person, CONSENTS, wish(json!({"uses": "3"})), 400, "wrong-type"),
        post("an unknown wish", Person, CONSENTS, wish(json!({"forever": true})), 400, "unknown-field"),
        post(
            "no party where there are two",
            Person,
            CONSENTS,
            json!({"scenario": SCENARIO}).to_string(),
            422,
            "party-required",
        ),
        post("a party that does not ask", Person, CONSENTS, wish(json!({"party": "yx-bike"})), 422, "unknown-party"),
        post(
            "a consent for no scenario",
            Person,
            CONSENTS,
            wish(json!({"scenario": "no-such"})),
            403,
            "unknown-scenario",
        ),
        post("from another site", Person, CONSENTS, wish(json!({})), 403, "wrong-origin")
            .header("origin", "https://elsewhere.example"),
        post("not logged in", Nobody, CONSENTS, wish(json!({})), 401, "not-logged-in"),
        post("a code of no consent", Person, "/v1/me/consents/AAAAAAAAAAAAAAAAAAAAAA/codes", "", 404, "not-found"),
        post("a code of nonsense", Person, "/v1/me/consents/%00%ff/codes", "", 404, "not-found"),
        get("a revocation of nothing", Person, "/v1/me/consents/AAAAAAAAAAAAAAAAAAAAAA", 404, "not-found")
            .method(Method::DELETE),
        get("an answer of no scenario", Person, "/v1/me/answers/no-such", 403, "unknown-scenario"),
        get("an answer of a broken name", Person, "/v1/me/answers/%ff", 404, "not-found"),
        // Lists.
        get("no entries", Person, "/v1/me/consents?limit=0", 400, "bad-page"),
        get("too many entries", Person, "/v1/me/accesses?limit=1001", 400, "bad-page"),
        get("a stranger as a start", Person, "/v1/me/consents?before=AAAA", 400, "bad-page"),
        get("an unknown parameter", Person, &format!("/v1/me/consents?q={P1}"), 400, "bad-query"),
        get("a parameter said twice", Officer, "/v1/access-log?limit=1&limit=2", 400, "bad-query"),
        get("an impossible time", Officer, "/v1/access-log?from=2026-02-30T00:00:00Z", 400, "bad-query"),
        get("a person by number", Officer, &format!("/v1/access-log?person={P1}"), 400, "bad-query"),
        // Officers.
        get("a person reads the log", Person, "/v1/access-log", 403, "not-permitted"),
        get("an officer reads a score", Officer, "/v1/me/score", 403, "not-permitted"),
        get("nobody reads the log", Nobody, "/v1/access-log", 401, "not-logged-in"),
        get("a forged session", Nobody, "/v1/me/score", 401, "not-logged-in")
            .header("cookie", "jadegate_session=AAAAAAAAAAAAAAAAAAAAAAAA"),
        post(
            "a case of a wrong check digit",
            Officer,
            "/v1/cases",
            case(json!({"id_number": "530499199001010016"})),
            400,
            "out-of-range",
        ),
        post(
            "a case of an impossible date",
            Officer,
            "/v1/cases",
            case(json!({"id_number": "53049920000230001X"})),
            400,
            "out-of-range",
        ),
        post(
            "a case of an unknown document",
            Officer,
            "/v1/cases",
            case(json!({"id_type": "library-card", "id_number": P1})),
            400,
            "out-of-range",
        ),
        post(
            "a case of nobody",
            Officer,
            "/v1/cases",
            json!({"reason": "a complaint"}).to_string(),
            400,
            "missing-field",
        ),
        post("a case of a person as a list", Officer, "/v1/cases", case(json!([null, P1])), 400, "wrong-type"),
        post(
            "a case without a reason",
            Officer,
            "/v1/cases",
            json!({"reason": "", "person": {"id_number": P1}}).to_string(),
            400,
            "out-of-range",
        ),
        post("a case that never was", Officer, "/v1/cases/AAAAAAAAAAAAAAAAAAAAAA/confirm", "", 404, "not-found"),
        get("a look-up without a case", Officer, "/v1/access-log?case=AAAA", 404, "not-found"),
        get(
            "a case that nobody confirmed",
            Officer,
            &format!("/v1/access-log?case={unconfirmed}"),
            403,
            "case-not-open",
        ),
        post("a case of one's own", Officer, &format!("/v1/cases/{unconfirmed}/confirm"), "", 403, "case-own"),
        // Paths and methods.
        get("a path not there", Nobody, "/v1/nothing", 404, "not-found"),
        get("a path not there, on the other side", Library, "/v1/me/score", 404, "not-found"),
        get("answers are for the other side", Nobody, ANSWERS, 404, "not-found"),
        get("a slash too much", Library, "/v1/answers/", 404, "not-found"),
        get("a method not there", Library, ANSWERS, 405, "method-not-allowed"),
        get("another method not there", Person, "/v1/me/score", 405, "method-not-allowed").method(Method::DELETE),
        get("a method nobody knows", Nobody, "/v1/scenarios", 405, "method-not-allowed")
            .method(Method::from_bytes(b"BREW").unwrap()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_call_has_its_code_and_changes_nothing() {
    let mut city = Deployment::bent(low_limits).await;
    city.populate(2).await;
    let mut me = city.person(0).await;
    let good = token(&mut me, LIBRARY).await;
    let others = token(&mut me, OTHER_LIBRARY).await;
    let given = consent(&mut me, SCENARIO, LIBRARY, json!({})).await;
    let code = make_code(&mut me, &given).await;
    let mut witness = Witness::new(&city).await;
    let case = json!({"reason": "a complaint", "person": {"id_number": city.people[0]}});
    let case = text(&witness.officer.post_json("/v1/cases", &case).await.unwrap().json().unwrap(), "id");
    let secrets = [P1, NAME, &good, &others, &code, &city.people[0], "threshold_613"];

    let mut wrong = Vec::new();
    for row in rows(&city, &good, &others, &code, &case) {
        let (before, size) = (witness.state().await, witness.size().await);
        let mut client = match row.by {
            Library => city.party(LIBRARY),
            OtherLibrary => city.party(OTHER_LIBRARY),
            Court => city.party(COURT),
            Registrar => city.party(REGISTRAR),
            Person => city.person(0).await,
            Officer => city.login("officer-one").await,
            Nobody => city.public(),
            NobodyApi => city.nobody(),
        };
        let mut headers: HeaderMap = row.headers.into_iter().collect();
        if !row.kind.is_empty() {
            headers.insert("content-type", HeaderValue::from_static(row.kind));
        }
        let response = client.send(row.method, &row.path, headers, row.body.into()).await;
        let response = response.unwrap_or_else(|e| panic!("{}: {e}", row.name));
        if outcome(&response) != (row.status, row.code.to_owned()) {
            let got = outcome(&response);
            wrong.push(format!("{}: {got:?} and not {} {}", row.name, row.status, row.code));
            continue;
        }
        problem(&response, &secrets);
        if matches!(row.code, "too-large" | "header-too-large") {
            let limit = response.json().unwrap()["limit"].as_u64().unwrap();
            assert!([4099, 8209, 65_537, 41, 16_384].contains(&limit), "{}: {limit}", row.name);
        }
        let grown = witness.size().await - size;
        let done = witness.newest(grown).await;
        assert!(done.len() <= 1 && done.iter().all(|action| action == "refuse"), "{}: {done:?}", row.name);
        assert_eq!(witness.state().await, before, "{}", row.name);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What was refused all the time is good: nothing of it was spent.
    for (party, consent) in [(LIBRARY, &good), (OTHER_LIBRARY, &others), (LIBRARY, &code)] {
        let answer = super::answers::ask(&mut city.party(party), consent).await;
        assert_eq!(outcome(&answer), (200, "met".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_counts_once() {
    let city = Deployment::city().await;
    let token = token(&mut city.person(0).await, LIBRARY).await;
    let body = question(SCENARIO, &token).to_string();
    let headers = city.signed(LIBRARY, body.as_bytes());
    let mut api = city.nobody();
    let first = api.post(ANSWERS, JSON, body.clone(), headers.clone()).await.unwrap();
    assert_eq!(outcome(&first), (200, "met".to_owned()));
    let mut witness = Witness::new(&city).await;
    let (state, size) = (witness.state().await, witness.size().await);
    let again = api.post(ANSWERS, JSON, body.clone(), headers.clone()).await.unwrap();
    assert_eq!(problem(&again, &[&token]), (401, "replayed-signature".to_owned()));
    assert_eq!((witness.state().await, witness.size().await), (state, size));

    // A nonce that a refused call was signed with is spent as well.
    let refused = question("no-such-scenario", &token).to_string();
    let headers = city.signed(LIBRARY, refused.as_bytes());
    let mut code = async || outcome(&api.post(ANSWERS, JSON, refused.clone(), headers.clone()).await.unwrap()).1;
    assert_eq!((code().await, code().await), ("unknown-scenario".to_owned(), "replayed-signature".to_owned()));
}

/// A client certificate made by the city's own authority, from its key.
fn by_the_citys_authority(city: &Deployment, from_year: i32, to_year: i32) -> Tls {
    let authority = KeyPair::from_pem(std::str::from_utf8(&city.read("pki/ca.key")).unwrap()).unwrap();
    let mut name = CertificateParams::new(Vec::<String>::new()).unwrap();
    name.distinguished_name.push(DnType::CommonName, "jadegate deployment authority");
    let issuer = Issuer::new(name, authority);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, LIBRARY);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(from_year, 1, 1);
    params.not_after = rcgen::date_time_ymd(to_year, 1, 1);
    let cert = params.signed_by(&key, &issuer).unwrap();
    Tls::with_identity(&city.read("pki/ca.pem"), cert.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_must_be_the_citys_of_this_time_and_registered() {
    let city = Deployment::city().await;
    let token = token(&mut city.person(0).await, LIBRARY).await;
    let theirs = Authority::make("jadegate deployment authority", city.clock.now()).unwrap();
    let foreign = theirs.client(LIBRARY, "Library").unwrap();
    let foreign =
        Tls::with_identity(&city.read("pki/ca.pem"), foreign.cert_pem.as_bytes(), foreign.key_pem.as_bytes()).unwrap();
    let mut witness = Witness::new(&city).await;
    let (state, size) = (witness.state().await, witness.size().await);
    for (tls, code) in [
        (foreign, "certificate-foreign"),
        (by_the_citys_authority(&city, 2020, 2021), "certificate-expired"),
        (by_the_citys_authority(&city, 2090, 2091), "certificate-expired"),
        (by_the_citys_authority(&city, 2020, 2090), "certificate-unknown"),
    ] {
        let refused = super::answers::ask(&mut city.with_tls(tls), &token).await;
        assert_eq!(problem(&refused, &[&token]), (401, code.to_owned()));
    }
    assert_eq!((witness.state().await, witness.size().await), (state, size));
    assert_eq!(outcome(&super::answers::ask(&mut city.party(LIBRARY), &token).await), (200, "met".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_leads_to_its_page() {
    let city = Deployment::empty().await;
    for mut client in [city.public(), city.nobody()] {
        let refused = client.get("/v1/nothing").await.unwrap();
        let kind = text(&refused.json().unwrap(), "type");
        let (page, code) = kind.split_once('#').unwrap();
        let page = client.get(page).await.unwrap();
        assert_eq!(
            (page.status.as_u16(), &page.headers["content-type"]),
            (200, &HeaderValue::from_static("text/markdown; charset=utf-8"))
        );
        assert!(std::str::from_utf8(&page.body).unwrap().contains(&format!("\n### {code}\n")));
    }
}

/// The demo's login is a page's form: a browser gets a page for a wrong one, whoever else a problem; nobody a session.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_gets_no_session() {
    let city = Deployment::city().await;
    let large = format!("as={}", "x".repeat(20_000_000));
    for (body, kind) in
        [(format!("as={P1}"), FORM), (String::new(), FORM), ("as=%ff".into(), FORM), ("{}".into(), JSON), (large, FORM)]
    {
        let mut public = city.public();
        let name = body.get(..30).unwrap_or(&body).to_owned();
        let html = (HeaderName::from_static("accept"), HeaderValue::from_static("text/html,*/*;q=0.8"));
        for (accept, wanted) in [(vec![], "application/problem+json"), (vec![html], "text/html; charset=utf-8")] {
            let refused = public.post("/demo/login", kind, body.clone(), accept).await.unwrap();
            assert!(refused.status.is_client_error(), "{name}: {}", refused.status);
            assert_eq!(refused.headers["content-type"], wanted, "{name}");
            assert!(!String::from_utf8_lossy(&refused.body).contains(P1));
            assert!(!refused.headers.contains_key("set-cookie"), "{name}");
        }
        assert_eq!(public.get("/v1/me/score").await.unwrap().status, 401);
    }
    let origin = vec![(HeaderName::from_static("origin"), HeaderValue::from_static("https://elsewhere.example"))];
    let elsewhere = city.public().post("/demo/login", FORM, format!("as={}", city.people[0]), origin).await.unwrap();
    assert!(elsewhere.status == 403 && !elsewhere.headers.contains_key("set-cookie"), "another site's form");
}

/// Counts are never of one person, nor of a page: what the summary does not do is refused, not passed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_summary_takes_no_case_and_no_page() {
    let city = Deployment::city().await;
    let mut officer = city.login("officer-one").await;
    for query in ["case=00000000000000000000000000000000", "limit=1", "before=1"] {
        let refused = officer.get(&format!("/v1/access-log/summary?{query}")).await.unwrap();
        assert_eq!(problem(&refused, &[]), (400, "bad-query".to_owned()), "{query}");
    }
    assert_eq!(officer.get("/v1/access-log/summary?action=report").await.unwrap().status, 200);
}

/// Every change by session comes from our own pages, whatever it changes.
#[tokio::test(flavor = "multi_thread")]
async fn no_change_by_session_is_taken_from_another_site() {
    let city = Deployment::city().await;
    let (mut me, mut officer) = (city.person(0).await, city.login("officer-one").await);
    let given = consent(&mut me, SCENARIO, LIBRARY, json!({})).await;
    let id = text(&given, "id");
    let elsewhere: HeaderMap =
        [(HeaderName::from_static("origin"), HeaderValue::from_static("https://elsewhere.example"))]
            .into_iter()
            .collect();
    let json_kind = (HeaderName::from_static("content-type"), HeaderValue::from_static(JSON));
    let with_body: HeaderMap =
        elsewhere.clone().into_iter().filter_map(|(n, v)| Some((n?, v))).chain([json_kind]).collect();
    let wish = json!({"scenario": SCENARIO, "party": LIBRARY}).to_string();
    let before = city.log_size().await;
    for (method, path, headers, body) in [
        (Method::POST, "/v1/me/consents".to_owned(), &with_body, wish),
        (Method::DELETE, format!("/v1/me/consents/{id}"), &elsewhere, String::new()),
        (Method::POST, format!("/v1/me/consents/{id}/codes"), &elsewhere, String::new()),
    ] {
        let refused = me.send(method, &path, headers.clone(), body.into_bytes().into()).await.unwrap();
        assert_eq!(problem(&refused, &[]), (403, "wrong-origin".to_owned()), "{path}");
    }
    let case = json!({"reason": "x", "person": {"id_number": P1}}).to_string();
    for (path, headers, body) in [
        ("/v1/cases", &with_body, case),
        ("/v1/cases/00000000000000000000000000000000/confirm", &elsewhere, String::new()),
    ] {
        let refused = officer.send(Method::POST, path, headers.clone(), body.into_bytes().into()).await.unwrap();
        assert_eq!(problem(&refused, &[]), (403, "wrong-origin".to_owned()), "{path}");
    }
    assert_eq!(city.log_size().await, before);
}
