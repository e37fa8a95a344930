//! Connections: made, set up, watched for warnings, and handed out.

use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresError, PostgresOptions, Trouble};

/// What every connection begins with. A server that would acknowledge before the disk has it (or the
/// standby, where there is one) is told not to; a statement that waits for a lock gives up in the
/// end, and a transaction that nobody goes on with is taken back. COMMIT is not timed by the server.
const SET_UP: &str = "
SELECT set_config('synchronous_commit', 'on', false)
 WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply');
SET statement_timeout = '10s';
SET idle_in_transaction_session_timeout = '30s';
";

/// The pause after a connection that could not be made.
const PAUSE: Duration = Duration::from_millis(100);

/// The way to the database.
pub(super) struct Link {
    pool: Pool,
    options: PostgresOptions,
    warnings: Arc<AtomicU64>,
}

impl Link {
    pub fn new(options: PostgresOptions) -> Result<Self, PostgresError> {
        let warnings = Arc::new(AtomicU64::new(0));
        let connecting = Connecting { tls: options.tls()?, warnings: Arc::clone(&warnings) };
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(options.config(), connecting, recycling);
        let pool = Pool::builder(manager)
            .max_size(options.connections.max(2))
            .build()
            .map_err(|e| PostgresError::Connect { place: options.place(), reason: e.to_string() })?;
        Ok(Self { pool, options, warnings })
    }

    pub fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// How many warnings the server has sent. One during a commit says that it broke off the wait for
    /// its standby: the commit is there, and may still be lost.
    pub fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::SeqCst)
    }

    /// A connection to a server that takes writes, looked for as long as a failover may take. What no
    /// waiting mends (a wrong password, say) fails at once.
    pub async fn client(&self) -> Result<Object, Trouble> {
        let looked = tokio::time::timeout(self.options.patience, async {
            loop {
                match self.pool.get().await {
                    Ok(client) => return Ok(client),
                    Err(PoolError::Backend(error)) => match Trouble::of(&error) {
                        Trouble::Lost(_) => tokio::time::sleep(PAUSE).await,
                        other => return Err(other),
                    },
                    Err(other) => return Err(Trouble::Failed(other.to_string())),
                }
            }
        });
        match looked.await {
            Ok(found) => found,
            // Asked once more for what is in the way.
            Err(_) => match tokio::time::timeout(self.options.patience, self.pool.get()).await {
                Ok(Ok(client)) => Ok(client),
                Ok(Err(PoolError::Backend(error))) => Err(Trouble::of(&error)),
                Ok(Err(error)) => Err(Trouble::Lost(error.to_string())),
                Err(_) => Err(Trouble::Lost("no connection became free or could be made in time".to_owned())),
            },
        }
    }
}

/// Makes a connection.
struct Connecting {
    tls: MakeRustlsConnect,
    warnings: Arc<AtomicU64>,
}

type Connected<'a> = Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Connecting {
    fn connect(&self, config: &Config) -> Connected<'_> {
        let config = config.clone();
        Box::pin(async move {
            let (client, mut connection) = config.connect(self.tls.clone()).await?;
            let warnings = Arc::clone(&self.warnings);
            let task = tokio::spawn(async move {
                loop {
                    match poll_fn(|cx| connection.poll_message(cx)).await {
                        Some(Ok(AsyncMessage::Notice(notice))) if *notice.code() == SqlState::WARNING => {
                            warnings.fetch_add(1, Ordering::SeqCst);
                            tracing::warn!(said = notice.message(), "the database warns");
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => {
                            tracing::warn!(reason = reason(&error), "a connection to the database was lost");
                            return;
                        }
                        None => return,
                    }
                }
            });
            client.batch_execute(SET_UP).await?;
            Ok((client, task))
        })
    }
}

/// What an error says, without the detail in which a server repeats keys and values.
pub(super) fn reason(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        write!(text, ": {inner}").ok();
        cause = inner.source();
    }
    text
}
