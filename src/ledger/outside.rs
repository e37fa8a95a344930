//! The newest checkpoint, kept in a folder apart from the store: a store rolled back whole shows at
//! the next start.
//!
//! Two files take turns, each written in place and synced, so that a torn write costs the older one
//! at most. The folder belongs on another disk than the store, and never in its backup.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What a note of the longest origin fits in.
const NOTE_ROOM: usize = 1024;

/// A place outside the store that remembers the newest checkpoint.
pub trait Outside: Send {
    /// The notes that are kept, as they are found; the caller verifies them.
    fn kept(&self) -> std::io::Result<Vec<String>>;
    /// Keeps this note durably in place of the oldest.
    fn keep(&mut self, note: &str) -> std::io::Result<()>;
    /// Where that is, for messages.
    fn place(&self) -> String;
}

/// Two files in a folder.
#[derive(Debug)]
pub struct OutsideFolder {
    files: [PathBuf; 2],
    open: [Option<File>; 2],
    next: usize,
}

impl OutsideFolder {
    /// The copies of the log with this origin in `folder`, which must exist.
    pub fn new(folder: &Path, origin: &str) -> Self {
        let name = crate::keys::path_name(origin);
        let file = |turn: u8| folder.join(format!("{name}.{turn}.checkpoint"));
        Self { files: [file(0), file(1)], open: [None, None], next: 0 }
    }
}

impl OutsideFolder {
    /// Sets what is kept aside, under names that say so, and keeps this note in its place.
    pub fn replace(mut self, note: Option<&str>) -> std::io::Result<()> {
        for file in self.files.iter().filter(|file| file.exists()) {
            let mut aside = file.as_os_str().to_owned();
            aside.push(".before-restore");
            fs::rename(file, aside)?;
        }
        note.map_or(Ok(()), |note| self.keep(note))
    }
}

impl Outside for OutsideFolder {
    fn kept(&self) -> std::io::Result<Vec<String>> {
        let mut notes = Vec::new();
        for file in &self.files {
            match fs::read(file) {
                // Blank lines pad a shorter note over a longer one.
                // A first write that a power cut took: nothing was released on it, and it says nothing.
                Ok(bytes) if bytes.is_empty() || bytes.contains(&0) => {}
                Ok(bytes) => notes.push(format!("{}\n", String::from_utf8_lossy(&bytes).trim_end_matches('\n'))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(std::io::Error::new(e.kind(), format!("{}: {e}", file.display()))),
            }
        }
        Ok(notes)
    }

    fn keep(&mut self, note: &str) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let (Some(path), Some(open)) = (self.files.get(self.next), self.open.get_mut(self.next)) else {
            return Err(std::io::Error::other("no such turn"));
        };
        let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        // All notes of one log take the same room, so a shorter one covers a longer one whole.
        let room = note.len().next_multiple_of(NOTE_ROOM);
        let padded = format!("{note:\n<room$}");
        match open {
            Some(file) => {
                file.write_all_at(padded.as_bytes(), 0).map_err(named)?;
                file.sync_data().map_err(named)?;
            }
            None => {
                let fresh = !path.exists();
                let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(named)?;
                file.write_all(padded.as_bytes()).map_err(named)?;
                file.sync_all().map_err(named)?;
                if fresh && let Some(folder) = path.parent() {
                    File::open(folder).and_then(|folder| folder.sync_all()).map_err(named)?;
                }
                *open = Some(file);
            }
        }
        self.next = 1 - self.next;
        Ok(())
    }

    fn place(&self) -> String {
        self.files
            .first()
            .and_then(|file| file.parent())
            .map_or_else(String::new, |folder| folder.display().to_string())
    }
}

/// The copies of several logs, to be read together.
#[derive(Debug)]
pub struct OutsideFolders(pub Vec<OutsideFolder>);

impl Outside for OutsideFolders {
    fn kept(&self) -> std::io::Result<Vec<String>> {
        let mut notes = Vec::new();
        for folder in &self.0 {
            notes.extend(folder.kept()?);
        }
        Ok(notes)
    }

    fn keep(&mut self, _: &str) -> std::io::Result<()> {
        Err(std::io::Error::other("a checkpoint is kept by the gateway that writes its log"))
    }

    fn place(&self) -> String {
        self.0.iter().map(Outside::place).collect::<Vec<_>>().join(", ")
    }
}

/// Notes kept in memory, for tests; clones share them.
#[derive(Debug, Clone, Default)]
pub struct OutsideMemory(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Outside for OutsideMemory {
    fn kept(&self) -> std::io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone())
    }

    fn keep(&mut self, note: &str) -> std::io::Result<()> {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = vec![note.to_owned()];
        Ok(())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}
