//! Organisations that ask or report: their names, roles, and how they prove who they are.
//!
//! A certificate, a key and a key's file belong to one party only, so that a proof names one caller. Secrets do not
//! stand here: a shared key is named by a file of the key folder.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::code::{CODE_CHARS_MAX, PartyId};
use crate::policy::{Document, Mistakes, Once, Source, Table, Value};
use crate::text::Bilingual;

/// A relying party, a provider, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Its id.
    pub id: PartyId,
    /// What it is called.
    pub name: Bilingual,
    /// The organisation it belongs to, by a code of its own; several parties may belong to one.
    pub organisation: String,
    /// What it may be.
    pub roles: BTreeSet<PartyRole>,
    /// SHA-256 of the DER of each client certificate that proves it.
    pub certificates: Vec<[u8; 32]>,
    /// Keys of the signatures that prove it.
    pub keys: Vec<PartyKey>,
}

/// What a party may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartyRole {
    /// Asks, as a business.
    Merchant,
    /// Asks, as a public office.
    Department,
    /// Reports records.
    Provider,
    /// Keeps the register of people.
    Registrar,
}

impl PartyRole {
    /// Every role with its code.
    pub const ALL: [(&'static str, PartyRole); 4] = [
        ("merchant", PartyRole::Merchant),
        ("department", PartyRole::Department),
        ("provider", PartyRole::Provider),
        ("registrar", PartyRole::Registrar),
    ];

    /// Its code.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, c)| *c == self).map_or("", |(word, _)| word)
    }
}

/// A key of a party's signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyKey {
    /// What `keyid` says: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub id: String,
    /// How it signs.
    pub algorithm: KeyAlgorithm,
}

/// How a key signs. The algorithm belongs to the key; what a caller says about it is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// A shared secret.
    HmacSha256 {
        /// The name of a file in the key folder's `parties/`.
        file: String,
    },
    /// A key pair.
    Ed25519 {
        /// The public half.
        public: [u8; 32],
    },
}

/// Reads `parties.toml`.
pub fn parse(source: &Source, mistakes: &mut Mistakes) -> Option<BTreeMap<PartyId, Party>> {
    let before = mistakes.len();
    let read = read(&Document::parse(source, mistakes), mistakes);
    (mistakes.len() == before).then_some(read.parties)
}

/// What could be read, and every id that the file says.
pub(crate) struct Read {
    pub(crate) parties: BTreeMap<PartyId, Party>,
    ids: Once,
    broken: bool,
}

impl Read {
    /// Whether a mention of this id is right, as far as the file could be read.
    pub(crate) fn may_know(&self, id: &str) -> bool {
        self.broken || self.ids.has(id)
    }

    /// Every id that the file says.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.all()
    }
}

pub(crate) fn read(document: &Document<'_>, mistakes: &mut Mistakes) -> Read {
    let mut read = Read { parties: BTreeMap::new(), ids: Once::default(), broken: document.is_broken() };
    let (mut proofs, mut root) = (Proofs::default(), document.root());
    for mut table in root.tables("party", true, mistakes) {
        if let Some(party) = party(&mut table, &mut read.ids, &mut proofs, mistakes) {
            read.parties.insert(party.id.clone(), party);
        }
        table.finish(mistakes);
    }
    root.finish(mistakes);
    read
}

/// What proves a party, over all of them: each of it once.
#[derive(Default)]
struct Proofs {
    certificates: Once,
    key_ids: Once,
    key_files: Once,
    public_keys: Once,
}

fn party(table: &mut Table<'_>, ids: &mut Once, proofs: &mut Proofs, mistakes: &mut Mistakes) -> Option<Party> {
    let id = table.need("id", mistakes).and_then(|v| {
        let id = v.code(PartyId::parse, mistakes)?;
        ids.is_new(id.as_str(), &v, mistakes).then_some(id)
    });
    let name = table.need("name", mistakes).and_then(|v| v.bilingual(mistakes));
    let organisation = table.need("organisation", mistakes).and_then(|v| v.code(PartyId::parse, mistakes));
    let roles = table.need("roles", mistakes).map(|v| v.list_of_some(mistakes)).unwrap_or_default();
    let mut once = Once::default();
    let mut role = |v: &Value<'_>, mistakes: &mut Mistakes| {
        let role = v.choice(&PartyRole::ALL, mistakes)?;
        once.is_new(role.as_str(), v, mistakes).then_some(role)
    };
    let said = roles.len();
    let roles: BTreeSet<_> = roles.iter().filter_map(|v| role(v, mistakes)).collect();
    let all_roles = said > 0 && roles.len() == said;
    let certificates = table.take("certificates").map(|v| v.list(mistakes)).unwrap_or_default();
    let certificates = certificates.iter().filter_map(|v| certificate(v, proofs, mistakes)).collect();
    let mut keys = Vec::new();
    for mut table in table.tables("key", false, mistakes) {
        keys.extend(key(&mut table, proofs, mistakes));
        table.finish(mistakes);
    }
    let id = id.filter(|_| all_roles);
    Some(Party { id: id?, name: name?, organisation: organisation?.as_str().to_owned(), roles, certificates, keys })
}

fn certificate(value: &Value<'_>, proofs: &mut Proofs, mistakes: &mut Mistakes) -> Option<[u8; 32]> {
    let text = value.text(mistakes)?;
    let Some(digest) = text.strip_prefix("sha256:").and_then(digest) else {
        let help = "take the SHA-256 of the certificate's DER: openssl x509 -in FILE -outform DER | sha256sum";
        value.wrong(mistakes, format!("the certificate \"{text}\""), "\"sha256:\" and 64 digits of 0-9 a-f", help);
        return None;
    };
    proofs.certificates.is_new(text, value, mistakes).then_some(digest)
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let nibble = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let nibbles = hex.bytes().map(nibble).collect::<Option<Vec<u8>>>()?;
    let bytes: Vec<u8> = nibbles.chunks(2).map(|pair| pair.iter().fold(0, |byte, n| byte << 4 | n)).collect();
    bytes.try_into().ok().filter(|_| nibbles.len() == 64)
}

fn key(table: &mut Table<'_>, proofs: &mut Proofs, mistakes: &mut Mistakes) -> Option<PartyKey> {
    let id = table.need("id", mistakes).and_then(|v| {
        let id = plain(&v, mistakes)?;
        proofs.key_ids.is_new(id, &v, mistakes).then(|| id.to_owned())
    });
    let kinds = [("hmac-sha256", true), ("ed25519", false)];
    let shared = table.need("alg", mistakes).and_then(|v| v.choice(&kinds, mistakes))?;
    let algorithm = if shared {
        table.need("file", mistakes).and_then(|v| {
            let file = plain(&v, mistakes)?;
            proofs.key_files.is_new(file, &v, mistakes).then(|| KeyAlgorithm::HmacSha256 { file: file.to_owned() })
        })
    } else {
        table.need("public", mistakes).and_then(|v| {
            let text = v.text(mistakes)?;
            let Some(public) = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) else {
                v.wrong(
                    mistakes,
                    "`public` is no Ed25519 key",
                    "the 32 bytes of the public key in base64",
                    "take the raw key, without its ASN.1 frame",
                );
                return None;
            };
            proofs.public_keys.is_new(text, &v, mistakes).then_some(KeyAlgorithm::Ed25519 { public })
        })
    };
    Some(PartyKey { id: id?, algorithm: algorithm? })
}

/// A key's id or its file's name: plain enough for a header and for every file system, and no path.
fn plain<'d>(value: &Value<'d>, mistakes: &mut Mistakes) -> Option<&'d str> {
    let text = value.text(mistakes)?;
    let right = text.len() <= CODE_CHARS_MAX
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !right {
        let expected = format!("1 to {CODE_CHARS_MAX} of A-Z a-z 0-9 . _ - and no dot first");
        value.wrong(mistakes, format!("\"{text}\""), expected, "choose a plain name, not a path");
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[&str], want: &[&str]) -> Option<BTreeMap<PartyId, Party>> {
        let head = |n: usize| {
            format!(
                "[[party]]\nid = \"p{n}\"\nname = {{ zh = \"甲\", en = \"A\" }}\norganisation = \"o\"\nroles = [\"merchant\"]\n"
            )
        };
        let text: String = parts.iter().enumerate().map(|(n, part)| format!("{}{part}\n", head(n))).collect();
        let mut m = Mistakes::new();
        let read = parse(&Source::new("parties.toml", text), &mut m);
        assert_eq!(m.iter().map(|m| m.what.as_str()).collect::<Vec<_>>(), want);
        read
    }

    #[test]
    fn keys_and_certificates_are_read() {
        let (hex, b64) = ("ab".repeat(32), STANDARD.encode([7; 32]));
        let certificate = format!("certificates = [\"sha256:{hex}\"]");
        let key = format!(
            "[[party.key]]\nid = \"k1\"\nalg = \"hmac-sha256\"\nfile = \"p0.key\"\n[[party.key]]\nid = \"k2\"\nalg = \"ed25519\"\npublic = \"{b64}\""
        );
        let read = check(&[&certificate, &key], &[]).unwrap();
        assert_eq!(read.get("p0").unwrap().certificates, [[0xab; 32]]);
        let algorithms: Vec<_> = read.get("p1").unwrap().keys.iter().map(|k| k.algorithm.clone()).collect();
        assert_eq!(
            algorithms,
            [KeyAlgorithm::HmacSha256 { file: "p0.key".into() }, KeyAlgorithm::Ed25519 { public: [7; 32] }]
        );
    }

    #[test]
    fn what_proves_a_party_belongs_to_one_only() {
        let certificate = format!("certificates = [\"sha256:{}\"]", "ab".repeat(32));
        let twice = format!("`certificates` \"sha256:{}\" is said twice, first in line 6", "ab".repeat(32));
        check(&[&certificate, &certificate], &[&twice]);
        let key =
            |id: &str, file: &str| format!("[[party.key]]\nid = \"{id}\"\nalg = \"hmac-sha256\"\nfile = \"{file}\"");
        check(&[&key("k", "a"), &key("k", "b")], &["`id` \"k\" is said twice, first in line 7"]);
        check(&[&key("k", "a"), &key("l", "a")], &["`file` \"a\" is said twice, first in line 9"]);
    }

    #[test]
    fn each_mistake_is_told() {
        for wrong in
            ["sha1:00", "sha256:00", &format!("sha256:{}", "AB".repeat(32)), &format!("sha256:{}", "a".repeat(65))]
        {
            check(&[&format!("certificates = [\"{wrong}\"]")], &[&format!("the certificate \"{wrong}\"")]);
        }
        let key = |rest: &str| format!("[[party.key]]\nid = \"k\"\n{rest}");
        check(&[&key("alg = \"hmac-sha256\"\nfile = \"../root.key\"")], &["\"../root.key\""]);
        check(&[&key("alg = \"ed25519\"\npublic = \"AAAA\"")], &["`public` is no Ed25519 key"]);
        check(&[&key("alg = \"ed25519\"\nfile = \"x\"")], &["key without `public`", "unknown field `file` in key"]);
        check(&["role = 1"], &["unknown field `role` in party"]);
    }
}
