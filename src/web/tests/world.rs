//! A small city for the pages, and what a browser would get of it.

use std::collections::{BTreeMap, HashMap};

use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request, StatusCode, header};
use tower::ServiceExt as _;

use super::super::words::Lang;
use super::super::*;
use crate::access::Role;
use crate::clock::ManualClock;
use crate::code::PartyId;
use crate::entropy::SystemEntropy;
use crate::gateway::{Caller, ConsentRequest, Parts, Staff, Who};
use crate::http::layers::Numbers;
use crate::http::limit::{Limiter, Rate};
use crate::keys::{Keyring, NewKeyring, RootKey};
use crate::ledger::outside::OutsideMemory;
use crate::policies::PolicySet;
use crate::store::memory::MemoryStore;

use super::{MARKUP, ORIGIN};

pub(super) struct World {
    pub(super) gateway: Arc<Gateway>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) router: Router,
    /// Good, fair, and without a score.
    pub(super) people: [String; 3],
}

/// A response, read.
pub(super) struct Got {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) html: String,
}

fn id_number(born: &str, sequence: u16) -> String {
    let body = format!("530499{born}{sequence:03}");
    let rest = body.chars().fold(0, |rest, c| (rest + c.to_digit(10).unwrap()) * 2 % 11);
    let digit = (12 - rest) % 11;
    format!("{body}{}", if digit == 10 { "X".into() } else { digit.to_string() })
}

fn caller(party: &str) -> Caller {
    Caller { party: PartyId::parse(party).unwrap(), signature: None }
}

impl World {
    pub(super) async fn new(files: BTreeMap<String, Vec<u8>>, demo: bool) -> Self {
        let now = "2026-11-25T02:00:00Z".parse().unwrap();
        let clock = Arc::new(ManualClock::new(now));
        let entropy = Arc::new(SystemEntropy::new());
        let made = NewKeyring::generate("yuxi.example/log", now, &*entropy).unwrap();
        let root = RootKey::parse(&made.root, false).unwrap();
        let staff = |login: &str, role| Staff { login: login.into(), role };
        let parts = Parts {
            store: Arc::new(MemoryStore::new()),
            keys: Keyring::open(&made.keyring, &root).unwrap(),
            policies: PolicySet::parse(files).unwrap(),
            outside: Box::new(OutsideMemory::default()),
            clock: clock.clone(),
            entropy: entropy.clone(),
            issuer: "https://yuxi.example".into(),
            staff: vec![
                staff("officer-a", Role::Officer),
                staff("officer-b", Role::Officer),
                staff("operator", Role::Operator),
            ],
        };
        let gateway = Arc::new(Gateway::open(parts).await.unwrap());
        let example = |login: &str, role| Example { login: login.into(), role };
        let people = [id_number("19790412", 1), id_number("19880130", 2), id_number("20150601", 3)];
        let rate = Rate { per_second: 1_000, burst: 1_000 };
        let limiter = Arc::new(Limiter::new(rate, rate, clock.clone()));
        let bases = (BaseAddress::parse("https://127.0.0.1:8443").unwrap(), BaseAddress::parse(ORIGIN).unwrap());
        let numbers = Numbers::new(&*entropy).unwrap();
        let app = Arc::new(App::new(gateway.clone(), limiter, numbers, bases, clock.clone(), HashMap::new()));
        let router = routes(WebState {
            app,
            demo,
            examples: vec![
                example(&people[0], ExampleRole::Resident),
                example(&people[1], ExampleRole::Resident),
                example("officer-a", ExampleRole::Officer),
                example("operator", ExampleRole::Operator),
                example("yx-library", ExampleRole::Party),
            ],
            entropy,
        });
        let world = Self { gateway, clock, router, people };
        world.fill().await;
        world
    }

    /// Registers people and reports some records.
    pub(super) async fn fill(&self) {
        let line =
            |id: &String| format!(r#"{{"id_number":"{id}","name":"{MARKUP}","resident":true,"full_capacity":true}}"#);
        let register = self.people.iter().map(line).collect::<Vec<_>>().join("\n");
        self.gateway.enrol(&caller("yx-public-security"), register.as_bytes()).await.unwrap();
        let [good, fair, _] = &self.people;
        self.report("yx-civil-affairs", good, "volunteer-hours", "2026-03-01", Some(160)).await;
        self.report("yx-public-security", good, "good-samaritan", "2025-05-01", None).await;
        self.report("yx-court", fair, "civil-judgment-unperformed", "2026-01-01", None).await;
        self.report("yx-public-security", good, "household-registration", "2016-01-01", None).await;
    }

    pub(super) async fn report(&self, provider: &str, person: &str, indicator: &str, on: &str, quantity: Option<u32>) {
        let quantity = quantity.map_or_else(String::new, |q| format!(r#","quantity":{q}"#));
        let detail = serde_json::json!(format!("{{{{7*7}}}}\"><script>alert(1)</script>{MARKUP}"));
        let line = format!(
            r#"{{"id":"{indicator}-{on}","provider":"{provider}","indicator":"{indicator}","person":{{"id_number":"{person}","name":"某"}},"occurred_on":"{on}"{quantity},"detail":{detail}}}"#
        );
        let intake = self.gateway.report(&caller(provider), line.as_bytes()).await.unwrap();
        assert_eq!((intake.accepted, intake.rejected.len()), (1, 0), "{:?}", intake.rejected);
    }

    pub(super) async fn send(&self, mut request: Request<Body>) -> Got {
        // As a browser does.
        request.headers_mut().insert(header::ACCEPT, http::HeaderValue::from_static("text/html,*/*;q=0.8"));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 16 * 1024 * 1024).await.unwrap();
        let html = String::from_utf8(bytes.to_vec()).unwrap();
        Got { status: parts.status, headers: parts.headers, html }
    }

    pub(super) async fn get(&self, path: &str, session: &str, lang: Lang) -> Got {
        let cookie = format!("jadegate_session={session}; lang={}", lang.code());
        self.send(Request::get(path).header(header::COOKIE, cookie).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, session: &str, lang: Lang, form: &str) -> Got {
        let request = Request::post(path)
            .header(header::COOKIE, format!("jadegate_session={session}; lang={}", lang.code()))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, ORIGIN);
        self.send(request.body(Body::from(form.to_owned())).unwrap()).await
    }

    pub(super) async fn log_in(&self, name: &str) -> String {
        self.gateway.demo_login(name).await.unwrap()
    }

    /// A consent's id and token, given by the good one to the library.
    pub(super) async fn consent(&self, scenario: &str, decline: bool) -> (String, String) {
        let session = self.log_in(&self.people[0]).await;
        let Some(Who::Person(login)) = self.gateway.session(&session).await.unwrap() else { panic!() };
        let party = Some("yx-library".to_owned());
        let request = ConsentRequest { scenario: scenario.into(), party, uses: Some(2), days: None, decline };
        let made = self.gateway.give_consent(&login, &request).await.unwrap();
        (made.id.to_text(), made.token)
    }
}
