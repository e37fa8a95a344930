//! A store that was cut short, has pages of zeros or other bytes in it, on the disk and as the disk gives them back. What is
//! damaged is known here by comparing every cell with an undamaged copy; what is said must be that and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jadegate::access_log::checkpoint::VerifierKey;
use jadegate::config::deployment::DeploymentError;
use jadegate::entropy::{self, SystemEntropy};
use jadegate::ledger::audit::{Audit, Finding};
use jadegate::store::sled::{SledOptions, SledStore};
use jadegate::store::{Cell, KEYS_END, Place, Store as _};
use jadegate::tables;

use crate::support::deployment::Deployment;
use crate::support::disk::Dice;
use crate::support::nightly;
use crate::support::process::Serving;
use crate::support::segments::{self, Message};
use crate::support::survival::{Loaded, Told, audits, holds, populated};

const LOADS: usize = 3;
/// How a value that is to be damaged is found in the file: sealed bytes occur nowhere else.
const MARK: usize = 16;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// How many entries the note of a checkpoint is of.
fn size_of(note: &str) -> u64 {
    note.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0)
}

fn kept_outside(city: &Deployment) -> u64 {
    let files = std::fs::read_dir(&city.config.checkpoints).unwrap().map(|file| file.unwrap().path());
    files.map(|file| size_of(&std::fs::read_to_string(file).unwrap_or_default())).max().unwrap()
}

async fn committed(city: &Deployment) -> u64 {
    // A copy, since whoever opens a store writes to it.
    let folder = city.dir().join("looked-at");
    copy(city.config.store.folder().unwrap(), &folder);
    let store = SledStore::open(&folder, SledOptions::default()).unwrap();
    let checkpoints = store.scan(tables::CHECKPOINT, &[], &KEYS_END, 2).await.unwrap();
    store.close().await;
    std::fs::remove_dir_all(folder).unwrap();
    size_of(std::str::from_utf8(&checkpoints[0].1.value).unwrap())
}

/// A stopped city whose store has old parts, which a start does not read, and a young one, which it does.
struct Whole {
    city: Deployment,
    told: Arc<Told>,
    key: VerifierKey,
    /// Store and outside copies, undamaged.
    kept: std::path::PathBuf,
    cells: BTreeMap<Place, Cell>,
    data: Vec<u8>,
    messages: Vec<Message>,
}

impl Whole {
    async fn new() -> Self {
        let (city, key, output) = populated().await;
        let mut load = Loaded::new(city.clone());
        // The second start leaves a snapshot of what the first wrote: from then on that is old.
        let mut wanted = 160;
        loop {
            let mut serving = Serving::start(&city.config_file(), &output, &[]).await;
            load.start(LOADS);
            while load.told.len() < wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(!load.is_over(), "{}", serving.wrote());
            }
            serving.kill();
            load.over().await;
            // What was committed and not yet copied outside was told to nobody, and may be gone without a word.
            if wanted > 160 && kept_outside(&city) == committed(&city).await {
                break;
            }
            wanted = load.told.len() + 60;
        }
        let told = load.told.clone();
        drop(load);
        let city = Arc::into_inner(city).unwrap();
        let kept = city.dir().join("whole");
        std::fs::create_dir(&kept).unwrap();
        for folder in [city.config.store.folder().unwrap(), &city.config.checkpoints] {
            copy(folder, &kept);
        }
        let mut whole = Self { city, told, key, kept, cells: BTreeMap::new(), data: Vec::new(), messages: Vec::new() };
        whole.data = std::fs::read(whole.city.config.store.folder().unwrap().join("sled/db")).unwrap();
        whole.messages = segments::messages(&whole.data);
        let read = whole.read(&whole.data).await.unwrap();
        whole.cells = read.cells.into_iter().map(|(place, cell)| (place, cell.unwrap())).collect();
        whole
    }

    /// The city with these bytes in the store's data file.
    fn put(&self, data: &[u8]) {
        for folder in [self.city.config.store.folder().unwrap(), &self.city.config.checkpoints] {
            std::fs::remove_dir_all(folder).unwrap();
            copy(&self.kept.join(folder.file_name().unwrap()), folder);
        }
        std::fs::write(self.city.config.store.folder().unwrap().join("sled/db"), data).unwrap();
    }

    /// Every cell that a store with these bytes shows, in a copy of its own; or that it does not open.
    async fn read(&self, data: &[u8]) -> Result<Read, String> {
        self.put(data);
        let store = SledStore::open(self.city.config.store.folder().unwrap(), SledOptions::default());
        let store = store.map_err(|e| e.to_string())?;
        let (mut by_scan, mut read) = (BTreeMap::new(), Read::default());
        for table in tables::ALL.into_iter().filter(|table| *table != tables::SESSION) {
            let mut next = Vec::new();
            loop {
                let Ok(cells) = store.scan(table, &next, &KEYS_END, 1_000).await else {
                    read.unreadable.insert(table.name());
                    break;
                };
                let Some((last, _)) = cells.last() else { break };
                next = [last.as_slice(), &[0]].concat();
                by_scan.extend(cells.into_iter().map(|(key, cell)| (Place::new(table, key), cell)));
            }
        }
        let places: BTreeSet<Place> = self.cells.keys().chain(by_scan.keys()).cloned().collect();
        for place in places {
            let (scanned, found) = (by_scan.get(&place), store.get(&place).await);
            let whole = !read.unreadable.contains(place.table.name());
            match found {
                Ok(None) if scanned.is_none() => {}
                // In order and under its key: the gateway reads in both ways.
                Ok(found) if found.as_ref() == scanned || !whole && scanned.is_none() => {
                    read.cells.insert(place, found);
                }
                Ok(_) => {
                    read.unreadable.insert(place.table.name());
                    read.cells.insert(place, None);
                }
                Err(_) => drop(read.cells.insert(place, None)),
            }
        }
        store.close().await;
        Ok(read)
    }

    /// Where damage of this kind goes, and the file with it.
    fn damaged(&self, kind: usize, dice: &mut Dice) -> (String, Vec<u8>) {
        let mut data = self.data.clone();
        // sled makes room ahead: damage lies where something is written.
        let used = data.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let zeros = |data: &mut [u8], at: usize| {
            let (from, to) = (at / 4096 * 4096, data.len().min(at / 4096 * 4096 + 4096));
            data[from..to].fill(0);
        };
        // By table, or most would be leaves. What a start recomputes it refuses, so the last kind goes elsewhere.
        let mut large: BTreeMap<&str, Vec<&Place>> = BTreeMap::new();
        let recomputed = [tables::LEAF, tables::CHECKPOINT, tables::POLICY, tables::MODEL];
        for (place, cell) in &self.cells {
            if cell.value.len() > 2 * MARK && !(kind == 5 && recomputed.contains(&place.table)) {
                large.entry(place.table.name()).or_default().push(place);
            }
        }
        let of_table = large.values().nth(dice.below(large.len())).unwrap();
        let place = of_table[dice.below(of_table.len())];
        // The first piece of it, and every copy that the file has: an old one may be what is read.
        let value = &self.cells[place].value;
        let from = dice.below(value.len().min(4096) - 2 * MARK);
        let (inside, bit, at) = (dice.below(MARK), dice.below(8), dice.below(used));
        let copies: Vec<usize> =
            segments::places_of(&data, &value[from..from + MARK]).iter().map(|at| at + inside).collect();
        let of = format!("{} copies of a value of table {}", copies.len(), place.table.name());
        let what = match kind {
            0 => {
                data.truncate(at);
                format!("cut at {at} of {used}")
            }
            1 => {
                data[at] ^= 1 << bit;
                format!("a bit at {at} of {used}")
            }
            2 => {
                zeros(&mut data, at);
                format!("a page of zeros at {at} of {used}")
            }
            3 => {
                copies.iter().for_each(|at| zeros(&mut data, *at));
                format!("pages of zeros over {of}")
            }
            4 => {
                copies.iter().for_each(|at| data[*at] ^= 1 << bit);
                format!("a bit in {of}")
            }
            _ => {
                let bent = copies.iter().filter(|at| segments::bend(&mut data, &self.messages, **at, bit)).count();
                assert!(bent > 0, "{of}: none is in a message");
                format!("a bit, with right checksums, in {bent} of {of}")
            }
        };
        (what, data)
    }
}

/// What a damaged store shows.
#[derive(Default)]
struct Read {
    /// Its cells; none where one cannot be read.
    cells: BTreeMap<Place, Option<Cell>>,
    /// Tables that cannot be read from end to end.
    unreadable: BTreeSet<&'static str>,
}

/// The difference between the undamaged store and what a damaged one shows.
struct Difference<'a> {
    whole: &'a BTreeMap<Place, Cell>,
    read: &'a Read,
    places: BTreeSet<Place>,
}

impl<'a> Difference<'a> {
    fn new(whole: &'a BTreeMap<Place, Cell>, read: &'a Read) -> Self {
        let all = whole.keys().chain(read.cells.keys());
        let differs = |place: &&Place| match (whole.get(*place), read.cells.get(*place)) {
            (Some(cell), Some(Some(now))) => cell != now,
            _ => true,
        };
        Self { whole, read, places: all.filter(differs).cloned().collect() }
    }

    fn in_table(&self, table: &'static str) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |place| place.table.name() == table)
    }

    /// The cells of an entry that differ; there is one log.
    fn of_entry(&self, entry: u64) -> impl Iterator<Item = &Place> {
        self.in_table("leaf").filter(move |place| place.key[8..16] == entry.to_be_bytes())
    }

    /// Whether a leaf that differs said that this cell was written.
    fn said_by_a_lost_leaf(&self, place: &Place) -> bool {
        let line = [&[u8::try_from(place.key.len()).unwrap()], place.key.as_slice()].concat();
        self.in_table("leaf").any(|leaf| {
            let of_entry =
                self.whole.iter().filter(|(other, _)| other.table == leaf.table && other.key[..16] == leaf.key[..16]);
            let whole: Vec<u8> = of_entry.flat_map(|(_, cell)| cell.value.iter().copied()).collect();
            whole.windows(line.len()).any(|bytes| bytes == line)
        })
    }

    /// The cells that this finding names. It must name what differs, or follow from what does.
    fn named(&self, finding: &Finding) -> Vec<Place> {
        let table = tables::ALL.into_iter().find(|table| table.name() == finding.table).unwrap();
        let all_of = |what: &str, named: Vec<&Place>| {
            assert!(!named.is_empty(), "{what} names nothing that differs: {finding}");
            named.into_iter().cloned().collect::<Vec<_>>()
        };
        if let Some(key) = &finding.key {
            let place = Place::new(table, key.clone());
            let follows = match table {
                tables::TILE => self.in_table("leaf").next().is_some(),
                _ => self.said_by_a_lost_leaf(&place),
            };
            // Past a page that cannot be read, what else can be reached depends on what was read before.
            let past = finding.what.starts_with("cannot be read: ") && self.read.unreadable.contains(finding.table);
            assert!(self.places.contains(&place) || follows || past, "a cell is named that is as it was: {finding}");
            return vec![place];
        }
        match (finding.table, finding.entry) {
            ("leaf", Some(entry)) => {
                let to =
                    finding.what.strip_prefix(&format!("entries {entry} to ")).and_then(|rest| rest.split(' ').next());
                match to.and_then(|to| to.parse::<u64>().ok()) {
                    Some(to) => (entry..=to).flat_map(|e| all_of("a gap", self.of_entry(e).collect())).collect(),
                    None if finding.what.starts_with("the log up to here") => {
                        let before = self.in_table("leaf").filter(|place| place.key[8..16] <= entry.to_be_bytes()[..]);
                        all_of("an entry", before.collect());
                        Vec::new()
                    }
                    None if finding.what.starts_with("lies beyond") => {
                        all_of("a checkpoint", self.in_table("checkpoint").collect());
                        Vec::new()
                    }
                    None => all_of("an entry", self.of_entry(entry).collect()),
                }
            }
            ("checkpoint", None) => {
                all_of("a log", self.in_table("checkpoint").chain(self.in_table("leaf")).collect());
                self.in_table("checkpoint").cloned().collect()
            }
            ("tile", None) if !finding.what.contains("read whole") => {
                all_of("a tree", self.in_table("leaf").collect());
                self.in_table("tile").cloned().collect()
            }
            (name, None) => {
                assert!(self.read.unreadable.contains(name), "the table can be read: {finding}");
                Vec::new()
            }
            (_, Some(_)) => panic!("what does it name? {finding}"),
        }
    }

    /// Each finding names what differs, and what differs is named. A store that is an older one as a whole is named as that.
    fn is_what_is_named(&self, audit: &Audit) {
        let named: BTreeSet<Place> = audit.findings.iter().flat_map(|finding| self.named(finding)).collect();
        let rolled_back = audit.findings.iter().any(|finding| finding.what.contains("the store was rolled back"));
        let cut_off = |table: &str| {
            audit
                .findings
                .iter()
                .any(|f| f.table == table && f.key.is_none() && f.what.contains("cannot be read whole"))
        };
        for place in self.places.difference(&named) {
            // The log can say nothing of a cell whose entry is lost with the leaf; the leaf, or the table, is named.
            let told = match (self.whole.get(place), self.read.cells.get(place)) {
                (Some(_), None) => rolled_back || self.said_by_a_lost_leaf(place),
                (None, Some(Some(_))) => rolled_back,
                (Some(cell), Some(Some(now))) => {
                    rolled_back && (now.version < cell.version || place.table == tables::CHECKPOINT)
                }
                // What lies beyond the checkpoint of a store that was rolled back is told as that.
                (Some(_), Some(None)) => {
                    cut_off(place.table.name()) && (rolled_back || self.said_by_a_lost_leaf(place))
                }
                (None, _) => cut_off(place.table.name()),
            };
            assert!(told, "{place:?} differs and nothing names it: {:#?}", audit.findings);
        }
    }
}

/// Refused, with what to do, or started.
async fn started(city: &mut Deployment) -> Result<(), String> {
    loop {
        match city.try_start().await {
            Err(why) if why.contains("cannot listen") => city.choose_ports(),
            Err(why) => {
                assert!(why.contains("backup") || why.contains("estore"), "what to do? {why}");
                return Err(why);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// A start does not read all of a store. So damage is refused by it, or named by the audit, cell by cell; or nothing is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_refused_or_named_by_the_audit_or_whole() {
    let rounds = nightly::rounds(12, 150);
    let mut whole = Whole::new().await;
    let seed = u64::from_be_bytes(entropy::bytes(&SystemEntropy::new()).unwrap());
    println!("seed {seed}; {} cells, {} bytes", whole.cells.len(), whole.data.len());
    let mut dice = Dice(seed);
    let (mut closed, mut refused, mut named, mut intact) = (0, 0, 0, 0);
    for round in 0..rounds {
        let (what, data) = whole.damaged(round % 6, &mut dice);
        let read = whole.read(&data).await;
        whole.put(&data);
        let audit = whole.city.config.audit(&[], &mut |_| {}).await;
        whole.put(&data);
        let start = started(&mut whole.city).await;
        let said = start.as_ref().err().map_or("starts", String::as_str);
        match (&read, audit) {
            (Err(why), Err(DeploymentError::Store(_))) => {
                println!("{what}: does not open: {why}");
                assert!(start.is_err(), "{what}: it starts, and it does not open");
                closed += 1;
            }
            // Without a checkpoint there is no log to hold anything against.
            (Ok(read), Err(DeploymentError::Read(e))) => {
                println!("{what}: {e}; {said}");
                let unreadable =
                    read.cells.iter().any(|(place, cell)| place.table == tables::CHECKPOINT && cell.is_none());
                assert!(
                    unreadable && e.to_string().contains("table checkpoint") && start.is_err(),
                    "{what}: {e}; {said}"
                );
                refused += 1;
            }
            (Ok(read), Ok(audit)) => {
                let difference = Difference::new(&whole.cells, read);
                println!("{what}: {} cells differ, {} findings; {said}", difference.places.len(), audit.findings.len());
                difference.is_what_is_named(&audit);
                match start {
                    Err(_) => {
                        assert!(!difference.places.is_empty(), "{what}: nothing is missing, and it is refused: {said}");
                        refused += 1;
                    }
                    Ok(()) if audit.findings.is_empty() => {
                        holds(&whole.city, &whole.told, &whole.key, i64::MAX).await;
                        whole.city.stop().await.unwrap();
                        audits(&whole.city).await;
                        intact += 1;
                    }
                    Ok(()) => {
                        whole.city.stop().await.unwrap();
                        let after = whole.city.config.audit(&[], &mut |_| {}).await;
                        assert!(after.is_ok_and(|after| !after.findings.is_empty()), "{what}: a start hides it");
                        named += 1;
                    }
                }
            }
            (read, audit) => {
                let (opened, audit) = (read.as_ref().err(), audit.map(|audit| audit.findings));
                panic!("{what}: opened: {opened:?}, audited: {audit:?}");
            }
        }
    }
    assert!(named > 0, "no damage got past the start, so that the audit was not asked");
    nightly::figure(
        "damaged stores",
        format_args!(
            "{rounds}: {closed} do not open, {refused} refused at the start and named by the audit, {named} started and named by the audit, {intact} whole"
        ),
    );
}
