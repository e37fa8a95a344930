//! Consents to market information (Article 8): which records of which provider a person lets count.
//!
//! A market record names the person's consent: one given in the gateway, whose id is the record's `consent_ref`, or a
//! form on paper that the provider keeps and answers for. The person sees both and takes either back, and then no
//! record that names it counts. A restore of the store ends all of before. Pure. Whether a record is about the market at
//! all is the catalogue's to say.

use jiff::{Timestamp, civil::Date};
use sha2::{Digest, Sha256};

use crate::clock::day_of;
use crate::code::{IndicatorCode, PartyId};
use crate::record::Record;

/// How many consents, and papers taken back, one person has at most.
pub const CONSENTS_MAX: usize = 200;
const GIVEN: &str = "mc-";
const PAPER: &str = "mp-";

/// Whether a reference has the form of one to paper: `paper:` and what the provider files it under. A hyphen does for
/// the colon.
pub fn is_paper(reference: &str) -> bool {
    let rest = reference.strip_prefix("paper").and_then(|rest| rest.strip_prefix([':', '-']));
    rest.is_some_and(|rest| !rest.trim().is_empty())
}

/// The day on which a form on paper was signed, where its reference begins with it: `paper:2026-11-26:17`.
pub fn paper_day(reference: &str) -> Option<Date> {
    let rest = reference.strip_prefix("paper")?.strip_prefix([':', '-'])?;
    let (day, rest) = rest.split_at_checked(10)?;
    let number = rest.strip_prefix([':', '-'])?;
    let signed: Date = day.parse().ok()?;
    (signed.to_string() == day && !number.trim().is_empty()).then_some(signed)
}

/// Whether a form on paper ended with a restore after which consents count from this instant on: each does whose
/// reference does not say that it was signed since.
pub fn paper_lapsed(reference: &str, counts_from: Option<Timestamp>) -> bool {
    counts_from.is_some_and(|from| paper_day(reference).is_none_or(|signed| signed < day_of(from)))
}

/// Whether a reference may be sent at all: an id of a consent given here, or paper.
pub fn is_reference(reference: &str) -> bool {
    MarketConsentId::parse(reference).is_some() || is_paper(reference)
}

/// The id of a consent that a person gave here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarketConsentId(pub [u8; 16]);

impl std::fmt::Debug for MarketConsentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MarketConsentId(..)")
    }
}

impl MarketConsentId {
    /// `mc-` and 22 characters of base64url.
    pub fn to_text(self) -> String {
        format!("{GIVEN}{}", base64url(&self.0))
    }

    /// Reads an id in its one spelling.
    pub fn parse(text: &str) -> Option<Self> {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(GIVEN)?).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

/// The id under which a person's list shows a form on paper.
pub fn paper_id(provider: &PartyId, reference: &str) -> String {
    let digest = Sha256::new().chain_update(provider.as_str()).chain_update([0]).chain_update(reference).finalize();
    format!("{PAPER}{}", base64url(digest.get(..16).unwrap_or_default()))
}

fn base64url(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A consent that a person gave here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketConsent {
    /// Its id, which records name.
    pub id: MarketConsentId,
    /// Who may report.
    pub provider: PartyId,
    /// What.
    pub indicators: Vec<IndicatorCode>,
    /// Since when.
    pub given: Timestamp,
    /// When it was taken back.
    pub withdrawn: Option<Timestamp>,
}

impl MarketConsent {
    /// Whether a restore has ended it: what its person took back since the backup is not known.
    pub fn lapsed(&self, counts_from: Option<Timestamp>) -> bool {
        counts_from.is_some_and(|from| self.given < from)
    }
}

/// A form on paper that its person has taken back.
#[derive(Clone, PartialEq, Eq)]
pub struct PaperWithdrawal {
    /// The provider that keeps it.
    pub provider: PartyId,
    /// What its records name.
    pub reference: String,
    /// When.
    pub at: Timestamp,
}

impl std::fmt::Debug for PaperWithdrawal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PaperWithdrawal({}, ..)", self.provider)
    }
}

/// All that a person has said about market information, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarketConsents {
    /// Given here.
    pub given: Vec<MarketConsent>,
    /// On paper and taken back.
    pub papers: Vec<PaperWithdrawal>,
}

impl MarketConsents {
    /// Whether a market record that is sent on this day rests on a consent that stands.
    pub fn permits(&self, record: &Record, counts_from: Option<Timestamp>, day: Date) -> bool {
        let Some(reference) = record.consent_ref.as_deref() else { return false };
        // Since a restore the day on a form says whether it counts: one that is yet to come says nothing.
        let foretold = counts_from.is_some() && paper_day(reference).is_some_and(|signed| signed > day);
        is_reference(reference) && !foretold && self.stands(record, counts_from)
    }

    /// Whether the consent that a stored market record rests on still stands. A reference that is none given here is
    /// paper, of whatever form: earlier builds took any. `counts_from` is the instant before which consents are lapsed,
    /// where the store was restored.
    pub fn stands(&self, record: &Record, counts_from: Option<Timestamp>) -> bool {
        let Some(reference) = record.consent_ref.as_deref() else { return false };
        match MarketConsentId::parse(reference) {
            Some(id) => self.given.iter().any(|consent| {
                consent.id == id
                    && consent.withdrawn.is_none()
                    && !consent.lapsed(counts_from)
                    && consent.provider == record.provider
                    && consent.indicators.contains(&record.indicator)
            }),
            None => {
                let mut papers = self.papers.iter();
                !paper_lapsed(reference, counts_from)
                    && !papers.any(|paper| paper.provider == record.provider && paper.reference == reference)
            }
        }
    }

    /// Makes room for one more where there is none: the oldest consent that was taken back or is lapsed goes. Nothing
    /// comes back by that: a record whose consent is not in the list does not count.
    pub fn has_room(&mut self, counts_from: Option<Timestamp>) -> bool {
        if self.given.len() + self.papers.len() < CONSENTS_MAX {
            return true;
        }
        let oldest = self.given.iter().position(|consent| consent.withdrawn.is_some() || consent.lapsed(counts_from));
        oldest.is_some_and(|at| {
            self.given.remove(at);
            true
        })
    }

    /// The bytes to seal.
    pub fn encode(&self) -> Vec<u8> {
        let given: Vec<Given> = self
            .given
            .iter()
            .map(|consent| {
                let indicators = consent.indicators.iter().map(|code| code.as_str().to_owned()).collect();
                let withdrawn = consent.withdrawn.map(Timestamp::as_millisecond);
                let id = consent.id.to_text();
                (id, consent.provider.as_str().to_owned(), indicators, consent.given.as_millisecond(), withdrawn)
            })
            .collect();
        let paper = |paper: &PaperWithdrawal| {
            (paper.provider.as_str().to_owned(), paper.reference.clone(), paper.at.as_millisecond())
        };
        let papers: Vec<Paper> = self.papers.iter().map(paper).collect();
        serde_json::to_vec(&(given, papers)).unwrap_or_default()
    }

    /// Reads the opened bytes.
    pub fn decode(opened: &[u8]) -> Option<Self> {
        let (given, papers): (Vec<Given>, Vec<Paper>) = serde_json::from_slice(opened).ok()?;
        let time = |millisecond| Timestamp::from_millisecond(millisecond).ok();
        let given = given.into_iter().map(|(id, provider, indicators, given, withdrawn)| {
            let indicators = indicators.iter().map(|code| IndicatorCode::parse(code).ok());
            Some(MarketConsent {
                id: MarketConsentId::parse(&id)?,
                provider: PartyId::parse(&provider).ok()?,
                indicators: indicators.collect::<Option<_>>()?,
                given: time(given)?,
                withdrawn: match withdrawn {
                    None => None,
                    Some(at) => Some(time(at)?),
                },
            })
        });
        let papers = papers.into_iter().map(|(provider, reference, at)| {
            Some(PaperWithdrawal { provider: PartyId::parse(&provider).ok()?, reference, at: time(at)? })
        });
        Some(Self { given: given.collect::<Option<_>>()?, papers: papers.collect::<Option<_>>()? })
    }
}

type Given = (String, String, Vec<String>, i64, Option<i64>);
type Paper = (String, String, i64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::RecordId;
    use crate::person::{IdType, Identity, Name};
    use jiff::civil::date;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn record(provider: &str, indicator: &str, reference: Option<&str>) -> Record {
        Record {
            id: RecordId::parse("r-1").unwrap(),
            provider: PartyId::parse(provider).unwrap(),
            indicator: IndicatorCode::parse(indicator).unwrap(),
            identity: Identity::parse(IdType::ResidentId, "530499199001010015", date(2026, 11, 24)).unwrap(),
            name: Name::parse("王芳").unwrap(),
            occurred_on: date(2026, 3, 1),
            valid_until: None,
            quantity: None,
            consent_ref: reference.map(str::to_owned),
            detail: None,
        }
    }

    fn consents() -> MarketConsents {
        let consent = |id: u8, withdrawn| MarketConsent {
            id: MarketConsentId([id; 16]),
            provider: PartyId::parse("yx-telecom").unwrap(),
            indicators: vec![IndicatorCode::parse("arrears").unwrap()],
            given: at(1),
            withdrawn,
        };
        let paper =
            PaperWithdrawal { provider: PartyId::parse("yx-telecom").unwrap(), reference: "paper:7".into(), at: at(3) };
        MarketConsents { given: vec![consent(1, None), consent(2, Some(at(2)))], papers: vec![paper] }
    }

    #[test]
    fn a_record_stands_on_a_consent_of_its_provider_and_kind_that_was_not_taken_back() {
        let (mine, taken) = (MarketConsentId([1; 16]).to_text(), MarketConsentId([2; 16]).to_text());
        let never = MarketConsentId([3; 16]).to_text();
        for (provider, indicator, reference, permits, stands) in [
            ("yx-telecom", "arrears", Some(mine.as_str()), true, true),
            ("yx-telecom", "arrears", Some(taken.as_str()), false, false),
            ("yx-telecom", "arrears", Some(never.as_str()), false, false),
            ("yx-water", "arrears", Some(mine.as_str()), false, false),
            ("yx-telecom", "other", Some(mine.as_str()), false, false),
            ("yx-telecom", "arrears", Some("paper:8"), true, true),
            ("yx-telecom", "arrears", Some("paper-8"), true, true),
            ("yx-telecom", "arrears", Some("paper:7"), false, false),
            ("yx-water", "arrears", Some("paper:7"), true, true),
            ("yx-telecom", "arrears", Some("paper: "), false, true),
            ("yx-telecom", "arrears", Some("c-1"), false, true),
            ("yx-telecom", "arrears", Some("mc-short"), false, true),
            ("yx-telecom", "arrears", None, false, false),
        ] {
            let record = record(provider, indicator, reference);
            assert_eq!(
                consents().permits(&record, None, date(2026, 11, 24)),
                permits,
                "{provider} {indicator} {reference:?}"
            );
            assert_eq!(consents().stands(&record, None), stands, "{provider} {indicator} {reference:?}");
        }
    }

    #[test]
    fn a_restore_ends_what_was_given_before_and_forms_that_do_not_say_they_were_signed_since() {
        let from: Timestamp = "2026-11-25T16:00:00Z".parse().unwrap();
        let mut consents = consents();
        for (id, given) in [(4, from - std::time::Duration::from_millis(1)), (5, from)] {
            consents.given.push(MarketConsent { id: MarketConsentId([id; 16]), given, ..consents.given[0].clone() });
        }
        let signed = "paper:2026-11-26:9";
        let taken = PaperWithdrawal {
            provider: PartyId::parse("yx-telecom").unwrap(),
            reference: "paper:2026-11-26:8".into(),
            at: from,
        };
        consents.papers.push(taken);
        let [older, last, first] = [1, 4, 5].map(|id| MarketConsentId([id; 16]).to_text());
        for (reference, permits, stands) in [
            (older.as_str(), false, false),
            (&last, false, false),
            (&first, true, true),
            ("paper:8", false, false),
            ("paper-2026-11-25-9", false, false),
            (signed, true, true),
            ("paper-2026-11-26-9", true, true),
            ("paper:2026-11-26:8", false, false),
            // A day that is yet to come is none that a form was signed on.
            ("paper:2026-11-27:9", false, true),
            ("paper:2026-11-26", false, false),
            ("paper:2026-11-26: ", false, false),
            ("paper:20261126::9", false, false),
            ("c-2026-11-26:9", false, false),
        ] {
            let record = record("yx-telecom", "arrears", Some(reference));
            assert_eq!(consents.permits(&record, Some(from), date(2026, 11, 26)), permits, "{reference}");
            assert_eq!(consents.stands(&record, Some(from)), stands, "{reference}");
        }
        // Without a restore the day says nothing.
        assert!(consents.permits(
            &record("yx-telecom", "arrears", Some("paper:2027-01-01:9")),
            None,
            date(2026, 11, 26)
        ));
    }

    #[test]
    fn they_read_back_and_ids_have_one_spelling() {
        assert_eq!(MarketConsents::decode(&consents().encode()), Some(consents()));
        assert_eq!(MarketConsents::decode(b"[]"), None);
        let id = MarketConsentId([7; 16]);
        assert_eq!(MarketConsentId::parse(&id.to_text()), Some(id));
        for odd in [&format!("{}=", id.to_text()), &id.to_text()[3..], "mc-", "mp-AAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(MarketConsentId::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn where_there_is_no_room_the_oldest_that_was_taken_back_goes() {
        let mut consents = consents();
        while consents.given.len() + consents.papers.len() < CONSENTS_MAX {
            consents.given.push(consents.given[0].clone());
        }
        assert!(consents.has_room(None) && consents.given.len() + consents.papers.len() == CONSENTS_MAX - 1);
        consents.given.push(consents.given[0].clone());
        assert!(!consents.has_room(None), "what stands, and papers taken back, stay");
        assert!(consents.has_room(Some(at(2))), "what a restore has ended makes room");
    }
}
