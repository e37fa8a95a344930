//! The entries of several logs in one order: by time, then by log, then by place; newest first.
//!
//! Times never go back within a log, so each is read from its end and no log needs to be read whole.
//! The order depends on nothing but the entries themselves: a page goes on where the one before it
//! ended, whatever was logged in between.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{GatewayError, Refusal};
use crate::access_log::entry::Body;
use crate::ledger::{EntryId, LogReader, Logs, ReadError};

/// How many entries of a log are read at a time.
const STEP: u64 = 512;

/// One log, of which entries `first..end` are still to come, and those of `block` before them.
struct Cursor {
    reader: LogReader,
    first: u64,
    end: u64,
    block: Vec<(u64, Body)>,
}

/// Entries from all logs, newest first.
pub(super) struct Merged {
    logs: Vec<Cursor>,
    /// How many entries were read.
    pub read: u64,
}

impl Merged {
    /// Entries of `from` or later, before `to`, and behind the entry `before` in this order.
    pub async fn open(
        logs: &Logs,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        before: Option<(EntryId, Timestamp)>,
    ) -> Result<Self, ReadError> {
        let mut cursors = Vec::new();
        for reader in logs.all().await? {
            let first = match from {
                Some(from) => reader.since(from).await?,
                None => 0,
            };
            let mut end = match to {
                Some(to) => reader.since(to).await?,
                None => reader.size(),
            };
            if let Some((id, at)) = before {
                end = end.min(end_before(&reader, id, at).await?);
            }
            cursors.push(Cursor { reader, first, end, block: Vec::new() });
        }
        Ok(Self { logs: cursors, read: 0 })
    }

    /// The next entry in this order; none when all were given.
    pub async fn next(&mut self) -> Result<Option<(EntryId, Body)>, ReadError> {
        for cursor in &mut self.logs {
            if cursor.block.is_empty() && cursor.end > cursor.first {
                let start = cursor.end.saturating_sub(STEP).max(cursor.first);
                cursor.block = cursor.reader.bodies(start, cursor.end).await?;
                self.read += cursor.end - start;
                cursor.end = start;
            }
        }
        let newest = |cursor: &&mut Cursor| cursor.block.last().map(|(_, body)| (body.at, cursor.reader.number()));
        let next = self.logs.iter_mut().max_by_key(newest);
        Ok(next.and_then(|cursor| {
            let (index, body) = cursor.block.pop()?;
            Some((EntryId { log: cursor.reader.number(), index }, body))
        }))
    }
}

/// Where the entries of a log end that come behind the entry `id` of `at` in this order.
async fn end_before(reader: &LogReader, id: EntryId, at: Timestamp) -> Result<u64, ReadError> {
    match reader.number() {
        log if log == id.log => Ok(id.index),
        log if log < id.log => reader.since(after(at)).await,
        _ => reader.since(at).await,
    }
}

/// The first instant that an entry after one of `at` can have: entries know milliseconds.
fn after(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond().saturating_add(1)).unwrap_or(Timestamp::MAX)
}

/// Up to `limit` of these entries in the order of [`Merged`], behind the one named, with what they say.
/// No more are read than are given, and a few of each log to find where the page begins.
pub(super) async fn page(
    logs: &Logs,
    ids: Vec<EntryId>,
    before: Option<EntryId>,
    limit: usize,
) -> Result<Vec<(EntryId, Body, LogReader)>, GatewayError> {
    let mut of_log: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    ids.iter().for_each(|id| of_log.entry(id.log).or_default().push(id.index));
    let before = match before {
        Some(id) if ids.contains(&id) => Some((id, logs.body(id).await?.at)),
        Some(_) => return Err(not_in_list().into()),
        None => None,
    };
    let mut lists = Vec::new();
    for (log, mut indexes) in of_log {
        indexes.sort_unstable();
        let reader = logs.log(log).await?;
        if let Some((id, at)) = before {
            let end = end_before(&reader, id, at).await?;
            indexes.truncate(indexes.partition_point(|index| *index < end));
        }
        lists.push((reader, indexes, None::<(u64, Body)>));
    }
    let mut page = Vec::new();
    while page.len() < limit {
        for (reader, indexes, next) in &mut lists {
            if next.is_none()
                && let Some(index) = indexes.pop()
            {
                *next = Some((index, reader.body(index).await?));
            }
        }
        let newest =
            lists.iter_mut().max_by_key(|(reader, _, next)| next.as_ref().map(|(_, b)| (b.at, reader.number())));
        let Some((reader, _, next)) = newest else { break };
        let Some((index, body)) = next.take() else { break };
        page.push((EntryId { log: reader.number(), index }, body, reader.clone()));
    }
    Ok(page)
}

/// The refusal of a `before` that the list does not have.
pub(super) fn not_in_list() -> Refusal {
    Refusal::BadPage("`before` is not the id of an entry of this list")
}
