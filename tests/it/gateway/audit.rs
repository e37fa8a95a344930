//! Random changes to a store behind the gateway's back: the audit, or the next start, notices each.

use std::collections::BTreeMap;
use std::sync::Arc;

use jadegate::access_log::checkpoint::Checkpoint;
use jadegate::gateway::{AskRequest, Gateway};
use jadegate::ledger::audit::{Finding, audit};
use jadegate::ledger::outside::{Outside as _, OutsideMemory};
use jadegate::store::memory::MemoryStore;
use jadegate::store::{Batch, Cell, Place, Store, Table, Write};
use jadegate::tables;

use crate::support::nightly;
use crate::support::world::{Brought, Kept, Signing, World, caller, cells, keyring, keyring_for, record_line};

type Cells = BTreeMap<Place, Cell>;

async fn all(store: &dyn Store) -> Cells {
    let mut found = Cells::new();
    for table in tables::ALL.into_iter().filter(|table| *table != tables::SESSION) {
        found.extend(cells(store, table).await);
    }
    found
}

async fn store_of(cells: &Cells) -> Arc<dyn Store> {
    let store = MemoryStore::new();
    let writes = cells.iter().map(|(place, cell)| Write::Put(place.clone(), cell.clone())).collect();
    store.commit(Batch { checks: Vec::new(), writes }).await.unwrap();
    Arc::new(store)
}

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// Some work of every kind, with a look at the store in the middle of it.
async fn worked() -> (World, Cells) {
    let world = World::new().await;
    let earlier = work(&world, std::slice::from_ref(&world.gateway)).await;
    (world, earlier)
}

/// The same, with every call through another gateway than the one before.
async fn work(world: &World, gateways: &[Arc<Gateway>]) -> Cells {
    let mut turn = 0;
    let mut asked = async |scenario: &str, consent: &str| {
        turn += 1;
        let nonce = world.fresh("nonce");
        let request = AskRequest { scenario: scenario.into(), consent: consent.into(), nonce };
        gateways[turn % gateways.len()].ask(&caller("yx-bike"), &request).await.unwrap();
    };
    let login = world.good(1).await;
    world.register(100..160).await;
    let consent = world.consent(&login, "yx-bike", "bike-deposit", 300).await;
    for _ in 0..150 {
        asked("bike-deposit", &consent.token).await;
    }
    let earlier = all(&**world.store.inner()).await;
    world.next_day();
    let records: Vec<_> = (0..200)
        .map(|i| record_line("yx-civil-affairs", "volunteer-hours", &format!("a-{i}"), 100 + i % 60, Some(1)))
        .collect();
    world.report("yx-civil-affairs", &records).await;
    world.make_good(1).await;
    let code = world.code(&login, &consent).await;
    asked("bike-deposit", &code).await;
    for _ in 0..120 {
        asked("bike-deposit", &consent.token).await;
    }
    gateways[gateways.len() - 1].revoke(&login, &consent.id.to_text()).await.unwrap();
    earlier
}

async fn findings(world: &World, cells: &Cells) -> Vec<Finding> {
    audit(&store_of(cells).await, &keyring(), &world.outside, &mut |_| {}).await.unwrap().findings
}

/// What the log knows nothing of, or what it consists of itself: a change of these shows at other places than its own.
const THE_LOGS_OWN: [Table; 4] = [tables::LEAF, tables::TILE, tables::CHECKPOINT, tables::HOUR];

/// That each cell which differs is named: its table and its key, and the entry that wrote what should be there.
fn each_is_named(now: &Cells, after: &Cells, found: &[Finding], what: &str) {
    assert!(!found.is_empty(), "{what}");
    let places: std::collections::BTreeSet<&Place> = now.keys().chain(after.keys()).collect();
    for place in places.into_iter().filter(|place| now.get(*place) != after.get(*place)) {
        let names = |finding: &&Finding| {
            let of_cell = finding.table == place.table.name() && finding.key.as_ref() == Some(&place.key);
            let of_log =
                THE_LOGS_OWN.contains(&place.table) && THE_LOGS_OWN.iter().any(|table| table.name() == finding.table);
            of_cell || of_log
        };
        let Some(finding) = found.iter().find(names) else {
            panic!("{what}: {place:?} differs, and is not among {found:?}")
        };
        let written = now.contains_key(place) && !THE_LOGS_OWN.contains(&place.table);
        assert!(!written || finding.log.is_some() && finding.entry.is_some(), "{what}: {finding}");
    }
}

/// One change: a cell rolled back, exchanged, deleted, copied, bent; or the log's tail cut.
fn mutate(now: &Cells, earlier: &Cells, dice: &mut Dice) -> (Cells, String) {
    let places: Vec<&Place> = now.keys().collect();
    let place = places[dice.below(places.len())].clone();
    let mut after = now.clone();
    let told = |what: &str| format!("{what} {:?}", place.table);
    match dice.below(6) {
        0 => {
            let moved: Vec<_> = earlier.iter().filter(|(place, cell)| now.get(*place) != Some(cell)).collect();
            let (place, cell) = moved[dice.below(moved.len())];
            after.insert(place.clone(), cell.clone());
            (after, format!("rolled back {:?}", place.table))
        }
        1 => {
            let alike: Vec<_> = places.iter().filter(|other| other.table == place.table && **other != &place).collect();
            let Some(other) = alike.get(dice.below(alike.len().max(1))) else { return mutate(now, earlier, dice) };
            if now[**other] == now[&place] {
                return mutate(now, earlier, dice);
            }
            after.insert(place.clone(), now[**other].clone());
            after.insert((**other).clone(), now[&place].clone());
            (after, told("exchanged"))
        }
        2 => {
            after.remove(&place);
            (after, told("deleted"))
        }
        3 => {
            let mut copy = place.clone();
            let at = dice.below(copy.key.len());
            copy.key[at] ^= 1 << dice.below(8);
            if now.contains_key(&copy) {
                return mutate(now, earlier, dice);
            }
            after.insert(copy, now[&place].clone());
            (after, told("copied"))
        }
        4 => {
            let cell = after.get_mut(&place).unwrap();
            if cell.value.is_empty() {
                return mutate(now, earlier, dice);
            }
            let at = dice.below(cell.value.len());
            cell.value[at] ^= 1 << dice.below(8);
            (after, told("bent"))
        }
        _ => {
            let leaves: Vec<&Place> = now.keys().filter(|place| place.table == tables::LEAF).collect();
            let kept = dice.below(leaves.len());
            leaves[kept..].iter().for_each(|leaf| drop(after.remove(*leaf)));
            (after, format!("cut the log from leaf {kept} on"))
        }
    }
}

#[tokio::test]
async fn each_of_many_random_changes_to_a_store_is_found() {
    let (world, earlier) = worked().await;
    let now = all(&**world.store.inner()).await;
    assert_eq!(findings(&world, &now).await, []);
    let wanted = nightly::rounds(200, 1_000);
    let mut dice = Dice(20_261_125);
    for turn in 0..wanted {
        let (after, what) = mutate(&now, &earlier, &mut dice);
        let found = findings(&world, &after).await;
        each_is_named(&now, &after, &found, &format!("turn {turn}: {what}"));
    }
    nightly::figure("audit: random changes named", format_args!("{wanted} of {wanted}"));
}

#[tokio::test]
async fn a_store_rolled_back_whole_is_found_by_the_copy_outside() {
    let (world, earlier) = worked().await;
    let found = findings(&world, &earlier).await;
    assert!(found.iter().any(|finding| finding.what.contains("rolled back")), "{found:?}");
}

/// Whatever a table holds and is for: a cell that no entry wrote is named. Sessions are nobody's evidence.
#[tokio::test]
async fn a_cell_that_nobody_wrote_is_named_in_every_table() {
    let world = World::new().await;
    let now = all(&**world.store.inner()).await;
    for table in tables::ALL.into_iter().filter(|table| *table != tables::SESSION) {
        let mut after = now.clone();
        after.insert(Place::new(table, [7; 34]), Cell { version: 1, value: vec![7; 97] });
        let found = findings(&world, &after).await;
        let named = |finding: &Finding| finding.table == table.name() && finding.key == Some(vec![7; 34]);
        assert!(found.iter().any(named), "{}: {found:?}", table.name());
    }
}

/// What is found is named well enough to act on: table, cell, entry, and what is wrong with it.
#[tokio::test]
async fn findings_name_the_cell_and_the_entry() {
    let (world, earlier) = worked().await;
    let now = all(&**world.store.inner()).await;
    let (place, cell) = earlier.iter().find(|(place, _)| place.table == tables::CONSENT).unwrap();
    let mut after = now.clone();
    after.insert(place.clone(), cell.clone());
    let found = findings(&world, &after).await;
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((one.table, one.key.as_ref(), one.entry), ("consent", Some(&place.key), Some(world.log_size() - 1)));
    let newest = now[place].version;
    assert_eq!(one.what, format!("was rolled back to version {}; the newest is {newest}", cell.version));
}

/// Each thing that the audit looks at, changed alone: it is found for what it is, whatever else would show it too.
#[tokio::test]
async fn each_check_of_the_audit_names_what_it_is_there_for() {
    let (world, earlier) = worked().await;
    let now = all(&**world.store.inner()).await;
    let size = world.log_size();
    let of = |table| now.keys().filter(move |place| place.table == table).cloned().collect::<Vec<_>>();
    let (leaves, tiles, checkpoint) = (of(tables::LEAF), of(tables::TILE), of(tables::CHECKPOINT).remove(0));
    assert!(leaves.len() as u64 >= size && !tiles.is_empty(), "{size} entries make a tile");
    let consent = earlier.keys().find(|place| place.table == tables::CONSENT).unwrap().clone();
    let other_place = |place: &Place, at: usize| {
        let mut key = place.key.clone();
        key[at] ^= 0x80;
        Place::new(place.table, key)
    };
    let bend = |place: &Place, at: usize| {
        let mut after = now.clone();
        after.get_mut(place).unwrap().value[at] ^= 1;
        after
    };
    let with = |place: &Place, cell: Cell| {
        let mut after = now.clone();
        after.insert(place.clone(), cell);
        after
    };
    let without = |places: &[&Place]| {
        let mut after = now.clone();
        places.iter().for_each(|place| drop(after.remove(*place)));
        after
    };
    let again = |place: &Place| Cell { version: now[place].version + 1, ..now[place].clone() };
    let whole = leaves.iter().find(|leaf| leaf.key.ends_with(&[0, 0]) && now[*leaf].value.len() > 600).unwrap();
    let mut second_part = whole.clone();
    *second_part.key.last_mut().unwrap() = 1;
    let beyond = Place::new(tables::LEAF, [&whole.key[..8], &(size + 3).to_be_bytes(), &[0, 0]].concat());
    let cut = Cell { value: now[whole].value[..500].to_vec(), ..now[whole].clone() };
    let signed = |root: [u8; 32]| {
        let keys = keyring();
        Checkpoint { origin: keys.log().origin().to_owned(), size, root }.sign(&Signing::by(keys.log()))
    };
    let signs_another = Cell { value: signed([9; 32]).into_bytes(), ..now[&checkpoint].clone() };
    let (first, last) = (&leaves[3], leaves.last().unwrap());
    let mut part_alone = without(&[whole]);
    part_alone.insert(second_part, now[whole].clone());
    for (after, what) in [
        (with(&consent, earlier[&consent].clone()), "was rolled back to version"),
        (with(&consent, again(&consent)), "which no entry wrote; the newest is"),
        (bend(&consent, 20), "does not hold what was written as version"),
        (with(&other_place(&consent, 3), now[&consent].clone()), "no entry wrote it"),
        (without(&[&consent]), "is gone; its newest version is"),
        (with(&checkpoint, signs_another), "the entries do not make the tree that it signs"),
        (bend(&checkpoint, now[&checkpoint].value.len() - 20), "is not signed by the log's key"),
        (with(&other_place(&checkpoint, 0), now[&checkpoint].clone()), "no gateway of these keys wrote it"),
        (with(whole, again(whole)), "was written more than once"),
        (with(whole, cut), "is cut short"),
        (bend(whole, 200), "does not open: it was changed or moved"),
        (bend(whole, 580), "its manifest is not the one that the entry names"),
        (with(&beyond, now[whole].clone()), "lies beyond the checkpoint"),
        (with(&other_place(whole, 0), now[whole].clone()), "is no place of a leaf"),
        (part_alone, "stands without its first part"),
        (without(&[first]), "are missing"),
        (without(&[last]), "are missing"),
        (bend(&tiles[0], 40), "does not hold the hashes of its entries"),
        (with(&tiles[0], again(&tiles[0])), "does not hold the hashes of its entries"),
        (without(&[&tiles[0]]), "is missing"),
        (with(&other_place(&tiles[0], 12), now[&tiles[0]].clone()), "the log has no such tile"),
    ] {
        let found = findings(&world, &after).await;
        assert!(found.iter().any(|finding| finding.what.contains(what)), "{what}: {found:?}");
    }

    // What the copy outside alone can tell: another history of the same length.
    let mut outside = OutsideMemory::default();
    outside.keep(&signed([9; 32])).unwrap();
    let found = audit(&store_of(&now).await, &keyring(), &outside, &mut |_| {}).await.unwrap().findings;
    assert!(found.iter().any(|finding| finding.what.contains("is not the one kept outside")), "{found:?}");
    let found =
        audit(&store_of(&now).await, &keyring(), &OutsideMemory::default(), &mut |_| {}).await.unwrap().findings;
    assert!(found.iter().any(|finding| finding.what.contains("no outside copy")), "{found:?}");
}

/// The gateway deletes nothing but sessions; whatever is deleted one day stays so.
#[tokio::test]
async fn a_deleted_cell_that_is_here_again_is_found() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let kept = Kept::default();
    let ledger = super::log::ledger(store.clone(), &kept).await;
    let (place, cell) = (Place::new(tables::NONCE, b"once".as_slice()), Cell { version: 1, value: vec![7] });
    for write in [Write::Put(place.clone(), cell.clone()), Write::Delete(place.clone())] {
        let mut change = super::log::change(0);
        (change.checks, change.writes) = (Vec::new(), vec![write]);
        ledger.record(change).await.unwrap();
    }
    let found = async || audit(&store, &keyring(), &kept, &mut |_| {}).await.unwrap().findings;
    assert_eq!(found().await, []);
    store.commit(Batch { checks: Vec::new(), writes: vec![Write::Put(place, cell)] }).await.unwrap();
    let found = found().await;
    assert!(found.len() == 1 && found[0].what.contains("was deleted, and is here again"), "{found:?}");
}

/// With three logs a cell's newest version may stand in the manifest of any of them.
#[tokio::test]
async fn each_of_many_random_changes_to_a_store_with_three_logs_is_found() {
    let (world, gateways, kept) = World::of_three().await;
    let earlier = work(&world, &gateways).await;
    let copies = Brought(std::iter::once(&world.outside).chain(&kept).cloned().collect());
    let found = async |cells: &Cells| {
        audit(&store_of(cells).await, &keyring_for(1), &copies, &mut |_| {}).await.unwrap().findings
    };
    let now = all(&**world.store.inner()).await;
    assert_eq!(found(&now).await, []);
    let wanted = nightly::rounds(60, 1_000);
    let mut dice = Dice(20_261_126);
    for turn in 0..wanted {
        let (after, what) = mutate(&now, &earlier, &mut dice);
        each_is_named(&now, &after, &found(&after).await, &format!("turn {turn}: {what}"));
    }
    nightly::figure("audit over three logs: random changes named", format_args!("{wanted} of {wanted}"));

    // One log taken back whole, with its checkpoint: its own copy shows it, wherever that is.
    for log in gateways[0].logs().names() {
        use sha2::{Digest, Sha256};
        let prefix = Sha256::digest(log.verifier.name().as_bytes());
        let of_log = |place: &Place| {
            [tables::LEAF, tables::TILE, tables::CHECKPOINT, tables::HOUR].contains(&place.table)
                && place.key.starts_with(&prefix[..8])
        };
        let mut after = now.clone();
        after.retain(|place, _| !of_log(place));
        after.extend(
            earlier.iter().filter(|(place, _)| of_log(place)).map(|(place, cell)| (place.clone(), cell.clone())),
        );
        let found = found(&after).await;
        let named = |finding: &&Finding| finding.log.as_deref() == Some(log.verifier.name());
        assert!(found.iter().filter(named).any(|finding| finding.what.contains("rolled back")), "{}", log.name);
    }
}
