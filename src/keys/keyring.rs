//! The working keys, wrapped by the root key in `keyring.json`.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{LogKey, MacKey, RootKey, SecretKey, SigningKey, SigningKeyError};
use crate::entropy::{self, Entropy, EntropyError};

/// The form of `keyring.json` that this build writes and reads.
const FORMAT: u32 = 1;

/// Why a keyring cannot be made or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The file is not a keyring of a form that this build knows.
    #[error("keyring.json is not readable: {0}; restore it from the place where you keep copies of the key folder")]
    Form(String),
    /// A newer jadegate made it.
    #[error(
        "keyring.json has format {0}, and this jadegate knows {FORMAT}; run the jadegate that made it, or a newer one"
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
    keys: Vec<WrappedKey>,
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
#[derive(Debug)]
pub struct NewKeyring {
    /// The text of `root.key`.
    pub root: Zeroizing<String>,
    /// The text of `keyring.json`.
    pub keyring: String,
}

/// All working keys of a deployment, opened.
#[derive(Debug)]
pub struct Keyring {
    working: BTreeMap<u32, SecretKey>,
    consent: BTreeMap<u32, ConsentKey>,
    signing: Vec<(Timestamp, SigningKey)>,
    decoy: SigningKey,
    pseudonym: MacKey,
    index: MacKey,
    log: LogKey,
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
        let file = File { format: FORMAT, root: root.fingerprint(), origin: origin.to_owned(), keys };
        let keyring = serde_json::to_string_pretty(&file).map_err(|e| KeyringError::Form(e.to_string()))?;
        Ok(Self { root: root.to_text(), keyring: keyring + "\n" })
    }
}

impl Keyring {
    /// Opens the text of `keyring.json` with the root key.
    pub fn open(text: &str, root: &RootKey) -> Result<Self, KeyringError> {
        let file: File = serde_json::from_str(text).map_err(|e| KeyringError::Form(e.to_string()))?;
        if file.format != FORMAT {
            return Err(KeyringError::Newer(file.format));
        }
        let (mut working, mut consent, mut signing) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut single = BTreeMap::new();
        for key in &file.keys {
            let bytes = unwrap(root, &file, key)?;
            if key.r#use == SIGNING {
                signing.push((key.from, SigningKey::from_pkcs8(&bytes)?));
                continue;
            }
            let secret = <[u8; 32]>::try_from(bytes.as_slice())
                .map(SecretKey::new)
                .map_err(|_| KeyringError::Form(format!("the {} key has another length than 32 bytes", key.r#use)))?;
            match key.r#use.as_str() {
                WORKING => drop(working.insert(key.version, secret)),
                CONSENT => {
                    let master = MacKey::new(&secret);
                    let part = |label| MacKey::new(&master.derive(label, &[]));
                    consent.insert(key.version, ConsentKey { mac: part("consent mac"), seal: part("consent seal") });
                }
                PSEUDONYM | INDEX | LOG_SIGNING | LOG_SEAL => drop(single.insert(key.r#use.clone(), secret)),
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
        Ok(Self {
            working,
            consent,
            signing,
            // A "no" is never signed by a key that anybody trusts.
            decoy: SigningKey::from_pkcs8(&SigningKey::generate()?)?,
            pseudonym: MacKey::new(one(PSEUDONYM)?),
            index: MacKey::new(one(INDEX)?),
            log: LogKey::new(file.origin.clone(), one(LOG_SIGNING)?, one(LOG_SEAL)?)?,
        })
    }

    /// The key that turns identity numbers into person ids and pseudonyms.
    pub fn pseudonym(&self) -> &MacKey {
        &self.pseudonym
    }

    /// The key that look-up keys and small cells are derived from.
    pub fn index(&self) -> &MacKey {
        &self.index
    }

    /// The access log's keys.
    pub fn log(&self) -> &LogKey {
        &self.log
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

    pub(crate) fn working(&self, version: u32) -> Option<&SecretKey> {
        self.working.get(&version)
    }

    pub(crate) fn working_newest(&self) -> Option<(u32, &SecretKey)> {
        self.working.last_key_value().map(|(version, key)| (*version, key))
    }

    pub(crate) fn consent(&self, version: u32) -> Option<&ConsentKey> {
        self.consent.get(&version)
    }

    pub(crate) fn consent_newest(&self) -> Option<(u32, &ConsentKey)> {
        self.consent.last_key_value().map(|(version, key)| (*version, key))
    }
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
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(key.bound(&file.origin)), &mut bytes)
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
        let newer = new.keyring.replace("\"format\": 1", "\"format\": 2");
        assert_eq!(Keyring::open(&newer, &root).unwrap_err(), KeyringError::Newer(2));
    }
}
