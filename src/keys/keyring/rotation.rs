//! New working, consent and signing keys beside the old ones, and the end of those that nothing needs.
//!
//! Apart from the keyring so that what is made and what is destroyed stands in one place. Pure: it
//! makes the text of the next `keyring.json`. Old keys stay for as long as anything of their time can
//! still be shown: a signing key until its last attestation ended, a consent key until the longest
//! consent that a scenario may allow has. The pseudonym, index and log keys never rotate.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::{CONSENT, File, Keyring, KeyringError, LOG_SIGNING, NewKeyring, SIGNING, WORKING, WrappedKey, same, wrap};
use crate::entropy::{self, Entropy};
use crate::keys::{MacKey, RootKey, SigningKey};
use crate::scenario::{ANSWER_MINUTES_MAX, DAYS_MAX};

/// For how long a copy of the public keys may be kept: what `Cache-Control` of the JWKS says.
pub const JWKS_SECONDS: i64 = 300;
/// What clocks of hosts and verifiers may differ by, and calls under way take.
const MARGIN_SECONDS: i64 = 600;
/// For how long a code's row is known as one after its consent ended, twice.
const CONSENT_MARGIN_DAYS: i64 = 2;

/// When the keys of a rotation are used, and what is known to need the old ones no more.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// The time.
    pub now: Timestamp,
    /// From when the new working and consent keys are used.
    pub from: Timestamp,
    /// From when the new signing key signs: verifiers must have had the time to fetch it.
    pub signing_from: Timestamp,
    /// No person's keys are wrapped by a working key of a version below this one.
    pub wrapped_from: u32,
}

/// What a rotation made.
#[derive(Debug)]
pub struct Rotated {
    /// The text of the next `keyring.json`.
    pub text: String,
    /// The version of the new working key.
    pub working: u32,
    /// The `kid` of the new signing key.
    pub kid: String,
    /// The keys that are gone, by use and version.
    pub destroyed: Vec<(String, u32)>,
}

/// When the last attestation that a key can have signed has ended, if another took its place then.
pub(super) fn attestations_end(successor: Timestamp) -> Timestamp {
    let seconds = ANSWER_MINUTES_MAX * 60 + MARGIN_SECONDS;
    successor.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

fn consents_end(successor: Timestamp) -> Timestamp {
    let hours = (DAYS_MAX + CONSENT_MARGIN_DAYS) * 24;
    successor.saturating_add(SignedDuration::from_hours(hours)).unwrap_or(Timestamp::MAX)
}

/// Whether a key that another took the place of then may still be needed; of working keys the time does not tell.
///
/// The margin of what is destroyed is left out, so that no host whose clock is a little behind misses a key.
fn needed(r#use: &str, successor: Timestamp, now: Timestamp) -> bool {
    let now = now.saturating_add(SignedDuration::from_secs(MARGIN_SECONDS)).unwrap_or(Timestamp::MAX);
    match r#use {
        CONSENT => consents_end(successor) > now,
        SIGNING => attestations_end(successor) > now,
        _ => false,
    }
}

impl Keyring {
    /// Since when each key of the uses that rotate is used, by version.
    fn since(&self) -> [(&'static str, BTreeMap<u32, Timestamp>); 3] {
        let working = self.working.iter().map(|(version, (from, _))| (*version, *from)).collect();
        let consent = self.consent.iter().map(|(version, (from, _))| (*version, *from)).collect();
        let signing = self.signing_versions.iter().map(|(version, (from, _))| (*version, *from)).collect();
        [(WORKING, working), (CONSENT, consent), (SIGNING, signing)]
    }

    /// That no key is missing that is needed at this instant, as far as the others tell: a rotation makes one of each
    /// use, and destroys the oldest alone, in their time. Which working keys people need, the store alone knows.
    pub fn whole(&self, now: Timestamp) -> Result<(), KeyringError> {
        let held = self.since();
        let newest = held.iter().filter_map(|(_, keys)| keys.keys().last().copied()).max().unwrap_or_default();
        for (r#use, keys) in &held {
            let Some((first, from)) = keys.first_key_value() else { return Err(KeyringError::Missing(r#use)) };
            let before = first.checked_sub(1).filter(|version| *version > 0 && needed(r#use, *from, now));
            let gap = (*first..=newest).find(|version| !keys.contains_key(version));
            if let Some(version) = before.or(gap) {
                return Err(KeyringError::Lacks(r#use, version));
            }
        }
        Ok(())
    }

    /// That another keyring of this deployment has every key of this one that may still be needed. Nobody's keys are
    /// wrapped by a working key of a version below `wrapped_from`.
    pub fn kept_by(&self, other: &Self, now: Timestamp, wrapped_from: u32) -> Result<(), KeyringError> {
        if let Some(log) = self.logs.iter().find(|log| other.logs.iter().all(|known| known.number() != log.number())) {
            return Err(KeyringError::Lacks(LOG_SIGNING, log.number().into()));
        }
        for (r#use, keys) in self.since() {
            for version in keys.keys() {
                let successor = keys.range(version + 1..).next();
                let ended = match r#use {
                    WORKING => *version < wrapped_from,
                    _ => successor.is_some_and(|(_, from)| !needed(r#use, *from, now)),
                };
                if !ended && !self.is_in(other, r#use, *version) {
                    return Err(KeyringError::Lacks(r#use, *version));
                }
            }
        }
        Ok(())
    }

    /// Whether the other has this very key, not only one of its number.
    fn is_in(&self, other: &Self, r#use: &str, version: u32) -> bool {
        match r#use {
            WORKING => {
                let pair = self.working(version).zip(other.working(version));
                pair.is_some_and(|(ours, theirs)| same(&MacKey::new(ours), &MacKey::new(theirs)))
            }
            CONSENT => {
                let pair = self.consent(version).zip(other.consent(version));
                pair.is_some_and(|(ours, theirs)| same(&ours.mac, &theirs.mac))
            }
            _ => {
                let kid = |keys: &Self| keys.signing_versions.get(&version).map(|(_, kid)| kid.clone());
                kid(self) == kid(other)
            }
        }
    }
}

impl NewKeyring {
    /// The text of this keyring with new working, consent and signing keys, and without the old ones
    /// that nothing needs any more.
    pub fn rotate(
        text: &str,
        root: &RootKey,
        rotation: &Rotation,
        entropy: &dyn Entropy,
    ) -> Result<Rotated, KeyringError> {
        // What a keyring lacks is not made good by newer keys.
        Keyring::open(text, root)?.whole(rotation.now)?;
        let mut file = File::parse(text)?;
        let newest = |r#use: &str| {
            let keys = file.keys.iter().filter(|key| key.r#use == r#use);
            keys.max_by_key(|key| key.version).map(|key| (key.version, key.from))
        };
        let mut next = BTreeMap::new();
        for r#use in [WORKING, CONSENT, SIGNING] {
            let (version, from) = newest(r#use).ok_or(KeyringError::Missing(r#use))?;
            // Keys that are not in use yet are those of a rotation that is under way.
            if from > rotation.now {
                return Err(KeyringError::UnderWay(from));
            }
            // A token names its consent key in two bytes.
            if version >= u16::MAX.into() {
                return Err(KeyringError::Form(format!("there can be no {} key after version {version}", r#use)));
            }
            next.insert(r#use, version + 1);
        }
        let destroyed = destroy(&mut file.keys, rotation);
        let origin = file.origin.clone();
        let pkcs8 = SigningKey::generate()?;
        let kid = SigningKey::from_pkcs8(&pkcs8)?.kid().to_owned();
        for (r#use, version) in &next {
            let key = match *r#use {
                SIGNING => wrap(root, &origin, r#use, *version, rotation.signing_from, &pkcs8, entropy)?,
                _ => {
                    let secret = Zeroizing::new(entropy::bytes::<32>(entropy)?);
                    wrap(root, &origin, r#use, *version, rotation.from, &*secret, entropy)?
                }
            };
            file.keys.push(key);
        }
        let working = next.get(WORKING).copied().unwrap_or_default();
        Ok(Rotated { text: file.text()?, working, kid, destroyed })
    }
}

/// Takes out the keys of which nothing can be shown any more; the newest of each use always stays.
fn destroy(keys: &mut Vec<WrappedKey>, rotation: &Rotation) -> Vec<(String, u32)> {
    let successors: BTreeMap<(String, u32), Timestamp> =
        keys.iter().map(|key| ((key.r#use.clone(), key.version.saturating_sub(1)), key.from)).collect();
    let over = |key: &WrappedKey| {
        let Some(successor) = successors.get(&(key.r#use.clone(), key.version)) else { return false };
        match key.r#use.as_str() {
            WORKING => key.version < rotation.wrapped_from,
            CONSENT => consents_end(*successor) <= rotation.now,
            SIGNING => attestations_end(*successor) <= rotation.now,
            _ => false,
        }
    };
    let gone = keys.iter().filter(|key| over(key)).map(|key| (key.r#use.clone(), key.version)).collect();
    keys.retain(|key| !over(key));
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn first() -> (RootKey, String) {
        let new = NewKeyring::generate("yuxi.example/log", at("2026-01-01T00:00:00Z"), &SystemEntropy::new()).unwrap();
        (RootKey::parse(&new.root, false).unwrap(), new.keyring)
    }

    fn rotate(text: &str, root: &RootKey, now: &str, wrapped_from: u32) -> Rotated {
        let now = at(now);
        let signing_from = now + SignedDuration::from_mins(10);
        let rotation = Rotation { now, from: now, signing_from, wrapped_from };
        NewKeyring::rotate(text, root, &rotation, &SystemEntropy::new()).unwrap()
    }

    #[test]
    fn a_new_signing_key_stands_in_the_set_before_it_signs_and_an_old_one_until_its_attestations_ended() {
        let (root, text) = first();
        let before = Keyring::open(&text, &root).unwrap();
        let rotated = rotate(&text, &root, "2026-11-25T00:00:00Z", 1);
        let after = Keyring::open(&rotated.text, &root).unwrap();
        let now = |text| after.signing(at(text)).unwrap().kid().to_owned();
        let old = before.signing(at("2026-11-25T00:00:00Z")).unwrap().kid().to_owned();
        assert_eq!((now("2026-11-25T00:09:59Z"), now("2026-11-25T00:10:00Z")), (old.clone(), rotated.kid.clone()));
        let set = |text| after.signing_published(at(text)).map(|key| key.kid().to_owned()).collect::<Vec<_>>();
        assert_eq!(set("2026-11-25T00:00:00Z"), [old.clone(), rotated.kid.clone()]);
        // The longest attestation signed at 00:10 ends a day later.
        assert_eq!(set("2026-11-26T00:11:00Z"), [old, rotated.kid.clone()]);
        assert_eq!(set("2026-11-26T00:20:00Z"), [rotated.kid]);
    }

    #[test]
    fn keys_are_used_from_their_time_and_known_before_it() {
        let (root, text) = first();
        let now = at("2026-11-25T00:00:00Z");
        let from = now + SignedDuration::from_mins(10);
        let rotation = Rotation { now, from, signing_from: from, wrapped_from: 1 };
        let rotated = NewKeyring::rotate(&text, &root, &rotation, &SystemEntropy::new()).unwrap();
        let keys = Keyring::open(&rotated.text, &root).unwrap();
        for (at, version) in [(now, 1), (from, 2)] {
            assert_eq!(keys.working_at(at).unwrap().0, version);
            assert_eq!(keys.consent_at(at).unwrap().0, version);
        }
        assert!(keys.working(2).is_some() && keys.consent(2).is_some());
        let again = NewKeyring::rotate(&rotated.text, &root, &rotation, &SystemEntropy::new());
        assert_eq!(again.unwrap_err(), KeyringError::UnderWay(from));
    }

    /// The longest consent that a scenario may allow holds 1,830 days, and its code's row may be met twice a day after.
    #[test]
    fn a_consent_key_stays_for_1832_days_after_its_successor_began_to_the_second() {
        let (root, text) = first();
        let began = at("2026-11-25T00:00:00Z");
        let one = rotate(&text, &root, "2026-11-25T00:00:00Z", 1);
        let end = began + SignedDuration::from_hours(1_832 * 24);
        let signing = (SIGNING.to_owned(), 1);
        for (before_the_end, goes) in [(86_400, false), (1, false), (0, true)] {
            let now = end - SignedDuration::from_secs(before_the_end);
            let two = rotate(&one.text, &root, &now.to_string(), 1);
            let destroyed = if goes { vec![(CONSENT.to_owned(), 1), signing.clone()] } else { vec![signing.clone()] };
            assert_eq!(two.destroyed, destroyed, "{before_the_end} s before the end");
            // And who comes to it then finds it whole.
            assert_eq!(Keyring::open(&two.text, &root).unwrap().whole(now), Ok(()));
        }
    }

    /// The file without one key.
    fn without(text: &str, uses: &str, version: u32) -> String {
        let mut file = File::parse(text).unwrap();
        let held = file.keys.len();
        file.keys.retain(|key| !(key.r#use == uses && key.version == version));
        assert_eq!(file.keys.len() + 1, held, "{uses} {version}");
        file.text().unwrap()
    }

    #[test]
    fn a_keyring_that_lacks_a_key_that_is_needed_says_which() {
        let (root, text) = first();
        let one = rotate(&text, &root, "2026-11-25T00:00:00Z", 1);
        let two = rotate(&one.text, &root, "2026-11-25T01:00:00Z", 1);
        let now = at("2026-11-25T02:00:00Z");
        let open = |text: &str| Keyring::open(text, &root).unwrap();
        let whole = open(&two.text);
        assert_eq!((whole.whole(now), whole.kept_by(&whole, now, 0)), (Ok(()), Ok(())));
        assert_eq!(open(&text).kept_by(&whole, now, 0), Ok(()), "more is no less");
        for uses in [WORKING, CONSENT, SIGNING] {
            for version in 1..=3 {
                let less = open(&without(&two.text, uses, version));
                let lacks = Err(KeyringError::Lacks(uses, version));
                assert_eq!(whole.kept_by(&less, now, 1), lacks);
                // By which working keys people's are wrapped is not to be seen in the file.
                let seen = if (uses, version) == (WORKING, 1) { Ok(()) } else { lacks.clone() };
                assert_eq!(less.whole(now), seen, "{uses} {version}");
                let rotation = Rotation { now, from: now, signing_from: now, wrapped_from: 0 };
                let again =
                    NewKeyring::rotate(&without(&two.text, uses, version), &root, &rotation, &SystemEntropy::new());
                assert_eq!(again.map(drop), seen, "{uses} {version}");
            }
        }
        assert_eq!(whole.kept_by(&open(&without(&two.text, WORKING, 1)), now, 2), Ok(()));
        // A key of the same number is not the same key.
        let other = open(&rotate(&one.text, &root, "2026-11-25T01:00:00Z", 1).text);
        assert_eq!(whole.kept_by(&other, now, 0), Err(KeyringError::Lacks(WORKING, 3)));
        // When its time is over nobody misses it; ten minutes of another host's clock are granted.
        for (uses, end) in [(SIGNING, at("2026-11-26T00:10:00Z")), (CONSENT, at("2031-11-30T23:50:00Z"))] {
            let less = without(&two.text, uses, 1);
            let before = end - SignedDuration::from_secs(1);
            let lacks = Err(KeyringError::Lacks(uses, 1));
            assert_eq!((open(&less).whole(before), whole.kept_by(&open(&less), before, 1)), (lacks.clone(), lacks));
            assert_eq!((open(&less).whole(end), whole.kept_by(&open(&less), end, 1)), (Ok(()), Ok(())));
        }
        let entropy = SystemEntropy::new();
        let more = NewKeyring::add_log(&two.text, &root, "yuxi.example/log-2", now, &entropy).unwrap();
        assert_eq!(open(&more).kept_by(&whole, now, 0), Err(KeyringError::Lacks(LOG_SIGNING, 2)));
        assert!(open(&more).same_deployment(&whole), "it is no other deployment's for that");
    }

    #[test]
    fn what_nothing_needs_is_destroyed_and_no_more() {
        let (root, text) = first();
        let one = rotate(&text, &root, "2026-11-25T00:00:00Z", 1);
        assert_eq!(one.destroyed, []);
        // Some people's keys are still wrapped by the first.
        let kept = rotate(&one.text, &root, "2026-12-25T00:00:00Z", 1);
        assert_eq!(kept.destroyed, [(SIGNING.to_owned(), 1)]);
        let gone = rotate(&one.text, &root, "2026-12-25T00:00:00Z", 2);
        let mut destroyed = gone.destroyed.clone();
        destroyed.sort();
        assert_eq!(destroyed, [(SIGNING.to_owned(), 1), (WORKING.to_owned(), 1)]);
        let keys = Keyring::open(&gone.text, &root).unwrap();
        assert!(keys.working(1).is_none() && keys.working(2).is_some() && keys.consent(1).is_some());
        assert!(keys.same_deployment(&Keyring::open(&text, &root).unwrap()));
        let late = rotate(&gone.text, &root, "2031-12-03T00:00:00Z", 3);
        assert!(late.destroyed.contains(&(CONSENT.to_owned(), 1)), "{:?}", late.destroyed);
        assert!(!late.destroyed.contains(&(CONSENT.to_owned(), 2)), "{:?}", late.destroyed);
    }
}
