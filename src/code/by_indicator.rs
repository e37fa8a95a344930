//! What a policy file says of each indicator, found by its code in one step.
//!
//! Scoring looks up two of these a record, and comparing a handful of long codes that begin alike was
//! most of its time. Codes come from the city's own policy files, so nobody can choose them to collide.

use super::IndicatorCode;
use std::borrow::Borrow;
use std::collections::BTreeMap;

/// A map from indicators that is made once and read often; it goes through them in the order of their codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByIndicator<T> {
    entries: Vec<(IndicatorCode, T)>,
    /// For each slot the place of an entry plus one, or 0; at least half of them are empty.
    slots: Vec<u32>,
}

impl<T> Default for ByIndicator<T> {
    fn default() -> Self {
        BTreeMap::new().into()
    }
}

impl<T> From<BTreeMap<IndicatorCode, T>> for ByIndicator<T> {
    fn from(map: BTreeMap<IndicatorCode, T>) -> Self {
        let entries: Vec<_> = map.into_iter().collect();
        let mut slots = vec![0; (entries.len() * 2 + 1).next_power_of_two()];
        for ((code, _), number) in entries.iter().zip(1..) {
            let mut at = slot(code.as_str(), slots.len());
            while slots.get(at).is_some_and(|taken| *taken != 0) {
                at = (at + 1) % slots.len();
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = number;
            }
        }
        Self { entries, slots }
    }
}

impl<T> ByIndicator<T> {
    /// Where the entry of this code stands among all, and what it says.
    #[inline]
    pub fn find(&self, code: &str) -> Option<(usize, &T)> {
        let mut at = slot(code, self.slots.len());
        loop {
            let place = usize::try_from(self.slots.get(at)?.checked_sub(1)?).ok()?;
            let (found, entry) = self.entries.get(place)?;
            if found.as_str() == code {
                return Some((place, entry));
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// The entry at this place.
    #[inline]
    pub fn at(&self, place: usize) -> Option<(&IndicatorCode, &T)> {
        self.entries.get(place).map(|(code, entry)| (code, entry))
    }

    /// What is said of this indicator.
    pub fn get<C: Borrow<str> + ?Sized>(&self, code: &C) -> Option<&T> {
        self.find(code.borrow()).map(|(_, entry)| entry)
    }

    /// The same with the map's own code.
    pub fn get_key_value<C: Borrow<str> + ?Sized>(&self, code: &C) -> Option<(&IndicatorCode, &T)> {
        self.find(code.borrow()).and_then(|(place, _)| self.at(place))
    }

    /// Whether anything is said of this indicator.
    pub fn contains_key<C: Borrow<str> + ?Sized>(&self, code: &C) -> bool {
        self.find(code.borrow()).is_some()
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&IndicatorCode, &T)> {
        self.entries.iter().map(|(code, entry)| (code, entry))
    }

    /// All codes.
    pub fn keys(&self) -> impl Iterator<Item = &IndicatorCode> {
        self.entries.iter().map(|(code, _)| code)
    }

    /// What is said of all.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The slot in which a search begins, by the ends of the code and its length; `slots` is a power of two.
#[inline]
fn slot(code: &str, slots: usize) -> usize {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let bytes = code.as_bytes();
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (0, bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))),
    };
    let hash = (first.wrapping_add(bytes.len() as u64).wrapping_mul(MIX).rotate_left(31) ^ last).wrapping_mul(MIX);
    usize::try_from(hash >> 40).unwrap_or(0) & (slots - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_and_no_other() {
        for count in [0usize, 1, 2, 3, 60, 1000] {
            let code = |n: usize| IndicatorCode::parse(&format!("an-indicator-of-many-{n}")).unwrap();
            let map: ByIndicator<usize> = (0..count).map(|n| (code(n), n)).collect::<BTreeMap<_, _>>().into();
            assert!((0..count).all(|n| map.get(&code(n)) == Some(&n)));
            assert!((count..count + 100).all(|n| !map.contains_key(&code(n))));
            assert_eq!((map.get("a"), map.len(), map.is_empty()), (None, count, count == 0));
            assert!(map.keys().is_sorted());
            assert!(map.iter().enumerate().all(|(place, (code, n))| map.find(code.as_str()) == Some((place, n))));
        }
    }
}
