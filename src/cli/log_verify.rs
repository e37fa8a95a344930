//! `jadegate log verify`: the whole log as a stranger reads it, from the first entry to the checkpoint.
//!
//! Every entry is hashed and compared with its level-0 tile, every tile above with what the entries
//! make, and the root with the signed checkpoint. One bundle is in memory at a time, so the size of
//! the log does not matter. How bytes are fetched is the caller's; a log that grows meanwhile is
//! read up to the checkpoint that was fetched first.

use std::io::Write;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::access_log::checkpoint::{Checkpoint, KeyError, NoteError, VerifierKey};
use crate::access_log::tile::{RightEdge, TILE_WIDTH, TileRef, TileRequest, width_at};
use crate::access_log::{Hash, leaf_hash};

/// The arguments of `jadegate log verify`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where the log is served: https://host/log, or the gateway's own address
    pub url: String,
    /// The log's verifier key, kept from before; without it the key is taken from the log, on trust
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

impl Args {
    /// The address of a path that the fetcher is asked for.
    pub fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.url.trim_end_matches('/'))
    }
}

/// What was read and found to fit together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The checkpoint up to which the log was read.
    pub checkpoint: Checkpoint,
    /// The key that signed it.
    pub key: VerifierKey,
    /// How many tiles of hashes were compared.
    pub tiles: u64,
}

/// What does not fit, or could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Something could not be fetched.
    #[error("cannot fetch {path}: {why}; a log serves this for ever, so try again and then ask its operator")]
    Fetch {
        /// The path below the log's address.
        path: String,
        /// What the fetcher said.
        why: String,
    },
    /// Something that was fetched is no text.
    #[error("what is served at {0} is not UTF-8 text; check the address of the log")]
    Text(String),
    /// The served verifier key cannot be read.
    #[error("the key served by the log cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The checkpoint cannot be believed.
    #[error(transparent)]
    Checkpoint(#[from] NoteError),
    /// A tile or bundle has not the length it must have.
    #[error("{path} does not hold {width} {what} and nothing else; the log or something on the way damaged it")]
    Form {
        /// The path below the log's address.
        path: String,
        /// How many of them it must hold.
        width: u16,
        /// What it must hold.
        what: &'static str,
    },
    /// An entry is not the one that the log's own hash is of.
    #[error("entry {index} is not what the log hashed: it does not fit its hash in {tile}; entry or hash was changed")]
    Entry {
        /// The entry's place, from 0.
        index: u64,
        /// The path of the tile with its hash.
        tile: String,
    },
    /// A tile above level 0 is not what the entries make.
    #[error("hash {nth} in {tile} is not what the entries make: the tile was changed")]
    Tile {
        /// The path of the tile.
        tile: String,
        /// The hash's place in the tile, from 0.
        nth: usize,
    },
    /// Entries and tiles fit, but not the checkpoint.
    #[error("the {size} entries make another root than the log signed: the log shows a history that it did not sign")]
    Root {
        /// The size of the checkpoint.
        size: u64,
    },
}

/// Reads the log and says what was found; 0 if all fits, 1 if not.
///
/// `fetch` gets a path below the log's address ([`Args::address`]), `progress` the number of entries
/// read and their total.
pub async fn run<F, Fut, P>(args: &Args, fetch: F, progress: P, out: &mut dyn Write, err: &mut dyn Write) -> i32
where
    F: Fn(String) -> Fut,
    Fut: Future<Output = Result<Vec<u8>, String>>,
    P: FnMut(u64, u64),
{
    let key = match args.key.as_ref().map(|path| (path, std::fs::read_to_string(path))) {
        None => Ok(None),
        Some((path, Err(why))) => Err(format!("cannot read {}: {why}; check the path", path.display())),
        Some((path, Ok(text))) => {
            VerifierKey::parse(text.trim_ascii()).map(Some).map_err(|why| format!("{}: {why}", path.display()))
        }
    };
    let key = match key {
        Ok(key) => key,
        Err(why) => {
            let _ = writeln!(err, "未核对 · NOT CHECKED: {why}");
            return 1;
        }
    };
    match verify(key, fetch, progress).await {
        Ok(Summary { checkpoint: Checkpoint { origin, size, root }, key, tiles }) => {
            // A closed pipe is no reason to call a good log bad.
            let _ = writeln!(out, "完好 · INTACT: {origin}, {size} entries, root {}", STANDARD.encode(root));
            let _ = writeln!(out, "  逐条核对 · every entry and {tiles} hash tiles, up to the signed checkpoint");
            if args.key.is_none() {
                let _ = writeln!(err, "注意:公钥取自该日志本身,未经核对。");
                let _ = writeln!(
                    err,
                    "note: the key was taken from the log itself, on trust; keep it and give it with --key next time:"
                );
                let _ = writeln!(err, "{key}");
            }
            0
        }
        // What did not come may be whole: only what came can be called damaged.
        Err(why @ (LogError::Fetch { .. } | LogError::Text(_) | LogError::Key(_))) => {
            let _ = writeln!(err, "未核对 · NOT CHECKED: {why}");
            1
        }
        Err(why) => {
            let _ = writeln!(err, "有误 · NOT INTACT: {why}");
            1
        }
    }
}

/// Reads the whole log; without a key, the key that the log serves is taken on trust.
pub async fn verify<F, Fut, P>(key: Option<VerifierKey>, fetch: F, mut progress: P) -> Result<Summary, LogError>
where
    F: Fn(String) -> Fut,
    Fut: Future<Output = Result<Vec<u8>, String>>,
    P: FnMut(u64, u64),
{
    let mut log = Remote { fetch, prefix: "" };
    let note = log.checkpoint().await?;
    let key = match key {
        Some(key) => key,
        None => VerifierKey::parse(log.text("key").await?.trim_ascii())?,
    };
    let checkpoint = key.open(&note)?;
    let size = checkpoint.size;
    let (mut edge, mut tiles) = (RightEdge::new(), 0);
    while edge.size() < size {
        progress(edge.size(), size);
        let index = edge.size() / TILE_WIDTH;
        let completed = log.bundle(&mut edge, index, width_at(0, index, size)).await?;
        tiles += 1;
        for (tile, hashes) in completed.iter().filter(|(tile, _)| tile.level > 0) {
            log.compare(*tile, hashes).await?;
            tiles += 1;
        }
    }
    for (tile, hashes) in edge.partials().filter(|(tile, _)| tile.level > 0) {
        log.compare(tile, hashes).await?;
        tiles += 1;
    }
    progress(size, size);
    if edge.root() == checkpoint.root { Ok(Summary { checkpoint, key, tiles }) } else { Err(LogError::Root { size }) }
}

struct Remote<F> {
    fetch: F,
    /// What stands between the address that was given and the log's own paths.
    prefix: &'static str,
}

impl<F, Fut> Remote<F>
where
    F: Fn(String) -> Fut,
    Fut: Future<Output = Result<Vec<u8>, String>>,
{
    async fn get(&self, path: &str) -> Result<Vec<u8>, LogError> {
        let path = format!("{}{path}", self.prefix);
        (self.fetch)(path.clone()).await.map_err(|why| LogError::Fetch { path, why })
    }

    async fn text(&self, path: &str) -> Result<String, LogError> {
        String::from_utf8(self.get(path).await?).map_err(|_| LogError::Text(path.to_owned()))
    }

    /// The checkpoint; where the gateway's own address was given, its first log is read.
    async fn checkpoint(&mut self) -> Result<String, LogError> {
        match self.text("checkpoint").await {
            Err(first) => {
                self.prefix = "log/";
                self.text("checkpoint").await.map_err(|_| first)
            }
            found => found,
        }
    }

    /// What is served, and how wide it is: a partial one may have given way to the whole.
    async fn widest(&self, request: TileRequest) -> Result<(Vec<u8>, u16), LogError> {
        let (_, width) = request.tile();
        let whole = match request {
            TileRequest::Hashes { level, index, .. } => TileRequest::Hashes { level, index, width: 256 },
            TileRequest::Entries { index, .. } => TileRequest::Entries { index, width: 256 },
        };
        let get = async |request: TileRequest| self.get(&format!("tile/{}", request.path())).await;
        match get(request).await {
            Ok(bytes) => Ok((bytes, width)),
            Err(first) if request == whole => Err(first),
            Err(first) => get(whole).await.map(|bytes| (bytes, 256)).map_err(|_| first),
        }
    }

    async fn hashes(&self, tile: TileRef, width: u16) -> Result<Vec<Hash>, LogError> {
        let request = TileRequest::Hashes { level: tile.level, index: tile.index, width };
        let (bytes, served) = self.widest(request).await?;
        match bytes.as_chunks::<32>() {
            (hashes, []) if hashes.len() == usize::from(served) => {
                Ok(hashes.iter().copied().take(usize::from(width)).collect())
            }
            _ => Err(LogError::Form { path: format!("tile/{}", request.path()), width: served, what: "hashes" }),
        }
    }

    /// A bundle's entries against their hashes; they are added to the edge.
    async fn bundle(
        &self,
        edge: &mut RightEdge,
        index: u64,
        width: u16,
    ) -> Result<Vec<(TileRef, Vec<Hash>)>, LogError> {
        let request = TileRequest::Entries { index, width };
        let (bytes, served) = self.widest(request).await?;
        let malformed = || LogError::Form { path: format!("tile/{}", request.path()), width: served, what: "entries" };
        let entries = entries(&bytes).filter(|entries| entries.len() == usize::from(served)).ok_or_else(malformed)?;
        let tile = TileRef { level: 0, index };
        let hashes = self.hashes(tile, width).await?;
        let mut completed = Vec::new();
        for (entry, hash) in entries.iter().zip(&hashes) {
            if leaf_hash(entry) != *hash {
                let tile = TileRequest::Hashes { level: 0, index, width };
                return Err(LogError::Entry { index: edge.size(), tile: format!("tile/{}", tile.path()) });
            }
            edge.append(*hash, &mut completed);
        }
        Ok(completed)
    }

    /// A tile above level 0 against what the entries make.
    async fn compare(&self, tile: TileRef, ours: &[Hash]) -> Result<(), LogError> {
        let width = u16::try_from(ours.len()).unwrap_or(256);
        let theirs = self.hashes(tile, width).await?;
        match ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs) {
            None => Ok(()),
            Some(nth) => {
                let request = TileRequest::Hashes { level: tile.level, index: tile.index, width };
                Err(LogError::Tile { tile: format!("tile/{}", request.path()), nth })
            }
        }
    }
}

/// The entries of a bundle, each behind its length; `None` if the last one is cut.
fn entries(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        bytes = rest;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;
    use crate::access_log::ENTRY_BYTES;
    use crate::access_log::checkpoint::NoteSigner as _;
    use crate::access_log::checkpoint::tests::TestSigner;

    type Served = BTreeMap<String, Vec<u8>>;

    fn signer() -> TestSigner {
        TestSigner::new("log.example/one", [3; 32])
    }

    /// Everything that a log of this size serves.
    fn log(size: u64) -> Served {
        let (mut served, mut edge, mut full) = (Served::new(), RightEdge::new(), Vec::new());
        let mut bundle = Vec::new();
        let put = |served: &mut Served, request: TileRequest, bytes: Vec<u8>| {
            served.insert(format!("tile/{}", request.path()), bytes);
        };
        for i in 0..size {
            let mut entry = [0; ENTRY_BYTES];
            entry[..8].copy_from_slice(&i.to_be_bytes());
            edge.append(leaf_hash(&entry), &mut full);
            bundle.extend((ENTRY_BYTES as u16).to_be_bytes().into_iter().chain(entry));
            if edge.size() % TILE_WIDTH == 0 {
                put(
                    &mut served,
                    TileRequest::Entries { index: i / TILE_WIDTH, width: 256 },
                    std::mem::take(&mut bundle),
                );
            }
        }
        if !bundle.is_empty() {
            let width = (size % TILE_WIDTH) as u16;
            put(&mut served, TileRequest::Entries { index: size / TILE_WIDTH, width }, bundle);
        }
        for (TileRef { level, index }, hashes) in full.iter().map(|(t, h)| (*t, h.as_slice())).chain(edge.partials()) {
            put(&mut served, TileRequest::Hashes { level, index, width: hashes.len() as u16 }, hashes.concat());
        }
        let checkpoint = Checkpoint { origin: "log.example/one".into(), size, root: edge.root() };
        served.insert("checkpoint".into(), checkpoint.sign(&signer()).into_bytes());
        served.insert("key".into(), format!("{}\n", signer().verifier()).into_bytes());
        served
    }

    async fn read(served: &Served) -> Result<Summary, LogError> {
        let fetch = async |path: String| served.get(&path).cloned().ok_or("404".to_owned());
        verify(None, fetch, |_, _| ()).await
    }

    fn flip(served: &mut Served, path: &str, at: usize) {
        served.get_mut(path).unwrap()[at] ^= 1;
    }

    #[tokio::test]
    async fn a_good_log_of_any_size() {
        for (size, tiles) in [(0, 0), (1, 1), (255, 1), (256, 2), (257, 3), (600, 4), (65_793, 261)] {
            let seen = RefCell::new(Vec::new());
            let served = log(size);
            let fetch = async |path: String| served.get(&path).cloned().ok_or("404".to_owned());
            let summary = verify(None, fetch, |done, all| seen.borrow_mut().push((done, all))).await.unwrap();
            assert_eq!((summary.checkpoint.size, summary.tiles), (size, tiles));
            assert_eq!(summary.key, *signer().verifier());
            assert!(seen.borrow().is_sorted() && seen.borrow().last() == Some(&(size, size)));
        }
    }

    /// One bit in entry 300 of 600.
    #[tokio::test]
    async fn a_flipped_bit_names_the_entry() {
        let mut served = log(600);
        flip(&mut served, "tile/entries/001", 44 * (ENTRY_BYTES + 2) + 100);
        let error = read(&served).await.unwrap_err();
        assert_eq!(error, LogError::Entry { index: 300, tile: "tile/0/001".into() });
        assert!(error.to_string().contains("entry 300"));
    }

    #[tokio::test]
    async fn every_tile_counts() {
        let good = log(66_000);
        for path in good.keys().filter(|path| path.starts_with("tile/") && !path.starts_with("tile/entries/")) {
            if path.starts_with("tile/0/") && path != "tile/0/256" && path != "tile/0/257.p/208" && path != "tile/0/000"
            {
                continue;
            }
            let mut served = good.clone();
            flip(&mut served, path, 0);
            let named = match read(&served).await.unwrap_err() {
                LogError::Entry { tile, .. } | LogError::Tile { tile, nth: 0 } => tile,
                other => panic!("{other:?}"),
            };
            assert_eq!(named, *path);
        }
    }

    #[tokio::test]
    async fn another_history_makes_another_root() {
        let (mut served, mut other) = (log(600), log(600));
        let entry = 44 * (ENTRY_BYTES + 2) + 100;
        flip(&mut other, "tile/entries/001", entry);
        let bytes = &other["tile/entries/001"];
        let hash = leaf_hash(&bytes[44 * (ENTRY_BYTES + 2) + 2..45 * (ENTRY_BYTES + 2)]);
        let mut tile = served["tile/0/001"].clone();
        tile[44 * 32..45 * 32].copy_from_slice(&hash);
        let hashes: Vec<Hash> = tile.as_chunks::<32>().0.to_vec();
        served.insert("tile/entries/001".into(), bytes.clone());
        served.insert("tile/0/001".into(), tile);
        assert!(matches!(read(&served).await, Err(LogError::Tile { nth: 1, .. })));
        let mut above = served["tile/1/000.p/2"].clone();
        let (mut edge, mut full) = (RightEdge::new(), Vec::new());
        hashes.iter().for_each(|hash| edge.append(*hash, &mut full));
        above[32..].copy_from_slice(&edge.root());
        served.insert("tile/1/000.p/2".into(), above);
        assert_eq!(read(&served).await, Err(LogError::Root { size: 600 }));
    }

    #[tokio::test]
    async fn lengths_are_exact() {
        for path in ["tile/entries/001", "tile/entries/002.p/88", "tile/0/002.p/88", "tile/1/000.p/2"] {
            for longer in [true, false] {
                let mut served = log(600);
                let bytes = served.get_mut(path).unwrap();
                bytes.resize(if longer { bytes.len() + 2 } else { bytes.len() - 1 }, 0);
                assert!(matches!(read(&served).await, Err(LogError::Form { .. })), "{path} {longer}");
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_grew_meanwhile_is_fine() {
        let (old, mut grown) = (log(600), log(66_000));
        grown.insert("checkpoint".into(), old["checkpoint"].clone());
        assert_eq!(read(&grown).await.map(|summary| summary.checkpoint.size), Ok(600));
    }

    #[tokio::test]
    async fn the_gateways_own_address_does_too() {
        let served: Served = log(300).into_iter().map(|(path, bytes)| (format!("log/{path}"), bytes)).collect();
        assert_eq!(read(&served).await.map(|summary| summary.checkpoint.size), Ok(300));
        let nothing = read(&Served::new()).await.unwrap_err();
        assert_eq!(nothing, LogError::Fetch { path: "checkpoint".into(), why: "404".into() });
    }

    #[tokio::test]
    async fn the_command_says_where_the_key_came_from() {
        let mut served = log(300);
        let folder = std::env::temp_dir().join(format!("jadegate-log-verify-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let kept = folder.join("key");
        std::fs::write(&kept, format!("{}\n", signer().verifier())).unwrap();
        let call = async |served: &Served, key: Option<PathBuf>| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let args = Args { url: "http://127.0.0.1:8080/log/".into(), key };
            let fetch = async |path: String| served.get(&path).cloned().ok_or(args.address(&path));
            let code = run(&args, fetch, |_, _| (), &mut out, &mut err).await;
            (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        };
        let (code, out, err) = call(&served, None).await;
        assert!(code == 0 && out.contains("300 entries") && err.contains("on trust"), "{out}{err}");
        let (code, _, err) = call(&served, Some(kept.clone())).await;
        assert_eq!((code, err.as_str()), (0, ""));
        std::fs::write(&kept, TestSigner::new("log.example/one", [4; 32]).verifier().to_string()).unwrap();
        let (code, _, err) = call(&served, Some(kept)).await;
        assert!(code == 1 && err.contains("not signed by the key at hand"), "{err}");
        served.remove("tile/0/000");
        let (code, out, err) = call(&served, None).await;
        assert!(code == 1 && out.is_empty() && err.contains("http://127.0.0.1:8080/log/tile/0/000"), "{err}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
