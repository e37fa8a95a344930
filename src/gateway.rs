//! The use cases: what callers can have done, each a paragraph of the design.
//!
//! The gateway ties rules, authority, evidence and durability together and knows no HTTP. It reads
//! cells, opens them under an authority, decides by pure functions, and has the ledger write. Every
//! method takes a caller whose identity the edge has established.

mod ask;
mod batches;
mod cells;
mod consents;
mod dossier;
mod due;
mod enrol;
mod inspect;
mod lanes;
mod market;
mod merged;
mod models;
mod publish;
mod refusal;
mod report;
mod restored;
mod review;
mod rotate;
mod sent;
mod sessions;
mod sweep;
mod trial;
mod upload;

pub use ask::{ANSWER_BYTES, Answer, AskRequest};
pub use batches::{BatchId, BatchView};
pub use consents::{ConsentRequest, ConsentView, NewCode, NewConsent};
pub use inspect::{AccessView, ExportView, LookView, ScoreView};
pub use market::{MarketRequest, MarketView};
pub use models::{APPROVALS, Approval, MODEL_BYTES_MAX, MODELS_MAX, ModelState, ModelView};
pub use publish::{LoadError, Loaded, ModelInForce};
pub use refusal::{GatewayError, Refusal};
pub use restored::Ended;
pub use review::{CaseRequest, LogFilter, LogLine, Summary, SummaryRow};
pub use rotate::TakeKeysError;
pub use sent::{REASON_CHARS_MAX, SentSummary, SentView};
pub use sessions::{SESSION_SECONDS, Staff, Who};
pub use sweep::Swept;
pub use trial::try_on_store;
pub use upload::{Intake, RejectedLine};

pub use crate::ledger::EntryId;

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};
use std::sync::{Arc, RwLock};

use jiff::{Timestamp, civil::Date};
use tokio::io::AsyncWrite;

use crate::access::{Action, Condition, Role};
use crate::access_log::Hash;
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::attestation::jwks::{Jwk, Jwks};
use crate::clock::{Clock, Steady};
use crate::code::{PartyId, RuleId};
use crate::disclosure::Standing;
use crate::entropy::{self, Entropy};
use crate::keys::{Keyring, KeyringError, SigningKey};
use crate::ledger::backup::{ExportError, Exported, export};
use crate::ledger::outside::Outside;
use crate::ledger::{Change, Ledger, LogReader, Logs, OpenError, Receipt, RecordError};
use crate::party::PartyRole;
use crate::policies::PolicySet;
use crate::score::{Outcome, Status};
use crate::store::{Cell, Check, Place, Store, StoreError, Write};
use crate::tables;
use crate::vault::{At, Vault, VaultError};

/// How often a call is tried again when others changed what it had read.
const TRIES_MAX: usize = 64;
/// For how long after it was made a signature's nonce must be remembered.
const NONCE_SECONDS: i64 = 600;

/// What a gateway is made of.
pub struct Parts {
    /// Where cells lie.
    pub store: Arc<dyn Store>,
    /// The deployment's keys.
    pub keys: Keyring,
    /// The policy set to load.
    pub policies: PolicySet,
    /// Where the newest checkpoint is also kept.
    pub outside: Box<dyn Outside>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The `iss` of attestations.
    pub issuer: String,
    /// Who may log in as officer or operator.
    pub staff: Vec<Staff>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log or its outside copy.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The policy set.
    #[error(transparent)]
    Policies(#[from] LoadError),
    /// The keyring lacks a key.
    #[error(transparent)]
    Keys(#[from] KeyringError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The gateway itself failed.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The cell that says from when consents count is not the one that the log began with.
    #[error(
        "the log {0} began after a restore, and the store no longer says from when consents count: the store was changed. Run `jadegate audit`, and restore a backup"
    )]
    Restored(String),
    /// A restore goes on under a new log.
    #[error(
        "the log {0} has entries already, and a restored store goes on under a new log: name one that was never used"
    )]
    RestoredUnderOld(String),
}

/// A party that the edge has authenticated, and the signature's nonce where it signed.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The party.
    pub party: PartyId,
    /// What must not be seen again.
    pub signature: Option<SignatureNonce>,
}

/// The nonce of an HTTP message signature.
#[derive(Debug, Clone)]
pub struct SignatureNonce {
    /// The key's id.
    pub key_id: String,
    /// The nonce.
    pub nonce: String,
    /// When it was made, in seconds of Unix time.
    pub created: i64,
}

/// The gateway of one deployment.
pub struct Gateway {
    store: Arc<dyn Store>,
    ledger: Ledger,
    vault: Arc<Vault>,
    clock: Arc<dyn Clock>,
    steady: Steady,
    entropy: Arc<dyn Entropy>,
    issuer: String,
    staff: Vec<Staff>,
    policies: RwLock<publish::InForce>,
    /// Consents made before this instant are lapsed, where the store was restored.
    consents_from: Option<Timestamp>,
    /// Held while a set is loaded, so that what holds here is what was logged last.
    loading: tokio::sync::Mutex<()>,
    /// Held while everybody is scored for a trial.
    trying: tokio::sync::Mutex<()>,
    /// By consent, for calls that met others at one.
    consent_lanes: lanes::Lanes,
    /// By person, for reports and the register.
    person_lanes: lanes::Lanes,
    /// The working key by which, or by a newer, everybody's keys are known to be wrapped.
    wrapped: AtomicU32,
    /// Until which day nothing due is known to be left, in days since 1970; 0 where it is not known yet.
    swept_through: AtomicI32,
    /// When the keys in use were taken, in seconds of the monotonic clock.
    keys_taken: AtomicU64,
}

impl Gateway {
    /// Opens log and vault, loads the policy set, and publishes its model if none is in force yet.
    pub async fn open(parts: Parts) -> Result<Self, StartError> {
        Self::open_restored(parts, None).await
    }

    /// As [`Self::open`], over a store that was restored: the log must be a new one, and goes on where these ended.
    pub async fn open_restored(parts: Parts, ended: Option<&Ended>) -> Result<Self, StartError> {
        let Parts { store, keys, policies, outside, clock, entropy, issuer, staff } = parts;
        let (keys, now) = (Arc::new(keys), clock.now());
        // Before anything is written: what a key is missing for would be found out by people, one by one.
        keys.whole(now)?;
        Self::people_open(&*store, &keys).await?;
        let outcome = Outcome { status: Status::Scored, score: Some(500), grade: None };
        let day = crate::clock::day_of(now);
        let decoy = Standing::new(outcome, day, Some(day), [0; 32]);
        let vault = Arc::new(Vault::new(keys.clone(), entropy.clone(), &decoy)?);
        let ledger = Ledger::open(store.clone(), keys, entropy.clone(), outside, now).await?;
        let keys_taken = AtomicU64::new(clock.monotonic().as_secs());
        let in_force = publish::InForce::first(policies, day);
        let mut gateway = Self {
            store,
            ledger,
            vault,
            clock,
            steady: Steady::default(),
            entropy,
            issuer,
            staff,
            policies: RwLock::new(in_force),
            consents_from: None,
            loading: tokio::sync::Mutex::default(),
            trying: tokio::sync::Mutex::default(),
            consent_lanes: lanes::Lanes::default(),
            person_lanes: lanes::Lanes::default(),
            wrapped: AtomicU32::new(0),
            swept_through: AtomicI32::new(0),
            keys_taken,
        };
        // First of all: an entry before it would be of a log that does not say what it is.
        gateway.consents_from = gateway.after_restore(ended).await?;
        gateway.load_first().await?;
        Ok(gateway)
    }

    /// The log that this gateway writes.
    pub fn log(&self) -> &LogReader {
        self.ledger.log()
    }

    /// All logs of the deployment, for the public and for proofs.
    pub fn logs(&self) -> &Logs {
        self.ledger.logs()
    }

    /// The `iss` of attestations.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys that verify attestations.
    pub fn keys(&self) -> Arc<Keyring> {
        self.vault.keys()
    }

    /// The public keys that verify attestations now: a key stands here before it signs.
    pub fn jwks(&self) -> Jwks {
        let key = |key: &SigningKey| {
            let (x, y) = key.public();
            Jwk { kid: key.kid().to_owned(), x, y }
        };
        Jwks(self.keys().signing_published(self.clock.now()).map(key).collect())
    }

    /// Resolves when the ledger has stopped for good: the process must end.
    pub async fn stopped(&self) -> String {
        self.ledger.stopped().await
    }

    /// Writes a backup of the store as the newest checkpoint leaves it, while calls go on.
    pub async fn export_store(&self, out: &mut (impl AsyncWrite + Unpin + Send)) -> Result<Exported, ExportError> {
        let at = (self.clock.now(), &*self.entropy);
        export(&self.store, &self.keys(), Some(&self.ledger), at, out, &mut |_| {}).await
    }

    /// Ends the ledger and lets go of the store.
    pub async fn close(self) {
        self.ledger.close().await;
    }

    /// The instant, to the millisecond, and the day; refused while the clock has stepped.
    fn now(&self) -> Result<(Timestamp, Date), GatewayError> {
        let (now, day) = self.steady.read(&*self.clock)?;
        let milliseconds = Timestamp::from_millisecond(now.as_millisecond());
        Ok((milliseconds.unwrap_or(now), day))
    }

    /// The policies that hold today.
    pub fn policies(&self) -> Result<Arc<Loaded>, GatewayError> {
        let (_, day) = self.now()?;
        Ok(self.policies_on(day))
    }

    /// The instant, the day, and the policies of this moment, whichever gateway loaded them.
    async fn moment(&self) -> Result<(Timestamp, Date, Arc<Loaded>), GatewayError> {
        self.follow_policies().await?;
        let (now, day) = self.now()?;
        Ok((now, day, self.policies_on(day)))
    }

    /// The policies as they were loaded last, whatever they still wait for.
    fn newest_policies(&self) -> Arc<Loaded> {
        self.policies.read().unwrap_or_else(std::sync::PoisonError::into_inner).newest()
    }

    fn policies_on(&self, day: Date) -> Arc<Loaded> {
        self.policies.read().unwrap_or_else(std::sync::PoisonError::into_inner).on(day)
    }

    /// The rule that lets one of these roles do this.
    fn permit(policies: &PolicySet, roles: &[Role], action: Action, holds: &[Condition]) -> Result<RuleId, Refusal> {
        let rule = policies.access.permit(roles, action, &|condition| holds.contains(&condition));
        rule.cloned().ok_or(Refusal::NotPermitted)
    }

    /// The rule that lets a party do this; else the call is refused, with an entry.
    async fn permit_party(
        &self,
        caller: &Caller,
        policies: &PolicySet,
        action: Action,
        holds: &[Condition],
    ) -> Result<RuleId, GatewayError> {
        match Self::permit(policies, &roles(policies, &caller.party), action, holds) {
            Ok(rule) => Ok(rule),
            Err(refusal) => Err(self.refuse(caller, refusal).await),
        }
    }

    async fn get(&self, place: &Place) -> Result<Option<Cell>, StoreError> {
        self.store.get(place).await
    }

    async fn get_all<const N: usize>(&self, places: [Place; N]) -> Result<[Option<Cell>; N], GatewayError> {
        let found = self.store.get_many(&places).await?;
        found.try_into().map_err(|_| GatewayError::Fault("the store gave another number of cells".into()))
    }

    fn random(&self) -> Result<Hash, GatewayError> {
        Ok(entropy::bytes(&*self.entropy)?)
    }

    /// Refuses a call after its caller is known, with an entry: the nonce of its signature is spent.
    pub async fn refuse(&self, caller: &Caller, refusal: Refusal) -> GatewayError {
        match self.log_refusal(caller).await {
            Ok(()) => refusal.into(),
            Err(error) => error,
        }
    }

    /// Leaves an entry for a call that was refused after its caller was known.
    pub async fn log_refusal(&self, caller: &Caller) -> Result<(), GatewayError> {
        let (at, _) = self.now()?;
        let body = Body {
            at,
            party: Some(caller.party.clone()),
            scenario: None,
            action: LogAction::Refuse,
            rule: None,
            subject: Subject::None,
        };
        let mut change = Change::entry(self.random()?, body);
        let nonce = self.spend_nonce(caller, &mut change);
        match self.ledger.record(change).await {
            Ok(_) => Ok(()),
            Err(RecordError::Conflict(places)) if nonce.is_some_and(|nonce| places.contains(&nonce)) => {
                Err(Refusal::ReplayedSignature.into())
            }
            Err(error) => Err(GatewayError::Fault(error.to_string())),
        }
    }

    /// Adds the signature's nonce to a change: absent before, there afterwards.
    fn spend_nonce(&self, caller: &Caller, change: &mut Change) -> Option<Place> {
        let signature = caller.signature.as_ref()?;
        // The nonce alone is the key: signed anew with another time it has still been seen before.
        let mac = self.vault.lookup("nonce", &[signature.key_id.as_bytes(), signature.nonce.as_bytes()]);
        let place = Place::new(tables::NONCE, mac);
        let forgotten = signature.created.saturating_add(NONCE_SECONDS).to_be_bytes().to_vec();
        change.checks.push(Check::Absent(place.clone()));
        change.writes.push(Write::Put(place.clone(), Cell { version: 1, value: forgotten }));
        Some(place)
    }

    /// Has the ledger make a change; a conflict means that the call must read again.
    async fn record(&self, change: Change, nonce: Option<&Place>) -> Result<Option<Receipt>, GatewayError> {
        match self.ledger.record(change).await {
            Ok(receipt) => Ok(Some(receipt)),
            Err(RecordError::Conflict(places)) => match nonce {
                Some(nonce) if places.contains(nonce) => Err(Refusal::ReplayedSignature.into()),
                _ => Ok(None),
            },
            Err(error) => Err(GatewayError::Fault(error.to_string())),
        }
    }
}

/// What a party may act as.
fn roles(policies: &PolicySet, party: &PartyId) -> Vec<Role> {
    let roles = policies.parties.get(party).map(|party| party.roles.iter());
    let role = |role: &PartyRole| match role {
        PartyRole::Merchant => Role::Merchant,
        PartyRole::Department => Role::Department,
        PartyRole::Provider => Role::Provider,
        PartyRole::Registrar => Role::Registrar,
    };
    roles.into_iter().flatten().map(role).collect()
}

/// Where a cell lies, for the vault.
fn at(place: &Place, version: u64) -> At<'_> {
    At { table: place.table.name(), key: &place.key, version }
}

/// That a cell is still as it was read.
fn unchanged(place: &Place, read: Option<&Cell>) -> Check {
    match read {
        Some(cell) => Check::Version(place.clone(), cell.version),
        None => Check::Absent(place.clone()),
    }
}

/// The version that the next write of a cell has.
fn next_version(read: Option<&Cell>) -> u64 {
    read.map_or(1, |cell| cell.version + 1)
}
