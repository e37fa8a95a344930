//! Opening a store's folder: who may, whether it is whole, and what to do where it is not.
//!
//! A folder holds `MARKER` (that a store was made here, and by which format), `lock` (held by the one
//! process that uses it), `sled/` (sled's own files), `closed` (see `reach`) and `set-aside-<n>/` (what
//! stood in the way of a start). Invariants: nothing is written before the lock is held; once there is a marker, an empty
//! `sled/` is never taken for a new store; a file that is in the way is moved, never deleted.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::contain::contained;
use super::{SledOptions, reach, reason};

/// The format that this version makes and reads.
const FORMAT: u32 = 1;
pub(super) const MARKER: &str = "MARKER";
const MARKER_WORDS: &str = "jadegate store format ";
/// sled's own unit of allocation: where it looks for a header.
const SEGMENT_BYTES: u64 = 512 * 1024;
/// How long a wait for a lock is, before it is tried again.
const LOCK_STEP: Duration = Duration::from_millis(20);

/// Why a store could not be opened. Each names the folder and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused something.
    #[error("the store in {} cannot be opened: could not {doing}: {reason}; make its folder readable and writable for the gateway, on a disk with room", folder.display())]
    Io {
        /// The store's folder.
        folder: PathBuf,
        /// What was tried.
        doing: String,
        /// What the system said.
        reason: String,
    },
    /// Somebody else uses it.
    #[error(
        "the store in {} is in use by another process; stop that one first, or give this one a folder of its own",
        folder.display()
    )]
    InUse {
        /// The store's folder.
        folder: PathBuf,
    },
    /// Its format is of a later version than this one knows.
    #[error(
        "the store in {} was made by a newer jadegate (format {found}, this one knows {FORMAT}); start that version. Nothing was changed",
        folder.display()
    )]
    Newer {
        /// The store's folder.
        folder: PathBuf,
        /// The format that the marker names.
        found: u32,
    },
    /// Its marker says nothing that this version understands.
    #[error(
        "the file MARKER in {} is not one that jadegate writes; check that the folder is a store, and restore it from a backup if it is. Nothing was changed",
        folder.display()
    )]
    BadMarker {
        /// The store's folder.
        folder: PathBuf,
    },
    /// A store was made here, and its data is gone.
    #[error(
        "the store in {} was emptied: its MARKER is there but its data is not. Restore it from a backup; to begin anew on purpose, remove the whole folder",
        folder.display()
    )]
    Emptied {
        /// The store's folder.
        folder: PathBuf,
    },
    /// Its data cannot be read.
    #[error(
        "the store in {} is damaged: {reason}. Keep a copy of the folder, then restore it from a backup",
        folder.display()
    )]
    Damaged {
        /// The store's folder.
        folder: PathBuf,
        /// What sled said.
        reason: String,
    },
    /// It was never finished, and cannot be read.
    #[error(
        "the store in {} has no MARKER and cannot be read: {reason}. If its creation was cut off, remove the folder and start again; if it was in use before, restore it from a backup",
        folder.display()
    )]
    Unfinished {
        /// The store's folder.
        folder: PathBuf,
        /// What sled said.
        reason: String,
    },
}

/// The folder of an open store. It stays locked until this is dropped.
pub(super) struct Folder {
    path: PathBuf,
    lock_wait: Duration,
    opened: bool,
    _lock: File,
}

/// What is open once a store is.
pub(super) struct Opened {
    /// The open database.
    pub db: sled::Db,
    /// sled's data file, to sync it: sled's own `flush` does not.
    pub data: File,
    /// The number of the last group of commits.
    pub number: u64,
    /// The folder that it holds.
    pub folder: Folder,
}

/// Opens or makes the store in this folder. Blocks; contains sled's panics.
pub(super) fn open(path: &Path, options: &SledOptions) -> Result<Opened, OpenError> {
    read_marker(path)?;
    let made = make_folders(path)?;
    let mut folder = Folder::lock(path, options.lock_wait)?;
    // Read again: who held the lock before may have made the store.
    let marked = read_marker(path)?;
    if marked && folder.is_emptied()? {
        return Err(OpenError::Emptied { folder: path.to_owned() });
    }
    // A cut-off start leaves them, and sled takes them for its newest snapshot.
    folder.set_aside(|name| name.starts_with("snap.") && name.ends_with(".generating"))?;
    let db = folder.open_sled(options, marked)?;
    folder.opened = true;
    if marked && !db.was_recovered() {
        return Err(OpenError::Emptied { folder: path.to_owned() });
    }
    let number = folder.reached(&db)?;
    let data = folder.settle(&made, marked, &db)?;
    Ok(Opened { db, data, number, folder })
}

impl Folder {
    fn lock(path: &Path, lock_wait: Duration) -> Result<Self, OpenError> {
        let io = |error| io_error(path, "open the file lock", error);
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(io)?;
        if !wait_for_lock(&lock, lock_wait).map_err(io)? {
            return Err(OpenError::InUse { folder: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), lock_wait, opened: false, _lock: lock })
    }

    fn sled(&self) -> PathBuf {
        self.path.join("sled")
    }

    fn io(&self, doing: &str) -> impl Fn(io::Error) -> OpenError {
        let (path, doing) = (self.path.clone(), doing.to_owned());
        move |error| io_error(&path, &doing, error)
    }

    /// Whether sled would find nothing here and begin anew: no data file, or one in which no segment
    /// begins with anything but zeros. Looked at before sled is, since sled writes as it begins.
    fn is_emptied(&self) -> Result<bool, OpenError> {
        let io = self.io("read the data file");
        let mut data = match File::open(self.sled().join("db")) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(io(error)),
        };
        let length = data.metadata().map_err(&io)?.len();
        let mut at = 0;
        while at < length {
            let mut header = Vec::new();
            data.seek(SeekFrom::Start(at)).map_err(&io)?;
            (&mut data).take(20).read_to_end(&mut header).map_err(&io)?;
            if header.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += SEGMENT_BYTES;
        }
        Ok(true)
    }

    /// Moves sled's files of these names to a new `set-aside-<n>/`, and says so.
    fn set_aside(&self, chosen: impl Fn(&str) -> bool) -> Result<(), OpenError> {
        let io = self.io("set unreadable files aside");
        let mut aside: Option<PathBuf> = None;
        for entry in fs::read_dir(self.sled()).map_err(&io)? {
            let entry = entry.map_err(&io)?;
            let name = entry.file_name();
            if !name.to_str().is_some_and(&chosen) {
                continue;
            }
            let to = match &aside {
                Some(to) => to,
                None => aside.insert(self.new_aside().map_err(&io)?),
            };
            fs::rename(entry.path(), to.join(&name)).map_err(&io)?;
        }
        if let Some(to) = aside {
            for folder in [&to, &self.sled(), &self.path] {
                sync_folder(folder).map_err(&io)?;
            }
            tracing::warn!(
                folder = %to.display(),
                "unfinished or unreadable snapshot files were set aside; the store is read from its log instead"
            );
        }
        Ok(())
    }

    fn new_aside(&self) -> io::Result<PathBuf> {
        let mut number: u32 = 1;
        loop {
            let to = self.path.join(format!("set-aside-{number}"));
            match fs::create_dir(&to) {
                Ok(()) => return Ok(to),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn open_sled(&self, options: &SledOptions, marked: bool) -> Result<sled::Db, OpenError> {
        match self.open_sled_once(options)? {
            Ok(db) => return Ok(db),
            // A snapshot only spares sled from reading its log; without one it reads the log whole.
            Err(Trouble::Snapshot) => self.set_aside(|name| name.starts_with("snap."))?,
            Err(Trouble::Other(reason)) => return Err(self.unreadable(marked, reason)),
        }
        self.open_sled_once(options)?.map_err(|trouble| match trouble {
            Trouble::Snapshot => self.unreadable(marked, "neither snapshot nor log can be read".to_owned()),
            Trouble::Other(reason) => self.unreadable(marked, reason),
        })
    }

    fn unreadable(&self, marked: bool, reason: String) -> OpenError {
        let folder = self.path.clone();
        if marked { OpenError::Damaged { folder, reason } } else { OpenError::Unfinished { folder, reason } }
    }

    fn open_sled_once(&self, options: &SledOptions) -> Result<Result<sled::Db, Trouble>, OpenError> {
        // No flusher: the writer flushes, and nothing else does behind its back. Compression stays
        // off (and out of the build); sled's `mode` is read nowhere in 0.34.
        let config = sled::Config::new()
            .path(self.sled())
            .cache_capacity(options.cache_bytes)
            .flush_every_ms(None)
            .use_compression(false);
        let mut waited = Duration::ZERO;
        loop {
            match contained(|| config.open()) {
                Ok(Ok(db)) => return Ok(Ok(db)),
                Ok(Err(sled::Error::Corruption { at: None, .. })) => return Ok(Err(Trouble::Snapshot)),
                // We hold the folder, so this is a process before us whose last threads still end,
                // or somebody who opens sled's files directly.
                Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
                    if waited >= self.lock_wait {
                        return Err(OpenError::InUse { folder: self.path.clone() });
                    }
                    std::thread::park_timeout(LOCK_STEP);
                    waited += LOCK_STEP;
                }
                Ok(Err(sled::Error::Io(error))) if error.kind() != io::ErrorKind::InvalidData => {
                    return Err(self.io("read sled's files")(error));
                }
                Ok(Err(error)) => return Ok(Err(Trouble::Other(reason(&error)))),
                Err(panic) => return Ok(Err(Trouble::Other(panic))),
            }
        }
    }

    /// The number of the last group, unless groups are missing that were there when the store was closed.
    fn reached(&self, db: &sled::Db) -> Result<u64, OpenError> {
        let found = match contained(|| db.get(reach::NUMBER_KEY)) {
            Ok(Ok(entry)) => reach::number(entry.as_deref()),
            Ok(Err(error)) => return Err(self.unreadable(true, reason(&error))),
            Err(panic) => return Err(self.unreadable(true, panic)),
        };
        let io = self.io("read the file closed");
        let Some(closed) = reach::at_close(&self.path).map_err(&io)? else { return Ok(found) };
        if found < closed {
            let lost = format!("its log ends at commit group {found}, and it was closed at {closed}");
            return Err(self.unreadable(true, lost));
        }
        reach::forget(&self.path).map_err(&io)?;
        Ok(found)
    }

    /// Makes what opening created durable, and then, for a new store, the marker.
    fn settle(&self, made: &[PathBuf], marked: bool, db: &sled::Db) -> Result<File, OpenError> {
        let sled = self.sled();
        let io = self.io("make the new store durable");
        let data = File::options().read(true).write(true).open(sled.join("db")).map_err(&io)?;
        match contained(|| db.flush()) {
            Ok(Ok(_)) => data.sync_all().map_err(&io)?,
            Ok(Err(error)) => return Err(self.unreadable(marked, reason(&error))),
            Err(panic) => return Err(self.unreadable(marked, panic)),
        }
        File::open(sled.join("conf")).and_then(|conf| conf.sync_all()).map_err(&io)?;
        for folder in [&sled.join("blobs"), &sled, &self.path] {
            sync_folder(folder).map_err(&io)?;
        }
        if !marked {
            for folder in made {
                sync_folder(parent(folder)).map_err(&io)?;
            }
            // Last, when all else is durable: from here on an empty store is a lost one.
            let (new, marker) = (self.path.join("MARKER.new"), self.path.join(MARKER));
            let mut file = File::create(&new).map_err(&io)?;
            file.write_all(format!("{MARKER_WORDS}{FORMAT}\n").as_bytes()).map_err(&io)?;
            file.sync_all().map_err(&io)?;
            fs::rename(&new, &marker).map_err(&io)?;
            sync_folder(&self.path).map_err(&io)?;
        }
        Ok(data)
    }
}

impl Drop for Folder {
    /// sled's last threads may hold its lock a moment longer than its handle; who opens the store
    /// next must not meet that.
    fn drop(&mut self) {
        if self.opened
            && let Ok(data) = File::open(self.sled().join("db"))
        {
            let _released_or_given_up = wait_for_lock(&data, self.lock_wait);
        }
    }
}

enum Trouble {
    /// `Corruption` without a place.
    Snapshot,
    Other(String),
}

/// Takes the lock, `false` if it was held by somebody else for as long as `wait`.
fn wait_for_lock(file: &File, wait: Duration) -> io::Result<bool> {
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if waited >= wait => return Ok(false),
            Err(TryLockError::WouldBlock) => {
                std::thread::park_timeout(LOCK_STEP);
                waited += LOCK_STEP;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Whether there is a marker of a format that this version knows.
fn read_marker(path: &Path) -> Result<bool, OpenError> {
    let bytes = match fs::read(path.join(MARKER)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error(path, "read the file MARKER", error)),
    };
    let format = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.strip_prefix(MARKER_WORDS))
        .and_then(|rest| rest.lines().next())
        .and_then(|number| number.trim().parse().ok());
    match format {
        Some(FORMAT) => Ok(true),
        Some(found) if found > FORMAT => Err(OpenError::Newer { folder: path.to_owned(), found }),
        _ => Err(OpenError::BadMarker { folder: path.to_owned() }),
    }
}

/// Makes the folder and sled's in it; returns those that were not there.
fn make_folders(path: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let sled = path.join("sled");
    let made = sled.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    // Sealed or not, a city's cells are nobody else's to read.
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&sled).map_err(|error| io_error(path, "make the folder", error))?;
    Ok(made)
}

fn parent(folder: &Path) -> &Path {
    match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn io_error(folder: &Path, doing: &str, error: io::Error) -> OpenError {
    OpenError::Io { folder: folder.to_owned(), doing: doing.to_owned(), reason: error.to_string() }
}
