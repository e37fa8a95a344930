//! The keys of a deployment: one root key wraps a few working keys, and those wrap everything else.
//!
//! Apart from the vault so that key material has one place that makes it, wraps it and opens it.
//! Root and working keys never lie in the store. The pseudonym key and the index key never rotate,
//! since cells are found by them; working, consent and signing keys have versions. Nothing here
//! reads a file: the edge hands in the texts of `root.key` and `keyring.json`.

mod keyring;

pub use keyring::{JWKS_SECONDS, Keyring, KeyringError, NewKeyring, Rotated, Rotation};

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::entropy::{self, Entropy, EntropyError};
use crate::hex::hex;

/// Root keys that are public, by name and by the SHA-256 of the key: refused outside demo and tests.
const PUBLIC_ROOTS: &[(&str, &str)] =
    &[("keys-example", "sha256-9c37d98af25f5083d0524b4e4b3b18fb783f1d87fe8efc04db9cd8e56baa0332")];

/// Parties' secrets that are public, by the SHA-256 of a heading and the secret: refused as those are.
const PUBLIC_SECRETS: &[&str] = &[
    "42294ccc41d8f33deffc8c313ab9eb9b429af8c283526bb594ca0ed4cbe92d15",
    "a7397f535a6498c679612ca4a96c9c336b4d6494e9c535972c136ad1fe3578f0",
];

/// Whether a party's secret is published with the source.
pub fn is_public_secret(secret: &[u8]) -> bool {
    let digest = hex(&Sha256::new().chain_update(b"jadegate party secret").chain_update(secret).finalize());
    PUBLIC_SECRETS.contains(&digest.as_str())
}

/// A 256-bit key in memory, wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; 32]>);

impl SecretKey {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A fresh random key.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        Ok(Self::new(entropy::bytes(entropy)?))
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// A key for HMAC-SHA-256, and for deriving the key of a single cell.
#[derive(Clone)]
pub struct MacKey(Hmac<Sha256>);

impl MacKey {
    /// A MAC key from a secret.
    pub fn new(secret: &SecretKey) -> Self {
        Self::from_bytes(secret.bytes())
    }

    fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut block = Zeroizing::new([0; 64]);
        block.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self(<Hmac<Sha256> as KeyInit>::new((&*block).into()))
    }

    /// The MAC over the parts, each preceded by its length, so that no two lists of parts collide.
    pub fn mac(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        self.keyed(label, parts).finalize().into_bytes().into()
    }

    /// Whether `tag` is the MAC over the parts, compared in constant time.
    pub fn verify(&self, label: &str, parts: &[&[u8]], tag: &[u8]) -> bool {
        self.keyed(label, parts).verify_slice(tag).is_ok()
    }

    /// The key of one cell: what a key that never rotates seals, it seals by a key derived for it.
    pub fn derive(&self, label: &str, parts: &[&[u8]]) -> SecretKey {
        SecretKey::new(self.mac(label, parts))
    }

    fn keyed(&self, label: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

/// The root key: a file of mode 0600 that wraps the working keys and nothing else.
#[derive(Clone, Debug)]
pub struct RootKey(SecretKey);

/// The first word of a root key's file.
const ROOT_HEADING: &str = "jadegate-root-key-v1";

/// Why a root key's file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootKeyError {
    /// The text has another form.
    #[error("root.key must be one line, `{ROOT_HEADING} ` and 32 bytes in base64; make one with `jadegate init`")]
    Form,
    /// The key is published with the source.
    #[error(
        "this is the root key of {0}, which everybody can read; it works in the demo and in tests only. Make your own with `jadegate init`"
    )]
    Public(&'static str),
}

impl RootKey {
    /// A fresh root key.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        SecretKey::generate(entropy).map(Self)
    }

    /// Reads the text of `root.key`; a published key is refused unless `allow_public`.
    pub fn parse(text: &str, allow_public: bool) -> Result<Self, RootKeyError> {
        let encoded = text.trim_end().strip_prefix(ROOT_HEADING).and_then(|rest| rest.strip_prefix(' '));
        let mut bytes = BASE64.decode(encoded.ok_or(RootKeyError::Form)?).map_err(|_| RootKeyError::Form)?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| RootKeyError::Form)?;
        bytes.zeroize();
        let root = Self(SecretKey::new(key));
        let fingerprint = root.fingerprint();
        match PUBLIC_ROOTS.iter().find(|(_, public)| *public == fingerprint) {
            Some((name, _)) if !allow_public => Err(RootKeyError::Public(name)),
            _ => Ok(root),
        }
    }

    /// The text of `root.key`.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{ROOT_HEADING} {}\n", BASE64.encode(self.0.bytes())))
    }

    /// A name for the key that tells nothing about it.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::new().chain_update(b"jadegate root key").chain_update(self.0.bytes()).finalize();
        format!("sha256-{}", hex(&digest))
    }

    fn secret(&self) -> &SecretKey {
        &self.0
    }
}

/// A key that signs attestations: ECDSA on P-256 with SHA-256, ES256 of RFC 7518.
pub struct SigningKey {
    kid: String,
    pair: EcdsaKeyPair,
}

/// Making or reading a signing key failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} key is not usable")]
pub struct SigningKeyError(&'static str);

impl SigningKey {
    /// The bytes (PKCS#8) of a fresh key.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, SigningKeyError> {
        EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &entropy::system())
            .map(|document| Zeroizing::new(document.as_ref().to_vec()))
            .map_err(|_| SigningKeyError("attestation"))
    }

    /// A key from its bytes; its `kid` is derived from the public half.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SigningKeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &entropy::system())
            .map_err(|_| SigningKeyError("attestation"))?;
        let digest = Sha256::digest(pair.public_key().as_ref());
        Ok(Self { kid: hex(digest.get(..8).unwrap_or_default()), pair })
    }

    /// The key's name in the JWKS.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The affine coordinates of the public key.
    pub fn public(&self) -> ([u8; 32], [u8; 32]) {
        let point = self.pair.public_key().as_ref();
        let half = |from: usize| point.get(from..from + 32).and_then(|half| half.try_into().ok()).unwrap_or([0; 32]);
        (half(1), half(33))
    }

    /// Signs a JWS signing input. Each signature is counted, whichever key makes it: what a signing module would have to
    /// bear, and the same for every answer, or an answer would tell what it is by what it costs.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], SigningKeyError> {
        metrics::counter!(SIGNATURES).increment(1);
        let signature = self.pair.sign(&entropy::system(), message).map_err(|_| SigningKeyError("attestation"))?;
        signature.as_ref().try_into().map_err(|_| SigningKeyError("attestation"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// The figure of signatures made, decoys among them.
pub const SIGNATURES: &str = "jadegate_signatures_total";

/// The number of a deployment's first log.
pub const FIRST_LOG: u16 = 1;
/// How many logs a deployment has at most.
pub const LOGS_MAX: usize = 256;

/// The longest origin: it stands in every proof, and an answer has one size.
const ORIGIN_BYTES_MAX: usize = 128;

/// Whether a text can name a log: 1 to 128 ASCII characters, no blank and no plus, as a signed note's key name wants it.
pub fn is_origin(text: &str) -> bool {
    (1..=ORIGIN_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'+')
}

/// A log's name in paths and files; a deployment's logs differ in it.
pub fn path_name(origin: &str) -> String {
    origin.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' }).collect()
}

/// The keys of one access log: they live as long as its origin.
pub struct LogKey {
    number: u16,
    origin: String,
    retired: Option<Timestamp>,
    pair: Ed25519KeyPair,
    seal: MacKey,
}

impl LogKey {
    fn new(
        number: u16,
        origin: String,
        retired: Option<Timestamp>,
        seed: &SecretKey,
        seal: &SecretKey,
    ) -> Result<Self, SigningKeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.bytes()).map_err(|_| SigningKeyError("log"))?;
        Ok(Self { number, origin, retired, pair, seal: MacKey::new(seal) })
    }

    /// The log's number in this deployment: what stored places name it by.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Since when nobody writes the log any more.
    pub fn retired(&self) -> Option<Timestamp> {
        self.retired
    }

    /// The log's origin, which is also the name of its key.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The Ed25519 public key.
    pub fn public(&self) -> [u8; 32] {
        self.pair.public_key().as_ref().try_into().unwrap_or([0; 32])
    }

    /// Signs a note's text.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().unwrap_or([0; 64])
    }

    /// The key that the sealed part of entries is derived from.
    pub fn seal(&self) -> &MacKey {
        &self.seal
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    #[test]
    fn a_root_key_reads_back() {
        let root = RootKey::generate(&SystemEntropy::new()).unwrap();
        let again = RootKey::parse(&root.to_text(), false).unwrap();
        assert_eq!(root.fingerprint(), again.fingerprint());
        for wrong in ["", "jadegate-root-key-v1", "jadegate-root-key-v1 AAAA", "jadegate-root-key-v2 AAAA"] {
            assert_eq!(RootKey::parse(wrong, false).unwrap_err(), RootKeyError::Form);
        }
    }

    #[test]
    fn parts_of_a_mac_do_not_run_together() {
        let key = MacKey::new(&SecretKey::new([7; 32]));
        assert_ne!(key.mac("a", &[b"bc", b"d"]), key.mac("a", &[b"b", b"cd"]));
        assert_ne!(key.mac("ab", &[b"c"]), key.mac("a", &[b"bc"]));
        assert!(key.verify("a", &[b"b"], &key.mac("a", &[b"b"])));
        assert!(!key.verify("a", &[b"b"], &key.mac("a", &[b"c"])));
    }

    #[test]
    fn the_example_keys_open_and_are_refused_by_name() {
        let text = include_str!("../keys-example/root.key");
        assert_eq!(RootKey::parse(text, false).unwrap_err(), RootKeyError::Public("keys-example"));
        let root = RootKey::parse(text, true).unwrap();
        let keyring = Keyring::open(include_str!("../keys-example/keyring.json"), &root).unwrap();
        assert!(keyring.signing_all().count() == 1 && keyring.working(1).is_some());
        for secret in [
            include_str!("../keys-example/parties/yx-bike-1.hmac"),
            include_str!("../keys-example/parties/yx-bus-1.hmac"),
        ] {
            assert!(is_public_secret(&BASE64.decode(secret.trim_end()).unwrap()));
        }
        assert!(!is_public_secret(&[7; 32]));
    }

    #[test]
    fn debug_shows_no_key() {
        let root = RootKey::parse(&format!("{ROOT_HEADING} {}", BASE64.encode([9; 32])), false).unwrap();
        assert_eq!(format!("{root:?}"), "RootKey(SecretKey(..))");
        assert_eq!(format!("{:?}", MacKey::new(&SecretKey::new([9; 32]))), "MacKey(..)");
        let new =
            NewKeyring::generate("yuxi.example/log", "2026-11-25T00:00:00Z".parse().unwrap(), &SystemEntropy::new());
        assert_eq!(format!("{:?}", new.unwrap()), "NewKeyring(..)");
    }
}
