//! The one signature of a call: its label's entry in Signature-Input and in Signature.
//!
//! Structured fields let the last of two equal names win. That would let two signatures pass for
//! one, so every name is counted as the parser meets it and a second is refused.

use std::convert::Infallible;

use http::HeaderMap;
use sfv::visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor};
use sfv::{BareItem, BareItemFromInput, Dictionary, FieldType, Item, KeyRef, List, ListEntry, Parameters, Parser};

use super::base::combined;
use super::{CREATED_WINDOW_SECONDS, NONCE_CHARS_MAX, NONCE_CHARS_MIN, SignatureError};

/// The most characters of a key id.
const KEY_ID_CHARS_MAX: usize = 128;
/// The most components a signature may cover.
const COMPONENTS_MAX: usize = 32;

/// What the caller says it signed, and the signature, as far as RFC 9421 alone asks.
#[derive(Debug)]
pub(super) struct Input {
    /// The covered components, in order.
    pub components: Vec<String>,
    /// The value of `@signature-params`: components and parameters in the order received.
    pub params: String,
    /// The signature itself.
    pub signature: Vec<u8>,
    said: Parameters,
}

/// The parameters that this gateway asks for.
#[derive(Debug)]
pub(super) struct Params {
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// When it ends, where it says so.
    pub expires: Option<i64>,
    /// What must not be seen again.
    pub nonce: String,
    /// Which key made it.
    pub key_id: String,
    /// The algorithm that it claims.
    pub alg: Option<String>,
}

impl Input {
    /// Reads both fields of the one signature.
    pub fn parse(headers: &HeaderMap) -> Result<Self, SignatureError> {
        let said = [combined(headers, "signature-input"), combined(headers, "signature")];
        let [Some(said), Some(made)] = said else { return Err(SignatureError::Missing) };
        let malformed = SignatureError::Malformed;
        let said =
            dictionary(said).ok_or(malformed("Signature-Input is not a structured dictionary (RFC 9421, 4.1)"))?;
        let made = dictionary(made).ok_or(malformed("Signature is not a structured dictionary (RFC 9421, 4.2)"))?;
        let ((Some((label, entry)), 1), (Some((made_label, made)), 1)) = (one(said), one(made)) else {
            return Err(SignatureError::NotOne);
        };
        if label != made_label {
            return Err(SignatureError::NotOne);
        }
        let ListEntry::InnerList(list) = entry else {
            return Err(malformed("Signature-Input gives no list of covered components"));
        };
        let ListEntry::Item(Item { bare_item: BareItem::ByteSequence(signature), .. }) = made else {
            return Err(malformed("Signature gives no byte sequence, :base64:"));
        };

        let mut components = Vec::with_capacity(list.items.len());
        for item in &list.items {
            let Some(name) = item.bare_item.as_string() else {
                return Err(malformed("a covered component is not a string"));
            };
            let name = name.as_str();
            if !item.params.is_empty() {
                return Err(malformed(
                    "component parameters (;sf ;bs ;req ;tr ;key ;name) are not supported: cover the plain component",
                ));
            }
            if name.is_empty() || name.bytes().any(|b| b.is_ascii_uppercase() || b <= b' ' || b == b'"') {
                return Err(malformed("a covered component is not a field name in small letters"));
            }
            if components.iter().any(|c| c == name) {
                return Err(malformed("a component is covered twice"));
            }
            components.push(name.to_owned());
        }
        if components.len() > COMPONENTS_MAX {
            return Err(malformed("more than 32 components are covered"));
        }

        let said = list.params.clone();
        let params: List = vec![ListEntry::InnerList(list)];
        let params = params.serialize().ok_or(malformed("Signature-Input cannot be serialized"))?;
        Ok(Self { components, params, signature, said })
    }

    /// Reads the parameters that must be there.
    pub fn params(&self) -> Result<Params, SignatureError> {
        let malformed = SignatureError::Malformed;
        let said = &self.said;
        let created = whole(said, "created")
            .ok_or(malformed("created is not a whole number of seconds since 1970"))?
            .ok_or(malformed("the parameter created is missing"))?;
        let expires = whole(said, "expires").ok_or(malformed("expires is not a whole number of seconds since 1970"))?;
        let nonce = string(said, "nonce")
            .ok_or(malformed("nonce is not a string"))?
            .ok_or(malformed("the parameter nonce is missing"))?;
        let key_id = string(said, "keyid")
            .ok_or(malformed("keyid is not a string"))?
            .ok_or(malformed("the parameter keyid is missing"))?;
        let alg = string(said, "alg").ok_or(malformed("alg is not a string"))?;
        string(said, "tag").ok_or(malformed("tag is not a string"))?;
        if !(NONCE_CHARS_MIN..=NONCE_CHARS_MAX).contains(&nonce.len()) {
            return Err(malformed("nonce has not 16 to 128 characters"));
        }
        if key_id.is_empty() || key_id.len() > KEY_ID_CHARS_MAX {
            return Err(malformed("keyid has not 1 to 128 characters"));
        }
        Ok(Params { created, expires, nonce, key_id, alg })
    }
}

impl Params {
    /// Whether it was made within five minutes of now and has not ended.
    pub fn check_time(&self, now: i64) -> Result<(), SignatureError> {
        let stale = |what| Err(SignatureError::Stale { what, now });
        if self.created < now.saturating_sub(CREATED_WINDOW_SECONDS) {
            return stale("created is more than 300 seconds ago");
        }
        if self.created > now.saturating_add(CREATED_WINDOW_SECONDS) {
            return stale("created is more than 300 seconds ahead");
        }
        if self.expires.is_some_and(|end| end < now) {
            return stale("expires has passed");
        }
        Ok(())
    }
}

/// `None` where the value has another type; `Some(None)` where it is not said.
fn whole(params: &Parameters, name: &str) -> Option<Option<i64>> {
    match params.get(name) {
        None => Some(None),
        Some(value) => value.as_integer().map(i64::from).filter(|&n| n >= 0).map(Some),
    }
}

fn string(params: &Parameters, name: &str) -> Option<Option<String>> {
    match params.get(name) {
        None => Some(None),
        Some(value) => value.as_string().map(|s| Some(s.as_str().to_owned())),
    }
}

fn one(dictionary: Dictionary) -> (Option<(String, ListEntry)>, usize) {
    let count = dictionary.len();
    (dictionary.into_iter().next().map(|(key, value)| (key.into(), value)), count)
}

/// A dictionary in which no name stands twice, at the top or among a member's parameters.
pub(super) fn dictionary(field: Result<String, ()>) -> Option<Dictionary> {
    let field = field.ok()?;
    let mut names = Names::default();
    Parser::new(&field).parse_dictionary_with_visitor(&mut names).ok()?;
    if names.said_twice { None } else { Parser::new(&field).parse().ok() }
}

#[derive(Default)]
struct Names {
    seen: Vec<String>,
    said_twice: bool,
}

impl Names {
    fn meet(&mut self, prefix: usize, name: &KeyRef) {
        let name = format!("{prefix} {}", name.as_str());
        if self.seen.contains(&name) {
            self.said_twice = true;
        }
        self.seen.push(name);
    }
}

impl<'de> DictionaryVisitor<'de> for &mut Names {
    type Out = ();
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Self::Error> {
        self.meet(0, key);
        Ok(Member(self))
    }

    fn finish(self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Parameters of different members are told apart by how many names came before them.
struct Member<'a>(&'a mut Names);

struct Inner<'a>(&'a mut Names, usize);

impl<'a> Member<'a> {
    fn inner(self) -> Inner<'a> {
        let place = self.0.seen.len();
        Inner(self.0, place)
    }
}

impl<'de> EntryVisitor<'de> for Member<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Self::Error> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Self::Error> {
        Ok(self)
    }
}

impl<'de> ItemVisitor<'de> for Member<'_> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(self, _: BareItemFromInput<'de>) -> Result<impl ParameterVisitor<'de, Out = Self::Out>, Self::Error> {
        Ok(self.inner())
    }
}

impl<'de> InnerListVisitor<'de> for Member<'_> {
    type Error = Infallible;

    fn item(&mut self) -> Result<impl ItemVisitor<'de>, Self::Error> {
        Ok(Ignored)
    }

    fn finish(self) -> Result<impl ParameterVisitor<'de>, Self::Error> {
        Ok(self.inner())
    }
}

impl<'de> ParameterVisitor<'de> for Inner<'_> {
    type Out = ();
    type Error = Infallible;

    fn parameter(&mut self, key: &'de KeyRef, _: BareItemFromInput<'de>) -> Result<(), Self::Error> {
        self.0.meet(self.1, key);
        Ok(())
    }

    fn finish(self) -> Result<(), Self::Error> {
        Ok(())
    }
}
