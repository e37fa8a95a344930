//! The store on PostgreSQL: several processes, several machines.
//!
//! One table of cells, one transaction a batch, in two round trips: the first locks the rows of the
//! checks and reads their versions; the second writes and commits. A check for absence is held by the
//! insertion itself. Rows are taken in one order, and what still collides is tried again. A connection
//! lost before COMMIT was sent has changed nothing; one lost after is [`CommitError::Unknown`],
//! and the next read first waits that transaction out and passes a barrier (`schema::barrier`).

mod link;
mod options;
mod plan;
mod reader;
mod schema;
mod trouble;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::Object;
use tokio::sync::{Mutex, mpsc, oneshot};

pub use options::{PostgresAddress, PostgresOptions};
pub use schema::SCHEMA;
pub use trouble::PostgresError;

use super::{Batch, Cell, CommitError, Place, Snapshot, Store, StoreError, Table, failed_checks, within_limits};
use link::Link;
use plan::{Plan, Rows};
use reader::Wanted;
use trouble::Trouble;

/// Reads that wait for their turn; a read beyond them waits for a place.
const QUEUE_MAX: usize = 4096;
/// How often a batch is tried that the database took back for others' sake.
const TRIES_MAX: u32 = 20;
/// The longest statement that is not a commit; longer than the server's own limit.
const STATEMENT_WAIT: Duration = Duration::from_secs(15);

const SCAN: &str = "
SELECT key, version, value FROM jadegate_cell
 WHERE space = $1 AND key >= $2 AND key < $3 ORDER BY key LIMIT $4";

// As in `reader`, and the rows are locked in the order of the arrays.
const LOCK: &str = "
SELECT w.n, c.version
  FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS w (space, key, n)
 CROSS JOIN LATERAL (SELECT t.version FROM jadegate_cell AS t
                      WHERE t.space = w.space AND t.key = w.key FOR UPDATE) AS c";

const INSERT: &str = "
INSERT INTO jadegate_cell (space, key, version, value)
SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bytea[])";

const UPSERT: &str = "
INSERT INTO jadegate_cell (space, key, version, value)
SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bytea[])
ON CONFLICT (space, key) DO UPDATE SET version = excluded.version, value = excluded.value";

const DELETE: &str = "DELETE FROM jadegate_cell WHERE space = $1 AND key = ANY($2)";

// Read-write by name: a standby refuses it, and the next connection looks for another server.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

const BEGIN_SNAPSHOT: &str = "
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL idle_in_transaction_session_timeout = 0;
SELECT count(*) FROM jadegate_schema;
";

/// A store in a database that other processes use as well.
pub struct PostgresStore {
    inner: Arc<Inner>,
    queue: mpsc::Sender<Wanted>,
}

struct Inner {
    link: Link,
    /// Batches whose outcome nobody knows, to be waited out before the next read.
    doubts: Mutex<Vec<Batch>>,
    doubtful: AtomicBool,
}

impl PostgresStore {
    /// Connects, and makes the tables where there are none yet.
    pub async fn open(options: PostgresOptions) -> Result<Self, PostgresError> {
        let link = Link::new(options)?;
        schema::prepare(&link, link.options().create).await?;
        let inner = Arc::new(Inner { link, doubts: Mutex::default(), doubtful: AtomicBool::new(false) });
        let (queue, wanted) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(reader::run(Arc::clone(&inner), wanted));
        Ok(Self { inner, queue })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresStore({})", self.inner.link.options().place())
    }
}

#[async_trait::async_trait]
impl Store for PostgresStore {
    async fn get(&self, place: &Place) -> Result<Option<Cell>, StoreError> {
        let found = self.get_many(std::slice::from_ref(place)).await?;
        Ok(found.into_iter().next().flatten())
    }

    async fn get_many(&self, places: &[Place]) -> Result<Vec<Option<Cell>>, StoreError> {
        let Some(first) = places.first() else { return Ok(Vec::new()) };
        let failed =
            |reason: String| StoreError { doing: format!("read a cell of table {}", first.table.name()), reason };
        let gone = || failed("the store's reader has ended".to_owned());
        let (done, found) = oneshot::channel();
        self.queue.send(Wanted { places: places.to_vec(), done }).await.map_err(|_| gone())?;
        found.await.map_err(|_| gone())?.map_err(failed)
    }

    async fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let found = self.inner.patiently(|| self.inner.scan(table, from, to, limit)).await;
        found.map_err(|trouble| StoreError {
            doing: format!("scan table {}", table.name()),
            reason: trouble.to_string(),
        })
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        within_limits(&batch)?;
        if batch == Batch::default() {
            return Ok(());
        }
        // In a task of its own: who stops waiting does not take it back, nor leave it half done.
        let inner = Arc::clone(&self.inner);
        let done = tokio::spawn(async move { inner.commit(batch).await });
        done.await.unwrap_or_else(|e| Err(CommitError::Unknown(e.to_string())))
    }

    async fn snapshot(&self) -> Result<Option<Box<dyn Snapshot>>, StoreError> {
        let begun = self.inner.patiently(|| async {
            let client = self.inner.link.client().await?;
            // What is read is of the moment of the first statement; whoever reads may take their time.
            client.batch_execute(BEGIN_SNAPSHOT).await.map_err(|e| Trouble::of(&e))?;
            Ok(client)
        });
        let failed = |trouble: Trouble| StoreError {
            doing: "begin a view of the store".to_owned(),
            reason: trouble.to_string(),
        };
        Ok(Some(Box::new(Moment(Some(begun.await.map_err(failed)?)))))
    }
}

/// A transaction that sees one moment.
struct Moment(Option<Object>);

#[async_trait::async_trait]
impl Snapshot for Moment {
    async fn scan(
        &mut self,
        table: Table,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Cell)>, StoreError> {
        let failed = |reason: String| StoreError { doing: format!("scan table {}", table.name()), reason };
        let Some(client) = self.0.as_ref().filter(|_| from < to && limit > 0) else { return Ok(Vec::new()) };
        scan(client, table, from, to, limit).await.map_err(|trouble| failed(trouble.to_string()))
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(close);
    }
}

async fn scan(
    client: &Object,
    table: Table,
    from: &[u8],
    to: &[u8],
    limit: usize,
) -> Result<Vec<(Vec<u8>, Cell)>, Trouble> {
    let statement = client.prepare_cached(SCAN).await.map_err(|e| Trouble::of(&e))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let space = table.name().as_bytes();
    let rows = client.query(&statement, &[&space, &from, &to, &limit]).await.map_err(|e| Trouble::of(&e))?;
    let cell = |row: &tokio_postgres::Row| {
        let version: i64 = row.try_get(1)?;
        Ok((row.try_get(0)?, Cell { version: version.cast_unsigned(), value: row.try_get(2)? }))
    };
    rows.iter().map(cell).collect::<Result<_, _>>().map_err(|e| Trouble::of(&e))
}

impl Inner {
    /// Reads, behind whatever is in doubt, again and again while the way to the database is lost.
    async fn patiently<T, F: Future<Output = Result<T, Trouble>>>(&self, read: impl Fn() -> F) -> Result<T, Trouble> {
        let until = tokio::time::Instant::now() + self.link.options().patience;
        loop {
            let tried = tokio::time::timeout(self.link.options().commit_wait, async {
                self.settle().await?;
                read().await
            });
            match tried.await.unwrap_or_else(|_| Err(Trouble::Failed("the database did not answer in time".to_owned())))
            {
                Err(Trouble::Lost(_) | Trouble::Collided(_)) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                done => return done,
            }
        }
    }

    async fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Cell)>, Trouble> {
        scan(&self.link.client().await?, table, from, to, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let plan = Plan::of(&batch);
        let until = tokio::time::Instant::now() + self.link.options().patience;
        let mut said = String::new();
        for tried in 1..=TRIES_MAX {
            let trouble = match self.attempt(&batch, &plan).await {
                Ok(()) => return Ok(()),
                Err(Attempt::Ends(error)) => {
                    if matches!(error, CommitError::Unknown(_)) {
                        self.doubts.lock().await.push(batch.clone());
                        self.doubtful.store(true, Ordering::SeqCst);
                    }
                    return Err(error);
                }
                Err(Attempt::Nothing(trouble)) => trouble,
            };
            said = trouble.to_string();
            let again = match trouble {
                Trouble::Lost(_) => tokio::time::Instant::now() < until,
                Trouble::Collided(_) => true,
                Trouble::Login(_) | Trouble::Failed(_) => false,
            };
            if !again {
                break;
            }
            tokio::time::sleep(Duration::from_millis(u64::from(tried) * 3)).await;
        }
        Err(CommitError::Failed(said))
    }

    async fn attempt(&self, batch: &Batch, plan: &Plan<'_>) -> Result<(), Attempt> {
        let (client, versions) = self.hold(&plan.checked).await?;
        let at: HashMap<&Place, u64> =
            versions.into_iter().filter_map(|(n, v)| Some((*plan.checked.get(n)?, v))).collect();
        let failed = failed_checks(&batch.checks, |place| Ok::<_, Trouble>(at.get(place).copied()))?;
        if !failed.is_empty() {
            give_back(client).await;
            return Err(Attempt::Ends(CommitError::Conflict(failed)));
        }
        self.write(client, plan).await
    }

    /// First round trip: begins, locks the rows at these places and reads their versions, by index.
    async fn hold(&self, places: &[&Place]) -> Result<(Object, Vec<(usize, u64)>), Trouble> {
        let client = self.link.client().await?;
        let held = tokio::time::timeout(STATEMENT_WAIT, async {
            let lock = client.prepare_cached(LOCK).await?;
            let spaces: Vec<&[u8]> = places.iter().map(|place| place.table.name().as_bytes()).collect();
            let keys: Vec<&[u8]> = places.iter().map(|place| place.key.as_slice()).collect();
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&spaces, &keys];
            let (begun, rows) = tokio::join!(biased; client.batch_execute(BEGIN), client.query(&lock, &values));
            begun?;
            let version = |row: &tokio_postgres::Row| {
                let (at, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                Ok((usize::try_from(at - 1).unwrap_or(usize::MAX), version.cast_unsigned()))
            };
            rows?.iter().map(version).collect::<Result<Vec<_>, tokio_postgres::Error>>()
        });
        match held.await {
            Ok(Ok(versions)) => Ok((client, versions)),
            Ok(Err(error)) => {
                close(client);
                Err(Trouble::of(&error))
            }
            Err(_) => {
                close(client);
                Err(Trouble::Lost("the database did not answer in time".to_owned()))
            }
        }
    }

    /// Second round trip: writes and commits.
    async fn write(&self, client: Object, plan: &Plan<'_>) -> Result<(), Attempt> {
        let prepared = async {
            Ok::<_, tokio_postgres::Error>((client.prepare_cached(INSERT).await?, client.prepare_cached(UPSERT).await?))
        };
        let (insert, upsert) = match tokio::time::timeout(STATEMENT_WAIT, prepared).await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(error)) => {
                close(client);
                return Err(Trouble::of(&error).into());
            }
            Err(_) => {
                close(client);
                return Err(Trouble::Lost("the database did not answer in time".to_owned()).into());
            }
        };
        let before = self.link.warnings();
        let written = tokio::time::timeout(self.link.options().commit_wait, async {
            let (inserts, upserts) = (rows(&client, &insert, &plan.inserts), rows(&client, &upsert, &plan.upserts));
            if plan.deletes.is_empty() {
                return tokio::join!(biased; inserts, upserts, client.batch_execute("COMMIT"));
            }
            let (inserted, mut upserted) = tokio::join!(biased; inserts, upserts);
            for (space, keys) in &plan.deletes {
                if inserted.is_ok() && upserted.is_ok() {
                    upserted = delete(&client, space, keys).await;
                }
            }
            (inserted, upserted, client.batch_execute("COMMIT").await)
        });
        let Ok((inserted, upserted, committed)) = written.await else {
            close(client);
            return Err(Attempt::Ends(CommitError::Unknown("the database did not answer in time".to_owned())));
        };
        // A statement that the server refused: its COMMIT was a ROLLBACK, whatever came of it.
        for statement in [inserted, upserted] {
            if let Err(error) = statement
                && error.as_db_error().is_some()
            {
                close_unless(committed.is_ok(), client);
                return Err(Trouble::of(&error).into());
            }
        }
        match committed {
            Ok(()) if self.link.warnings() == before => Ok(()),
            Ok(()) => {
                close(client);
                Err(Attempt::Ends(CommitError::Unknown("the database broke off its wait for the standby".to_owned())))
            }
            Err(error) => {
                close(client);
                Err(match Trouble::of(&error) {
                    collided @ Trouble::Collided(_) => collided.into(),
                    // Anything else may have come after the commit.
                    other => Attempt::Ends(CommitError::Unknown(other.to_string())),
                })
            }
        }
    }

    /// Waits out every batch in doubt, and passes a barrier: what is read after is what counts.
    async fn settle(&self) -> Result<(), Trouble> {
        if !self.doubtful.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut doubts = self.doubts.lock().await;
        for batch in doubts.iter() {
            // Its locks are waited for, and so are its insertions; neither is kept.
            let plan = Plan::of(batch);
            let (client, _) = self.hold(&plan.checked).await?;
            let insert = client.prepare_cached(INSERT).await.map_err(|e| Trouble::of(&e))?;
            let inserted = rows(&client, &insert, &plan.inserts).await;
            give_back(client).await;
            match inserted.map_err(|e| Trouble::of(&e)) {
                Ok(()) | Err(Trouble::Collided(_)) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        schema::barrier(&self.link).await?;
        doubts.clear();
        self.doubtful.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// An attempt that did not commit.
enum Attempt {
    /// This is what the caller is told.
    Ends(CommitError),
    /// Nothing was changed.
    Nothing(Trouble),
}

impl From<Trouble> for Attempt {
    fn from(trouble: Trouble) -> Self {
        Self::Nothing(trouble)
    }
}

async fn rows(
    client: &Object,
    statement: &tokio_postgres::Statement,
    rows: &Rows<'_>,
) -> Result<(), tokio_postgres::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    client.execute(statement, &[&rows.spaces, &rows.keys, &rows.versions, &rows.values]).await.map(|_| ())
}

async fn delete(client: &Object, space: &[u8], keys: &[&[u8]]) -> Result<(), tokio_postgres::Error> {
    let statement = client.prepare_cached(DELETE).await?;
    client.execute(&statement, &[&space, &keys]).await.map(|_| ())
}

/// Takes the transaction back and returns the connection, or closes what cannot be taken back.
async fn give_back(client: Object) {
    let done = tokio::time::timeout(STATEMENT_WAIT, client.batch_execute("ROLLBACK")).await;
    close_unless(matches!(done, Ok(Ok(()))), client);
}

fn close_unless(usable: bool, client: Object) {
    if !usable {
        close(client);
    }
}

/// A connection whose transaction nobody knows is not used again; the server takes back what is open.
fn close(client: Object) {
    drop(Object::take(client));
}
