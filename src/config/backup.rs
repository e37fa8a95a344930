//! Backups of a deployment's store, from the side of its folders: files, and the socket of a running gateway.
//!
//! A stopped deployment's store is read here. A running gateway holds its store alone, so it makes the
//! backup itself and sends it through a socket in the store's folder, which its owner alone can reach;
//! what comes is sealed already. A backup lies under a name of its own (`.partial`) until it is whole
//! and durable. No backup is written over another file, and none holds a key.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::Config;
use super::deployment::DeploymentError;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::gateway::Gateway;
use crate::ledger::backup::{BackupError, ExportError, ImportError, Imported, export, import, inspect};
use crate::ledger::health::{Health, health};
use crate::store::sled::{OpenError, SledStore};

/// The socket in the store's folder on which a running gateway makes backups.
const SOCKET: &str = "export.sock";
/// What comes through the socket: a piece of the backup, its end, or why there is none.
const PIECE: u8 = 1;
const WHOLE: u8 = 2;
const FAILED: u8 = 3;
/// The longest piece.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Why there is no backup, or why it is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BackupFailure {
    /// The deployment does not open.
    #[error(transparent)]
    Deployment(#[from] DeploymentError),
    /// The backup's own file.
    #[error("{}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No backup could be made.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The running gateway made none.
    #[error("the running gateway made no backup: {0}")]
    Gateway(String),
    /// It was not taken.
    #[error("{}: {source}", path.display())]
    Import {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: ImportError,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// A backup that is whole, durable and under its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The file's length.
    pub bytes: u64,
    /// Whether a running gateway made it.
    pub running: bool,
}

impl Config {
    /// Makes a backup of the store, by the running gateway if there is one.
    pub async fn export_store(
        &self,
        out: &Path,
        (clock, entropy): (&dyn Clock, &dyn Entropy),
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Made, BackupFailure> {
        let keys = self.open_keys()?;
        if let Some(missing) = self.store.folder().filter(|folder| !SledStore::is_at(folder)) {
            return Err(DeploymentError::NoStore(missing.to_owned()).into());
        }
        let mut partial = Partial::begin(out)?;
        let bytes = match self.open_store(false).await {
            Ok(store) => {
                let at = (clock.now(), entropy);
                let made = export(&store, &keys, None, at, &mut partial.file, progress).await;
                (made.map_err(|e| partial.failed(e))?.bytes, false)
            }
            Err(in_use @ DeploymentError::Store(OpenError::InUse { .. })) => {
                match self.fetch(&mut partial, progress).await? {
                    Some(bytes) => (bytes, true),
                    None => return Err(in_use.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        partial.finish().await?;
        Ok(Made { bytes: bytes.0, running: bytes.1 })
    }

    /// Has the running gateway send a backup; none if nobody listens.
    async fn fetch(
        &self,
        partial: &mut Partial,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Option<u64>, BackupFailure> {
        let Some(folder) = self.store.folder() else { return Ok(None) };
        let (_folder, path) = socket_path(folder).map_err(|e| BackupFailure::Gateway(e.to_string()))?;
        let Ok(mut socket) = UnixStream::connect(path).await else { return Ok(None) };
        let gone = |e: io::Error| BackupFailure::Gateway(format!("it went away in the middle ({e}); make it again"));
        let (mut bytes, mut piece) = (0, Vec::new());
        loop {
            let kind = socket.read_u8().await.map_err(gone)?;
            let length = socket.read_u32().await.map_err(gone)? as usize;
            if length > PIECE_BYTES_MAX {
                return Err(BackupFailure::Gateway("it says something that this jadegate does not know".into()));
            }
            piece.resize(length, 0);
            socket.read_exact(&mut piece).await.map_err(gone)?;
            match kind {
                PIECE => partial.file.write_all(&piece).await.map_err(|e| partial.failed(e))?,
                WHOLE => return Ok(Some(bytes)),
                _ => return Err(BackupFailure::Gateway(String::from_utf8_lossy(&piece).into_owned())),
            }
            bytes += length as u64;
            progress(bytes);
        }
    }

    /// Reads a backup to its end, then imports it into the empty store that the configuration names.
    pub async fn import_store(&self, from: &Path, progress: &mut dyn FnMut(u64)) -> Result<Imported, BackupFailure> {
        let keys = Arc::new(self.open_keys()?);
        let file = |e: io::Error| BackupFailure::File { path: from.to_owned(), why: e.to_string() };
        let failed = |source: ImportError| BackupFailure::Import { path: from.to_owned(), source };
        let read = || File::open(from).map(|file| io::BufReader::with_capacity(1 << 20, file)).map_err(file);
        // Before there is a store: a file that is none leaves nothing behind.
        inspect(read()?, &keys, progress).map_err(|e: BackupError| failed(e.into()))?;
        let store = self.open_store(true).await?;
        import(read()?, &store, &keys, progress).await.map_err(failed)
    }

    /// Reads the whole store of a stopped deployment, without keys.
    pub async fn verify_store(&self, progress: &mut dyn FnMut(u64)) -> Result<Health, BackupFailure> {
        Ok(health(&self.open_store(false).await?, progress).await?)
    }
}

/// The file of a backup that is being made.
struct Partial {
    file: tokio::fs::File,
    name: PathBuf,
    wanted: PathBuf,
    whole: bool,
    _lock: File,
}

impl Partial {
    fn begin(wanted: &Path) -> Result<Self, BackupFailure> {
        let mut name = wanted.as_os_str().to_owned();
        name.push(".partial");
        let (name, wanted) = (PathBuf::from(name), wanted.to_owned());
        let failed = |path: &Path, why: String| BackupFailure::File { path: path.to_owned(), why };
        if wanted.symlink_metadata().is_ok() {
            return Err(failed(
                &wanted,
                "it is there already, and no backup is written over; name another file".into(),
            ));
        }
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name);
        let file = open.map_err(|e| failed(&name, e.to_string()))?;
        let lock = file.try_clone().map_err(|e| failed(&name, e.to_string()))?;
        if lock.try_lock().is_err() {
            return Err(failed(&name, "another `jadegate store export` is writing it; wait for its end".into()));
        }
        // What a cut-off export left is begun anew.
        let cleared = file.set_len(0).and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o600)));
        cleared.map_err(|e| failed(&name, e.to_string()))?;
        Ok(Self { file: tokio::fs::File::from_std(file), name, wanted, whole: false, _lock: lock })
    }

    fn failed(&self, why: impl std::fmt::Display) -> BackupFailure {
        BackupFailure::File { path: self.name.clone(), why: format!("no backup was made: {why}") }
    }

    /// Makes it durable and gives it its name.
    async fn finish(mut self) -> Result<(), BackupFailure> {
        let done = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            fs::rename(&self.name, &self.wanted)?;
            let folder = self.wanted.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()
        };
        done.await.map_err(|e: io::Error| self.failed(e))?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole {
            let _its_name_says_what_it_is = fs::remove_file(&self.name);
        }
    }
}

/// The socket's path through the open folder, so that a long path is no matter.
fn socket_path(folder: &Path) -> io::Result<(File, PathBuf)> {
    use std::os::fd::AsRawFd as _;
    let open = File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd()));
    Ok((open, path))
}

/// Makes backups for whoever asks at the socket of a running gateway's store, one at a time.
pub struct BackupSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl std::fmt::Debug for BackupSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackupSocket({})", self.path.display())
    }
}

impl BackupSocket {
    /// Listens in the folder of a store that this process holds.
    pub fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        // The store is ours, so what lies here was left by a process that was killed.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let (_folder, through) = socket_path(folder)?;
        let listener = UnixListener::bind(through)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Serves until it is dropped.
    pub async fn serve(self, gateway: Arc<Gateway>) {
        loop {
            let Ok((socket, _)) = self.listener.accept().await else {
                // No file descriptor is left: connections that end give some back.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let (mut near, far) = tokio::io::duplex(PIECE_BYTES_MAX);
            let made = async {
                let made = gateway.export_store(&mut near).await;
                drop(near);
                made
            };
            let (made, sent) = tokio::join!(made, send(far, socket));
            let told = match (made, sent) {
                (Ok(made), Ok(mut socket)) => {
                    tracing::info!(
                        cells = made.cells,
                        bytes = made.bytes,
                        paused_ms = made.paused.as_millis(),
                        "a backup was made"
                    );
                    tell(&mut socket, WHOLE, &[]).await
                }
                (Err(error), Ok(mut socket)) => {
                    tracing::error!(%error, "no backup was made");
                    tell(&mut socket, FAILED, error.to_string().as_bytes()).await
                }
                (_, Err(error)) => Err(error),
            };
            if let Err(error) = told {
                tracing::warn!(%error, "whoever wanted a backup went away");
            }
        }
    }
}

impl Drop for BackupSocket {
    fn drop(&mut self) {
        let _already_gone = fs::remove_file(&self.path);
    }
}

/// Sends on what comes, in pieces.
async fn send(mut from: tokio::io::DuplexStream, mut to: UnixStream) -> io::Result<UnixStream> {
    let mut piece = vec![0; PIECE_BYTES_MAX];
    loop {
        let read = from.read(&mut piece).await?;
        match piece.get(..read) {
            Some(piece) if !piece.is_empty() => tell(&mut to, PIECE, piece).await?,
            _ => return Ok(to),
        }
    }
}

async fn tell(to: &mut UnixStream, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let bytes = bytes.get(..PIECE_BYTES_MAX).unwrap_or(bytes);
    to.write_u8(kind).await?;
    to.write_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).await?;
    to.write_all(bytes).await
}
