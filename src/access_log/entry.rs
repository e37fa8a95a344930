//! An entry: 32 bytes of commitment in the clear, and 480 sealed ones that only the gateway reads.
//!
//! The commitment of an answer is the SHA-256 of its attestation; of everything else it is random.
//! Whoever holds an attestation can find its entry, and nobody else can read anything from the log.
//! An entry never holds an outcome, a score or an identity.

use jiff::Timestamp;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{ENTRY_BYTES, Hash};
use crate::code::{PartyId, RuleId, ScenarioId};
use crate::consent::ConsentId;
use crate::entropy::{self, Entropy, EntropyError};
use crate::keys::{LogKey, SecretKey};

/// What was done: the word that officers and people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogAction {
    /// A relying party asked and got a 200, whatever it said.
    Ask,
    /// A call was refused after its caller was known.
    Refuse,
    /// A provider reported records.
    Report,
    /// The registrar sent lines of the register.
    Register,
    /// A provider withdrew a record of its own.
    Withdraw,
    /// A provider or the registrar looked at what it had sent: its list of records, or a receipt.
    ReadSent,
    /// A person gave a consent, or declined in the form of one.
    Consent,
    /// A person took a consent back.
    Revoke,
    /// A person let a provider report market information.
    MarketConsent,
    /// A person took that back.
    MarketWithdrawal,
    /// A person made a one-time code.
    MakeCode,
    /// An officer opened a case.
    OpenCase,
    /// Another officer confirmed it.
    ConfirmCase,
    /// An officer looked up who asked about the person of a case.
    LookUp,
    /// A policy set was loaded.
    Policy,
    /// A model was published, with its day of effect.
    Model,
    /// Everybody was scored under another model, for counts.
    TryModel,
    /// A draft of a model was published for comment.
    DraftModel,
    /// An officer or operator approved a draft.
    ApproveModel,
    /// The log was begun over a store restored from a backup: earlier consents are lapsed.
    Restore,
    /// People's keys were wrapped by a new working key.
    Rotate,
    /// Standings that were due were computed anew.
    Sweep,
}

const ACTIONS: [(LogAction, &str); 22] = [
    (LogAction::Ask, "ask"),
    (LogAction::Refuse, "refuse"),
    (LogAction::Report, "report"),
    (LogAction::Register, "register"),
    (LogAction::Withdraw, "withdraw"),
    (LogAction::ReadSent, "read-sent"),
    (LogAction::Consent, "consent"),
    (LogAction::Revoke, "revoke"),
    (LogAction::MarketConsent, "market-consent"),
    (LogAction::MarketWithdrawal, "market-withdrawal"),
    (LogAction::MakeCode, "make-code"),
    (LogAction::OpenCase, "open-case"),
    (LogAction::ConfirmCase, "confirm-case"),
    (LogAction::LookUp, "look-up"),
    (LogAction::Policy, "policy"),
    (LogAction::Model, "model"),
    (LogAction::TryModel, "try-model"),
    (LogAction::DraftModel, "draft-model"),
    (LogAction::ApproveModel, "approve-model"),
    (LogAction::Restore, "restore"),
    (LogAction::Rotate, "rotate"),
    (LogAction::Sweep, "sweep"),
];

impl LogAction {
    /// The action's word.
    pub fn as_str(self) -> &'static str {
        ACTIONS.iter().find(|(action, _)| *action == self).map_or("", |(_, word)| word)
    }

    /// Every action.
    pub fn all() -> impl Iterator<Item = Self> {
        ACTIONS.iter().map(|(action, _)| *action)
    }

    /// The action of a word.
    pub fn parse(word: &str) -> Option<Self> {
        ACTIONS.iter().find(|(_, known)| *known == word).map(|(action, _)| *action)
    }
}

/// What an entry is about, beside party and scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Nothing that is named.
    None,
    /// A consent. Who gave it is found only through the consent's own cell.
    Consent(ConsentId),
    /// An officer's case.
    Case([u8; 16]),
    /// A policy set or a model, by its digest.
    Digest([u8; 32]),
}

/// What an entry says, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// When.
    pub at: Timestamp,
    /// Who asked or reported; none for people and officers.
    pub party: Option<PartyId>,
    /// For what.
    pub scenario: Option<ScenarioId>,
    /// What was done.
    pub action: LogAction,
    /// The rule of `access.toml` that decided, where one did.
    pub rule: Option<RuleId>,
    /// What it was about.
    pub subject: Subject,
}

/// Why an entry cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The cipher refused, or the body is too long, which the limits on ids exclude.
    #[error("a log entry could not be sealed")]
    Seal,
    /// The sealed part does not open at this index under this log's key.
    #[error("the log entry {0} does not open: it was changed, or the keys are of another log")]
    DoesNotOpen(u64),
}

const COMMITMENT_BYTES: usize = 32;
const BODY_BYTES: usize = ENTRY_BYTES - COMMITMENT_BYTES - NONCE_LEN - 16;
const FORM: u8 = 1;

fn cipher(key: &SecretKey) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key.bytes()).ok().map(LessSafeKey::new)
}

fn entry_key(key: &LogKey, index: u64) -> SecretKey {
    key.seal().derive("entry", &[key.origin().as_bytes(), &index.to_be_bytes()])
}

/// Seals an entry for its place, with the SHA-256 of the manifest of the cells that the call wrote.
pub fn seal(
    key: &LogKey,
    index: u64,
    commitment: &Hash,
    body: &Body,
    manifest: &Hash,
    entropy: &dyn Entropy,
) -> Result<[u8; ENTRY_BYTES], EntryError> {
    let mut bytes = encode(body, manifest);
    if bytes.len() > BODY_BYTES {
        return Err(EntryError::Seal);
    }
    bytes.resize(BODY_BYTES, 0);
    let nonce = entropy::bytes::<NONCE_LEN>(entropy)?;
    cipher(&entry_key(key, index))
        .and_then(|cipher| {
            let nonce = Nonce::assume_unique_for_key(nonce);
            cipher.seal_in_place_append_tag(nonce, Aad::from(commitment), &mut bytes).ok()
        })
        .ok_or(EntryError::Seal)?;
    let entry = [commitment.as_slice(), &nonce, &bytes].concat();
    entry.try_into().map_err(|_| EntryError::Seal)
}

/// Opens an entry at its place: what it says, and the manifest's digest.
pub fn open(key: &LogKey, index: u64, entry: &[u8]) -> Result<(Body, Hash), EntryError> {
    open_bytes(key, index, entry).and_then(|bytes| decode(&bytes)).ok_or(EntryError::DoesNotOpen(index))
}

fn open_bytes(key: &LogKey, index: u64, entry: &[u8]) -> Option<Vec<u8>> {
    let (commitment, rest) = entry.split_first_chunk::<COMMITMENT_BYTES>()?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
    let mut bytes = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = cipher(&entry_key(key, index))?.open_in_place(nonce, Aad::from(commitment), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

fn encode(body: &Body, manifest: &Hash) -> Vec<u8> {
    let mut out = vec![FORM];
    out.extend(body.at.as_millisecond().to_be_bytes());
    let (kind, subject): (u8, &[u8]) = match &body.subject {
        Subject::None => (0, &[]),
        Subject::Consent(id) => (1, id.as_bytes()),
        Subject::Case(id) => (2, id),
        Subject::Digest(digest) => (3, digest),
    };
    out.push(kind);
    let text = |text: Option<&str>| text.unwrap_or_default().as_bytes().to_vec();
    for field in [
        subject,
        manifest,
        &text(body.party.as_ref().map(PartyId::as_str)),
        &text(body.scenario.as_ref().map(ScenarioId::as_str)),
        body.action.as_str().as_bytes(),
        &text(body.rule.as_ref().map(RuleId::as_str)),
    ] {
        out.push(u8::try_from(field.len()).unwrap_or(u8::MAX));
        out.extend(field);
    }
    out
}

fn decode(bytes: &[u8]) -> Option<(Body, Hash)> {
    let (form, rest) = bytes.split_first()?;
    (*form == FORM).then_some(())?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (kind, mut rest) = rest.split_first()?;
    let mut field = || {
        let (length, after) = rest.split_first()?;
        let (field, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        Some(field)
    };
    let (subject, manifest) = (field()?, field()?.try_into().ok()?);
    let mut text = || std::str::from_utf8(field()?).ok();
    let (party, scenario, action, rule) = (text()?, text()?, text()?, text()?);
    let body = Body {
        at: Timestamp::from_millisecond(i64::from_be_bytes(*at)).ok()?,
        party: if party.is_empty() { None } else { Some(PartyId::parse(party).ok()?) },
        scenario: if scenario.is_empty() { None } else { Some(ScenarioId::parse(scenario).ok()?) },
        action: LogAction::parse(action)?,
        rule: if rule.is_empty() { None } else { Some(RuleId::parse(rule).ok()?) },
        subject: match kind {
            0 => Subject::None,
            1 => Subject::Consent(ConsentId(subject.try_into().ok()?)),
            2 => Subject::Case(subject.try_into().ok()?),
            3 => Subject::Digest(subject.try_into().ok()?),
            _ => return None,
        },
    };
    Some((body, manifest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::keys::{Keyring, NewKeyring, RootKey};

    fn longest() -> Body {
        let long = "a".repeat(64);
        Body {
            at: "2026-11-25T01:02:03.456Z".parse().unwrap(),
            party: Some(PartyId::parse(&long).unwrap()),
            scenario: Some(ScenarioId::parse(&long).unwrap()),
            action: LogAction::ConfirmCase,
            rule: Some(RuleId::parse(&long).unwrap()),
            subject: Subject::Digest([7; 32]),
        }
    }

    #[test]
    fn an_entry_opens_in_its_place_only() {
        let entropy = SystemEntropy::new();
        let new = NewKeyring::generate("yuxi.example/log", "2026-11-25T00:00:00Z".parse().unwrap(), &entropy).unwrap();
        let keys = Keyring::open(&new.keyring, &RootKey::parse(&new.root, false).unwrap()).unwrap();
        let entry = seal(keys.log(), 7, &[1; 32], &longest(), &[9; 32], &entropy).unwrap();
        assert_eq!(entry[..32], [1; 32]);
        assert_eq!(open(keys.log(), 7, &entry).unwrap(), (longest(), [9; 32]));
        assert_eq!(open(keys.log(), 8, &entry), Err(EntryError::DoesNotOpen(8)));
        let mut bent = entry;
        bent[0] ^= 1;
        assert_eq!(open(keys.log(), 7, &bent), Err(EntryError::DoesNotOpen(7)));
    }

    #[test]
    fn every_action_reads_back() {
        for (action, word) in ACTIONS {
            assert_eq!(LogAction::parse(action.as_str()), Some(action));
            assert_eq!(action.as_str(), word);
        }
        assert_eq!(LogAction::parse("answer"), None);
    }
}
