//! The working keys, wrapped by the root key in `keyring.json`.

mod logs;
mod rotation;

pub use rotation::{JWKS_SECONDS, Rotated, Rotation};

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{FIRST_LOG, LogKey, MacKey, RootKey, SecretKey, SigningKey, SigningKeyError};
use crate::entropy::{self, Entropy, EntropyError};

/// The form of a `keyring.json` whose deployment has one log, and that of one with a list of them.
const FORMAT: u32 = 1;
const FORMAT_OF_SEVERAL: u32 = 2;

/// Why a keyring cannot be made or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The file is not a keyring of a form that this build knows.
    #[error("keyring.json is not readable: {0}; restore it from the place where you keep copies of the key folder")]
    Form(String),
    /// A newer jadegate made it.
    #[error(
        "keyring.json has format {0}, and this jadegate knows {FORMAT_OF_SEVERAL}; run the jadegate that made it, or a newer one"
    )]
    Newer(u32),
    /// The root key did not make this keyring, or the file was changed.
    #[error(
        "root.key does not open keyring.json (it wants the root key {0}); put the two files of one deployment together"
    )]
    WrongRoot(String),
    /// A key that must be there is not.
    #[error("keyring.json has no {0} key; restore it from a copy")]
    Missing(&'static str),
    /// One of several keys is not there, and something needs it.
    #[error(
        "keyring.json lacks the {0} key {1}, which is still needed; put the newest keyring.json of this deployment here, or restore it from a copy"
    )]
    Lacks(&'static str, u32),
    /// No log has this origin.
    #[error(
        "keyring.json has no log {0}; its logs are {1}. Make one with `jadegate log add`, or put the newest keyring.json here"
    )]
    NoLog(String, String),
    /// The log is not written any more.
    #[error(
        "the log {0} was retired at {1}: it is served and verified for ever, and nobody writes it. Name another as `log_origin`"
    )]
    Retired(String, Timestamp),
    /// The origin cannot name a further log.
    #[error("{0:?} cannot name a further log: {1}")]
    Origin(String, &'static str),
    /// The keys of the last rotation are not in use yet.
    #[error("a rotation is under way: its keys are used from {0}; rotate again after that")]
    UnderWay(Timestamp),
    /// A key is there, but cannot be used.
    #[error(transparent)]
    Unusable(#[from] SigningKeyError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    root: String,
    origin: String,
    /// Every log, where there is more than one or one was retired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    logs: Vec<NamedLog>,
    keys: Vec<WrappedKey>,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct NamedLog {
    number: u16,
    origin: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired: Option<Timestamp>,
}

impl File {
    fn parse(text: &str) -> Result<Self, KeyringError> {
        let file: Self = serde_json::from_str(text).map_err(|e| KeyringError::Form(e.to_string()))?;
        if !matches!(file.format, FORMAT | FORMAT_OF_SEVERAL) {
            return Err(KeyringError::Newer(file.format));
        }
        Ok(file)
    }

    fn text(&self) -> Result<String, KeyringError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| KeyringError::Form(e.to_string()))?;
        Ok(text + "\n")
    }

    /// All logs, the first of them first.
    fn logs(&self) -> Vec<NamedLog> {
        let first = NamedLog { number: FIRST_LOG, origin: self.origin.clone(), retired: None };
        if self.logs.is_empty() { vec![first] } else { self.logs.clone() }
    }

    /// The origin that the bytes of a key are bound to: a log's own, where it is a log's.
    fn bound_origin(&self, key: &WrappedKey) -> &str {
        let of_log = matches!(key.r#use.as_str(), LOG_SIGNING | LOG_SEAL);
        let log = self.logs.iter().find(|log| of_log && u32::from(log.number) == key.version);
        log.map_or(&self.origin, |log| &log.origin)
    }

    /// The names of all logs, for messages.
    fn origins(&self) -> String {
        self.logs().iter().map(|log| log.origin.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedKey {
    r#use: String,
    version: u32,
    from: Timestamp,
    sealed: String,
}

impl WrappedKey {
    /// Binds the wrapped bytes to what the file says of them.
    fn bound(&self, origin: &str) -> Vec<u8> {
        format!("jadegate keyring {FORMAT}\n{origin}\n{}\n{}\n{}\n", self.r#use, self.version, self.from).into_bytes()
    }
}

/// Keys just made, to be written to the key folder once.
pub struct NewKeyring {
    /// The text of `root.key`.
    pub root: Zeroizing<String>,
    /// The text of `keyring.json`.
    pub keyring: String,
}

/// All working keys of a deployment, opened.
#[derive(Debug)]
pub struct Keyring {
    working: BTreeMap<u32, (Timestamp, SecretKey)>,
    consent: BTreeMap<u32, (Timestamp, ConsentKey)>,
    signing: Vec<(Timestamp, SigningKey)>,
    /// Their versions in the file, each with its start and its `kid`.
    signing_versions: BTreeMap<u32, (Timestamp, String)>,
    decoy: SigningKey,
    pseudonym: MacKey,
    index: MacKey,
    logs: Vec<Arc<LogKey>>,
    /// The one of them that this process writes.
    log: Arc<LogKey>,
}

/// The keys of consents made in one time: tokens carry their version.
#[derive(Debug)]
pub(crate) struct ConsentKey {
    pub(crate) mac: MacKey,
    pub(crate) seal: MacKey,
}

const WORKING: &str = "working";
const CONSENT: &str = "consent";
const SIGNING: &str = "signing";
const PSEUDONYM: &str = "pseudonym";
const INDEX: &str = "index";
const LOG_SIGNING: &str = "log-signing";
const LOG_SEAL: &str = "log-seal";

/// Nothing of it: the root key's text is in it.
impl std::fmt::Debug for NewKeyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewKeyring(..)")
    }
}

impl NewKeyring {
    /// Fresh keys of every use for a deployment whose log has this origin.
    pub fn generate(origin: &str, now: Timestamp, entropy: &dyn Entropy) -> Result<Self, KeyringError> {
        let root = RootKey::generate(entropy)?;
        let mut keys = Vec::new();
        for r#use in [WORKING, CONSENT, PSEUDONYM, INDEX, LOG_SIGNING, LOG_SEAL] {
            let secret = Zeroizing::new(entropy::bytes::<32>(entropy)?);
            keys.push(wrap(&root, origin, r#use, 1, now, &*secret, entropy)?);
        }
        keys.push(wrap(&root, origin, SIGNING, 1, now, &SigningKey::generate()?, entropy)?);
        let file = File { format: FORMAT, root: root.fingerprint(), origin: origin.to_owned(), logs: Vec::new(), keys };
        Ok(Self { root: root.to_text(), keyring: file.text()? })
    }
}

impl Keyring {
    /// Opens the text of `keyring.json` with the root key.
    pub fn open(text: &str, root: &RootKey) -> Result<Self, KeyringError> {
        let file = File::parse(text)?;
        let (mut working, mut consent, mut signing) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let (mut single, mut log_keys, mut signing_versions) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for key in &file.keys {
            let bytes = unwrap(root, &file, key)?;
            if key.r#use == SIGNING {
                let made = SigningKey::from_pkcs8(&bytes)?;
                signing_versions.insert(key.version, (key.from, made.kid().to_owned()));
                signing.push((key.from, made));
                continue;
            }
            let secret = <[u8; 32]>::try_from(bytes.as_slice())
                .map(SecretKey::new)
                .map_err(|_| KeyringError::Form(format!("the {} key has another length than 32 bytes", key.r#use)))?;
            match key.r#use.as_str() {
                WORKING => drop(working.insert(key.version, (key.from, secret))),
                CONSENT => {
                    let master = MacKey::new(&secret);
                    let part = |label| MacKey::new(&master.derive(label, &[]));
                    let made = ConsentKey { mac: part("consent mac"), seal: part("consent seal") };
                    consent.insert(key.version, (key.from, made));
                }
                PSEUDONYM | INDEX => drop(single.insert(key.r#use.clone(), secret)),
                LOG_SIGNING | LOG_SEAL => drop(log_keys.insert((key.version, key.r#use.clone()), secret)),
                other => return Err(KeyringError::Form(format!("a key for {other:?} is not known here"))),
            }
        }
        signing.sort_by_key(|(from, _)| *from);
        let one = |r#use: &'static str| single.get(r#use).ok_or(KeyringError::Missing(r#use));
        if working.is_empty() {
            return Err(KeyringError::Missing(WORKING));
        }
        if consent.is_empty() {
            return Err(KeyringError::Missing(CONSENT));
        }
        if signing.is_empty() {
            return Err(KeyringError::Missing(SIGNING));
        }
        let mut logs = Vec::new();
        for NamedLog { number, origin, retired } in file.logs() {
            let part = |r#use: &'static str| {
                log_keys.get(&(u32::from(number), r#use.to_owned())).ok_or(KeyringError::Missing(r#use))
            };
            logs.push(Arc::new(LogKey::new(number, origin, retired, part(LOG_SIGNING)?, part(LOG_SEAL)?)?));
        }
        let log = logs.first().cloned().ok_or(KeyringError::Missing(LOG_SIGNING))?;
        Ok(Self {
            working,
            consent,
            signing,
            signing_versions,
            // A "no" is never signed by a key that anybody trusts.
            decoy: SigningKey::from_pkcs8(&SigningKey::generate()?)?,
            pseudonym: MacKey::new(one(PSEUDONYM)?),
            index: MacKey::new(one(INDEX)?),
            logs,
            log,
        })
    }

    /// The same keys, for a process that writes the log with this origin; a keyring just opened names the first.
    pub fn writing(self, origin: &str) -> Result<Self, KeyringError> {
        let unknown = || KeyringError::NoLog(origin.to_owned(), self.origins());
        let log = self.logs.iter().find(|log| log.origin() == origin).ok_or_else(unknown)?.clone();
        match log.retired() {
            Some(at) => Err(KeyringError::Retired(origin.to_owned(), at)),
            None => Ok(Self { log, ..self }),
        }
    }

    /// The key that turns identity numbers into person ids and pseudonyms.
    pub fn pseudonym(&self) -> &MacKey {
        &self.pseudonym
    }

    /// The key that look-up keys and small cells are derived from.
    pub fn index(&self) -> &MacKey {
        &self.index
    }

    /// The key that backups of the store are sealed by. The index key never rotates, so an old backup opens for ever.
    pub fn backup(&self) -> MacKey {
        MacKey::new(&self.index.derive("backup", &[]))
    }

    /// The keys of the log that this process writes.
    pub fn log(&self) -> &Arc<LogKey> {
        &self.log
    }

    /// The keys of all logs of the deployment, the first of them first.
    pub fn logs(&self) -> &[Arc<LogKey>] {
        &self.logs
    }

    /// The origins of all logs, for messages.
    pub fn origins(&self) -> String {
        self.logs.iter().map(|log| log.origin()).collect::<Vec<_>>().join(", ")
    }

    /// The key that signs attestations at this instant.
    pub fn signing(&self, now: Timestamp) -> Option<&SigningKey> {
        let started = self.signing.iter().rev().find(|(from, _)| *from <= now);
        started.or(self.signing.first()).map(|(_, key)| key)
    }

    /// Every key that a verifier must know.
    pub fn signing_all(&self) -> impl Iterator<Item = &SigningKey> {
        self.signing.iter().map(|(_, key)| key)
    }

    /// A key of this process alone, for the work that a withheld answer throws away.
    pub fn decoy(&self) -> &SigningKey {
        &self.decoy
    }

    /// The keys that a verifier must know at this instant: from before they sign until their last attestation ended.
    pub fn signing_published(&self, now: Timestamp) -> impl Iterator<Item = &SigningKey> {
        let successors = self.signing.iter().skip(1).map(|(from, _)| Some(*from)).chain([None]);
        let stands = move |successor: Option<Timestamp>| successor.is_none_or(|s| rotation::attestations_end(s) > now);
        self.signing.iter().zip(successors).filter(move |(_, next)| stands(*next)).map(|((_, key), _)| key)
    }

    /// Whether both keyrings find the same cells and write the same logs: only what rotates may differ, and one may
    /// have logs that the other lacks.
    pub fn same_deployment(&self, other: &Self) -> bool {
        let known = |log: &Arc<LogKey>| {
            let mut theirs = other.logs.iter().filter(|theirs| theirs.number() == log.number());
            theirs.all(|theirs| theirs.public() == log.public() && same(theirs.seal(), log.seal()))
        };
        same(&self.pseudonym, &other.pseudonym) && same(&self.index, &other.index) && self.logs.iter().all(known)
    }

    /// The newest versions: working, consent, and how many signing keys there are.
    pub fn newest(&self) -> (u32, u32, Option<Timestamp>) {
        let version = |last: Option<&u32>| last.copied().unwrap_or_default();
        let signing = self.signing.last().map(|(from, _)| *from);
        (version(self.working.keys().last()), version(self.consent.keys().last()), signing)
    }

    /// From when the newest working key and the newest signing key are used.
    pub fn newest_from(&self) -> (Timestamp, Timestamp) {
        let working = self.working.last_key_value().map(|(_, (from, _))| *from);
        let signing = self.signing.last().map(|(from, _)| *from);
        (working.unwrap_or(Timestamp::MIN), signing.unwrap_or(Timestamp::MIN))
    }

    /// The versions of the working keys that are held.
    pub fn working_versions(&self) -> impl Iterator<Item = u32> {
        self.working.keys().copied()
    }

    pub(crate) fn working(&self, version: u32) -> Option<&SecretKey> {
        self.working.get(&version).map(|(_, key)| key)
    }

    /// The working key that wraps people's keys at this instant.
    pub(crate) fn working_at(&self, now: Timestamp) -> Option<(u32, &SecretKey)> {
        let started = self.working.iter().rev().find(|(_, (from, _))| *from <= now);
        started.or(self.working.first_key_value()).map(|(version, (_, key))| (*version, key))
    }

    pub(crate) fn consent(&self, version: u32) -> Option<&ConsentKey> {
        self.consent.get(&version).map(|(_, key)| key)
    }

    /// The keys that consents made at this instant get.
    pub(crate) fn consent_at(&self, now: Timestamp) -> Option<(u32, &ConsentKey)> {
        let started = self.consent.iter().rev().find(|(_, (from, _))| *from <= now);
        started.or(self.consent.first_key_value()).map(|(version, (_, key))| (*version, key))
    }

    /// Whether consents of this version ended so long ago that their keys were destroyed.
    pub(crate) fn consent_is_over(&self, version: u32) -> bool {
        self.consent.first_key_value().is_some_and(|(first, _)| version < *first)
    }
}

/// Whether two keys are one.
fn same(a: &MacKey, b: &MacKey) -> bool {
    a.verify("same deployment", &[], &b.mac("same deployment", &[]))
}

fn cipher(root: &RootKey) -> Result<LessSafeKey, SigningKeyError> {
    UnboundKey::new(&AES_256_GCM, root.secret().bytes()).map(LessSafeKey::new).map_err(|_| SigningKeyError("root"))
}

fn wrap(
    root: &RootKey,
    origin: &str,
    r#use: &str,
    version: u32,
    from: Timestamp,
    secret: &[u8],
    entropy: &dyn Entropy,
) -> Result<WrappedKey, KeyringError> {
    let mut key = WrappedKey { r#use: r#use.to_owned(), version, from, sealed: String::new() };
    let nonce = entropy::bytes::<NONCE_LEN>(entropy)?;
    let mut sealed = secret.to_vec();
    cipher(root)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key.bound(origin)), &mut sealed)
        .map_err(|_| SigningKeyError("root"))?;
    key.sealed = BASE64.encode([nonce.as_slice(), &sealed].concat());
    Ok(key)
}

fn unwrap(root: &RootKey, file: &File, key: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let wrong = || KeyringError::WrongRoot(file.root.clone());
    let sealed = BASE64.decode(&key.sealed).map_err(|_| wrong())?;
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let length = cipher(root)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(key.bound(file.bound_origin(key))), &mut bytes)
        .map_err(|_| wrong())?
        .len();
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn made() -> (RootKey, NewKeyring) {
        let now = "2026-11-25T00:00:00Z".parse().unwrap();
        let new = NewKeyring::generate("yuxi.example/log", now, &SystemEntropy::new()).unwrap();
        (RootKey::parse(&new.root, false).unwrap(), new)
    }

    #[test]
    fn a_keyring_reads_back_the_same() {
        let (root, new) = made();
        let (one, two) = (Keyring::open(&new.keyring, &root).unwrap(), Keyring::open(&new.keyring, &root).unwrap());
        assert_eq!(one.log().public(), two.log().public());
        assert_eq!(one.index().mac("a", &[]), two.index().mac("a", &[]));
        assert_ne!(one.index().mac("a", &[]), one.pseudonym().mac("a", &[]));
        assert_ne!(one.decoy().kid(), two.decoy().kid(), "the decoy key is the process's own");
    }

    #[test]
    fn another_root_or_a_changed_label_does_not_open_it() {
        let ((root, new), (other, _)) = (made(), made());
        assert!(matches!(Keyring::open(&new.keyring, &other), Err(KeyringError::WrongRoot(_))));
        let relabelled = new
            .keyring
            .replace("\"index\"", "\"x\"")
            .replace("\"pseudonym\"", "\"index\"")
            .replace("\"x\"", "\"pseudonym\"");
        assert!(matches!(Keyring::open(&relabelled, &root), Err(KeyringError::WrongRoot(_))));
    }

    #[test]
    fn a_newer_format_is_named() {
        let (root, new) = made();
        let newer = new.keyring.replace("\"format\": 1", "\"format\": 99");
        assert_eq!(Keyring::open(&newer, &root).unwrap_err(), KeyringError::Newer(99));
    }

    #[test]
    fn a_log_that_is_added_has_keys_of_its_own_and_one_that_is_retired_keeps_them() {
        let ((root, new), now) = (made(), "2026-11-26T00:00:00Z".parse().unwrap());
        let add = |text: &str, origin: &str| NewKeyring::add_log(text, &root, origin, now, &SystemEntropy::new());
        let two = add(&new.keyring, "yuxi.example/log-2").unwrap();
        let three = add(&two, "yuxi.example/log-3").unwrap();
        let (before, keys) = (Keyring::open(&new.keyring, &root).unwrap(), Keyring::open(&three, &root).unwrap());
        let named = |keys: &Keyring| keys.logs().iter().map(|log| (log.number(), log.public())).collect::<Vec<_>>();
        assert_eq!(named(&keys)[0], named(&before)[0], "the first log's key is what it was");
        assert_eq!(named(&keys).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
        let publics: std::collections::BTreeSet<_> = named(&keys).into_iter().map(|(_, public)| public).collect();
        assert_eq!(publics.len(), 3);
        assert_eq!(keys.log().number(), FIRST_LOG);
        let second = keys.writing("yuxi.example/log-2").unwrap();
        assert_eq!(second.log().number(), 2);
        assert!(matches!(second.writing("yuxi.example/log-9"), Err(KeyringError::NoLog(..))));

        let retired = NewKeyring::retire_log(&three, &root, "yuxi.example/log-2", now).unwrap();
        let keys = Keyring::open(&retired, &root).unwrap();
        assert_eq!(named(&keys).len(), 3);
        assert!(matches!(keys.writing("yuxi.example/log-2"), Err(KeyringError::Retired(..))));
        for taken in ["yuxi.example/log-2", "yuxi.example_log-2", "yuxi.example/log", "tile", "", "a b", "a+b"] {
            assert!(matches!(add(&three, taken), Err(KeyringError::Origin(..))), "{taken}");
        }
        // Whose log a key is of cannot be exchanged in the file.
        let exchanged = three.replace("\"yuxi.example/log-2\"", "\"x\"").replace("log-3\"", "log-2\"");
        let exchanged = exchanged.replace("\"x\"", "\"yuxi.example/log-3\"");
        assert!(matches!(Keyring::open(&exchanged, &root), Err(KeyringError::WrongRoot(_))));
    }
}
