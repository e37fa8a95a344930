//! Load over the real listeners that remembers what it was told, and whether all of that still holds after a crash.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jadegate::access_log::checkpoint::{Checkpoint, VerifierKey};
use jadegate::access_log::proof::Proof;
use jadegate::access_log::tile::{RightEdge, TILE_WIDTH, TileRequest, width_at};
use jadegate::access_log::{ENTRY_BYTES, Hash, leaf_hash};
use jadegate::cli::demo::city::City;
use jadegate::cli::log_verify;
use jadegate::client::{Client, ClientError, Response};
use jadegate::clock::{self, Clock, SystemClock};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::deployment::{ANSWERS, Deployment, LIBRARY, NDJSON, SCENARIO, ask, outcome, question, text};

/// How often each consent may be used.
const USES: u64 = 200;
/// Who reports, and what.
const PROVIDER: &str = "yx-civil-affairs";

/// What a caller was about to do, or was told.
enum Said {
    Given {
        token: String,
        id: String,
    },
    Asking {
        token: String,
    },
    Answered {
        token: String,
        attestation: String,
        proof: String,
    },
    /// With this one-time code, which is used up.
    ByCode {
        code: String,
        token: String,
    },
    Revoking {
        token: String,
    },
    Revoked {
        token: String,
    },
    Reported {
        line: String,
    },
}

/// What was said to callers, with the time in microseconds.
#[derive(Default)]
pub struct Told(Mutex<Vec<(i64, Said)>>);

fn now() -> i64 {
    SystemClock::new().now().as_microsecond()
}

impl Told {
    fn note(&self, said: Said) {
        self.0.lock().unwrap().push((now(), said));
    }

    /// How much callers were told, and wanted, so far.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Of each kind: answers, uses of a code, consents taken back, records.
    pub fn counts(&self) -> [usize; 4] {
        let told = self.0.lock().unwrap();
        let count = |kind: fn(&Said) -> bool| told.iter().filter(|(_, said)| kind(said)).count();
        [
            count(|said| matches!(said, Said::Answered { .. })),
            count(|said| matches!(said, Said::ByCode { .. })),
            count(|said| matches!(said, Said::Revoked { .. })),
            count(|said| matches!(said, Said::Reported { .. })),
        ]
    }
}

/// A city in which load can be made: one person is registered, or will be by the load's first call.
pub struct Loaded {
    pub city: Arc<Deployment>,
    pub told: Arc<Told>,
    person: Value,
    tasks: Vec<tokio::task::JoinHandle<Option<()>>>,
}

impl Loaded {
    /// Load by one person of the cast, who must be in the city already.
    pub fn new(city: Arc<Deployment>) -> Self {
        let cast = City::make(1, &city.set, clock::day_of(city.clock.now())).unwrap();
        let line = cast.residents[0].person.to_json();
        let person = json!({"id_number": line["id_number"], "name": line["name"]});
        Self { city, told: Arc::default(), person, tasks: Vec::new() }
    }

    /// Consents, asks, codes, revocations by `loads` callers, and reports by one, until the gateway is gone.
    pub fn start(&mut self, loads: usize) {
        for turn in 0..loads {
            self.tasks.push(tokio::spawn(ask_on(self.city.clone(), self.told.clone(), turn)));
        }
        self.tasks.push(tokio::spawn(report_on(self.city.clone(), self.told.clone(), self.person.clone())));
    }

    pub fn is_over(&self) -> bool {
        self.tasks.iter().all(tokio::task::JoinHandle::is_finished)
    }

    /// Waits for all callers to have noticed that the gateway is gone.
    pub async fn over(&mut self) {
        for task in self.tasks.drain(..) {
            assert!(task.await.unwrap().is_none());
        }
    }
}

/// A call that a gateway answered which could: one that has a fault is as good as gone.
fn fine(called: Result<Response, ClientError>) -> Option<Response> {
    called.ok().filter(|response| response.status.as_u16() < 500)
}

async fn ask_on(city: Arc<Deployment>, told: Arc<Told>, turn: usize) -> Option<()> {
    let mut me = Client::new(&city.config.web_base, None).unwrap();
    let form = format!("as={}", city.people[0]);
    me.post("/demo/login", "application/x-www-form-urlencoded", form, vec![]).await.ok()?;
    let mut library = city.party(LIBRARY);
    let wish = json!({"scenario": SCENARIO, "party": LIBRARY, "uses": USES});
    for round in turn.. {
        let given = fine(me.post_json("/v1/me/consents", &wish).await)?.json().ok()?;
        let (token, id) = (text(&given, "token"), text(&given, "id"));
        told.note(Said::Given { token: token.clone(), id: id.clone() });

        told.note(Said::Asking { token: token.clone() });
        let answer = fine(library.post_json(ANSWERS, &question(SCENARIO, &token)).await)?;
        assert_eq!(outcome(&answer), (200, "met".to_owned()));
        let answer: Value = answer.json().ok()?;
        let (attestation, proof) = (text(&answer, "attestation"), text(&answer, "proof"));
        told.note(Said::Answered { token: token.clone(), attestation, proof });

        if round % 3 == 0 {
            let path = format!("/v1/me/consents/{id}/codes");
            let made = fine(me.send(http::Method::POST, &path, http::HeaderMap::new(), vec![].into()).await)?;
            let code = text(&made.json().ok()?, "code");
            told.note(Said::Asking { token: token.clone() });
            let answer = fine(library.post_json(ANSWERS, &question(SCENARIO, &code)).await)?;
            assert_eq!(outcome(&answer), (200, "met".to_owned()));
            let answer: Value = answer.json().ok()?;
            let (attestation, proof) = (text(&answer, "attestation"), text(&answer, "proof"));
            told.note(Said::Answered { token: token.clone(), attestation, proof });
            told.note(Said::ByCode { code, token: token.clone() });
        }
        if round % 2 == 0 {
            // From here on it may be revoked or not, until the call returns.
            told.note(Said::Revoking { token: token.clone() });
            let path = format!("/v1/me/consents/{id}");
            let revoked = fine(me.send(http::Method::DELETE, &path, http::HeaderMap::new(), vec![].into()).await)?;
            assert_eq!(revoked.status, 204);
            told.note(Said::Revoked { token });
        }
    }
    None
}

async fn report_on(city: Arc<Deployment>, told: Arc<Told>, person: Value) -> Option<()> {
    let mut provider = city.party(PROVIDER);
    for _ in 0.. {
        let id = super::deployment::nonce();
        let line = json!({"id": format!("load-{id}"), "provider": PROVIDER, "indicator": "volunteer-hours",
            "person": person, "occurred_on": "2026-03-01", "quantity": 1})
        .to_string();
        let taken = fine(provider.post("/v1/records", NDJSON, line.clone(), vec![]).await)?;
        assert_eq!(taken.status, 200);
        assert_eq!(taken.json().unwrap()["accepted"], 1);
        told.note(Said::Reported { line });
    }
    None
}

/// The log as a stranger reads it: its entries, and the root at each size.
pub struct Log {
    entries: Vec<Vec<u8>>,
    roots: Vec<Hash>,
    pub checkpoint: Checkpoint,
}

async fn read_log(public: &mut Client, key: &VerifierKey) -> Log {
    let note = public.get("/log/checkpoint").await.unwrap();
    let checkpoint = key.open(std::str::from_utf8(&note.body).unwrap()).unwrap();
    let (mut entries, mut edge) = (Vec::new(), RightEdge::new());
    let mut roots = vec![edge.root()];
    for index in 0..checkpoint.size.div_ceil(TILE_WIDTH) {
        let request = TileRequest::Entries { index, width: width_at(0, index, checkpoint.size) };
        let bundle = public.get(&format!("/log/tile/{}", request.path())).await.unwrap();
        assert_eq!(bundle.status, 200, "bundle {index}");
        for entry in bundle.body.chunks(2 + ENTRY_BYTES) {
            edge.append(leaf_hash(&entry[2..]), &mut Vec::new());
            roots.push(edge.root());
            entries.push(entry[2..].to_vec());
        }
    }
    assert_eq!(roots.last(), Some(&checkpoint.root));
    Log { entries, roots, checkpoint }
}

impl Log {
    pub fn holds(&self, checkpoint: &Checkpoint) -> bool {
        usize::try_from(checkpoint.size).ok().and_then(|size| self.roots.get(size)) == Some(&checkpoint.root)
    }
}

/// What was said about one consent.
#[derive(Default)]
struct Standing {
    id: String,
    wanted: u64,
    answered: u64,
    revoking: bool,
    revoked: bool,
}

/// The newest of a list, and some of the oldest: each is a call that takes its time.
fn some<T>(list: &[T]) -> impl Iterator<Item = &T> {
    let old = list.len().min(2);
    list[..old].iter().chain(list[old..].iter().rev().take(6))
}

/// Whether all that was told before a moment holds in the city that serves now. Gives the log.
pub async fn holds(city: &Deployment, told: &Told, key: &VerifierKey, until: i64) -> Log {
    let (mut consents, mut given) = (BTreeMap::<String, Standing>::new(), Vec::new());
    let (mut answers, mut codes, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for (_, said) in told.0.lock().unwrap().iter().filter(|(at, _)| *at < until) {
        match said {
            Said::Given { token, id } => {
                given.push(token.clone());
                consents.insert(token.clone(), Standing { id: id.clone(), ..Standing::default() });
            }
            Said::Asking { token } => consents.get_mut(token).unwrap().wanted += 1,
            Said::Answered { token, attestation, proof } => {
                consents.get_mut(token).unwrap().answered += 1;
                answers.push((attestation.clone(), proof.clone()));
            }
            Said::ByCode { code, token } => codes.push((code.clone(), token.clone())),
            Said::Revoking { token } => consents.get_mut(token).unwrap().revoking = true,
            Said::Revoked { token } => consents.get_mut(token).unwrap().revoked = true,
            Said::Reported { line } => lines.push(line.clone()),
        }
    }

    let log = read_log(&mut city.public(), key).await;
    for (attestation, proof) in &answers {
        let proof = Proof::parse(proof).unwrap();
        let checkpoint = proof.verify(key).unwrap();
        assert!(log.holds(&checkpoint), "the log does not extend the checkpoint of an answer, {}", checkpoint.size);
        assert_eq!(log.entries[usize::try_from(proof.index).unwrap()], proof.extra);
        assert_eq!(proof.extra[..32], *Sha256::digest(attestation));
    }

    if !given.is_empty() {
        let mut me = city.person(0).await;
        let mut listed: Vec<Value> = Vec::new();
        loop {
            let before =
                listed.last().map_or(String::new(), |last| format!("&before={}", last["id"].as_str().unwrap()));
            let page = me.get(&format!("/v1/me/consents?limit=1000{before}")).await.unwrap().json().unwrap();
            let page = page.as_array().unwrap().clone();
            listed.extend(page.iter().cloned());
            if page.len() < 1000 {
                break;
            }
        }
        for standing in consents.values() {
            let found: Vec<&Value> = listed.iter().filter(|one| one["id"] == standing.id.as_str()).collect();
            assert_eq!(found.len(), 1, "a consent that was given is in its person's list once");
            let used = USES - found[0]["uses_left"].as_u64().unwrap();
            assert!(
                (standing.answered..=standing.wanted).contains(&used),
                "{used} used of {} answers",
                standing.answered
            );
            if standing.revoked || !standing.revoking {
                assert_eq!(!found[0]["revoked_at"].is_null(), standing.revoked);
            }
        }
    }
    let mut library = city.party(LIBRARY);
    let decided: Vec<&String> =
        given.iter().filter(|token| consents[*token].revoked || !consents[*token].revoking).collect();
    for token in some(&decided) {
        let said = if consents[*token].revoked { "withheld" } else { "met" };
        // Where the city goes on from here, this use counts as well.
        told.note(Said::Asking { token: (*token).clone() });
        assert_eq!(outcome(&ask(&mut library, SCENARIO, token).await), (200, said.to_owned()));
    }
    for (code, token) in some(&codes) {
        told.note(Said::Asking { token: token.clone() });
        assert_ne!(outcome(&ask(&mut library, SCENARIO, code).await).1, "met", "a code that was used up");
    }
    if !lines.is_empty() {
        let counts = city.feed(PROVIDER, "/v1/records", &lines.join("\n")).await;
        assert_eq!((counts["accepted"].as_u64(), counts["unchanged"].as_u64()), (Some(0), Some(lines.len() as u64)));
    }
    let fetch = async |path: String| {
        let mut public = city.public();
        let response = public.get(&format!("/{path}")).await.map_err(|e| e.to_string())?;
        if response.status == 200 { Ok(response.body.to_vec()) } else { Err(response.status.to_string()) }
    };
    let read = log_verify::verify(Some(key.clone()), fetch, |_, _| {}).await.unwrap();
    assert!(read.checkpoint.size >= log.checkpoint.size);
    log
}

/// The stopped city's store is what its log says, cell by cell.
pub async fn audits(city: &Deployment) {
    let audit = city.config.audit(&[], &mut |_| {}).await.unwrap();
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
}

/// A city that was populated and stopped again, with nobody's load in it yet.
pub async fn populated() -> (Arc<Deployment>, VerifierKey, PathBuf) {
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    city.start().await;
    city.populate(1).await;
    let key = log_key(&city).await;
    city.stop().await.unwrap();
    let output = city.dir().join("output");
    (Arc::new(city), key, output)
}

/// The log's public key.
pub async fn log_key(city: &Deployment) -> VerifierKey {
    let key = city.public().get("/log/key").await.unwrap();
    VerifierKey::parse(std::str::from_utf8(&key.body).unwrap().trim()).unwrap()
}
