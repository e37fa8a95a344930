//! The tables, as one migration, and the version by which another binary notices them.
//!
//! Plain SQL: two tables, no trigger, no function, no sequence, so that a database which speaks
//! PostgreSQL's protocol without being it can hold them. Names and keys are bytes: no collation
//! decides their order.

use tokio_postgres::error::SqlState;

use super::link::{Link, reason};
use super::{PostgresError, Trouble};

/// The version of the tables that this binary reads and writes.
pub const SCHEMA: i32 = 1;

const MIGRATION: &str = "
CREATE TABLE jadegate_schema (
    version integer NOT NULL PRIMARY KEY,
    barrier bigint NOT NULL
);
CREATE TABLE jadegate_cell (
    space bytea NOT NULL,
    key bytea NOT NULL,
    version bigint NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (space, key)
);
";

/// Two gateways may start at once; the one that comes second finds what the first has made.
const TRIES_MAX: usize = 5;

/// Makes the tables where there are none (and `create` says so), and refuses those of another version.
pub(super) async fn prepare(link: &Link, create: bool) -> Result<(), PostgresError> {
    let place = || link.options().place();
    let failed = |error: &tokio_postgres::Error| PostgresError::Schema { place: place(), reason: reason(error) };
    for _ in 0..TRIES_MAX {
        let client = link.client().await.map_err(|trouble| trouble.open(link.options()))?;
        match client.query("SELECT version FROM jadegate_schema", &[]).await {
            Ok(rows) => {
                let found: Vec<i32> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
                return match found.as_slice() {
                    [SCHEMA] => barrier(link).await.map_err(|trouble| trouble.open(link.options())),
                    [found] if *found > SCHEMA => Err(PostgresError::Newer { place: place(), found: *found }),
                    [found] => Err(PostgresError::Older { place: place(), found: *found }),
                    _ => Err(PostgresError::Schema {
                        place: place(),
                        reason: "jadegate_schema does not hold one row".to_owned(),
                    }),
                };
            }
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {}
            Err(error) => return Err(failed(&error)),
        }
        if !create {
            return Err(PostgresError::NoTables { place: place() });
        }
        let script =
            format!("BEGIN;{MIGRATION}INSERT INTO jadegate_schema (version, barrier) VALUES ({SCHEMA}, 0);COMMIT;");
        if let Err(error) = client.batch_execute(&script).await {
            client.batch_execute("ROLLBACK").await.map_err(|error| failed(&error))?;
            let raced = [
                SqlState::UNIQUE_VIOLATION,
                SqlState::DUPLICATE_TABLE,
                SqlState::DUPLICATE_OBJECT,
                SqlState::T_R_SERIALIZATION_FAILURE,
                SqlState::T_R_DEADLOCK_DETECTED,
            ];
            match error.code() {
                Some(code) if raced.contains(code) => {}
                Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    return Err(PostgresError::NotAllowed { place: place(), reason: reason(&error) });
                }
                _ => return Err(failed(&error)),
            }
        }
    }
    Err(PostgresError::Schema { place: place(), reason: "the tables could not be made".to_owned() })
}

/// A commit of its own, waited for as every commit is: what was visible before it is durable
/// after it, on the standby too.
///
/// A commit whose wait for the standby was broken off is visible on the primary and may be lost with
/// it. So what is read to find out about an unknown outcome is read behind a barrier.
pub(super) async fn barrier(link: &Link) -> Result<(), Trouble> {
    let client = link.client().await?;
    let before = link.warnings();
    let done = client.execute("UPDATE jadegate_schema SET barrier = barrier + 1", &[]).await;
    done.map_err(|error| Trouble::of(&error))?;
    if link.warnings() != before {
        return Err(Trouble::Lost("a commit was not confirmed by the standby".to_owned()));
    }
    Ok(())
}
