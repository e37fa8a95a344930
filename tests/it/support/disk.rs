//! What a power cut leaves of a process's files. strace writes down what the process does to them; what no completed `fsync`
//! or `fdatasync` covers is then lost, whole or page by page. `sync_file_range` counts for nothing: it syncs no disk's cache.
//! A name is durable once its folder is synced; until then the newest names of a folder may be missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What strace is told to write down. What is not modelled below, and touches the folders, ends the test.
pub const RECORD: [&str; 8] = [
    "-f",
    "-q",
    "-ttt",
    "-y",
    "-xx",
    "-s",
    "4000000",
    "-etrace=openat,open,creat,pwrite64,pwritev,pwritev2,write,writev,ftruncate,truncate,fallocate,rename,renameat,renameat2,\
     unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,copy_file_range,sendfile,fsync,fdatasync,msync,sync,syncfs",
];
const PAGE: usize = 4096;

#[derive(Debug)]
enum Deed {
    /// A new file or folder under a name.
    Make {
        path: PathBuf,
        node: usize,
        folder: bool,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Write {
        node: usize,
        at: usize,
        bytes: Vec<u8>,
    },
    Cut {
        node: usize,
        length: usize,
    },
    /// Of a file or a folder.
    Sync {
        node: usize,
    },
}

/// A call, between the lines of the log where it began and ended.
#[derive(Debug)]
struct Call {
    began: usize,
    ended: usize,
    /// In microseconds of Unix time.
    at: i64,
    deed: Deed,
}

/// Files and folders: what there was at first, and what was done since.
pub struct Recording {
    base: Files,
    calls: Vec<Call>,
}

/// Names, and what they stand for; a folder is a node without bytes.
#[derive(Clone, Default)]
struct Files {
    names: BTreeMap<PathBuf, usize>,
    nodes: BTreeMap<usize, Option<Vec<u8>>>,
}

impl Files {
    fn add(&mut self, path: PathBuf, content: Option<Vec<u8>>) {
        let node = self.nodes.len();
        self.names.insert(path, node);
        self.nodes.insert(node, content);
    }

    fn read(&mut self, folder: &Path) {
        self.add(folder.to_owned(), None);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { self.read(&path) } else { self.add(path.clone(), Some(fs::read(&path).unwrap())) }
        }
    }

    fn apply(&mut self, deed: &Deed) {
        match deed {
            Deed::Make { path, node, folder } => {
                self.names.insert(path.clone(), *node);
                self.nodes.entry(*node).or_insert_with(|| (!folder).then(Vec::new));
            }
            Deed::Rename { from, to } => {
                let node = self.names.remove(from).expect("what is renamed is there");
                self.names.insert(to.clone(), node);
            }
            Deed::Remove { path } => {
                self.names.remove(path);
            }
            Deed::Write { node, at, bytes } => self.write(*node, *at, bytes),
            Deed::Cut { node, length } => self.content(*node).resize(*length, 0),
            Deed::Sync { .. } => {}
        }
    }

    fn content(&mut self, node: usize) -> &mut Vec<u8> {
        self.nodes.entry(node).or_insert_with(|| Some(Vec::new())).get_or_insert_default()
    }

    fn write(&mut self, node: usize, at: usize, bytes: &[u8]) {
        let content = self.content(node);
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Numbers that a seed decides.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// How much of what was not synced is there after all.
#[derive(Debug, Clone, Copy)]
enum Keeps {
    Nothing,
    Everything,
    Some,
}

impl Recording {
    /// The folders as they are before the process starts.
    pub fn before(folders: &[PathBuf]) -> Self {
        let mut base = Files::default();
        folders.iter().for_each(|folder| base.read(folder));
        Self { base, calls: Vec::new() }
    }

    /// Reads what strace wrote.
    pub fn read(&mut self, log: &Path) {
        let text = fs::read_to_string(log).unwrap();
        let (mut open, mut pending) = (Reader::new(&self.base), BTreeMap::new());
        for (number, line) in text.lines().enumerate() {
            // Short thread ids are padded.
            let Some((thread, (at, call))) =
                line.split_once(' ').and_then(|(thread, rest)| Some((thread, rest.trim_start().split_once(' ')?)))
            else {
                continue;
            };
            let at = (at.parse::<f64>().unwrap() * 1e6) as i64;
            let call = call.trim_start();
            if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
                pending.insert(thread.to_owned(), (number, at, begun.to_owned()));
            } else if let Some((_, rest)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
                if let Some((began, at, begun)) = pending.remove(thread) {
                    self.calls.extend(open.call(began, number, at, &format!("{begun}{rest}")));
                }
            } else {
                self.calls.extend(open.call(number, number, at, call));
            }
        }
        // Calls that the process's end cut off have not returned: they may have had any part of their effect.
        for (began, at, begun) in pending.into_values() {
            let whole = format!("{begun}) = ?");
            self.calls.extend(open.call(began, usize::MAX, at, &whole));
        }
        self.calls.sort_by_key(|call| call.began);
    }

    /// How many moments there are for a power cut.
    pub fn moments(&self) -> usize {
        self.calls.len()
    }

    /// Cuts the power just before a call begins, and writes what is left in place of the folders. Gives the time of the cut,
    /// in microseconds of Unix time: what callers were told before it must hold.
    pub fn cut(&self, moment: usize, folders: &[PathBuf], dice: &mut Dice) -> i64 {
        let end = self.calls.get(moment).map_or(usize::MAX, |call| call.began);
        let until = self.calls.get(moment).map_or(i64::MAX, |call| call.at);
        let begun: Vec<&Call> = self.calls.iter().filter(|call| call.began < end).collect();
        let syncs: Vec<(usize, usize)> = begun
            .iter()
            .filter_map(|call| match call.deed {
                Deed::Sync { node } if call.ended < end => Some((node, call.began)),
                _ => None,
            })
            .collect();
        let synced = |node: usize, ended: usize| syncs.iter().any(|(synced, began)| *synced == node && ended < *began);
        // What folder a name is in, as nodes: names of folders do not change.
        let mut folders_seen = self.base.names.clone();
        let mut files = self.base.clone();
        // The folders' disks lose different amounts.
        let keeps: Vec<Keeps> =
            folders.iter().map(|_| [Keeps::Nothing, Keeps::Everything, Keeps::Some][dice.below(3)]).collect();
        let mut home: BTreeMap<usize, usize> = BTreeMap::new();
        let disk_of = |path: &Path| folders.iter().position(|folder| path.starts_with(folder)).unwrap();
        for (path, node) in &self.base.names {
            home.insert(*node, disk_of(path));
        }
        let mut lost_names = BTreeSet::new();
        for call in begun {
            match &call.deed {
                Deed::Make { path, .. } | Deed::Rename { to: path, .. } | Deed::Remove { path } => {
                    if let Deed::Make { node, .. } = call.deed {
                        home.insert(node, disk_of(path));
                        folders_seen.insert(path.clone(), node);
                    }
                    let folder = folders_seen[path.parent().unwrap()];
                    let durable = synced(folder, call.ended);
                    let kept = match keeps[disk_of(path)] {
                        Keeps::Nothing => false,
                        Keeps::Everything => true,
                        Keeps::Some => dice.below(2) == 0,
                    };
                    // The names of one folder come to the disk in order.
                    if durable || (kept && !lost_names.contains(&folder)) {
                        files.apply(&call.deed);
                    } else {
                        lost_names.insert(folder);
                    }
                }
                Deed::Write { node, at, bytes } => {
                    let keeps = if synced(*node, call.ended) { Keeps::Everything } else { keeps[home[node]] };
                    match keeps {
                        Keeps::Everything => files.write(*node, *at, bytes),
                        Keeps::Nothing => {}
                        Keeps::Some => {
                            let mut from = 0;
                            while from < bytes.len() {
                                // To the end of the page that this byte lies in.
                                let to = bytes.len().min(from + PAGE - (at + from) % PAGE);
                                if dice.below(2) == 0 {
                                    files.write(*node, at + from, &bytes[from..to]);
                                }
                                from = to;
                            }
                        }
                    }
                }
                Deed::Cut { node, .. } => {
                    if synced(*node, call.ended) || !matches!(keeps[home[node]], Keeps::Nothing) {
                        files.apply(&call.deed);
                    }
                }
                Deed::Sync { .. } => {}
            }
        }
        put(&files, folders);
        until
    }
}

/// Writes files in place of what is in the folders.
fn put(files: &Files, folders: &[PathBuf]) {
    for folder in folders {
        fs::remove_dir_all(folder).unwrap();
        fs::create_dir(folder).unwrap();
    }
    for (path, node) in &files.names {
        // A name in a folder whose own name was lost is lost with it.
        if folders.contains(path) || !path.parent().unwrap().exists() {
            continue;
        }
        match files.nodes.get(node) {
            Some(None) => fs::create_dir(path).unwrap(),
            Some(Some(content)) => fs::write(path, content).unwrap(),
            None => unreachable!("a name of nothing"),
        }
    }
}

/// Turns lines into deeds: knows which file a descriptor is, and where it stands.
struct Reader {
    live: BTreeMap<PathBuf, usize>,
    roots: Vec<PathBuf>,
    next: usize,
    positions: BTreeMap<u32, usize>,
}

impl Reader {
    fn new(base: &Files) -> Self {
        let mut roots: Vec<PathBuf> = Vec::new();
        for path in base.names.keys() {
            if !roots.iter().any(|root| path.starts_with(root)) {
                roots.push(path.clone());
            }
        }
        Self { live: base.names.clone(), roots, next: base.nodes.len(), positions: BTreeMap::new() }
    }

    fn ours(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path.starts_with(root))
    }

    fn make(&mut self, path: &Path, folder: bool) -> Deed {
        let node = self.next;
        self.next += 1;
        self.live.insert(path.to_owned(), node);
        Deed::Make { path: path.to_owned(), node, folder }
    }

    fn call(&mut self, began: usize, ended: usize, at: i64, text: &str) -> Vec<Call> {
        let Some((name, rest)) = text.split_once('(') else { return Vec::new() };
        let Some((arguments, result)) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(')')) else {
            return Vec::new();
        };
        let result = result.trim_start_matches([' ', '=']);
        if result.starts_with('-') {
            return Vec::new();
        }
        let arguments: Vec<&str> = arguments.split(", ").collect();
        let deeds = self.deeds(name, &arguments, result);
        deeds.into_iter().map(|deed| Call { began, ended, at, deed }).collect()
    }

    fn deeds(&mut self, name: &str, arguments: &[&str], result: &str) -> Vec<Deed> {
        let path = |index: usize| arguments.get(index).and_then(|text| quoted(text)).map(path_of);
        let of_descriptor = arguments.first().and_then(|text| descriptor(text));
        match name {
            "openat" => {
                let (Some(path), Some((descriptor, _))) = (path(1), descriptor(result)) else { return Vec::new() };
                self.positions.insert(descriptor, 0);
                if !self.ours(&path) {
                    return Vec::new();
                }
                match self.live.get(&path).copied() {
                    None => vec![self.make(&path, false)],
                    Some(node) if arguments[2].contains("O_TRUNC") => vec![Deed::Cut { node, length: 0 }],
                    Some(_) => Vec::new(),
                }
            }
            "mkdir" => {
                let path = path(0).unwrap();
                if self.ours(&path) { vec![self.make(&path, true)] } else { Vec::new() }
            }
            "rename" => {
                let (from, to) = (path(0).unwrap(), path(1).unwrap());
                if !self.ours(&to) {
                    return Vec::new();
                }
                let node = self.live.remove(&from).unwrap();
                self.live.insert(to.clone(), node);
                vec![Deed::Rename { from, to }]
            }
            "unlink" => {
                let path = path(0).unwrap();
                if self.live.remove(&path).is_some() { vec![Deed::Remove { path }] } else { Vec::new() }
            }
            "write" | "pwrite64" | "ftruncate" | "fsync" | "fdatasync" => {
                let Some((descriptor, path)) = of_descriptor.filter(|(_, path)| self.ours(path)) else {
                    return Vec::new();
                };
                let node = self.live[&path];
                match name {
                    "fsync" | "fdatasync" => return vec![Deed::Sync { node }],
                    "ftruncate" => return vec![Deed::Cut { node, length: arguments[1].parse().unwrap() }],
                    _ => {}
                }
                let mut bytes = bytes_of(quoted(arguments[1]).unwrap());
                let written = result.parse().unwrap_or(bytes.len());
                bytes.truncate(written);
                let position = self.positions.entry(descriptor).or_insert(0);
                let at = if name == "write" { *position } else { arguments[3].parse().unwrap() };
                if name == "write" {
                    *position += bytes.len();
                }
                vec![Deed::Write { node, at, bytes }]
            }
            _ => {
                // Sockets and pipes are no business of a disk.
                let paths = (0..arguments.len()).filter_map(path).chain(of_descriptor.map(|(_, path)| path));
                let touched: Vec<_> = paths.filter(|path| self.ours(path)).collect();
                assert!(touched.is_empty(), "the recorder does not know {name} of {touched:?}");
                Vec::new()
            }
        }
    }
}

/// What stands between quotation marks, in strace's `\x2f`.
fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"'))
}

fn bytes_of(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(4).map(|four| (digit(four[2]) << 4) | digit(four[3])).collect()
}

fn digit(character: u8) -> u8 {
    match character {
        b'0'..=b'9' => character - b'0',
        _ => character - b'a' + 10,
    }
}

fn path_of(text: &str) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes_of(text)).unwrap())
}

/// `14<\x2f\x74>`: a descriptor and its path.
fn descriptor(text: &str) -> Option<(u32, PathBuf)> {
    let (number, rest) = text.split_once('<')?;
    let path = rest.strip_suffix('>')?;
    (path.starts_with("\\x2f")).then(|| path_of(path)).and_then(|path| Some((number.parse().ok()?, path)))
}
