//! A city in memory: a gateway over a store that fails on order, a clock that stands still, randomness
//! from a seed, the shipped policies, and the few things that tests do all the time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jadegate::access::Role;
use jadegate::access_log::checkpoint::{NoteSigner, VerifierKey};
use jadegate::attestation::jwks::Jwks;
use jadegate::authority::Login;
use jadegate::clock::{Clock, ManualClock};
use jadegate::code::PartyId;
use jadegate::entropy::{Entropy, EntropyError, SystemEntropy};
use jadegate::gateway::{
    AskRequest, Caller, ConsentRequest, Ended, Gateway, GatewayError, Intake, LogFilter, NewConsent, Parts, Refusal,
    SignatureNonce, Staff, StartError, Who,
};
use jadegate::keys::{Keyring, LogKey, NewKeyring, RootKey, Rotated, Rotation};
use jadegate::ledger::outside::{Outside, OutsideMemory};
use jadegate::ledger::restored::held;
use jadegate::policies::{PolicySet, shipped};
use jadegate::store::faulty::FaultyStore;
use jadegate::store::memory::MemoryStore;
use jadegate::store::{Cell, KEYS_END, Place, Store, Table};
use jadegate::tables;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// 10:00 in Shanghai.
pub const NOW: &str = "2026-11-25T02:00:00Z";
pub const ISSUER: &str = "https://yuxi.example";
/// Random-looking bytes that a seed decides.
pub struct Seeded(Mutex<(u64, u64)>);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new((seed, 0)))
    }

    /// From here on the bytes of another seed.
    pub fn reseed(&self, seed: u64) {
        *self.0.lock().unwrap() = (seed, 0);
    }
}

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
        let mut state = self.0.lock().unwrap();
        for chunk in out.chunks_mut(32) {
            state.1 += 1;
            let block = Sha256::new()
                .chain_update(b"seeded")
                .chain_update(state.0.to_be_bytes())
                .chain_update(state.1.to_be_bytes())
                .finalize();
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

/// The keyring of all worlds: making one takes a while.
pub fn keyring() -> Keyring {
    Keyring::open(&first_keys().keyring, &root_key()).unwrap()
}

fn first_keys() -> &'static NewKeyring {
    static KEYS: OnceLock<NewKeyring> = OnceLock::new();
    KEYS.get_or_init(fresh_keys)
}

pub fn root_key() -> RootKey {
    RootKey::parse(&first_keys().root, true).unwrap()
}

/// What the worlds' keyring is rotated from.
pub fn keyring_text() -> &'static str {
    &first_keys().keyring
}

/// A rotation at this time: working and consent keys are used at once, the signing key after `lead` seconds.
pub fn rotate(text: &str, now: Timestamp, lead: i64, wrapped_from: u32) -> Rotated {
    let signing_from = now + jiff::SignedDuration::from_secs(lead);
    let rotation = Rotation { now, from: now, signing_from, wrapped_from };
    NewKeyring::rotate(text, &root_key(), &rotation, &SystemEntropy::new()).unwrap()
}

/// The worlds' keyring after one rotation at [`NOW`].
pub fn rotated_text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| rotate(keyring_text(), NOW.parse().unwrap(), 600, 1).text)
}

pub fn rotated_keyring() -> Keyring {
    Keyring::open(rotated_text(), &root_key()).unwrap()
}

/// The same keys for a deployment of three gateways, for the one that writes the log of this number.
pub fn keyring_for(log: u16) -> Keyring {
    static KEYS: OnceLock<(String, RootKey)> = OnceLock::new();
    let (text, root) = KEYS.get_or_init(|| {
        let (now, entropy) = ("2026-01-01T00:00:00Z".parse().unwrap(), SystemEntropy::new());
        let new = fresh_keys();
        let root = RootKey::parse(&new.root, true).unwrap();
        let add = |text: String, origin| NewKeyring::add_log(&text, &root, origin, now, &entropy).unwrap();
        (add(add(new.keyring, "yuxi.example/log-2"), "yuxi.example/log-3"), root)
    });
    let keys = Keyring::open(text, root).unwrap();
    let origin = keys.logs()[usize::from(log) - 1].origin().to_owned();
    keys.writing(&origin).unwrap()
}

pub fn fresh_keys() -> NewKeyring {
    NewKeyring::generate("yuxi.example/log", "2026-01-01T00:00:00Z".parse().unwrap(), &SystemEntropy::new()).unwrap()
}

/// The shipped policies with some texts exchanged in one file.
pub fn policies_with(file: &str, changes: &[(&str, &str)]) -> PolicySet {
    let mut files = shipped();
    change(&mut files, file, changes);
    PolicySet::parse(files).unwrap()
}

pub fn change(files: &mut BTreeMap<String, Vec<u8>>, file: &str, changes: &[(&str, &str)]) {
    let mut text = String::from_utf8(files[file].clone()).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{file} has no {from:?}");
        text = text.replacen(from, to, 1);
    }
    files.insert(file.to_owned(), text.into_bytes());
}

/// The outside copy of the checkpoint, in memory, and failing while that is ordered.
#[derive(Clone, Default)]
pub struct Kept {
    pub memory: OutsideMemory,
    pub failing: Arc<AtomicBool>,
}

impl Outside for Kept {
    fn kept(&self) -> std::io::Result<Vec<String>> {
        self.memory.kept()
    }

    fn keep(&mut self, note: &str) -> std::io::Result<()> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("no room"));
        }
        self.memory.keep(note)
    }

    fn place(&self) -> String {
        self.memory.place()
    }
}

/// A log's key, as whoever signs its checkpoints.
pub struct Signing(Arc<LogKey>, VerifierKey);

impl Signing {
    pub fn by(key: &Arc<LogKey>) -> Self {
        Self(key.clone(), VerifierKey::new(key.origin(), key.public()).unwrap())
    }
}

impl NoteSigner for Signing {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }

    fn verifier(&self) -> &VerifierKey {
        &self.1
    }
}

/// The copies of several hosts, brought together.
pub struct Brought(pub Vec<Kept>);

impl Outside for Brought {
    fn kept(&self) -> std::io::Result<Vec<String>> {
        Ok(self.0.iter().flat_map(|kept| kept.kept().unwrap()).collect())
    }

    fn keep(&mut self, _: &str) -> std::io::Result<()> {
        unreachable!("an audit keeps nothing")
    }

    fn place(&self) -> String {
        "several".into()
    }
}

/// A gateway, and what can be carried over to another one.
pub struct World {
    pub gateway: Arc<Gateway>,
    pub store: Arc<FaultyStore>,
    pub clock: Arc<ManualClock>,
    pub outside: Kept,
    entropy: Arc<Seeded>,
    next: AtomicU64,
}

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub body: Vec<u8>,
    pub met: bool,
    pub attestation: Option<String>,
    pub proof: Option<String>,
}

impl Said {
    fn read(body: Vec<u8>) -> Self {
        assert_eq!(body.len(), 4096);
        let json: Value = serde_json::from_slice(&body).unwrap();
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let met = match json["answer"].as_str() {
            Some("met") => true,
            Some("withheld") => false,
            other => panic!("an answer of {other:?}"),
        };
        assert_eq!(json.as_object().unwrap().len(), if met { 3 } else { 1 });
        Self { met, attestation: text("attestation"), proof: text("proof"), body }
    }

    /// The attestation's claims, unverified.
    pub fn claims(&self) -> Value {
        use base64::Engine;
        let token = self.attestation.as_ref().expect("a met answer");
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }
}

pub fn staff() -> Vec<Staff> {
    let one = |login: &str, role| Staff { login: login.into(), role };
    vec![one("officer-1", Role::Officer), one("officer-2", Role::Officer), one("operator-1", Role::Operator)]
}

pub fn officer(number: usize) -> Staff {
    staff()[number - 1].clone()
}

pub fn party(id: &str) -> PartyId {
    PartyId::parse(id).unwrap()
}

pub fn caller(id: &str) -> Caller {
    Caller { party: party(id), signature: None }
}

/// The identity number of the `n`th person, born on 1 January 1990 or 1991, …
pub fn number(n: u32) -> String {
    with_check_digit(&format!("530499{:04}0101{:03}", 1950 + n / 900, 100 + n % 900))
}

pub fn with_check_digit(body: &str) -> String {
    let mut sum = 0;
    let mut weight = 1;
    for digit in body.bytes().rev() {
        weight = weight * 2 % 11;
        sum += u32::from(digit - b'0') * weight;
    }
    let check = (12 - sum % 11) % 11;
    format!("{body}{}", if check == 10 { "X".to_owned() } else { check.to_string() })
}

pub fn name(n: u32) -> String {
    format!("某{n}")
}

/// A register line.
pub fn register_line(n: u32) -> Value {
    json!({ "id_number": number(n), "name": name(n), "resident": true, "full_capacity": true })
}

/// A record's line.
pub fn record_line(provider: &str, indicator: &str, id: &str, n: u32, quantity: Option<u32>) -> Value {
    let mut line = json!({
        "id": id, "provider": provider, "indicator": indicator,
        "person": { "id_number": number(n), "name": name(n) }, "occurred_on": "2026-06-01",
    });
    if let Some(quantity) = quantity {
        line["quantity"] = quantity.into();
    }
    line
}

pub fn lines(lines: &[Value]) -> Vec<u8> {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

impl World {
    pub async fn new() -> Self {
        Self::with(PolicySet::parse(shipped()).unwrap(), 1).await
    }

    pub async fn with(policies: PolicySet, seed: u64) -> Self {
        Self::of(policies, seed, ISSUER).await.unwrap()
    }

    pub async fn of(policies: PolicySet, seed: u64, issuer: &str) -> Result<Self, StartError> {
        Self::of_keys(keyring(), policies, seed, issuer).await
    }

    /// Three gateways over one store, each with a log and an outside copy of its own; the first is the world's.
    pub async fn of_three() -> (Self, [Arc<Gateway>; 3], [Kept; 2]) {
        let world = Self::of_keys(keyring_for(1), PolicySet::parse(shipped()).unwrap(), 1, ISSUER).await.unwrap();
        let kept = [Kept::default(), Kept::default()];
        let (second, third) = (world.beside(2, &kept[0]).await, world.beside(3, &kept[1]).await);
        let gateways = [world.gateway.clone(), second, third];
        (world, gateways, kept)
    }

    /// The first of these, alone: the other logs are not begun.
    pub async fn of_first() -> Self {
        Self::of_keys(keyring_for(1), PolicySet::parse(shipped()).unwrap(), 1, ISSUER).await.unwrap()
    }

    /// What the store and its keeper say of the first log.
    pub async fn held_of_first(&self) -> Ended {
        let store: Arc<dyn Store> = self.store.clone();
        let keys = keyring_for(1);
        let copies = |_: &str| Box::new(self.outside.clone()) as Box<dyn Outside>;
        let mut found = held(&store, &keys, &copies).await.unwrap();
        found.retain(|held| held.origin == keys.log().origin());
        found
    }

    /// Goes on from this store as from a restored one, under another log.
    pub async fn restored_under(&self, log: u16, outside: &Kept, ended: &Ended) -> Result<Arc<Gateway>, StartError> {
        let set = PolicySet::parse(shipped()).unwrap();
        let parts = parts(&self.store, keyring_for(log), set, ISSUER, outside, &self.clock, &Arc::new(Seeded::new(77)));
        Gateway::open_restored(parts, Some(ended)).await.map(Arc::new)
    }

    /// A gateway that writes another log over the same store.
    pub async fn beside(&self, log: u16, outside: &Kept) -> Arc<Gateway> {
        self.beside_at(log, outside, &self.clock).await
    }

    /// The same, with a clock of its own.
    pub async fn beside_at(&self, log: u16, outside: &Kept, clock: &Arc<ManualClock>) -> Arc<Gateway> {
        let (set, entropy) = (PolicySet::parse(shipped()).unwrap(), Arc::new(Seeded::new(1_000 + u64::from(log))));
        open(parts(&self.store, keyring_for(log), set, ISSUER, outside, clock, &entropy)).await.unwrap()
    }

    /// The same as [`Self::beside`], over a store that stands before the world's.
    pub async fn beside_over(&self, store: Arc<dyn Store>, log: u16, outside: &Kept) -> Arc<Gateway> {
        let (set, entropy) = (PolicySet::parse(shipped()).unwrap(), Arc::new(Seeded::new(2_000 + u64::from(log))));
        let store = Arc::new(FaultyStore::new(store));
        open(parts(&store, keyring_for(log), set, ISSUER, outside, &self.clock, &entropy)).await.unwrap()
    }

    pub async fn of_keys(keys: Keyring, policies: PolicySet, seed: u64, issuer: &str) -> Result<Self, StartError> {
        let clock = Arc::new(ManualClock::new(NOW.parse().unwrap()));
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let (outside, entropy) = (Kept::default(), Arc::new(Seeded::new(seed)));
        let gateway = open(parts(&store, keys, policies, issuer, &outside, &clock, &entropy)).await?;
        Ok(Self { gateway, store, clock, outside, entropy, next: AtomicU64::new(0) })
    }

    /// Starts another gateway over the same store, as after a restart.
    pub async fn reopen(&mut self) -> Result<(), StartError> {
        self.reopen_with(PolicySet::parse(shipped()).unwrap(), keyring()).await
    }

    pub async fn reopen_with(&mut self, policies: PolicySet, keys: Keyring) -> Result<(), StartError> {
        self.gateway =
            open(parts(&self.store, keys, policies, ISSUER, &self.outside, &self.clock, &self.entropy)).await?;
        Ok(())
    }

    /// Another gateway over the same store, beside this world's.
    pub async fn another(&self, seed: u64) -> Arc<Gateway> {
        let (set, entropy) = (PolicySet::parse(shipped()).unwrap(), Arc::new(Seeded::new(seed)));
        open(parts(&self.store, keyring(), set, ISSUER, &self.outside, &self.clock, &entropy)).await.unwrap()
    }

    /// Puts another store under the world; [`World::reopen`] starts on it.
    pub fn put_store(&mut self, cells: Arc<dyn Store>) {
        self.store = Arc::new(FaultyStore::new(cells));
    }

    pub fn fresh(&self, what: &str) -> String {
        format!("{what}-{:016}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Two worlds that are given the same seed before the same call draw the same random bytes in it.
    pub fn reseed(&self, seed: u64) {
        self.entropy.reseed(seed);
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// To just after the next midnight in Shanghai.
    pub fn next_day(&self) {
        let now = self.clock.now();
        let day = jadegate::clock::day_of(now).tomorrow().unwrap();
        let wait = jadegate::clock::start_of(day).duration_since(now).as_secs() + 1;
        self.advance(wait.try_into().unwrap());
    }

    /// A caller that signs, with this nonce.
    pub fn signed(&self, id: &str, nonce: &str) -> Caller {
        let created = self.clock.now().as_second();
        let signature = SignatureNonce { key_id: format!("{id}-2026"), nonce: nonce.into(), created };
        Caller { party: party(id), signature: Some(signature) }
    }

    pub async fn register(&self, people: std::ops::Range<u32>) {
        let body = lines(&people.map(register_line).collect::<Vec<_>>());
        let taken = self.gateway.enrol(&caller("yx-public-security"), &body).await.unwrap();
        assert_eq!(taken.rejected, []);
    }

    pub async fn report(&self, provider: &str, records: &[Value]) -> Intake {
        self.gateway.report(&caller(provider), &lines(records)).await.unwrap()
    }

    /// Hours of volunteering: 650 in all.
    pub async fn make_good(&self, n: u32) {
        let id = self.fresh("hours");
        let taken = self
            .report("yx-civil-affairs", &[record_line("yx-civil-affairs", "volunteer-hours", &id, n, Some(300))])
            .await;
        assert_eq!(taken.accepted, 1);
    }

    /// Beyond 800, for whoever is good already.
    pub async fn make_excellent(&self, n: u32) {
        self.report("yx-health", &[record_line("yx-health", "blood-donation", &self.fresh("b"), n, Some(6))]).await;
        let honour = record_line("yx-civilization-office", "moral-model", &self.fresh("m"), n, None);
        self.report("yx-civilization-office", &[honour]).await;
    }

    /// Down to 499 at most, whatever else there is; the id is returned.
    pub async fn make_defaulter(&self, n: u32) -> String {
        let id = self.fresh("list");
        self.report("yx-court", &[record_line("yx-court", "defaulter-list", &id, n, None)]).await;
        id
    }

    /// A registered person with 650 points, logged in.
    pub async fn good(&self, n: u32) -> Login {
        self.register(n..n + 1).await;
        self.make_good(n).await;
        self.login(n).await
    }

    pub async fn login(&self, n: u32) -> Login {
        let token = self.gateway.demo_login(&number(n)).await.unwrap();
        match self.gateway.session(&token).await.unwrap() {
            Some(Who::Person(login)) => login,
            other => panic!("{other:?}"),
        }
    }

    pub async fn consent(&self, login: &Login, party: &str, scenario: &str, uses: u32) -> NewConsent {
        let request = ConsentRequest {
            scenario: scenario.into(),
            party: Some(party.into()),
            uses: Some(uses),
            ..ConsentRequest::default()
        };
        self.gateway.give_consent(login, &request).await.unwrap()
    }

    pub async fn decline(&self, login: &Login, party: &str, scenario: &str) -> NewConsent {
        let request = ConsentRequest {
            scenario: scenario.into(),
            party: Some(party.into()),
            decline: true,
            ..ConsentRequest::default()
        };
        self.gateway.give_consent(login, &request).await.unwrap()
    }

    pub async fn code(&self, login: &Login, consent: &NewConsent) -> String {
        self.gateway.make_code(login, &consent.id.to_text()).await.unwrap().code.to_text()
    }

    pub async fn ask_as(
        &self,
        caller: &Caller,
        scenario: &str,
        consent: &str,
        nonce: &str,
    ) -> Result<Said, GatewayError> {
        let request = AskRequest { scenario: scenario.into(), consent: consent.into(), nonce: nonce.into() };
        self.gateway.ask(caller, &request).await.map(|answer| Said::read(answer.into_body()))
    }

    /// Asks with a fresh nonce.
    pub async fn ask(&self, party: &str, scenario: &str, consent: &str) -> Said {
        self.ask_as(&caller(party), scenario, consent, &self.fresh("nonce")).await.unwrap()
    }

    pub async fn asked(&self, party: &str, scenario: &str, consent: &str) -> bool {
        self.ask(party, scenario, consent).await.met
    }

    /// The score that the person sees.
    pub async fn score(&self, login: &Login) -> Option<u16> {
        self.gateway.score(login).await.unwrap().explanation.outcome.score
    }

    /// The uses that the person's newest consent has left.
    pub async fn uses_left(&self, login: &Login) -> u32 {
        self.gateway.consents(login).await.unwrap()[0].consent.uses_left
    }

    /// The keys that verify attestations.
    pub fn jwks(&self) -> Jwks {
        self.gateway.jwks()
    }

    pub fn log_size(&self) -> u64 {
        self.gateway.log().size()
    }

    /// The actions of the log's entries from this one on, oldest first.
    pub async fn actions_since(&self, from: u64) -> Vec<&'static str> {
        let filter = LogFilter { limit: 10_000, ..LogFilter::default() };
        let lines = self.gateway.access_log(&officer(1), &filter).await.unwrap();
        lines.iter().rev().filter(|line| line.index >= from).map(|line| line.action).collect()
    }

    /// All cells of a table.
    pub async fn cells(&self, table: Table) -> Vec<(Place, Cell)> {
        cells(&**self.store.inner(), table).await
    }

    /// Writes a cell behind the gateway's back.
    pub async fn put(&self, place: &Place, cell: Cell) {
        use jadegate::store::{Batch, Write};
        let writes = vec![Write::Put(place.clone(), cell)];
        self.store.inner().commit(Batch { checks: Vec::new(), writes }).await.unwrap();
    }

    /// A copy of all that the store holds now.
    pub async fn copy(&self) -> Arc<dyn Store> {
        use jadegate::store::{Batch, Write};
        let copy = MemoryStore::new();
        for table in tables::ALL {
            let writes = self.cells(table).await.into_iter().map(|(place, cell)| Write::Put(place, cell)).collect();
            copy.commit(Batch { checks: Vec::new(), writes }).await.unwrap();
        }
        Arc::new(copy)
    }
}

pub async fn cells(store: &dyn Store, table: Table) -> Vec<(Place, Cell)> {
    let found = store.scan(table, &[], &KEYS_END, usize::MAX).await.unwrap();
    found.into_iter().map(|(key, cell)| (Place::new(table, key), cell)).collect()
}

async fn open(parts: Parts) -> Result<Arc<Gateway>, StartError> {
    Gateway::open(parts).await.map(Arc::new)
}

fn parts(
    store: &Arc<FaultyStore>,
    keys: Keyring,
    policies: PolicySet,
    issuer: &str,
    outside: &Kept,
    clock: &Arc<ManualClock>,
    entropy: &Arc<Seeded>,
) -> Parts {
    Parts {
        store: store.clone(),
        keys,
        policies,
        outside: Box::new(outside.clone()),
        clock: clock.clone(),
        entropy: entropy.clone(),
        issuer: issuer.into(),
        staff: staff(),
    }
}

/// What a call was refused for.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, GatewayError>) -> Refusal {
    match result {
        Err(GatewayError::Refused(refusal)) => refusal,
        other => panic!("{other:?} is no refusal"),
    }
}

/// Whether a call failed with a fault, and not with an answer or a refusal.
pub fn is_fault<T>(result: &Result<T, GatewayError>) -> bool {
    matches!(result, Err(GatewayError::Fault(_)))
}
