//! INVARIANT (one withheld), in the public log: the first 32 bytes of an entry stand there for everybody to read. For a met
//! answer they are the hash of its attestation; for any other call they are random, so that
//! who reads the whole log cannot tell one from another.

use std::collections::BTreeSet;

use jadegate::access_log::Hash;
use jadegate::attestation::Expected;
use jadegate::clock::Clock as _;
use jadegate::store::{Batch, Place, Write};
use jadegate::tables;
use sha2::{Digest as _, Sha256};

use crate::support::nightly::figure;
use crate::support::world::{World, caller};

const BIKE: &str = "yx-bike";
const SCENARIO: &str = "bike-deposit";
/// How often each kind of call is made: enough that no bit of random bytes stays the same all the time.
const EACH: usize = 48;

/// What is shown, call by call, and whether it is met.
struct Kind {
    name: &'static str,
    shown: Vec<String>,
    /// The nonce of all its calls, where they are to be repeats.
    repeated: bool,
    outcome: &'static str,
}

fn kind(name: &'static str, shown: Vec<String>, outcome: &'static str) -> Kind {
    Kind { name, shown, repeated: false, outcome }
}

/// The commitments of the entries from there on.
pub async fn commitments_since(world: &World, from: u64) -> Vec<Hash> {
    let entries = world.gateway.log().entries(from, world.log_size()).await.unwrap();
    assert!(entries.iter().all(|entry| entry.len() == jadegate::access_log::ENTRY_BYTES), "entries have one size");
    entries.iter().map(|entry| entry[..32].try_into().unwrap()).collect()
}

/// In how many of these each of the 256 bits is set.
pub fn ones(hashes: &[Hash]) -> [usize; 256] {
    std::array::from_fn(|bit| hashes.iter().filter(|hash| (hash[bit / 8] >> (7 - bit % 8)) & 1 == 1).count())
}

/// Each bit set in some and clear in others, none of them much more often, and about half of all set.
pub fn look_random(what: &str, hashes: &[Hash]) {
    let count = hashes.len();
    let ones = ones(hashes);
    // Seven standard deviations of a fair coin, over 256 coins: once in some billions.
    let most = 3.5 * (count as f64).sqrt();
    for (bit, set) in ones.iter().enumerate() {
        assert!(0 < *set && *set < count, "{what}: bit {bit} is the same in all {count}");
        let off = (*set as f64 - count as f64 / 2.0).abs();
        assert!(off <= most, "{what}: bit {bit} is set in {set} of {count}");
    }
    let all: usize = ones.iter().sum();
    let off = (all as f64 - count as f64 * 128.0).abs();
    assert!(off <= most * 16.0, "{what}: {all} bits of {}", count * 256);
}

async fn kinds(world: &World) -> Vec<Kind> {
    world.register(1..5).await;
    for good in [1, 4] {
        world.make_good(good).await;
    }
    let good = world.login(1).await;
    let consent = async |uses| world.consent(&good, BIKE, SCENARIO, uses).await;
    let many = |token: String| vec![token; EACH];
    let request = |uses: u32, days: u32| jadegate::gateway::ConsentRequest {
        scenario: SCENARIO.into(),
        party: Some(BIKE.into()),
        uses: Some(uses),
        days: Some(days),
        ..jadegate::gateway::ConsentRequest::default()
    };
    let ended = world.gateway.give_consent(&good, &request(5, 1)).await.unwrap().token;
    world.advance(25 * 3600);
    let low = world.login(2).await;
    let gone = world.login(4).await;
    let erased = world.consent(&gone, BIKE, SCENARIO, 5).await.token;
    let writes = [tables::PERSON, tables::STANDING].map(|table| Write::Delete(Place::new(table, gone.person().0)));
    world.store.inner().commit(Batch { checks: Vec::new(), writes: writes.to_vec() }).await.unwrap();

    let revoked = consent(5).await;
    world.gateway.revoke(&good, &revoked.id.to_text()).await.unwrap();
    let (spent, coded) = (consent(1).await, consent(200).await);
    assert!(world.ask(BIKE, SCENARIO, &spent.token).await.met);
    let replaced = world.code(&good, &coded).await;
    let used = world.code(&good, &coded).await;
    assert!(world.ask(BIKE, SCENARIO, &used).await.met);
    let below = world.consent(&low, BIKE, SCENARIO, 300).await.token;
    let declined = world.decline(&good, BIKE, SCENARIO).await.token;
    let mut by_code = Vec::new();
    for _ in 0..EACH {
        by_code.push(world.code(&low, &world.consent(&low, BIKE, SCENARIO, 1).await).await);
    }
    let repeat = |name, token: String, outcome| Kind { name, shown: many(token), repeated: true, outcome };
    vec![
        kind("below the cut", many(below.clone()), "withheld"),
        kind("below the cut, by code", by_code, "withheld"),
        kind("declined", many(declined), "withheld"),
        kind("revoked", many(revoked.token), "withheld"),
        kind("ended", many(ended), "withheld"),
        kind("used up", many(spent.token), "withheld"),
        kind("code replaced", many(replaced), "withheld"),
        kind("code used", many(used), "withheld"),
        kind("erased", many(erased), "withheld"),
        repeat("repeat of a withheld answer", below, "withheld"),
        repeat("repeat of a met answer", consent(300).await.token, "met"),
        kind("met", many(consent(300).await.token), "met"),
        kind("refused", many("000A-0000-0000".into()), "refused"),
    ]
}

#[tokio::test]
async fn what_the_public_log_shows_of_a_call_is_random_whatever_its_outcome() {
    let world = World::new().await;
    let kinds = kinds(&world).await;
    let mut all = Vec::new();
    for kind in &kinds {
        let mut of_this = Vec::new();
        if kind.repeated {
            let first = world.ask_as(&caller(BIKE), SCENARIO, &kind.shown[0], "one-nonce-for-all").await.unwrap();
            assert_eq!(first.met, kind.outcome == "met");
        }
        for shown in &kind.shown {
            let nonce = if kind.repeated { "one-nonce-for-all".to_owned() } else { world.fresh("nonce") };
            let from = world.log_size();
            let said = world.ask_as(&caller(BIKE), SCENARIO, shown, &nonce).await;
            let outcome = match &said {
                Ok(said) if said.met => "met",
                Ok(_) => "withheld",
                Err(_) => "refused",
            };
            assert_eq!(outcome, kind.outcome, "{}", kind.name);
            let new = commitments_since(&world, from).await;
            assert_eq!(new.len(), 1, "{}: one entry a call", kind.name);
            if let Some(attestation) = said.ok().and_then(|said| said.attestation).filter(|_| !kind.repeated) {
                assert_eq!(new[0], *Sha256::digest(&attestation));
                let now = world.clock.now();
                let expected = Expected { aud: Some(BIKE), nonce: Some(&nonce), now, leeway_s: 0 };
                jadegate::attestation::verify(&attestation, &world.jwks(), &expected).unwrap();
            }
            of_this.extend(new);
        }
        look_random(kind.name, &of_this);
        all.extend(of_this);
    }
    look_random("all calls", &all);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "no two entries show the same");
    for at in [0, 8, 16, 24] {
        let parts: BTreeSet<&[u8]> = all.iter().map(|hash| &hash[at..at + 8]).collect();
        assert_eq!(parts.len(), all.len(), "nor the same in eight bytes from {at} on");
    }
    figure(
        "commitments in the public log, over all outcomes, repeats and refusals",
        format_args!("{} entries of {} kinds, all distinct, no bit of them off", all.len(), kinds.len()),
    );
}
