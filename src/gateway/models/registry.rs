//! What the store has of models: the list, what happened to each, and their texts.

use std::sync::Arc;

use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

use crate::gateway::cells::pieces;
use crate::gateway::{GatewayError, at};
use crate::hex::{hex, unhex};
use crate::store::{Cell, Place, Store};
use crate::tables;
use crate::trial::Impact;
use crate::vault::Vault;

/// A line of the list, in the order of drafts.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Listed {
    pub(in crate::gateway) id: String,
    pub(in crate::gateway) digest: String,
    pub(in crate::gateway) from: Option<Date>,
}

/// The list as it was read.
#[derive(Clone, Default)]
pub(in crate::gateway) struct List {
    pub(in crate::gateway) cell: Option<Cell>,
    pub(in crate::gateway) models: Vec<Listed>,
}

/// What happened to one model.
#[derive(Serialize, Deserialize, Clone)]
pub(super) struct Stored {
    pub(super) drafted_at: Timestamp,
    pub(super) comment_until: Option<Date>,
    pub(super) approvals: Vec<(String, String, Timestamp)>,
    pub(super) published_at: Option<Timestamp>,
    pub(super) impact: Option<Impact>,
}

pub(in crate::gateway) fn list_place() -> Place {
    Place::new(tables::MODEL, b"list".as_slice())
}

pub(super) fn model_place(digest: &str) -> Place {
    Place::new(tables::MODEL, tables::key(&[b"of ", digest.as_bytes()]))
}

pub(super) fn text_place(digest: &str, piece: u16) -> Place {
    Place::new(tables::MODEL, tables::key(&[b"text ", digest.as_bytes(), b" ", &piece.to_be_bytes()]))
}

/// Reads what the store has of models.
#[derive(Clone, Copy)]
pub(in crate::gateway) struct Registry<'a> {
    pub(in crate::gateway) store: &'a dyn Store,
    pub(in crate::gateway) vault: &'a Vault,
}

impl Registry<'_> {
    pub(in crate::gateway) async fn list(&self) -> Result<List, GatewayError> {
        let place = list_place();
        let Some(cell) = self.store.get(&place).await? else { return Ok(List::default()) };
        let models = self.read(&place, &cell)?;
        Ok(List { cell: Some(cell), models })
    }

    fn read<T: serde::de::DeserializeOwned>(&self, place: &Place, cell: &Cell) -> Result<T, GatewayError> {
        let content = self.vault.open_indexed(at(place, cell.version), &cell.value)?;
        serde_json::from_slice(&content).map_err(|_| GatewayError::Fault("a cell of the models does not read".into()))
    }

    pub(super) async fn stored(&self, listed: &Listed) -> Result<(Stored, Place, Cell), GatewayError> {
        let place = model_place(&listed.digest);
        let cell = self.store.get(&place).await?;
        let cell = cell.ok_or_else(|| GatewayError::Fault(format!("the cell of the model {} is gone", listed.id)))?;
        Ok((self.read(&place, &cell)?, place, cell))
    }

    /// A model's text; a fault where it is not there to the byte.
    pub(in crate::gateway) async fn text(&self, listed: &Listed) -> Result<Arc<str>, GatewayError> {
        let content = pieces(self.store, self.vault, |piece| text_place(&listed.digest, piece)).await?;
        let found = hex(&<[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&content)));
        let text = String::from_utf8(content).ok().filter(|_| found == listed.digest);
        let gone =
            || GatewayError::Fault(format!("the text of the model {} is not in the store to the byte", listed.id));
        text.map(Into::into).ok_or_else(gone)
    }

    /// The models that hold on a day and later, with their texts, by day.
    pub(in crate::gateway) async fn schedule(
        &self,
        list: &List,
        day: Date,
    ) -> Result<Vec<(Date, Listed, Arc<str>)>, GatewayError> {
        let mut schedule = Vec::new();
        for (from, listed) in list.on_and_after(day) {
            schedule.push((from, listed.clone(), self.text(listed).await?));
        }
        Ok(schedule)
    }
}

impl List {
    /// Those with a day of effect, by day.
    pub(super) fn dated(&self) -> Vec<(Date, &Listed)> {
        let mut dated: Vec<_> = self.models.iter().filter_map(|listed| Some((listed.from?, listed))).collect();
        dated.sort_by_key(|(from, _)| *from);
        dated
    }

    /// The one in force on a day, and those that come later.
    fn on_and_after(&self, day: Date) -> Vec<(Date, &Listed)> {
        let mut dated = self.dated();
        let begun = dated.iter().rposition(|(from, _)| *from <= day).unwrap_or_default();
        dated.drain(..begun);
        dated
    }

    /// The one in force on a day.
    pub(in crate::gateway) fn on(&self, day: Date) -> Option<(Date, &Listed)> {
        self.on_and_after(day).first().copied()
    }

    pub(in crate::gateway) fn get(&self, id: &str) -> Option<&Listed> {
        self.models.iter().find(|listed| listed.id == id)
    }

    pub(in crate::gateway) fn version(&self) -> u64 {
        self.cell.as_ref().map_or(0, |cell| cell.version)
    }
}

/// The bytes of a digest.
pub(in crate::gateway) fn digest_of(text: &str) -> Result<[u8; 32], GatewayError> {
    let digest = unhex(text).and_then(|digest| digest.try_into().ok());
    digest.ok_or_else(|| GatewayError::Fault("a model's digest does not read".into()))
}
