//! The token: the consent's id under a MAC that also covers the party and the scenario.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};

use crate::code::{PartyId, ScenarioId};
use crate::entropy::{self, Entropy, EntropyError};

/// A consent's id: 16 random bytes, the key of its cell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsentId(pub(crate) [u8; 16]);

impl ConsentId {
    /// A fresh id.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        entropy::bytes(entropy).map(Self)
    }

    /// The id as people's pages show it: base64url, 22 characters.
    pub fn to_text(self) -> String {
        BASE64URL.encode(self.0)
    }

    /// Reads the text form; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        BASE64URL.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for ConsentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsentId(..)")
    }
}

/// The keys that tokens are made and checked with, by version.
pub trait TokenMac {
    /// The MAC over these parts under the key of this version; `None` where there is no such key.
    fn token_mac(&self, version: u32, parts: &[&[u8]]) -> Option<[u8; 32]>;
    /// Whether `tag` is that MAC, compared in constant time.
    fn token_verify(&self, version: u32, parts: &[&[u8]], tag: &[u8]) -> bool;
}

const FORM: u8 = 1;
/// One byte of form, two of key version, the id, the MAC: a multiple of three, so that base64url has
/// no spare bits and a token has one spelling.
const TOKEN_BYTES: usize = 1 + 2 + 16 + 32;

/// A token as it was shown, not yet believed.
pub struct Token {
    version: u16,
    id: ConsentId,
    mac: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Makes the token of a consent; `None` where the key of that version is not there.
    pub fn make(
        id: ConsentId,
        version: u32,
        macs: &dyn TokenMac,
        party: &PartyId,
        scenario: &ScenarioId,
    ) -> Option<String> {
        let version = u16::try_from(version).ok()?;
        let mac = macs.token_mac(version.into(), &parts(&id, party, scenario))?;
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.push(FORM);
        bytes.extend(version.to_be_bytes());
        bytes.extend(id.0);
        bytes.extend(mac);
        Some(BASE64URL.encode(bytes))
    }

    /// Reads the one spelling of a token; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; TOKEN_BYTES] = BASE64URL.decode(text).ok()?.try_into().ok()?;
        let (form, rest) = bytes.split_first()?;
        let (version, rest) = rest.split_first_chunk::<2>()?;
        let (id, mac) = rest.split_first_chunk::<16>()?;
        (*form == FORM).then_some(())?;
        Some(Self { version: u16::from_be_bytes(*version), id: ConsentId(*id), mac: mac.try_into().ok()? })
    }

    pub(super) fn verify(&self, macs: &dyn TokenMac, party: &PartyId, scenario: &ScenarioId) -> bool {
        macs.token_verify(self.version.into(), &parts(&self.id, party, scenario), &self.mac)
    }

    pub(super) fn id(&self) -> ConsentId {
        self.id
    }

    pub(super) fn key_version(&self) -> u32 {
        self.version.into()
    }
}

fn parts<'a>(id: &'a ConsentId, party: &'a PartyId, scenario: &'a ScenarioId) -> [&'a [u8]; 3] {
    [&id.0, party.as_str().as_bytes(), scenario.as_str().as_bytes()]
}
