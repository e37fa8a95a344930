//! Seals and opens cells. Personal data opens only for an [`Authority`].
//!
//! AES-256-GCM; sealed bytes are bound to their table, key and version, so a cell that the store
//! moves, swaps or rolls back does not open in its new place. Every sealed cell has one of a few
//! fixed lengths. Each person has two data keys, `kept` (what the law makes the city hold) and `own`
//! (what the person may erase), wrapped by a working key in the person's cell. Keys that never
//! rotate seal each cell by a key derived for it. The vault does no I/O and knows no HTTP.

mod sealing;

pub use sealing::{At, SealError, looks_sealed};

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::authority::{Authority, KeyRotation};
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
    /// The consent ended so long ago that its key was destroyed.
    #[error("the consent ended so long ago that its keys were destroyed")]
    Over,
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

    fn fresh(person: PersonId, entropy: &dyn Entropy) -> Result<Self, VaultError> {
        let fresh = || SecretKey::generate(entropy).map_err(SealError::from);
        Ok(Self { person, kept: fresh()?, own: fresh()? })
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
    held: RwLock<Arc<Held>>,
    entropy: Arc<dyn Entropy>,
}

/// The keys in use, and the cells of nobody that they open; a rotation exchanges both at once.
struct Held {
    keys: Arc<Keyring>,
    decoy: Decoy,
}

/// Cells of nobody, opened in place of a person's where there is no grant.
struct Decoy {
    person: PersonId,
    person_cell: Vec<u8>,
    standing_cell: Vec<u8>,
    standing: Standing,
}

const PERSON: &str = "person";
const STANDING: &str = "standing";
const CONSENT: &str = "consent";
const WRAP_BYTES: usize = sealing::sealed_bytes(128);

/// Whether the bytes of a person's cell have its form: the wrapped data keys, then the register's entry.
pub fn looks_like_a_person(cell: &[u8]) -> bool {
    cell.split_at_checked(WRAP_BYTES).is_some_and(|(keys, entry)| looks_sealed(keys) && looks_sealed(entry))
}

/// The bytes of each data key.
const KEY_BYTES: usize = 32;

impl Held {
    fn new(
        keys: Arc<Keyring>,
        person: PersonId,
        standing: &Standing,
        entropy: &dyn Entropy,
    ) -> Result<Self, VaultError> {
        let data = PersonKeys::fresh(person, entropy)?;
        // Nobody's cells are wrapped by a key that lasts as long as this keyring.
        let working = keys.working_at(Timestamp::MAX).ok_or_else(|| VaultError::NoKey(PERSON.into()))?;
        let person_cell = seal_person(working, &data, 1, b"", entropy)?;
        let standing_cell = seal_standing(&data, 1, Some(standing), entropy)?;
        let decoy = Decoy { person, person_cell, standing_cell, standing: standing.clone() };
        Ok(Self { keys, decoy })
    }
}

fn seal_person(
    (number, working): (u32, &SecretKey),
    keys: &PersonKeys,
    version: u64,
    entry: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, VaultError> {
    let at = At { table: PERSON, key: &keys.person.0, version };
    let content = [keys.kept.bytes().as_slice(), keys.own.bytes(), &version.to_be_bytes()].concat();
    let mut cell = seal(working, number, at, "keys", &Zeroizing::new(content), 128, entropy)?;
    cell.extend(seal(&keys.kept, 0, at, "entry", entry, 512, entropy)?);
    Ok(cell)
}

/// The version of the cell for which the entry was sealed. It stands beside the wrapped keys, so that
/// an entry outlives their being wrapped anew, and an older entry does not open in its place.
fn entry_version(both: &[u8], version: u64) -> Option<u64> {
    match both.get(2 * KEY_BYTES..)? {
        [] => Some(version),
        stored => stored.try_into().ok().map(u64::from_be_bytes),
    }
}

fn unwrap_person(
    held: &Keyring,
    person: PersonId,
    version: u64,
    cell: &[u8],
) -> Result<(PersonKeys, Zeroizing<Vec<u8>>), VaultError> {
    let at = At { table: PERSON, key: &person.0, version };
    let bad = || VaultError::DoesNotOpen(PERSON.into());
    let (wrapped, entry) = cell.split_at_checked(WRAP_BYTES).ok_or_else(bad)?;
    let number = key_version(wrapped).ok_or_else(bad)?;
    let working = held.working(number).ok_or_else(|| VaultError::NoKey(PERSON.into()))?;
    let both = open(working, at, "keys", wrapped).ok_or_else(bad)?;
    let (kept, rest) = both.split_first_chunk::<KEY_BYTES>().ok_or_else(bad)?;
    let (own, _) = rest.split_first_chunk::<KEY_BYTES>().ok_or_else(bad)?;
    let keys = PersonKeys { person, kept: SecretKey::new(*kept), own: SecretKey::new(*own) };
    let sealed_at = At { version: entry_version(&both, version).ok_or_else(bad)?, ..at };
    let entry = open(&keys.kept, sealed_at, "entry", entry).ok_or_else(bad)?;
    Ok((keys, entry))
}

fn seal_standing(
    keys: &PersonKeys,
    version: u64,
    standing: Option<&Standing>,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, SealError> {
    let at = At { table: STANDING, key: &keys.person.0, version };
    let content = standing.map(Standing::encode).unwrap_or_default();
    seal(&keys.kept, 0, at, "cell", &content, 512, entropy)
}

impl Vault {
    /// A vault over these keys.
    pub fn new(keys: Arc<Keyring>, entropy: Arc<dyn Entropy>, decoy: &Standing) -> Result<Self, VaultError> {
        let person = PersonId(crate::entropy::bytes(&*entropy).map_err(SealError::from)?);
        let held = Held::new(keys, person, decoy, &*entropy)?;
        Ok(Self { held: RwLock::new(Arc::new(held)), entropy })
    }

    /// Goes on with another keyring of the same deployment.
    pub fn take_keys(&self, keys: Arc<Keyring>) -> Result<(), VaultError> {
        let before = self.held();
        let held = Held::new(keys, before.decoy.person, &before.decoy.standing, &*self.entropy)?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
        Ok(())
    }

    /// The keyring.
    pub fn keys(&self) -> Arc<Keyring> {
        self.held().keys.clone()
    }

    fn held(&self) -> Arc<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The id of the person with this identity: a MAC, so that the store learns no number.
    pub fn person_id(&self, identity: &Identity) -> PersonId {
        let kind = identity.id_type().as_str().as_bytes();
        PersonId(self.keys().pseudonym().mac("person", &[kind, identity.number().as_bytes()]))
    }

    /// The key under which something is looked up: a MAC under the index key.
    pub fn lookup(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        self.keys().index().mac(label, parts)
    }

    /// INVARIANT (no names travel): what identifies a person to one party in one scenario, where anything does.
    pub fn pseudonym(&self, grant: &Grant, party: &str, scenario: &str) -> String {
        self.pairwise(grant.person(), party, scenario)
    }

    /// The same work for nobody: what an answer without a grant makes and throws away.
    pub fn pseudonym_decoy(&self, party: &str, scenario: &str) -> String {
        self.pairwise(&self.held().decoy.person, party, scenario)
    }

    fn pairwise(&self, person: &PersonId, party: &str, scenario: &str) -> String {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
        let mac = self.keys().pseudonym().mac("pairwise", &[&person.0, party.as_bytes(), scenario.as_bytes()]);
        BASE64URL.encode(mac)
    }

    // Personal cells

    /// Fresh data keys for somebody whose cell does not exist yet; they open nothing.
    pub fn new_person(&self, person: PersonId) -> Result<PersonKeys, VaultError> {
        PersonKeys::fresh(person, &*self.entropy)
    }

    /// The person's cell: the wrapped data keys, then the register's entry under `kept`.
    pub fn seal_person(
        &self,
        keys: &PersonKeys,
        version: u64,
        entry: &[u8],
        now: Timestamp,
    ) -> Result<Vec<u8>, VaultError> {
        let held = self.keys();
        let working = held.working_at(now).ok_or_else(|| VaultError::NoKey(PERSON.into()))?;
        seal_person(working, keys, version, entry, &*self.entropy)
    }

    /// The version of the working key that wraps the keys in a person's cell, as the cell claims.
    pub fn wrapped_by(cell: &[u8]) -> Option<u32> {
        key_version(cell)
    }

    /// A person's cell with the data keys wrapped by the working key of this instant; none where they are already.
    ///
    /// It opens the two wrapped keys and nothing else: what they seal, the register's entry in this
    /// very cell too, keeps its bytes.
    pub fn rewrap_person(
        &self,
        _rotation: &KeyRotation,
        person: PersonId,
        version: u64,
        cell: &[u8],
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, VaultError> {
        let held = self.keys();
        let bad = || VaultError::DoesNotOpen(PERSON.into());
        let no_key = || VaultError::NoKey(PERSON.into());
        let (wrapped, entry) = cell.split_at_checked(WRAP_BYTES).ok_or_else(bad)?;
        let number = key_version(wrapped).ok_or_else(bad)?;
        let (newest, working) = held.working_at(now).ok_or_else(no_key)?;
        if number >= newest {
            return Ok(None);
        }
        let at = At { table: PERSON, key: &person.0, version };
        let both = open(held.working(number).ok_or_else(no_key)?, at, "keys", wrapped).ok_or_else(bad)?;
        let entry_version = entry_version(&both, version).ok_or_else(bad)?;
        let keys = both.get(..2 * KEY_BYTES).ok_or_else(bad)?;
        let content = Zeroizing::new([keys, &entry_version.to_be_bytes()].concat());
        let next = At { version: version + 1, ..at };
        let mut rewrapped = seal(working, newest, next, "keys", &content, 128, &*self.entropy)?;
        rewrapped.extend(entry);
        Ok(Some(rewrapped))
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
        unwrap_person(&self.keys(), person, version, cell)
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
        Ok(seal_standing(keys, version, standing, &*self.entropy)?)
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
        let held = self.held();
        let (keys, _) = unwrap_person(&held.keys, held.decoy.person, 1, &held.decoy.person_cell)?;
        let standing = self.open_standing(&keys, 1, &held.decoy.standing_cell)?;
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
        let held = self.keys();
        let consent = held.consent(key).ok_or_else(|| VaultError::NoKey(at.table.into()))?;
        let cell_key = consent.seal.derive(at.table, &[at.key]);
        Ok(seal(&cell_key, key, at, "cell", content, room, &*self.entropy)?)
    }

    /// Opens such a cell, and tells the version of its key.
    pub fn open_by_consent(&self, at: At<'_>, cell: &[u8]) -> Result<(u32, Zeroizing<Vec<u8>>), VaultError> {
        let bad = || VaultError::DoesNotOpen(at.table.into());
        let key = key_version(cell).ok_or_else(bad)?;
        let held = self.keys();
        let missing = || match held.consent_is_over(key) {
            true => VaultError::Over,
            false => VaultError::NoKey(at.table.into()),
        };
        let consent = held.consent(key).ok_or_else(missing)?;
        let cell_key = consent.seal.derive(at.table, &[at.key]);
        Ok((key, open(&cell_key, at, "cell", cell).ok_or_else(bad)?))
    }

    /// The version of the keys that a consent made now is sealed and signed by.
    pub fn consent_key(&self, now: Timestamp) -> Result<u32, VaultError> {
        self.keys().consent_at(now).map(|(version, _)| version).ok_or_else(|| VaultError::NoKey(CONSENT.into()))
    }

    /// The MAC of a one-time code.
    pub fn code_mac(&self, code: &OneTimeCode) -> CodeMac {
        CodeMac(self.lookup("code", &[code.as_bytes()]))
    }

    // Cells of the gateway's own

    /// Seals a small cell by a key derived from the index key for it alone.
    pub fn seal_indexed(&self, at: At<'_>, content: &[u8], room: usize) -> Result<Vec<u8>, VaultError> {
        let key = self.keys().index().derive(at.table, &[at.key]);
        Ok(seal(&key, 0, at, "cell", content, room, &*self.entropy)?)
    }

    /// Opens such a cell. None that is opened here holds personal data: scores, records and what was
    /// answered lie under a person's or a consent's keys, and a day's cell opens by [`Self::open_today`].
    pub fn open_indexed(&self, at: At<'_>, cell: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let key = self.keys().index().derive(at.table, &[at.key]);
        open(&key, at, "cell", cell).ok_or_else(|| VaultError::DoesNotOpen(at.table.into()))
    }
}

impl TokenMac for Vault {
    fn token_mac(&self, version: u32, parts: &[&[u8]]) -> Option<[u8; 32]> {
        self.keys().consent(version).map(|key| key.mac.mac("token", parts))
    }

    fn token_verify(&self, version: u32, parts: &[&[u8]], tag: &[u8]) -> bool {
        // An unknown version costs the same MAC as a known one.
        let held = self.keys();
        let key = held.consent(version).or(held.consent_at(Timestamp::MAX).map(|(_, key)| key));
        let fits = key.is_some_and(|key| key.mac.verify("token", parts, tag));
        fits && held.consent(version).is_some()
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}
