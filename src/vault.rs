//! Seals and opens cells. Personal data opens only for an [`Authority`].
//!
//! AES-256-GCM; sealed bytes are bound to their table, key and version, so a cell that the store
//! moves, swaps or rolls back does not open in its new place. Every sealed cell has one of a few
//! fixed lengths. Each person has two data keys, `kept` (what the law makes the city hold) and `own`
//! (what the person may erase), wrapped by a working key in the person's cell. Keys that never
//! rotate seal each cell by a key derived for it. The vault does no I/O and knows no HTTP.

mod sealing;

pub use sealing::{At, SealError, looks_sealed};

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::consent::{CodeMac, Consent, ConsentId, Grant, OneTimeCode, Presented, TokenMac};
use crate::disclosure::{DayCell, Standing};
use crate::entropy::Entropy;
use crate::keys::{Keyring, SecretKey};
use crate::person::{Identity, PersonId};
use sealing::{key_version, open, seal};

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The bytes do not open in this place: changed, moved, rolled back, or sealed by other keys.
    #[error(
        "a cell of table {0} does not open: it was changed, moved or rolled back, or the keys are of another deployment; put the right keys back, or restore the newest backup of the store"
    )]
    DoesNotOpen(String),
    /// The cell names a version of a key that the keyring lacks.
    #[error("a cell of table {0} is sealed by a key that keyring.json does not hold; put the newest keyring.json back")]
    NoKey(String),
    /// The authority is not over this person.
    #[error("the authority does not reach this person")]
    NotReached,
    /// The content does not read as what the table holds.
    #[error("a cell of table {0} has content of an unknown form")]
    Content(String),
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// A person's two data keys, opened under an authority.
#[derive(Debug)]
pub struct PersonKeys {
    person: PersonId,
    kept: SecretKey,
    own: SecretKey,
}

impl PersonKeys {
    /// Whose keys they are.
    pub fn person(&self) -> &PersonId {
        &self.person
    }

    fn of(&self, part: Part) -> &SecretKey {
        match part {
            Part::Kept => &self.kept,
            Part::Own => &self.own,
        }
    }
}

/// Which of a person's data keys seals a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// What the law makes the city hold: the register, statutory records, the standing.
    Kept,
    /// What rests on the person's consent, and can be erased.
    Own,
}

/// Opens and seals with the keyring's keys.
pub struct Vault {
    keys: Arc<Keyring>,
    entropy: Arc<dyn Entropy>,
    decoy: Decoy,
}

/// Cells of nobody, opened in place of a person's where there is no grant.
struct Decoy {
    person: PersonId,
    person_cell: Vec<u8>,
    standing_cell: Vec<u8>,
}

const PERSON: &str = "person";
const STANDING: &str = "standing";
const CONSENT: &str = "consent";
const WRAP_BYTES: usize = sealing::sealed_bytes(128);

/// Whether the bytes of a person's cell have its form: the wrapped data keys, then the register's entry.
pub fn looks_like_a_person(cell: &[u8]) -> bool {
    cell.split_at_checked(WRAP_BYTES).is_some_and(|(keys, entry)| looks_sealed(keys) && looks_sealed(entry))
}

impl Vault {
    /// A vault over these keys.
    pub fn new(keys: Arc<Keyring>, entropy: Arc<dyn Entropy>, decoy: &Standing) -> Result<Self, VaultError> {
        let person = PersonId(crate::entropy::bytes(&*entropy).map_err(SealError::from)?);
        let empty = Decoy { person, person_cell: Vec::new(), standing_cell: Vec::new() };
        let mut vault = Self { keys, entropy, decoy: empty };
        let data = vault.new_person(person)?;
        vault.decoy.person_cell = vault.seal_person(&data, 1, b"")?;
        vault.decoy.standing_cell = vault.seal_standing(&data, 1, Some(decoy))?;
        Ok(vault)
    }

    /// The keyring.
    pub fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// The id of the person with this identity: a MAC, so that the store learns no number.
    pub fn person_id(&self, identity: &Identity) -> PersonId {
        let kind = identity.id_type().as_str().as_bytes();
        PersonId(self.keys.pseudonym().mac("person", &[kind, identity.number().as_bytes()]))
    }

    /// The key under which something is looked up: a MAC under the index key.
    pub fn lookup(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        self.keys.index().mac(label, parts)
    }

    /// INVARIANT (no names travel): what identifies a person to one party in one scenario, where anything does.
    pub fn pseudonym(&self, grant: &Grant, party: &str, scenario: &str) -> String {
        self.pairwise(grant.person(), party, scenario)
    }

    /// The same work for nobody: what an answer without a grant makes and throws away.
    pub fn pseudonym_decoy(&self, party: &str, scenario: &str) -> String {
        self.pairwise(&self.decoy.person, party, scenario)
    }

    fn pairwise(&self, person: &PersonId, party: &str, scenario: &str) -> String {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
        let mac = self.keys.pseudonym().mac("pairwise", &[&person.0, party.as_bytes(), scenario.as_bytes()]);
        BASE64URL.encode(mac)
    }

    // Personal cells

    /// Fresh data keys for somebody whose cell does not exist yet; they open nothing.
    pub fn new_person(&self, person: PersonId) -> Result<PersonKeys, VaultError> {
        let fresh = || SecretKey::generate(&*self.entropy).map_err(SealError::from);
        Ok(PersonKeys { person, kept: fresh()?, own: fresh()? })
    }

    /// The person's cell: the wrapped data keys, then the register's entry under `kept`.
    pub fn seal_person(&self, keys: &PersonKeys, version: u64, entry: &[u8]) -> Result<Vec<u8>, VaultError> {
        let at = At { table: PERSON, key: &keys.person.0, version };
        let (number, working) = self.keys.working_newest().ok_or_else(|| VaultError::NoKey(PERSON.into()))?;
        let both = Zeroizing::new([keys.kept.bytes().as_slice(), keys.own.bytes()].concat());
        let mut cell = seal(working, number, at, "keys", &both, 128, &*self.entropy)?;
        cell.extend(seal(&keys.kept, 0, at, "entry", entry, 512, &*self.entropy)?);
        Ok(cell)
    }

    /// INVARIANT (no grant, no plaintext): opens a person's data keys and register entry, for an
    /// authority over that person.
    pub fn open_person(
        &self,
        authority: &dyn Authority,
        person: PersonId,
        version: u64,
        cell: &[u8],
    ) -> Result<(PersonKeys, Zeroizing<Vec<u8>>), VaultError> {
        if !authority.reaches(&person) {
            return Err(VaultError::NotReached);
        }
        self.unwrap_person(person, version, cell)
    }

    fn unwrap_person(
        &self,
        person: PersonId,
        version: u64,
        cell: &[u8],
    ) -> Result<(PersonKeys, Zeroizing<Vec<u8>>), VaultError> {
        let at = At { table: PERSON, key: &person.0, version };
        let bad = || VaultError::DoesNotOpen(PERSON.into());
        let (wrapped, entry) = cell.split_at_checked(WRAP_BYTES).ok_or_else(bad)?;
        let number = key_version(wrapped).ok_or_else(bad)?;
        let working = self.keys.working(number).ok_or_else(|| VaultError::NoKey(PERSON.into()))?;
        let both = open(working, at, "keys", wrapped).ok_or_else(bad)?;
        let (kept, own) = both.split_first_chunk::<32>().ok_or_else(bad)?;
        let own = <[u8; 32]>::try_from(own).map_err(|_| bad())?;
        let keys = PersonKeys { person, kept: SecretKey::new(*kept), own: SecretKey::new(own) };
        let entry = open(&keys.kept, at, "entry", entry).ok_or_else(bad)?;
        Ok((keys, entry))
    }

    /// Seals a cell of the person under one of their data keys.
    pub fn seal_own(&self, keys: &PersonKeys, part: Part, at: At<'_>, content: &[u8]) -> Result<Vec<u8>, VaultError> {
        Ok(seal(keys.of(part), 0, at, "cell", content, 64, &*self.entropy)?)
    }

    /// Opens a cell of the person; the keys prove the authority.
    pub fn open_own(
        &self,
        keys: &PersonKeys,
        part: Part,
        at: At<'_>,
        cell: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        open(keys.of(part), at, "cell", cell).ok_or_else(|| VaultError::DoesNotOpen(at.table.into()))
    }

    /// Seals a person's standing.
    ///
    /// There is one for everybody who has a cell, so that each change of a person's register entry or
    /// records writes it: `None` for somebody who is not registered yet.
    pub fn seal_standing(
        &self,
        keys: &PersonKeys,
        version: u64,
        standing: Option<&Standing>,
    ) -> Result<Vec<u8>, VaultError> {
        let at = At { table: STANDING, key: &keys.person.0, version };
        let content = standing.map(Standing::encode).unwrap_or_default();
        Ok(seal(&keys.kept, 0, at, "cell", &content, 256, &*self.entropy)?)
    }

    /// Opens a person's standing.
    pub fn open_standing(&self, keys: &PersonKeys, version: u64, cell: &[u8]) -> Result<Option<Standing>, VaultError> {
        let at = At { table: STANDING, key: &keys.person.0, version };
        let content = self.open_own(keys, Part::Kept, at, cell)?;
        if content.is_empty() {
            return Ok(None);
        }
        Standing::decode(&content).map(Some).map_err(|_| VaultError::Content(STANDING.into()))
    }

    /// Opens the cell that a person's answers of a day come from, for an authority over that person.
    pub fn open_today(
        &self,
        authority: &dyn Authority,
        person: &PersonId,
        at: At<'_>,
        cell: &[u8],
    ) -> Result<DayCell, VaultError> {
        if !authority.reaches(person) {
            return Err(VaultError::NotReached);
        }
        let content = self.open_indexed(at, cell)?;
        content.first().copied().map(DayCell::from_byte).ok_or_else(|| VaultError::Content(at.table.into()))
    }

    /// Opens the cells of nobody with the same work as a person's: what a lapsed consent gets.
    pub fn open_decoy(&self) -> Result<Standing, VaultError> {
        let (keys, _) = self.unwrap_person(self.decoy.person, 1, &self.decoy.person_cell)?;
        let standing = self.open_standing(&keys, 1, &self.decoy.standing_cell)?;
        standing.ok_or_else(|| VaultError::Content(STANDING.into()))
    }

    // Consents and their codes

    /// Seals a consent's cell under the key of its time.
    pub fn seal_consent(
        &self,
        id: ConsentId,
        key: u32,
        version: u64,
        consent: &Consent,
    ) -> Result<Vec<u8>, VaultError> {
        let at = At { table: CONSENT, key: id.as_bytes(), version };
        self.seal_by_consent(key, at, &consent.encode(), 512)
    }

    /// Opens the cell of the consent that a party presented.
    pub fn open_consent(&self, presented: &Presented, version: u64, cell: &[u8]) -> Result<(u32, Consent), VaultError> {
        let opened = self.unseal_consent(presented.id(), version, cell)?;
        // The token says the time of its keys; a cell of another time is not its own.
        match presented.key_version() {
            Some(key) if key != opened.0 => Err(VaultError::DoesNotOpen(CONSENT.into())),
            _ => Ok(opened),
        }
    }

    /// Opens a consent that its own person lists or revokes; somebody else's does not open.
    pub fn open_consent_of(
        &self,
        authority: &dyn Authority,
        id: ConsentId,
        version: u64,
        cell: &[u8],
    ) -> Result<(u32, Consent), VaultError> {
        let (key, consent) = self.unseal_consent(id, version, cell)?;
        if authority.reaches(&consent.person) { Ok((key, consent)) } else { Err(VaultError::NotReached) }
    }

    fn unseal_consent(&self, id: ConsentId, version: u64, cell: &[u8]) -> Result<(u32, Consent), VaultError> {
        let at = At { table: CONSENT, key: id.as_bytes(), version };
        let (key, content) = self.open_by_consent(at, cell)?;
        let consent = Consent::decode(&content).map_err(|_| VaultError::Content(CONSENT.into()))?;
        Ok((key, consent))
    }

    /// Seals a cell that belongs to a consent (a reply, an access page) under the key of its time.
    pub fn seal_by_consent(&self, key: u32, at: At<'_>, content: &[u8], room: usize) -> Result<Vec<u8>, VaultError> {
        let consent = self.keys.consent(key).ok_or_else(|| VaultError::NoKey(at.table.into()))?;
        let cell_key = consent.seal.derive(at.table, &[at.key]);
        Ok(seal(&cell_key, key, at, "cell", content, room, &*self.entropy)?)
    }

    /// Opens such a cell, and tells the version of its key.
    pub fn open_by_consent(&self, at: At<'_>, cell: &[u8]) -> Result<(u32, Zeroizing<Vec<u8>>), VaultError> {
        let bad = || VaultError::DoesNotOpen(at.table.into());
        let key = key_version(cell).ok_or_else(bad)?;
        let consent = self.keys.consent(key).ok_or_else(|| VaultError::NoKey(at.table.into()))?;
        let cell_key = consent.seal.derive(at.table, &[at.key]);
        Ok((key, open(&cell_key, at, "cell", cell).ok_or_else(bad)?))
    }

    /// The version of the keys that a consent made now is sealed and signed by.
    pub fn consent_key(&self) -> Result<u32, VaultError> {
        self.keys.consent_newest().map(|(version, _)| version).ok_or_else(|| VaultError::NoKey(CONSENT.into()))
    }

    /// The MAC of a one-time code.
    pub fn code_mac(&self, code: &OneTimeCode) -> CodeMac {
        CodeMac(self.lookup("code", &[code.as_bytes()]))
    }

    // Cells of the gateway's own

    /// Seals a small cell by a key derived from the index key for it alone.
    pub fn seal_indexed(&self, at: At<'_>, content: &[u8], room: usize) -> Result<Vec<u8>, VaultError> {
        let key = self.keys.index().derive(at.table, &[at.key]);
        Ok(seal(&key, 0, at, "cell", content, room, &*self.entropy)?)
    }

    /// Opens such a cell. None that is opened here holds personal data: scores, records and what was
    /// answered lie under a person's or a consent's keys, and a day's cell opens by [`Self::open_today`].
    pub fn open_indexed(&self, at: At<'_>, cell: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let key = self.keys.index().derive(at.table, &[at.key]);
        open(&key, at, "cell", cell).ok_or_else(|| VaultError::DoesNotOpen(at.table.into()))
    }
}

impl TokenMac for Vault {
    fn token_mac(&self, version: u32, parts: &[&[u8]]) -> Option<[u8; 32]> {
        self.keys.consent(version).map(|key| key.mac.mac("token", parts))
    }

    fn token_verify(&self, version: u32, parts: &[&[u8]], tag: &[u8]) -> bool {
        // An unknown version costs the same MAC as a known one.
        let key = self.keys.consent(version).or(self.keys.consent_newest().map(|(_, key)| key));
        let fits = key.is_some_and(|key| key.mac.verify("token", parts, tag));
        fits && self.keys.consent(version).is_some()
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}
