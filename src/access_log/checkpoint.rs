//! The signed head of the log: C2SP tlog-checkpoint inside a C2SP signed note, Ed25519.
//!
//! A [`Checkpoint`] that comes out of [`VerifierKey::open`] was signed by that key for that origin.
//! Signature lines of keys that are not known here (witnesses, grease) are ignored wherever they
//! stand; a line of the known key that does not verify spoils the note. Each text has one spelling:
//! canonical base64, decimals without leading zeros. The private key is not known here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::Hash;

/// The longest note that is read.
pub const NOTE_BYTES_MAX: usize = 256 * 1024;
/// The most signature lines a note may have; C2SP demands at least 16.
pub const SIGNATURE_LINES_MAX: usize = 64;
/// The longest name of a key, and so of an origin.
pub const NAME_BYTES_MAX: usize = 256;

/// The type of an Ed25519 key in a verifier key and in its id.
const ED25519_TYPE: u8 = 1;

/// The head of a log: how many entries it has and the root over them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Which log this is; the name of the key that signs it.
    pub origin: String,
    /// How many entries the log has.
    pub size: u64,
    /// The root of the tree over these entries.
    pub root: Hash,
}

/// Whoever holds the private key of a log.
pub trait NoteSigner {
    /// The Ed25519 signature over these bytes.
    fn sign(&self, message: &[u8]) -> [u8; 64];
    /// The key that verifies what [`Self::sign`] gives.
    fn verifier(&self) -> &VerifierKey;
}

impl Checkpoint {
    /// The whole signed note, as it is served at `/log/checkpoint`.
    ///
    /// [`VerifierKey::open`] opens it again only if the origin is the name of the signer's key.
    pub fn sign(&self, signer: &dyn NoteSigner) -> String {
        let text = format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root));
        let key = signer.verifier();
        let signature = [&key.key_id[..], &signer.sign(text.as_bytes())].concat();
        format!("{text}\n\u{2014} {} {}\n", key.name, STANDARD.encode(signature))
    }

    /// What a note says of itself, whoever signed it: for a look without keys, and never to be relied on.
    pub fn claimed(note: &str) -> Option<Self> {
        let (text, signatures) = note.split_once("\n\n")?;
        (signatures.starts_with('\u{2014}') && signatures.ends_with('\n')).then_some(())?;
        Self::parse(&format!("{text}\n")).ok()
    }

    fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.split('\n');
        let mut next = || lines.next().filter(|line| !line.is_empty());
        let (Some(origin), Some(size), Some(root)) = (next(), next(), next()) else {
            return Err(NoteError::Text("needs an origin, a size and a root hash, a line each"));
        };
        let size = decimal(size).ok_or(NoteError::Text("has a size that is no plain decimal number"))?;
        let root = hash(root).ok_or(NoteError::Text("has a root that is not the base64 of 32 bytes"))?;
        // Extension lines are allowed and mean nothing here; an empty one is not allowed.
        let mut extensions: Vec<&str> = lines.collect();
        if extensions.pop() != Some("") || extensions.contains(&"") {
            return Err(NoteError::Text("has an empty line within"));
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}

/// A number in the one decimal spelling it has.
pub(super) fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|n: &u64| n.to_string() == text)
}

/// A hash in canonical base64.
pub(super) fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Why a text is no verifier key, or a name no key name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is empty, too long, or has a blank, a plus sign or a control character.
    #[error("a key name has 1 to {NAME_BYTES_MAX} bytes without blanks, plus signs and control characters")]
    Name,
    /// The text does not have the three parts of a verifier key.
    #[error("a verifier key reads name+8 hexadecimal digits+base64, on one line; take it from /log/key of the log")]
    Form,
    /// The key is of another type than Ed25519.
    #[error("only Ed25519 verifier keys are known here; take the key from /log/key of the log")]
    Type,
    /// The digits in the middle are not the key's.
    #[error("the verifier key's id does not fit its name and key; it was damaged, so copy it again from /log/key")]
    Id,
}

/// The public key of a log, in C2SP's terms a verifier key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifierKey {
    name: String,
    key_id: [u8; 4],
    public: [u8; 32],
}

impl VerifierKey {
    /// The key of this name; the id follows from both.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, KeyError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(bad) {
            return Err(KeyError::Name);
        }
        let input = [name.as_bytes(), b"\n", &[ED25519_TYPE], &public].concat();
        let mut key_id = [0; 4];
        key_id.iter_mut().zip(digest(&SHA256, &input).as_ref()).for_each(|(to, from)| *to = *from);
        Ok(Self { name: name.to_owned(), key_id, public })
    }

    /// Reads `name+id+base64`, on one line without its end.
    pub fn parse(vkey: &str) -> Result<Self, KeyError> {
        // The base64 may hold plus signs of its own, so only the first two part the text.
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        let bytes = STANDARD.decode(key).map_err(|_| KeyError::Form)?;
        let (kind, public) = bytes.split_first().ok_or(KeyError::Form)?;
        if *kind != ED25519_TYPE {
            return Err(KeyError::Type);
        }
        let key = Self::new(name, public.try_into().map_err(|_| KeyError::Form)?)?;
        if key.to_string() == vkey { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The name, which is also the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The four bytes before a signature that say whose it is.
    pub fn key_id(&self) -> [u8; 4] {
        self.key_id
    }

    /// The Ed25519 public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The checkpoint in this note, if this key signed it and it is of this key's log.
    pub fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        let checkpoint = Checkpoint::parse(self.open_note(note)?)?;
        if checkpoint.origin == self.name { Ok(checkpoint) } else { Err(NoteError::Origin) }
    }

    /// The text of this note, its last newline included, if this key signed it.
    fn open_note<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Length);
        }
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(NoteError::Control);
        }
        let end = note.rfind("\n\n").ok_or(NoteError::Form)? + 1;
        let (text, rest) = note.split_at_checked(end).ok_or(NoteError::Form)?;
        let lines = rest.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n')).ok_or(NoteError::Form)?;
        let mut signed = false;
        for (nth, line) in lines.split('\n').enumerate() {
            if nth >= SIGNATURE_LINES_MAX {
                return Err(NoteError::Length);
            }
            let (name, signature) = signature_line(line).ok_or(NoteError::Line(nth + 1))?;
            let Some((key_id, signature)) = signature.split_first_chunk::<4>() else {
                return Err(NoteError::Line(nth + 1));
            };
            if name == self.name && *key_id == self.key_id {
                UnparsedPublicKey::new(&ED25519, self.public)
                    .verify(text.as_bytes(), signature)
                    .map_err(|_| NoteError::Signature)?;
                signed = true;
            }
        }
        if signed { Ok(text) } else { Err(NoteError::Unsigned) }
    }
}

/// The name and the bytes of a signature line, more than four of them.
fn signature_line(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let signature = STANDARD.decode(signature).ok().filter(|bytes| bytes.len() > 4)?;
    let well_named = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
    well_named.then_some((name, signature))
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519_TYPE], &self.public[..]].concat());
        write!(f, "{}+{:08x}+{key}", self.name, u32::from_be_bytes(self.key_id))
    }
}

/// Why a checkpoint was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is longer than any honest one.
    #[error("the checkpoint is longer than {NOTE_BYTES_MAX} bytes or has more than {SIGNATURE_LINES_MAX} signatures")]
    Length,
    /// It holds a character that no note may hold.
    #[error("the checkpoint holds a control character (a carriage return, perhaps); fetch it again as it is served")]
    Control,
    /// Text and signatures are not parted as in a signed note.
    #[error("the checkpoint is no signed note: text, an empty line, signature lines, each ended by a newline")]
    Form,
    /// A signature line, counted from 1, is not one.
    #[error("signature line {0} of the checkpoint is not a dash, a name and base64")]
    Line(usize),
    /// The log's own signature is wrong.
    #[error(
        "the log's signature on the checkpoint is wrong: text or signature was changed, or the key is another log's"
    )]
    Signature,
    /// No line is of the key at hand.
    #[error("the checkpoint is not signed by the key at hand; check that the verifier key is this log's")]
    Unsigned,
    /// The text is signed, but it is no checkpoint.
    #[error("the signed text is no checkpoint: it {0}")]
    Text(&'static str),
    /// The checkpoint is of another log.
    #[error("the checkpoint is of another log than the key's name says")]
    Origin,
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::super::oracle::hash as hex;
    use super::*;

    /// A signer for tests, from a seed.
    pub struct TestSigner(Ed25519KeyPair, VerifierKey);

    impl TestSigner {
        pub fn new(name: &str, seed: [u8; 32]) -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
            let key = VerifierKey::new(name, pair.public_key().as_ref().try_into().unwrap()).unwrap();
            Self(pair, key)
        }
    }

    impl NoteSigner for TestSigner {
        fn sign(&self, message: &[u8]) -> [u8; 64] {
            self.0.sign(message).as_ref().try_into().unwrap()
        }
        fn verifier(&self) -> &VerifierKey {
            &self.1
        }
    }

    fn log() -> TestSigner {
        TestSigner::new("log.example/one", [7; 32])
    }

    fn head() -> Checkpoint {
        Checkpoint { origin: "log.example/one".into(), size: 600, root: [9; 32] }
    }

    fn signed(signer: &TestSigner, text: &str) -> String {
        let signature = [&signer.1.key_id[..], &signer.sign(text.as_bytes())].concat();
        format!("{text}\n\u{2014} {} {}\n", signer.1.name, STANDARD.encode(signature))
    }

    /// The key and the note of the documentation of Go's golang.org/x/mod/sumdb/note.
    #[test]
    fn the_known_example_opens() {
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let key = VerifierKey::parse(vkey).unwrap();
        assert_eq!(key.to_string(), vkey);
        let note = format!("{text}\n\u{2014} PeterNeumann {signature}\n");
        assert_eq!(key.open_note(&note), Ok(text));
        assert!(matches!(key.open(&note), Err(NoteError::Text(_))));
        assert_eq!(key.open_note(&note.replace("think", "thunk")), Err(NoteError::Signature));
    }

    /// RFC 8032 section 7.1, test 1: the empty message.
    #[test]
    fn rfc_8032_test_1() {
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let signer = TestSigner::new("rfc", seed);
        assert_eq!(signer.1.public, hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"));
        let (r, s) = (
            hex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"),
            hex("5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"),
        );
        assert_eq!(signer.sign(b"")[..], [r, s].concat());
    }

    #[test]
    fn a_signed_checkpoint_opens() {
        for size in [0, 1, u64::MAX] {
            let head = Checkpoint { size, ..head() };
            assert_eq!(log().1.open(&head.sign(&log())), Ok(head));
        }
        let extended = signed(&log(), &format!("log.example/one\n600\n{}\nmore\n", STANDARD.encode([9; 32])));
        assert_eq!(log().1.open(&extended), Ok(head()));
    }

    /// Lines of unknown keys mean nothing, before and behind; a known key's bad line spoils the note.
    #[test]
    fn grease_is_ignored_and_a_bad_signature_is_not() {
        let (key, note) = (log().1, head().sign(&log()));
        let grease = format!("\u{2014} grease.invalid {}\n", STANDARD.encode([0xa5; 40]));
        let other_id = format!("\u{2014} log.example/one {}\n", STANDARD.encode([0xa5; 68]));
        let (text, line) = note.split_once("\n\n").unwrap();
        for more in [&grease, &other_id] {
            assert_eq!(key.open(&format!("{text}\n\n{more}{line}")), Ok(head()));
            assert_eq!(key.open(&format!("{text}\n\n{line}{more}")), Ok(head()));
            assert_eq!(key.open(&format!("{text}\n\n{more}")), Err(NoteError::Unsigned));
        }
        let mut signature = STANDARD.decode(line.trim_end().rsplit(' ').next().unwrap()).unwrap();
        *signature.last_mut().unwrap() ^= 1;
        let bad = format!("\u{2014} log.example/one {}\n", STANDARD.encode(&signature));
        for lines in [bad.clone(), format!("{bad}{line}"), format!("{line}{bad}"), format!("{grease}{bad}")] {
            assert_eq!(key.open(&format!("{text}\n\n{lines}")), Err(NoteError::Signature));
        }
        let sixteen = grease.repeat(15);
        assert_eq!(key.open(&format!("{text}\n\n{sixteen}{line}")), Ok(head()));
        assert_eq!(key.open(&format!("{text}\n\n{}{line}", grease.repeat(64))), Err(NoteError::Length));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let key = log().1;
        let root = STANDARD.encode([9; 32]);
        let loose = format!("{}l=", &root[..42]);
        assert_ne!(loose, root);
        for (size, root) in [
            ("0600", &root),
            ("+600", &root),
            ("6 00", &root),
            ("-1", &root),
            ("18446744073709551616", &root),
            ("600", &loose),
        ] {
            let note = signed(&log(), &format!("log.example/one\n{size}\n{root}\n"));
            assert!(matches!(key.open(&note), Err(NoteError::Text(_))), "{size} {root}");
        }
        for text in ["\n", "log.example/one\n600\n", "log.example/one\n\n600\nx\n"] {
            assert!(matches!(key.open(&signed(&log(), text)), Err(NoteError::Text(_))), "{text}");
        }
        let empty_extension = signed(&log(), &format!("log.example/one\n600\n{root}\n\nmore\n"));
        assert!(matches!(key.open(&empty_extension), Err(NoteError::Text(_))));
        assert_eq!(key.open(&signed(&log(), &format!("log.example/two\n600\n{root}\n"))), Err(NoteError::Origin));
        let note = head().sign(&log());
        assert_eq!(key.open(note.trim_end()), Err(NoteError::Form));
        assert_eq!(key.open(&note.replace('\n', "\r\n")), Err(NoteError::Control));
        assert_eq!(key.open(&note.replace("\n\n", "\n\n\n")), Err(NoteError::Signature));
        assert_eq!(key.open(&note.replace('\u{2014}', "-")), Err(NoteError::Line(1)));
        assert_eq!(key.open(&format!("{note}\n")), Err(NoteError::Form));
        assert_eq!(key.open(""), Err(NoteError::Form));
        assert_eq!(key.open(&"x".repeat(NOTE_BYTES_MAX + 1)), Err(NoteError::Length));
    }

    #[test]
    fn verifier_keys_have_one_spelling() {
        let vkey = log().1.to_string();
        assert_eq!(VerifierKey::parse(&vkey), Ok(log().1));
        assert_eq!(VerifierKey::parse(&vkey.to_uppercase()), Err(KeyError::Type));
        assert_eq!(VerifierKey::parse(&vkey.replace("one", "two")), Err(KeyError::Id));
        assert_eq!(VerifierKey::parse(&format!("{vkey}\n")), Err(KeyError::Form));
        assert_eq!(VerifierKey::parse("log.example/one"), Err(KeyError::Form));
        assert_eq!(VerifierKey::parse(&vkey.replace("log.", "")).unwrap_err(), KeyError::Id);
        for name in ["", "a b", "a+b", "a\nb", "a\u{3000}b", &"n".repeat(257)] {
            assert_eq!(VerifierKey::new(name, [0; 32]), Err(KeyError::Name), "{name}");
        }
        let ecdsa = format!("log+00000000+{}", STANDARD.encode([[2; 33]].concat()));
        assert_eq!(VerifierKey::parse(&ecdsa), Err(KeyError::Type));
    }

    proptest! {
        #[test]
        fn reading_never_panics(note in "(log.example/one\n|600\n|\n|\u{2014} |log.example/one |[A-Za-z0-9+/=]{0,8}|é){0,12}", vkey: String) {
            prop_assert!(log().1.open(&note).is_err());
            let _ = VerifierKey::parse(&vkey);
        }

        #[test]
        fn a_changed_note_never_opens_to_another_head(at: prop::sample::Index, bit in 0u32..7) {
            let mut bytes = head().sign(&log()).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(note) = String::from_utf8(bytes) {
                prop_assert!(log().1.open(&note).is_err());
            }
        }
    }
}
