//! What goes wrong on the way to the database and in it, and what is to be made of it.

use std::error::Error as _;
use std::fmt;
use std::io;

use tokio_postgres::error::SqlState;

use super::link::reason;
use super::options::PostgresOptions;
use super::schema::SCHEMA;

/// Why a store in PostgreSQL does not open. None of these repeats a password.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No server of the address answers as it should.
    #[error(
        "cannot connect to {place}: {reason}; see that it runs and can be reached from here, and correct `store` in jadegate.toml if it lies elsewhere"
    )]
    Connect {
        /// Which database.
        place: String,
        /// What stood in the way.
        reason: String,
    },
    /// The server does not let the user in.
    #[error(
        "{place} does not let the user {user} in: {reason}; correct the file that `store_password_file` names, or pg_hba.conf on the server"
    )]
    Login {
        /// Which database.
        place: String,
        /// Which user.
        user: String,
        /// What the server said.
        reason: String,
    },
    /// Only standbys answer.
    #[error("every server of {place} is read-only: promote one, or name the primary in `store` too")]
    ReadOnly {
        /// Which database.
        place: String,
    },
    /// The way there would be plain.
    #[error(
        "{place} would be reached without TLS: name the authority of its certificate as `store_ca`; plain is allowed over a Unix socket, and on loopback with `store_plain = true`"
    )]
    Plain {
        /// Which database.
        place: String,
    },
    /// The authorities cannot be read.
    #[error("the file that `store_ca` names cannot be used: {0}; it holds PEM certificates of authorities")]
    Authorities(String),
    /// The user may not make tables.
    #[error("the tables in {place} cannot be made: {reason}; make the user the owner of the database")]
    NotAllowed {
        /// Which database.
        place: String,
        /// What the server said.
        reason: String,
    },
    /// There are no tables.
    #[error("{place} holds no store yet; name the configuration of a deployment that has run")]
    NoTables {
        /// Which database.
        place: String,
    },
    /// The tables are of a later version.
    #[error(
        "the tables in {place} have version {found}, this jadegate knows {SCHEMA}: run the newer jadegate that made them"
    )]
    Newer {
        /// Which database.
        place: String,
        /// Their version.
        found: i32,
    },
    /// The tables are of an earlier version.
    #[error(
        "the tables in {place} have version {found}, this jadegate needs {SCHEMA}: export with the older jadegate, and import into an empty database"
    )]
    Older {
        /// Which database.
        place: String,
        /// Their version.
        found: i32,
    },
    /// The tables cannot be read.
    #[error(
        "the tables in {place} cannot be used: {reason}; see whether jadegate_schema and jadegate_cell are this deployment's"
    )]
    Schema {
        /// Which database.
        place: String,
        /// What the server said.
        reason: String,
    },
}

/// What came of a statement that did not do its work.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection is gone, or the server takes no writes: another attempt may find a better one.
    Lost(String),
    /// The transaction was taken back for the sake of another: the same again may succeed.
    Collided(String),
    /// The server does not let us in.
    Login(String),
    /// Anything else that the server said.
    Failed(String),
}

impl Trouble {
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let said = reason(error);
        let Some(code) = error.code() else {
            // A certificate that is not trusted is not trusted the next time either.
            return if is_tls(error) { Self::Failed(said) } else { Self::Lost(said) };
        };
        match *code {
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED | SqlState::UNIQUE_VIOLATION => {
                Self::Collided(said)
            }
            SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Self::Login(said),
            // The server goes down or comes up, or has become a standby, or has no place left.
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::READ_ONLY_SQL_TRANSACTION
            | SqlState::TOO_MANY_CONNECTIONS => Self::Lost(said),
            _ => Self::Failed(said),
        }
    }

    pub(super) fn open(self, options: &PostgresOptions) -> PostgresError {
        let place = options.place();
        match self {
            Self::Login(reason) => PostgresError::Login { place, user: options.user(), reason },
            Self::Lost(reason) if reason.contains("does not allow writes") => PostgresError::ReadOnly { place },
            Self::Lost(reason) | Self::Collided(reason) | Self::Failed(reason) => {
                PostgresError::Connect { place, reason }
            }
        }
    }
}

/// Whether TLS said no, and not the connection under it.
fn is_tls(error: &tokio_postgres::Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        cause = inner.source();
    }
    false
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Lost(said) | Self::Collided(said) | Self::Login(said) | Self::Failed(said)) = self;
        f.write_str(said)
    }
}
