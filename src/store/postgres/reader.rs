//! Reads of many callers, put together.
//!
//! A read is a round trip. What waits while one is under way goes with the next, so that a thousand
//! callers cost a few statements and not a thousand.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Inner, Trouble};
use crate::store::{Cell, Place};

/// The most cells that one statement asks for.
const PLACES_MAX: usize = 512;
/// The most statements under way; the other connections are the commits'.
const READS_MAX: usize = 3;

// The subquery's LIMIT keeps it apart: each cell is looked up by its key, whatever the planner
// believes of the table's size.
const GET: &str = "
SELECT w.n, c.version, c.value
  FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS w (space, key, n)
 CROSS JOIN LATERAL (SELECT t.version, t.value FROM jadegate_cell AS t
                      WHERE t.space = w.space AND t.key = w.key LIMIT 1) AS c";

/// What a reader gets: a cell or nothing for each of their places.
type Found = Result<Vec<Option<Cell>>, String>;

/// Places and who waits for what lies there.
pub(super) struct Wanted {
    pub places: Vec<Place>,
    pub done: oneshot::Sender<Found>,
}

/// Answers until nobody can ask any more.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Wanted>) {
    let turns = Arc::new(Semaphore::new(READS_MAX));
    loop {
        // The turn first, and then what has gathered meanwhile.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let Some(first) = queue.recv().await else { return };
        let mut places = first.places.len();
        let mut group = vec![first];
        while places < PLACES_MAX {
            let Ok(next) = queue.try_recv() else { break };
            places += next.places.len();
            group.push(next);
        }
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            answer(&inner, group).await;
            drop(turn);
        });
    }
}

async fn answer(inner: &Inner, group: Vec<Wanted>) {
    let places: Vec<&Place> = group.iter().flat_map(|wanted| &wanted.places).collect();
    let mut found = match inner.patiently(|| get(inner, &places)).await {
        Ok(found) => found,
        Err(trouble) => {
            let reason = trouble.to_string();
            for wanted in group {
                let _heard = wanted.done.send(Err(reason.clone()));
            }
            return;
        }
    };
    let mut next = 0_usize;
    for wanted in group {
        let end = next + wanted.places.len();
        let cells = (next..end).map(|at| found.remove(&at)).collect();
        next = end;
        // Who asked may have gone away.
        let _heard = wanted.done.send(Ok(cells));
    }
}

async fn get(inner: &Inner, places: &[&Place]) -> Result<HashMap<usize, Cell>, Trouble> {
    let client = inner.link.client().await?;
    let statement = client.prepare_cached(GET).await.map_err(|e| Trouble::of(&e))?;
    let spaces: Vec<&[u8]> = places.iter().map(|place| place.table.name().as_bytes()).collect();
    let keys: Vec<&[u8]> = places.iter().map(|place| place.key.as_slice()).collect();
    let rows = client.query(&statement, &[&spaces, &keys]).await.map_err(|e| Trouble::of(&e))?;
    let cell = |row: &tokio_postgres::Row| {
        let (at, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let at = usize::try_from(at - 1).unwrap_or(usize::MAX);
        Ok::<_, tokio_postgres::Error>((at, Cell { version: version.cast_unsigned(), value: row.try_get(2)? }))
    };
    rows.iter().map(cell).collect::<Result<_, _>>().map_err(|e| Trouble::of(&e))
}
