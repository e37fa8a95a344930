//! A line as JSON, with nothing lost that intake must see: keys said twice stay in the tree until
//! they are refused by name, and a number keeps whether it was whole. Depth is bounded by
//! serde_json's own limit of 128, size by the line's.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{LINE_BYTES_MAX, LineCode, LineError, shown};

/// A JSON value.
pub(super) enum Tree {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// A JSON number: a whole one from 0 to the end of a `u64`, or any other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Whole(u64),
    Other(f64),
}

/// The members of the one object that a line must be; refuses a key said twice at any depth.
pub(super) fn object(line: &[u8]) -> Result<Vec<(String, Tree)>, LineError> {
    let malformed = |message: String| LineError::new(LineCode::Malformed, message);
    if line.len() > LINE_BYTES_MAX {
        return Err(LineError::new(
            LineCode::TooLarge,
            format!("the line has more than {LINE_BYTES_MAX} bytes: send less in one line"),
        ));
    }
    if line.trim_ascii().is_empty() {
        return Err(malformed("the line is empty: send one JSON object a line".into()));
    }
    let text = std::str::from_utf8(line).map_err(|e| {
        malformed(format!("byte {} of the line is no UTF-8: save and send it as UTF-8", e.valid_up_to() + 1))
    })?;
    let tree = serde_json::from_str(text).map_err(|e| {
        malformed(format!(
            "the line is no JSON from column {} on: send one whole JSON object a line; check quotes, commas and nesting",
            e.column()
        ))
    })?;
    let Tree::Object(members) = tree else {
        return Err(malformed("the line is no JSON object: send one object in braces a line".into()));
    };
    match said_twice(&members) {
        Some(key) => Err(malformed(format!("the key {} is said twice: say it once", shown(key)))),
        None => Ok(members),
    }
}

fn said_twice(members: &[(String, Tree)]) -> Option<&str> {
    let mut seen = std::collections::HashSet::new();
    members.iter().find_map(|(key, value)| if seen.insert(key) { twice_within(value) } else { Some(key.as_str()) })
}

fn twice_within(value: &Tree) -> Option<&str> {
    match value {
        Tree::Object(members) => said_twice(members),
        Tree::List(values) => values.iter().find_map(twice_within),
        _ => None,
    }
}

/// All keys, at any depth.
pub(super) fn keys(members: &[(String, Tree)]) -> Box<dyn Iterator<Item = &str> + '_> {
    Box::new(members.iter().flat_map(|(key, value)| std::iter::once(key.as_str()).chain(keys_within(value))))
}

fn keys_within(value: &Tree) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Tree::Object(members) => keys(members),
        Tree::List(values) => Box::new(values.iter().flat_map(keys_within)),
        _ => Box::new(std::iter::empty()),
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Tree, E> {
        Ok(Tree::Number(Number::Whole(whole)))
    }

    fn visit_i64<E>(self, negative: i64) -> Result<Tree, E> {
        // serde_json gives whole numbers from 0 on as u64, so this one is below; its size does not matter.
        #[allow(clippy::cast_precision_loss, reason = "only that it is negative is told")]
        Ok(Tree::Number(Number::Other(negative as f64)))
    }

    fn visit_f64<E>(self, other: f64) -> Result<Tree, E> {
        Ok(Tree::Number(Number::Other(other)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Tree, E> {
        Ok(Tree::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Tree::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Object(members))
    }
}
