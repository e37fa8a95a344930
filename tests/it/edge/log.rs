//! The public log over HTTP: which tiles there are, in which spelling, and that damage shows.

use std::net::SocketAddr;
use std::sync::Arc;

use jadegate::access_log::checkpoint::Checkpoint;
use jadegate::access_log::entry::{self, Body, LogAction, Subject};
use jadegate::access_log::tile::RightEdge;
use jadegate::access_log::{ENTRY_BYTES, leaf_hash};
use jadegate::client::Client;
use jadegate::clock::SystemClock;
use jadegate::entropy::SystemEntropy;
use jadegate::ledger::outside::{Outside as _, OutsideFolder};
use jadegate::store::sled::{SledOptions, SledStore};
use jadegate::store::{Batch, Cell, Place, Store as _, Write};
use jadegate::tables;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::deployment::{COURT, Deployment, LIBRARY, NDJSON, SCENARIO, ask, outcome, token};
use crate::support::process;
use crate::support::world::Signing;

/// Lets the log grow to this size: each empty feed leaves one entry.
async fn grow(city: &Deployment, to: u64) {
    let mut court = city.party(COURT);
    for _ in city.log_size().await..to {
        assert_eq!(court.post("/v1/records", NDJSON, "", vec![]).await.unwrap().status, 200);
    }
    assert_eq!(city.log_size().await, to);
}

async fn tile(public: &mut Client, path: &str) -> Option<Vec<u8>> {
    let response = public.get(&format!("/log/tile/{path}")).await.unwrap();
    match response.status.as_u16() {
        200 => Some(response.body.to_vec()),
        404 => None,
        other => panic!("{path}: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_come_to_be_with_the_size_of_the_log_and_never_change() {
    let city = Deployment::empty().await;
    let public = &mut city.public();
    grow(&city, 255).await;
    let there = async |public: &mut Client| {
        let mut lengths = Vec::new();
        for path in ["0/000.p/255", "0/000", "1/000.p/1", "0/001.p/1", "0/001", "1/000", "1/000.p/2", "0/001.p/2"] {
            lengths.push(tile(public, path).await.map(|bytes| bytes.len() / 32));
        }
        lengths
    };
    assert_eq!(there(public).await, [Some(255), None, None, None, None, None, None, None]);
    let (partial, bundle) =
        (tile(public, "0/000.p/255").await.unwrap(), tile(public, "entries/000.p/7").await.unwrap());
    assert_eq!(bundle.len(), 7 * (2 + ENTRY_BYTES));
    grow(&city, 256).await;
    assert_eq!(there(public).await, [Some(255), Some(256), Some(1), None, None, None, None, None]);
    grow(&city, 257).await;
    assert_eq!(there(public).await, [Some(255), Some(256), Some(1), Some(1), None, None, None, None]);
    assert_eq!(tile(public, "0/000.p/255").await.unwrap(), partial, "a partial tile stays what it was");
    assert_eq!(tile(public, "0/000").await.unwrap()[..partial.len()], partial);
    assert_eq!(tile(public, "entries/000.p/7").await.unwrap(), bundle);
    assert_eq!(tile(public, "entries/000").await.unwrap()[..bundle.len()], bundle);

    for odd in [
        "0/0",
        "0/00",
        "0/1",
        "0/x000/000",
        "0/X000",
        "00/000",
        "+0/000",
        "-1/000",
        "64/000",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/000.p/+1",
        "0/000.p/",
        "0/000.p",
        "0/000/",
        "0//000",
        "0/1000",
        "0/x001/000",
        "0/000.P/1",
        "entries/0",
        "entries/x000/000",
        "Entries/000",
        "entries/000.p/256",
        "0/999999999999999999999999",
        "",
        "0",
        "0/000%00",
        "..%2Fcheckpoint",
        "0/%ff",
    ] {
        assert_eq!(tile(public, odd).await, None, "{odd}");
    }
}

/// Where the cells of a log begin.
fn prefix(origin: &str) -> Vec<u8> {
    Sha256::digest(origin.as_bytes())[..8].to_vec()
}

/// A store that holds a log of so many entries, a whole number of tiles: its tiles, its first and last entry, its checkpoint,
/// and the copy outside. The entries between are nobody's: a start reads none of them.
async fn long_log(city: &Deployment, size: u64) {
    let keys = city.config.open_keys().unwrap();
    let key = keys.log();
    let store = SledStore::open(city.config.store.folder().unwrap(), SledOptions::default()).unwrap();
    let put = |table, key: Vec<u8>, value: Vec<u8>| Write::Put(Place::new(table, key), Cell { version: 1, value });
    let body = Body {
        at: city.clock.now(),
        party: None,
        scenario: None,
        action: LogAction::Report,
        rule: None,
        subject: Subject::None,
    };
    let sealed = |index| entry::seal(key, index, &[7; 32], &body, &[7; 32], &SystemEntropy::new()).unwrap();
    let (first, last) = (sealed(0), sealed(size - 1));
    let (mut edge, mut tiles) = (RightEdge::new(), Vec::new());
    for index in 0..size {
        let leaf = match index {
            0 => leaf_hash(&first),
            _ if index == size - 1 => leaf_hash(&last),
            _ => leaf_hash(&index.to_be_bytes()),
        };
        edge.append(leaf, &mut tiles);
    }
    let own = prefix(key.origin());
    let mut writes: Vec<Write> = tiles
        .iter()
        .map(|(tile, hashes)| {
            let place = [own.as_slice(), &[tile.level], &tile.index.to_be_bytes()].concat();
            put(tables::TILE, place, hashes.concat())
        })
        .collect();
    for (index, entry) in [(0, first), (size - 1, last)] {
        let leaf = [own.as_slice(), &index.to_be_bytes(), &[0, 0]].concat();
        writes.push(put(tables::LEAF, leaf, entry.to_vec()));
    }
    let note = Checkpoint { origin: key.origin().to_owned(), size, root: edge.root() }.sign(&Signing::by(key));
    writes.push(put(tables::CHECKPOINT, own, note.clone().into_bytes()));
    for writes in writes.chunks(200) {
        store.commit(Batch { checks: vec![], writes: writes.to_vec() }).await.unwrap();
    }
    store.close().await;
    OutsideFolder::new(&city.config.checkpoints, key.origin()).keep(&note).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_thousandth_tile_on_paths_have_further_parts() {
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    long_log(&city, 256_000).await;
    city.start().await;
    let size = city.log_size().await;
    assert!(size > 256_000 && size < 256_010, "{size}");
    let public = &mut city.public();
    let first = tile(public, "0/x001/000.p/1").await.unwrap();
    assert_eq!(first.len(), 32);
    let bundle = tile(public, "entries/x001/000.p/1").await.unwrap();
    assert_eq!(bundle.len(), 2 + ENTRY_BYTES);
    assert_eq!(leaf_hash(&bundle[2..]).as_slice(), first, "the entry that the gateway wrote itself");
    for (path, hashes) in [("0/000", 256), ("0/999", 256), ("1/000", 256), ("1/003.p/232", 232), ("2/000.p/3", 3)] {
        assert_eq!(tile(public, path).await.map(|bytes| bytes.len() / 32), Some(hashes), "{path}");
    }
    for odd in [
        "0/1000",
        "0/1000.p/1",
        "0/x1/000.p/1",
        "0/x01/000.p/1",
        "0/x0001/000.p/1",
        "0/X001/000.p/1",
        "0/001/000.p/1",
        "0/x001/x000.p/1",
        "0/x000/x001/000.p/1",
        "0/x000/999",
        "0/x001/0.p/1",
        "0/x001/000.p/01",
        "0/x001/000.p/0",
        "0/x001/000.p/256",
        "0/x001/000",
        "0/x001/001.p/1",
        "1/004.p/1",
        "1/003",
        "2/000.p/4",
        "3/000.p/1",
        "entries/1000",
        "entries/x001/000",
        "entries/x001/000.p/256",
    ] {
        assert_eq!(tile(public, odd).await, None, "{odd}");
    }
    // What it was stays what it is while the tile grows.
    let partial = format!("0/x001/000.p/{}", size - 256_000);
    let before = tile(public, &partial).await.unwrap();
    grow(&city, size + 3).await;
    assert_eq!(tile(public, &partial).await.unwrap(), before);
    let after = tile(public, &format!("0/x001/000.p/{}", size + 3 - 256_000)).await.unwrap();
    assert_eq!((&after[..before.len()], after.len()), (&before[..], before.len() + 96));
}

/// Serves what `from` serves, with one bit changed at one place of one path.
async fn bend(from: String, path: &'static str, at: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match socket.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let Some(asked) = head.split(' ').nth(1) else { continue };
            let response = Client::new(&from, None).unwrap().get(asked).await.unwrap();
            let (status, mut body) = (response.status, response.body.to_vec());
            if asked == path {
                body[at] ^= 1;
            }
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            socket.write_all(head.as_bytes()).await.unwrap();
            socket.write_all(&body).await.unwrap();
            socket.shutdown().await.unwrap();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_bit_in_entry_300_of_600_is_named() {
    let city = Deployment::empty().await;
    grow(&city, 600).await;
    let verify = async |path: &'static str, at: usize| {
        let url = format!("http://{}", bend(city.config.web_base.clone(), path, at).await);
        tokio::task::spawn_blocking(move || process::run(&["log", "verify", &url])).await.unwrap()
    };
    let (code, out, err) = verify("/nothing", 0).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("600 entries"), "{out}");

    // Entry 300 is the 45th of the second bundle; any byte of it will do, its length aside.
    let begins = 44 * (2 + ENTRY_BYTES) + 2;
    for at in [begins, begins + 77, begins + ENTRY_BYTES - 1] {
        let (code, out, err) = verify("/log/tile/entries/001", at).await;
        assert!(code == 1 && err.contains("entry 300 "), "{code} {out}{err}");
    }
    let (code, _, err) = verify("/log/tile/0/001", 44 * 32 + 5).await;
    assert!(code == 1 && err.contains("entry 300 "), "{code} {err}");
    let (code, _, err) = verify("/log/tile/1/000.p/2", 40).await;
    assert!(code == 1 && err.contains("tile/1/000.p/2"), "{code} {err}");
    let (code, _, err) = verify("/log/checkpoint", 60).await;
    assert!(code == 1 && err.contains("NOT INTACT"), "{code} {err}");
}

/// One bit in a stored entry, and one in a stored tile: the first start, or the next audit, names it, and no checkpoint is
/// signed over what the entries do not make.
#[tokio::test(flavor = "multi_thread")]
async fn one_changed_bit_in_a_stored_entry_or_tile_is_named_and_nothing_is_signed_over_it() {
    let mut city = Deployment::city().await;
    let consent = token(&mut city.person(0).await, LIBRARY).await;
    grow(&city, 600).await;
    city.stop().await.unwrap();
    let own = prefix(&city.config.log_origin);
    let entry = Place::new(tables::LEAF, [own.as_slice(), &300_u64.to_be_bytes(), &[0, 0]].concat());
    let tile = Place::new(tables::TILE, [own.as_slice(), &[0], &1_u64.to_be_bytes()].concat());
    let bend = async |city: &Deployment, place: &Place, at: usize| {
        let store = SledStore::open(city.config.store.folder().unwrap(), SledOptions::default()).unwrap();
        let mut cell = store.get(place).await.unwrap().unwrap();
        cell.value[at] ^= 1;
        store.commit(Batch { checks: vec![], writes: vec![Write::Put(place.clone(), cell)] }).await.unwrap();
        store.close().await;
    };
    let command = async |args: Vec<String>| {
        let work = move || process::run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(work).await.unwrap()
    };
    let audit = ["audit", "--config", city.config_file().to_str().unwrap()].map(str::to_owned).to_vec();
    assert_eq!(command(audit.clone()).await.0, 0);

    // A start reads the end of the log: it goes on, over the tree that the entries made when they were written.
    bend(&city, &entry, 77).await;
    city.start().await;
    let answer = ask(&mut city.party(LIBRARY), SCENARIO, &consent).await;
    assert_eq!(outcome(&answer), (200, "met".to_owned()));
    grow(&city, 612).await;
    let (code, out, err) = command(["log", "verify", &city.config.web_base].map(str::to_owned).to_vec()).await;
    assert!(code == 1 && err.contains("entry 300 "), "{code} {out}{err}");
    city.stop().await.unwrap();
    let (code, out, _) = command(audit.clone()).await;
    assert!(code == 1 && out.contains("entry 300:"), "{code} {out}");
    // With the bit as it was all checkpoints of the time between prove right: none was signed over the change.
    bend(&city, &entry, 77).await;
    let (code, out, err) = command(audit).await;
    assert_eq!(code, 0, "{out}{err}");
    city.start().await;
    let (code, out, err) = command(["log", "verify", &city.config.web_base].map(str::to_owned).to_vec()).await;
    assert_eq!(code, 0, "{out}{err}");
    city.stop().await.unwrap();

    bend(&city, &tile, 44 * 32 + 5).await;
    let refused = city.try_start().await.unwrap_err();
    assert!(refused.contains("damaged") && refused.contains("nothing was signed over it"), "{refused}");
}
