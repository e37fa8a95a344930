//! A real deployment in a folder of its own: made by `init`'s provisioning, served in this process or by the binary,
//! called over its listeners by whoever holds a party's certificate or key.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use jadegate::cli::demo::city::City;
use jadegate::cli::init::{self, Plan};
use jadegate::cli::serve::{Running, start_gateway, start_restored};
use jadegate::client::signing::Signer;
use jadegate::client::{Client, Response, Tls};
use jadegate::clock::{self, Clock, SystemClock};
use jadegate::config::{Config, Staff, StaffRole};
use jadegate::entropy::{self, SystemEntropy};
use jadegate::policies::PolicySet;
use serde_json::{Value, json};

use super::Folder;

/// Two merchants that share a scenario of one cut, 600, which allows 200 uses.
pub const LIBRARY: &str = "yx-library";
pub const OTHER_LIBRARY: &str = "yx-hongta-library";
pub const SCENARIO: &str = "library-deposit";
pub const REGISTRAR: &str = "yx-public-security";
pub const COURT: &str = "yx-court";
/// Nobody's number.
pub const P1: &str = "530499199001010015";

pub const ANSWERS: &str = "/v1/answers";
pub const NDJSON: &str = "application/x-ndjson";
pub const JSON: &str = "application/json";

pub struct Deployment {
    folder: Folder,
    pub config: Config,
    pub set: PolicySet,
    /// Those with a number, in the demo's order: the first is met at 600, the second is not, the third at 800 too.
    pub people: Vec<String>,
    pub clock: Arc<dyn Clock>,
    running: Option<Running>,
}

impl Deployment {
    /// A city of three that serves.
    pub async fn city() -> Self {
        let mut deployment = Self::empty().await;
        deployment.populate(3).await;
        deployment
    }

    /// Nobody lives here; it serves.
    pub async fn empty() -> Self {
        Self::bent(|_| {}).await
    }

    /// As [`Self::empty`], with the folder changed before the start.
    pub async fn bent(bend: impl FnOnce(&Path)) -> Self {
        let mut deployment = Self::provisioned(Arc::new(SystemClock::new()));
        bend(&deployment.dir());
        deployment.start().await;
        deployment
    }

    /// Made and not started.
    pub fn provisioned(clock: Arc<dyn Clock>) -> Self {
        let folder = Folder::new();
        let staff = |login: &str, role| Staff { login: login.to_owned(), role };
        let plan = Plan {
            demo: true,
            staff: vec![
                staff("officer-one", StaffRole::Officer),
                staff("officer-two", StaffRole::Officer),
                staff("operator-one", StaffRole::Operator),
            ],
            ..Plan::usual()
        };
        let dir = folder.path().join("city");
        let (config, set) = init::provision(&dir, &plan, clock.now(), &SystemEntropy::new()).unwrap();
        let mut deployment = Self { folder, config, set, people: Vec::new(), clock, running: None };
        deployment.choose_ports();
        deployment
    }

    /// Ports that nobody uses now, written down where `serve` finds them.
    pub fn choose_ports(&mut self) {
        let [listen, api] = free_addresses();
        let config = &mut self.config;
        (config.listen, config.web_base) = (listen, format!("http://{listen}"));
        (config.api, config.api_base) = (api, format!("https://{api}"));
        std::fs::write(self.config_file(), self.config.to_toml(&self.dir())).unwrap();
    }

    /// Serves in this process. Another process may take a port between choice and use; then others are chosen.
    pub async fn start(&mut self) {
        for _ in 0..20 {
            match self.try_start().await {
                Err(why) if why.contains("cannot listen") => self.choose_ports(),
                done => return done.unwrap(),
            }
        }
        panic!("no free ports");
    }

    pub async fn try_start(&mut self) -> Result<(), String> {
        let running = start_gateway(&self.config, self.clock.clone(), Arc::new(SystemEntropy::new())).await;
        self.running = Some(running.map_err(|e| e.to_string())?);
        Ok(())
    }

    /// Goes on from a restored store, under a new log.
    pub async fn start_restored(&mut self, under: &str) {
        self.choose_ports();
        let running = start_restored(&self.config, under, self.clock.clone(), Arc::new(SystemEntropy::new())).await;
        self.running = Some(running.unwrap());
    }

    /// Finishes what is under way and ends.
    pub async fn stop(&mut self) -> Result<(), String> {
        self.running.take().unwrap().drain().await.map_err(|e| e.to_string())
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("city")
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir().join("jadegate.toml")
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir().join(name)).unwrap()
    }

    /// Registers people of the demo's cast and reports their records, over the real API.
    pub async fn populate(&mut self, people: usize) {
        let city = City::make(people, &self.set, clock::day_of(self.clock.now())).unwrap();
        self.feed(REGISTRAR, "/v1/register", &city.register().join("\n")).await;
        for (provider, lines) in city.records() {
            self.feed(provider.as_str(), "/v1/records", &lines.join("\n")).await;
        }
        let numbered = city.residents.iter().filter(|r| r.person.identity.birth_date().is_some());
        self.people = numbered.map(|r| r.person.identity.number().to_owned()).collect();
    }

    /// Sends lines that must all be taken; gives the counts.
    pub async fn feed(&self, party: &str, path: &str, lines: &str) -> Value {
        let response = self.party(party).post(path, NDJSON, lines.to_owned(), vec![]).await.unwrap();
        assert_eq!(response.status, 200);
        let counts = response.json().unwrap();
        assert_eq!(counts["rejected"], json!([]));
        counts
    }

    pub fn tls(&self, party: &str) -> Tls {
        let file = |end: &str| self.read(&format!("parties/{party}.{end}"));
        Tls::with_identity(&self.read("pki/ca.pem"), &file("pem"), &file("key")).unwrap()
    }

    pub fn with_tls(&self, tls: Tls) -> Client {
        Client::new(&self.config.api_base, Some(tls)).unwrap()
    }

    /// A party with its client certificate.
    pub fn party(&self, party: &str) -> Client {
        self.with_tls(self.tls(party))
    }

    /// The parties' side, of nobody in particular.
    pub fn nobody(&self) -> Client {
        self.with_tls(Tls::trusting(&self.read("pki/ca.pem")).unwrap())
    }

    /// A party's shared key.
    pub fn shared_key(&self, party: &str) -> Vec<u8> {
        STANDARD.decode(self.read(&format!("parties/{party}.hmac")).trim_ascii()).unwrap()
    }

    /// The address that a signature of a call to `/v1/answers` covers.
    pub fn target(&self) -> String {
        format!("{}{ANSWERS}", self.config.api_base)
    }

    /// The headers that sign a call of `/v1/answers`.
    pub fn signed(&self, party: &str, body: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
        self.signed_at(party, body, self.clock.now(), &nonce())
    }

    pub fn signed_at(
        &self,
        party: &str,
        body: &[u8],
        at: jiff::Timestamp,
        nonce: &str,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let signer = Signer::new(format!("{party}-1"), self.shared_key(party));
        signer.post_json(&self.target(), body, at, nonce).unwrap()
    }

    /// The public side, of nobody in particular.
    pub fn public(&self) -> Client {
        Client::new(&self.config.web_base, None).unwrap()
    }

    /// The public side, logged in.
    pub async fn login(&self, who: &str) -> Client {
        login(&self.config.web_base, who).await
    }

    /// One of the cast, logged in.
    pub async fn person(&self, nth: usize) -> Client {
        self.login(&self.people[nth]).await
    }

    /// How many entries the log has.
    pub async fn log_size(&self) -> u64 {
        log_size(&mut self.public()).await
    }
}

pub fn rewrite(file: &Path, change: impl FnOnce(&str) -> String) {
    let text = std::fs::read_to_string(file).unwrap();
    let changed = change(&text);
    assert_ne!(text, changed, "{}: nothing to change", file.display());
    std::fs::write(file, changed).unwrap();
}

/// Addresses on loopback that nobody uses now. Below the ports that systems give to connections: while a gateway is
/// down for a moment, another test's connection must not sit on its port.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let mut held = Vec::new();
    while held.len() < N {
        let random = u16::from_be_bytes(entropy::bytes(&SystemEntropy::new()).unwrap());
        held.extend(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 10_000 + random % 22_000)));
    }
    std::array::from_fn(|n| held[n].local_addr().unwrap())
}

pub async fn login(web: &str, who: &str) -> Client {
    let mut client = Client::new(web, None).unwrap();
    let response = client.post("/demo/login", "application/x-www-form-urlencoded", format!("as={who}"), vec![]).await;
    let status = response.unwrap().status;
    assert!(status.is_redirection() || status.is_success(), "{status}");
    client
}

pub async fn log_size(public: &mut Client) -> u64 {
    let checkpoint = public.get("/log/checkpoint").await.unwrap();
    std::str::from_utf8(&checkpoint.body).unwrap().lines().nth(1).unwrap().parse().unwrap()
}

pub fn nonce() -> String {
    URL_SAFE_NO_PAD.encode(entropy::bytes::<18>(&SystemEntropy::new()).unwrap())
}

/// What a person lets a party ask; `more` are further fields.
pub async fn consent(me: &mut Client, scenario: &str, party: &str, more: Value) -> Value {
    let mut wish = json!({"scenario": scenario, "party": party});
    wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = me.post_json("/v1/me/consents", &wish).await.unwrap();
    assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
    made.json().unwrap()
}

/// A token for 200 questions of the scenario of the libraries.
pub async fn token(me: &mut Client, party: &str) -> String {
    text(&consent(me, SCENARIO, party, json!({"uses": 200})).await, "token")
}

/// A one-time code of a consent.
pub async fn make_code(me: &mut Client, consent: &Value) -> String {
    let path = format!("/v1/me/consents/{}/codes", text(consent, "id"));
    let made = me.send(http::Method::POST, &path, http::HeaderMap::new(), vec![].into()).await.unwrap();
    assert_eq!(made.status, 201);
    text(&made.json().unwrap(), "code")
}

pub async fn revoke(me: &mut Client, consent: &Value) {
    let path = format!("/v1/me/consents/{}", text(consent, "id"));
    let done = me.send(http::Method::DELETE, &path, http::HeaderMap::new(), vec![].into()).await.unwrap();
    assert_eq!(done.status, 204);
}

pub fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap().to_owned()
}

pub fn question(scenario: &str, consent: &str) -> Value {
    json!({"scenario": scenario, "consent": consent, "nonce": nonce()})
}

pub async fn ask(party: &mut Client, scenario: &str, consent: &str) -> Response {
    party.post_json(ANSWERS, &question(scenario, consent)).await.unwrap()
}

/// Status, and the answer or the code.
pub fn outcome(response: &Response) -> (u16, String) {
    let body = response.json().unwrap_or_default();
    let said = body.get("answer").or_else(|| body.get("code")).and_then(Value::as_str).unwrap_or("-");
    (response.status.as_u16(), said.to_owned())
}

/// The refusal that this must be: form, media type, a sentence, and nothing of `secrets` in it. Gives its code.
pub fn problem(response: &Response, secrets: &[&str]) -> (u16, String) {
    let body = String::from_utf8_lossy(&response.body).into_owned();
    let status = response.status.as_u16();
    assert!((400..600).contains(&status), "{status}: {body}");
    assert_eq!(response.headers["content-type"], "application/problem+json", "{status}: {body}");
    let json: Value = serde_json::from_str(&body).unwrap();
    let code = json["code"].as_str().unwrap().to_owned();
    assert_eq!(json["status"], status, "{body}");
    assert_eq!(json["type"], format!("/docs/errors#{code}"));
    for field in ["title", "title_zh"] {
        assert!(json[field].as_str().unwrap().chars().count() >= 3, "{field} of {code} says too little");
    }
    let detail = json["detail"].as_str().unwrap();
    assert!(detail.split_whitespace().count() >= 3, "no sentence: {body}");
    for secret in secrets {
        assert!(!body.contains(secret), "{code} repeats {secret:?}: {body}");
    }
    (status, code)
}
