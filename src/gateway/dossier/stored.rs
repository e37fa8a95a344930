//! What a person's cells hold, in the form in which it is sealed.

use std::borrow::Cow;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::broken;
use crate::code::{IndicatorCode, PartyId, RecordId};
use crate::gateway::GatewayError;
use crate::person::{IdType, Identity, Name, Person};
use crate::record::{Held, Record, Repair};

/// A register entry in its cell: type, number, name, born on, resident, full capacity.
type StoredPerson = (String, String, String, Date, bool, bool);

pub(super) fn write_person(person: &Person) -> Vec<u8> {
    let stored: StoredPerson = (
        person.identity.id_type().as_str().to_owned(),
        person.identity.number().to_owned(),
        person.name.as_str().to_owned(),
        person.born_on,
        person.resident,
        person.full_capacity,
    );
    serde_json::to_vec(&stored).unwrap_or_default()
}

pub(in crate::gateway) fn read_person(entry: &[u8]) -> Result<Person, GatewayError> {
    let bad = || broken("person");
    let (id_type, number, name, born_on, resident, full_capacity): StoredPerson =
        serde_json::from_slice(entry).map_err(|_| bad())?;
    Ok(Person {
        identity: stored_identity(&id_type, &number).ok_or_else(bad)?,
        name: Name::parse(&name).map_err(|_| bad())?,
        born_on,
        resident,
        full_capacity,
    })
}

/// An identity that was accepted once is read back whatever today is.
fn stored_identity(id_type: &str, number: &str) -> Option<Identity> {
    Identity::parse(IdType::parse(id_type)?, number, Date::MAX).ok()
}

/// A record in its chunk.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored<'a> {
    #[serde(borrow)]
    i: Cow<'a, str>,
    #[serde(borrow)]
    p: Cow<'a, str>,
    #[serde(borrow)]
    c: Cow<'a, str>,
    #[serde(borrow)]
    t: Cow<'a, str>,
    #[serde(borrow)]
    n: Cow<'a, str>,
    #[serde(borrow)]
    m: Cow<'a, str>,
    o: Date,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v: Option<Date>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    q: Option<u32>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    r: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    d: Option<Cow<'a, str>>,
    /// A repair's day, and its `until` where it shortens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<(Date, Option<Date>)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    w: bool,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    b: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    f: bool,
}

impl<'a> Stored<'a> {
    pub(super) fn write(held: &'a Held) -> Self {
        let record = &held.record;
        Self {
            i: record.id.as_str().into(),
            p: record.provider.as_str().into(),
            c: record.indicator.as_str().into(),
            t: record.identity.id_type().as_str().into(),
            n: record.identity.number().into(),
            m: record.name.as_str().into(),
            o: record.occurred_on,
            v: record.valid_until,
            q: record.quantity,
            r: record.consent_ref.as_deref().map(Cow::Borrowed),
            d: record.detail.as_deref().map(Cow::Borrowed),
            e: held.repair.map(|repair| match repair {
                Repair::Exclude { on } => (on, None),
                Repair::Shorten { on, until } => (on, Some(until)),
            }),
            w: held.withdrawn,
            b: held.withdrawn_because.as_deref().map(Cow::Borrowed),
            f: held.frozen,
        }
    }

    pub(super) fn read(self) -> Option<Held> {
        let record = Record {
            id: RecordId::parse(&self.i).ok()?,
            provider: PartyId::parse(&self.p).ok()?,
            indicator: IndicatorCode::parse(&self.c).ok()?,
            identity: stored_identity(&self.t, &self.n)?,
            name: Name::parse(&self.m).ok()?,
            occurred_on: self.o,
            valid_until: self.v,
            quantity: self.q,
            consent_ref: self.r.map(Cow::into_owned),
            detail: self.d.map(Cow::into_owned),
        };
        let repair = self.e.map(|(on, until)| match until {
            None => Repair::Exclude { on },
            Some(until) => Repair::Shorten { on, until },
        });
        Some(Held { record, repair, withdrawn: self.w, withdrawn_because: self.b.map(Cow::into_owned), frozen: self.f })
    }

    /// What the record adds to its chunk, with its comma.
    pub(super) fn bytes(&self) -> usize {
        let mut length = Length(1);
        serde_json::to_writer(&mut length, self).map_or(0, |()| length.0)
    }
}

/// Counts what is written.
struct Length(usize);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
