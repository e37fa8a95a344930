//! What only the store on PostgreSQL has to show: who is let in over which way, what another binary finds, collisions,
//! connections that are cut in the middle of a commit, and a view of one moment.

mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use jadegate::store::postgres::{PostgresAddress, PostgresError, PostgresOptions, PostgresStore};
use jadegate::store::{Batch, Check, CommitError, KEYS_END, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

use super::{A, B, at, cell, contract, put, writes};
use crate::support::postgres::{PASSWORD, Postgres, Server};

/// Nothing here cuts the power.
const QUICK: [&str; 2] = ["fsync=off", "full_page_writes=off"];

async fn store(postgres: &Postgres, server: &Server, database: &str) -> PostgresStore {
    PostgresStore::open(postgres.options(&Postgres::url(&[server], database))).await.unwrap()
}

/// A server and an empty database in it.
async fn started() -> (Postgres, Server) {
    let (postgres, server) = Postgres::start(&QUICK).await;
    server.database("city", "jadegate").await;
    (postgres, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_contract() {
    let (postgres, server) = Postgres::start(&QUICK).await;
    let next = AtomicU32::new(0);
    contract(async || {
        let name = format!("city{}", next.fetch_add(1, Ordering::Relaxed));
        server.database(&name, "jadegate").await;
        Arc::new(store(&postgres, &server, &name).await) as Arc<dyn Store>
    })
    .await;
}

/// Every way that is not meant is refused with a sentence that says what to do, and never with the password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_way_that_is_meant_leads_to_the_database() {
    let (postgres, server) = started().await;
    let other = Postgres::new(&QUICK);
    let url = Postgres::url(&[&server], "city");
    let right = || postgres.options(&url);
    let refused = async |options: PostgresOptions| {
        let shown = format!("{options:?}");
        let error = PostgresStore::open(options).await.unwrap_err();
        let said = format!("{error} {error:?} {shown}");
        assert!(!said.contains(PASSWORD) && !said.contains("wrong-password"), "{said}");
        error
    };

    let wrong = PostgresOptions { password: Some(Zeroizing::new("wrong-password".to_owned())), ..right() };
    assert!(matches!(refused(wrong).await, PostgresError::Login { .. }));
    let foreign = PostgresOptions { authorities: Some(std::fs::read(other.ca()).unwrap()), ..right() };
    // By the certificate, and not because something took too long.
    let error = refused(foreign).await;
    assert!(matches!(error, PostgresError::Connect { .. }) && error.to_string().contains("certificate"), "{error}");
    let none = PostgresOptions { authorities: Some(Vec::new()), ..right() };
    assert!(matches!(refused(none).await, PostgresError::Authorities(_)));
    let plain = PostgresOptions { authorities: None, ..right() };
    assert!(matches!(refused(plain).await, PostgresError::Plain { .. }));
    let missing = PostgresOptions { create: false, ..right() };
    assert!(matches!(refused(missing).await, PostgresError::NoTables { .. }));
    let elsewhere = PostgresOptions::new(PostgresAddress::parse("postgresql://jadegate@db.example.cn/city").unwrap());
    assert!(matches!(refused(PostgresOptions { plain: true, ..elsewhere }).await, PostgresError::Plain { .. }));

    for text in [
        "postgresql://jadegate:wrong-password@127.0.0.1/city",
        "postgresql://127.0.0.1/city",
        "postgresql://jadegate@127.0.0.1",
        "postgresql://jadegate@127.0.0.1:none/city",
        "store",
    ] {
        assert!(!PostgresAddress::parse(text).unwrap_err().contains("wrong-password"), "{text}");
    }
    PostgresStore::open(right()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_version_are_refused() {
    let (postgres, server) = started().await;
    let url = Postgres::url(&[&server], "city");
    drop(PostgresStore::open(postgres.options(&url)).await.unwrap());
    let admin = server.admin("city").await;
    for (version, newer) in [(2, true), (0, false)] {
        admin.execute("UPDATE jadegate_schema SET version = $1", &[&version]).await.unwrap();
        match PostgresStore::open(postgres.options(&url)).await {
            Err(PostgresError::Newer { found, .. }) => assert!(newer && found == version),
            Err(PostgresError::Older { found, .. }) => assert!(!newer && found == version),
            other => panic!("{other:?}"),
        }
    }
}

/// Batches that take the same rows in other orders, from two processes' connections: none is lost to a deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_cross_each_other_are_tried_again() {
    let (postgres, server) = started().await;
    let stores = [store(&postgres, &server, "city").await, store(&postgres, &server, "city").await].map(Arc::new);
    let keys: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n]).collect();
    let tasks: Vec<_> = (0..40usize)
        .map(|n| {
            let (store, mut keys) = (stores[n % 2].clone(), keys.clone());
            if n % 4 < 2 {
                keys.reverse();
            }
            let batch = writes(keys.iter().map(|key| put(at(A, key), n as u64 + 1, &[n as u8])).collect());
            tokio::spawn(async move { store.commit(batch).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let found = stores[0].scan(A, &[], &KEYS_END, 100).await.unwrap();
    assert_eq!(found.len(), 20);
    assert!(found.iter().all(|(_, cell)| *cell == found[0].1), "a batch is there whole");
}

/// A view of one moment, while others write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_shows_one_moment() {
    let (postgres, server) = started().await;
    let store = store(&postgres, &server, "city").await;
    store.commit(writes(vec![put(at(A, b"a"), 1, b"before"), put(at(B, b"b"), 1, b"before")])).await.unwrap();
    let mut moment = store.snapshot().await.unwrap().unwrap();
    let first = moment.scan(A, &[], &KEYS_END, 10).await.unwrap();
    store.commit(writes(vec![put(at(A, b"a"), 2, b"after"), put(at(B, b"b"), 2, b"after")])).await.unwrap();
    assert_eq!(first, [(b"a".to_vec(), cell(1, b"before"))]);
    assert_eq!(moment.scan(B, &[], &KEYS_END, 10).await.unwrap(), [(b"b".to_vec(), cell(1, b"before"))]);
    drop(moment);
    assert_eq!(store.get(&at(B, b"b")).await.unwrap(), Some(cell(2, b"after")));
}

const PASS: u8 = 0;
const BEFORE: u8 = 1;
const BEHIND: u8 = 2;

/// Passes bytes on, and cuts the connection at the next COMMIT: before it is sent on, or behind it.
async fn cutter(server: &Server, cut: Arc<AtomicU8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, server) = (listener.local_addr().unwrap().port(), server.at);
    tokio::spawn(async move {
        loop {
            let Ok((near, _)) = listener.accept().await else { return };
            let (far, cut) = (TcpStream::connect(server).await.unwrap(), cut.clone());
            tokio::spawn(async move {
                let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
                let back = tokio::spawn(async move { tokio::io::copy(&mut from_far, &mut to_near).await });
                let mut bytes = vec![0; 1 << 16];
                while let Ok(read @ 1..) = from_near.read(&mut bytes).await {
                    let commits = bytes[..read].windows(7).any(|window| window == b"COMMIT\0");
                    let how = if commits { cut.swap(PASS, Ordering::SeqCst) } else { PASS };
                    if how == BEHIND {
                        // The server gets it, and nobody hears what came of it.
                        back.abort();
                    }
                    if how == BEFORE || to_far.write_all(&bytes[..read]).await.is_err() || how == BEHIND {
                        break;
                    }
                }
                back.abort();
            });
        }
    });
    port
}

/// The connection is lost in the middle of a commit: the outcome is unknown, and the next read tells which it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_in_a_commit_is_an_outcome_unknown_that_a_read_settles() {
    let (_postgres, server) = started().await;
    server.database("cut", "plain").await;
    let cut = Arc::new(AtomicU8::new(PASS));
    let port = cutter(&server, cut.clone()).await;
    let address = PostgresAddress::parse(&format!("postgresql://plain@127.0.0.1:{port}/cut")).unwrap();
    let password = Some(Zeroizing::new(PASSWORD.to_owned()));
    let store = PostgresStore::open(PostgresOptions { password, plain: true, ..PostgresOptions::new(address) });
    let store = store.await.unwrap();
    for (turn, how) in (0..6u8).zip([BEFORE, BEHIND].into_iter().cycle()) {
        let place = at(A, &[turn]);
        let batch = Batch { checks: vec![Check::Absent(place.clone())], writes: vec![put(place.clone(), 1, b"x")] };
        cut.store(how, Ordering::SeqCst);
        let outcome = store.commit(batch.clone()).await;
        assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{how}: {outcome:?}");
        let found = store.get(&place).await.unwrap();
        match store.commit(batch).await {
            // What the read said is what stays so.
            Ok(()) => assert_eq!((found, how), (None, BEFORE)),
            Err(CommitError::Conflict(_)) => assert_eq!((found, how), (Some(cell(1, b"x")), BEHIND)),
            other => panic!("{other:?}"),
        }
    }
}
