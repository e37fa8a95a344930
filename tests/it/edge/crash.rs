//! kill -9 at any moment: what was acknowledged holds, and the log goes on from where it was.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jadegate::access_log::checkpoint::{Checkpoint, VerifierKey};
use jadegate::access_log::proof::Proof;
use jadegate::access_log::tile::{RightEdge, TILE_WIDTH, TileRequest, width_at};
use jadegate::access_log::{ENTRY_BYTES, Hash, leaf_hash};
use jadegate::cli::log_verify;
use jadegate::client::Client;
use jadegate::clock::SystemClock;
use jadegate::entropy::{self, SystemEntropy};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::deployment::{ANSWERS, Deployment, LIBRARY, SCENARIO, ask, log_size, outcome, question, text};
use crate::support::process::Serving;

const KILLS: usize = 6;
const LOADS: usize = 4;

/// What callers were told before the process was killed.
#[derive(Default)]
struct Acknowledged {
    /// Attestations and their proofs.
    answers: Vec<(String, String)>,
    /// Tokens of consents that hold.
    given: Vec<String>,
    revoked: Vec<String>,
}

/// Consents, asks and revokes until the connection breaks.
async fn load(city: Arc<Deployment>, told: Arc<Mutex<Acknowledged>>, done: Arc<AtomicUsize>) -> Option<()> {
    let mut me = Client::new(&city.config.web_base, None).unwrap();
    let form = format!("as={}", city.people[0]);
    me.post("/demo/login", "application/x-www-form-urlencoded", form, vec![]).await.ok()?;
    let mut library = city.party(LIBRARY);
    let wish = json!({"scenario": SCENARIO, "party": LIBRARY, "uses": 200});
    for round in 0.. {
        let given = me.post_json("/v1/me/consents", &wish).await.ok()?.json().ok()?;
        let token = text(&given, "token");
        told.lock().unwrap().given.push(token.clone());
        done.fetch_add(1, Ordering::SeqCst);

        let answer = library.post_json(ANSWERS, &question(SCENARIO, &token)).await.ok()?;
        assert_eq!(outcome(&answer), (200, "met".to_owned()));
        let answer: Value = answer.json().ok()?;
        told.lock().unwrap().answers.push((text(&answer, "attestation"), text(&answer, "proof")));
        done.fetch_add(1, Ordering::SeqCst);

        if round % 2 == 0 {
            // From here on it may be revoked or not, until the call returns.
            told.lock().unwrap().given.retain(|held| *held != token);
            let path = format!("/v1/me/consents/{}", text(&given, "id"));
            let revoked = me.send(http::Method::DELETE, &path, http::HeaderMap::new(), vec![].into()).await.ok()?;
            assert_eq!(revoked.status, 204);
            told.lock().unwrap().revoked.push(token);
            done.fetch_add(1, Ordering::SeqCst);
        }
    }
    None
}

/// The log as a stranger reads it: its entries, and the root at each size.
struct Log {
    entries: Vec<Vec<u8>>,
    roots: Vec<Hash>,
    checkpoint: Checkpoint,
}

async fn read_log(public: &mut Client, key: &VerifierKey) -> Log {
    let note = public.get("/log/checkpoint").await.unwrap();
    let checkpoint = key.open(std::str::from_utf8(&note.body).unwrap()).unwrap();
    let (mut entries, mut edge) = (Vec::new(), RightEdge::new());
    let mut roots = vec![edge.root()];
    for index in 0..checkpoint.size.div_ceil(TILE_WIDTH) {
        let request = TileRequest::Entries { index, width: width_at(0, index, checkpoint.size) };
        let bundle = public.get(&format!("/log/tile/{}", request.path())).await.unwrap();
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
    fn holds(&self, checkpoint: &Checkpoint) -> bool {
        usize::try_from(checkpoint.size).ok().and_then(|size| self.roots.get(size)) == Some(&checkpoint.root)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_holds_after_kill_9() {
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    let output = city.dir().join("output");
    let mut serving = Serving::start(&city.config_file(), &output, &[]).await;
    city.populate(1).await;
    let city = Arc::new(city);
    let told = Arc::new(Mutex::new(Acknowledged::default()));
    let key = city.public().get("/log/key").await.unwrap();
    let key = VerifierKey::parse(std::str::from_utf8(&key.body).unwrap().trim()).unwrap();
    let mut earlier = Vec::new();
    for _ in 0..KILLS {
        let done = Arc::new(AtomicUsize::new(0));
        let loads: Vec<_> = (0..LOADS).map(|_| tokio::spawn(load(city.clone(), told.clone(), done.clone()))).collect();
        // The moment: after some tens of acknowledged calls, and then a little more or less.
        let [calls, microseconds] = entropy::bytes::<2>(&SystemEntropy::new()).unwrap();
        while done.load(Ordering::SeqCst) < 6 + usize::from(calls % 30) {
            tokio::task::yield_now().await;
            assert!(!loads.iter().all(tokio::task::JoinHandle::is_finished), "{}", serving.wrote());
        }
        tokio::time::sleep(std::time::Duration::from_micros(u64::from(microseconds) * 100)).await;
        serving.kill();
        for load in loads {
            assert!(load.await.unwrap().is_none());
        }
        serving = Serving::start(&city.config_file(), &output, &[]).await;

        let log = read_log(&mut city.public(), &key).await;
        let told = told.lock().unwrap();
        for (attestation, proof) in &told.answers {
            let proof = Proof::parse(proof).unwrap();
            let checkpoint = proof.verify(&key).unwrap();
            assert!(log.holds(&checkpoint), "the log does not extend the checkpoint of an answer, {}", checkpoint.size);
            assert_eq!(log.entries[usize::try_from(proof.index).unwrap()], proof.extra);
            assert_eq!(proof.extra[..32], *Sha256::digest(attestation));
        }
        assert!(earlier.iter().all(|checkpoint| log.holds(checkpoint)));
        earlier.push(log.checkpoint);
    }
    let mut library = city.party(LIBRARY);
    let told = Arc::into_inner(told).unwrap().into_inner().unwrap();
    assert!(told.answers.len() >= KILLS && told.revoked.len() >= KILLS && told.given.len() >= KILLS);
    for (tokens, said) in [(&told.revoked, "withheld"), (&told.given, "met")] {
        for token in tokens {
            assert_eq!(outcome(&ask(&mut library, SCENARIO, token).await), (200, said.to_owned()));
        }
    }
    let fetch = async |path: String| {
        let mut public = city.public();
        let response = public.get(&format!("/{path}")).await.map_err(|e| e.to_string())?;
        if response.status == 200 { Ok(response.body.to_vec()) } else { Err(response.status.to_string()) }
    };
    let read = log_verify::verify(Some(key), fetch, |_, _| {}).await.unwrap();
    assert_eq!(read.checkpoint.size, log_size(&mut city.public()).await);
    assert!(!serving.wrote().contains("panicked"), "{}", serving.wrote());
}
