//! Trouble on the way to the database: what it takes back, what it never confirms, and connections that are cut.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jadegate::store::postgres::{PostgresError, PostgresOptions, PostgresStore};
use jadegate::store::{Batch, Check, CommitError, KEYS_END, Store, Write};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{QUICK, started, store};
use crate::store::{A, B, Model, any_batches, at, cell, commit_to_both, put, same_as_model, writes};
use crate::support::nightly::rounds;
use crate::support::postgres::Postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_like_a_plain_map() {
    let (postgres, server) = started().await;
    let store = store(&postgres, &server, "city").await;
    let admin = server.admin("city").await;
    let mut runner = TestRunner::deterministic();
    for _ in 0..rounds(16, 200) {
        let batches = any_batches().new_tree(&mut runner).unwrap().current();
        let mut model = Model::new();
        for batch in &batches {
            commit_to_both(&store, &mut model, batch).await;
        }
        same_as_model(&store, &model).await;
        admin.batch_execute("DELETE FROM jadegate_cell").await.unwrap();
    }
}

/// What no waiting mends is told at once, and several may make the tables at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_waits_only_for_what_may_come() {
    let (postgres, server) = started().await;
    let url = Postgres::url(&[&server], "city");
    let patient = || PostgresOptions { patience: Duration::from_secs(200), ..postgres.options(&url) };
    let opened = tokio::join!(
        PostgresStore::open(patient()),
        PostgresStore::open(patient()),
        PostgresStore::open(patient()),
        PostgresStore::open(patient())
    );
    for store in [opened.0, opened.1, opened.2, opened.3] {
        store.unwrap().commit(writes(vec![put(at(A, b"k"), 1, b"x")])).await.unwrap();
    }
    let foreign = Some(std::fs::read(Postgres::new(&QUICK).ca()).unwrap());
    let foreign = PostgresOptions { authorities: foreign, ..patient() };
    let nowhere = PostgresOptions { address: postgres.options(&url.replace("/city", "/nowhere")).address, ..patient() };
    for (options, said) in [(foreign, "certificate"), (nowhere, "does not exist")] {
        match tokio::time::timeout(Duration::from_secs(60), PostgresStore::open(options)).await {
            Ok(Err(error @ PostgresError::Connect { .. })) => assert!(error.to_string().contains(said), "{error}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlocks_and_serialization_failures_are_tried_again_within_a_bound() {
    let (postgres, server) = Postgres::start(&[&QUICK[..], &["deadlock_timeout=50ms"]].concat()).await;
    server.database("city", "jadegate").await;
    let store = Arc::new(store(&postgres, &server, "city").await);
    let (first, second) = (at(A, b"1"), at(A, b"2"));
    store.commit(writes(vec![put(first.clone(), 1, b"a"), put(second.clone(), 1, b"a")])).await.unwrap();
    let both = |version| Batch {
        checks: vec![Check::Version(first.clone(), version), Check::Version(second.clone(), version)],
        writes: vec![put(first.clone(), version + 1, b"b"), put(second.clone(), version + 1, b"b")],
    };

    // Somebody else takes the two in the other order, and never gives up by itself.
    let other = server.admin("city").await;
    let lock = "SELECT 1 FROM jadegate_cell WHERE key = $1 FOR UPDATE";
    other.batch_execute("SET deadlock_timeout = '1h'; BEGIN").await.unwrap();
    other.query(lock, &[&second.key]).await.unwrap();
    let committing = tokio::spawn({
        let (store, batch) = (Arc::clone(&store), both(1));
        async move { store.commit(batch).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'jadegate' AND wait_event_type = 'Lock'";
    let watcher = server.admin("city").await;
    while watcher.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.query(lock, &[&first.key]).await.unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    committing.await.unwrap().unwrap();
    assert_eq!(store.get(&first).await.unwrap(), Some(cell(2, b"b")));
    if !server.log().contains("deadlock detected") {
        println!("the other's lock came before the store's first wait");
    }

    // The database takes back what it likes, at a statement and at the commit itself.
    let admin = server.admin("city").await;
    for (version, when) in
        [(2, "CREATE TRIGGER t BEFORE INSERT"), (3, "CREATE CONSTRAINT TRIGGER t AFTER INSERT OR UPDATE")]
    {
        let end = if when.contains("CONSTRAINT") { "DEFERRABLE INITIALLY DEFERRED" } else { "" };
        let trigger = |times: u32| {
            format!(
                "CREATE SEQUENCE s; GRANT ALL ON s TO jadegate;
                 CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('s') <= {times} THEN RAISE EXCEPTION 'taken back' USING ERRCODE = '40001'; END IF;
                 RETURN NEW; END $$; {when} ON jadegate_cell {end} FOR EACH ROW EXECUTE FUNCTION f()"
            )
        };
        admin.batch_execute(&trigger(3)).await.unwrap();
        store.commit(both(version)).await.unwrap();
        assert_eq!(store.get(&second).await.unwrap(), Some(cell(version + 1, b"b")));
        admin.batch_execute("DROP TRIGGER t ON jadegate_cell; DROP FUNCTION f; DROP SEQUENCE s").await.unwrap();
        // Without end, it is given up, and nothing has changed.
        admin.batch_execute(&trigger(u32::MAX >> 1)).await.unwrap();
        match store.commit(both(version + 1)).await {
            Err(CommitError::Failed(said)) => assert!(said.contains("taken back"), "{said}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.get(&second).await.unwrap(), Some(cell(version + 1, b"b")));
        admin.batch_execute("DROP TRIGGER t ON jadegate_cell; DROP FUNCTION f; DROP SEQUENCE s").await.unwrap();
    }
    assert_eq!(store.scan(A, b"", &KEYS_END, 9).await.unwrap().len(), 2);
}

/// What the proxy cuts a connection at.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// Before these bytes reach the server.
    Before(&'static str),
    /// When the server has them, before it has answered.
    After(&'static str),
}

/// Stands between the store and the server, and cuts one connection when it is told to.
struct Proxy {
    at: std::net::SocketAddr,
    order: Arc<Mutex<Option<Cut>>>,
}

impl Proxy {
    async fn start(server: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, order) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(None)));
        let orders = Arc::clone(&order);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(Self::pass(client, server, Arc::clone(&orders)));
            }
        });
        Self { at, order }
    }

    async fn pass(client: TcpStream, server: TcpStream, order: Arc<Mutex<Option<Cut>>>) {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        let forth = async {
            let mut bytes = vec![0; 64 * 1024];
            loop {
                let read = from_client.read(&mut bytes).await.unwrap_or(0);
                let said = String::from_utf8_lossy(&bytes[..read]);
                let cut = order.lock().unwrap().take_if(|cut| match cut {
                    Cut::Before(word) | Cut::After(word) => said.contains(*word),
                });
                if read == 0 || matches!(cut, Some(Cut::Before(_))) {
                    return false;
                }
                to_server.write_all(&bytes[..read]).await.unwrap();
                if cut.is_some() {
                    return true;
                }
            }
        };
        let goes_on = tokio::select! {
            _ = tokio::io::copy(&mut from_server, &mut to_client) => false,
            goes_on = forth => goes_on,
        };
        drop((from_client, to_client));
        if goes_on {
            // The server does not notice, and does what it was asked; nobody hears of it.
            let _nobody = tokio::io::copy(&mut from_server, &mut tokio::io::sink()).await;
        }
    }

    fn cut(&self, cut: Cut) {
        *self.order.lock().unwrap() = Some(cut);
    }

    fn has_cut(&self) -> bool {
        self.order.lock().unwrap().is_none()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_outlives_its_connection_is_waited_out() {
    let (postgres, server) = started().await;
    server.admin("postgres").await.batch_execute("ALTER DATABASE city OWNER TO plain").await.unwrap();
    let proxy = Proxy::start(server.at).await;
    let mut options = postgres.options(&format!("postgresql://plain@{}/city", proxy.at));
    (options.authorities, options.plain) = (None, true);
    let store = PostgresStore::open(options).await.unwrap();
    let (counter, admin) = (at(A, b"counter"), server.admin("city").await);
    store.commit(writes(vec![put(counter.clone(), 1, b"")])).await.unwrap();
    // A commit that lasts: its connection is long gone when it ends.
    let slow =
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.7); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER t AFTER INSERT OR UPDATE ON jadegate_cell DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.key = 'slow') EXECUTE FUNCTION f()";
    admin.batch_execute(slow).await.unwrap();
    store.commit(writes(vec![put(at(B, b"warm"), 1, b"")])).await.unwrap();

    let mut version = 1;
    for round in 0..4_u8 {
        let own = at(A, &[round]);
        let batch = |version: u64, more: &[u8]| Batch {
            checks: vec![Check::Version(counter.clone(), version), Check::Absent(own.clone())],
            writes: vec![put(counter.clone(), version + 1, b""), put(own.clone(), 1, b"own"), put(at(B, more), 1, b"")],
        };
        // Before anything was asked to be committed: nobody notices.
        proxy.cut(Cut::Before("BEGIN"));
        store.commit(batch(version, b"quick")).await.unwrap();
        assert!(proxy.has_cut());
        version += 1;
        store.commit(writes(vec![Write::Delete(own.clone())])).await.unwrap();

        proxy.cut(Cut::Before("COMMIT\0"));
        let outcome = store.commit(batch(version, b"quick")).await;
        assert!(matches!(outcome, Err(CommitError::Unknown(_))) && proxy.has_cut(), "{outcome:?}");
        assert_eq!(store.get(&counter).await.unwrap().unwrap().version, version);
        assert_eq!(store.get(&own).await.unwrap(), None);

        proxy.cut(Cut::After("COMMIT\0"));
        let outcome = store.commit(batch(version, b"slow")).await;
        assert!(matches!(outcome, Err(CommitError::Unknown(_))) && proxy.has_cut(), "{outcome:?}");
        // The read waits the commit out, so it shows what came of it. In every other round the row that tells is one that
        // the batch made.
        if round % 2 == 0 {
            assert_eq!(store.get(&counter).await.unwrap().unwrap().version, version + 1);
        }
        assert_eq!(store.get(&own).await.unwrap(), Some(cell(1, b"own")));
        version += 1;
        store.commit(writes(vec![Write::Delete(at(B, b"slow"))])).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_standby_did_not_confirm_is_not_read_as_committed() {
    let (postgres, server) = started().await;
    let store = Arc::new(store(&postgres, &server, "city").await);
    let place = at(A, b"k");
    store.commit(writes(vec![put(place.clone(), 1, b"x")])).await.unwrap();
    let admin = server.admin("postgres").await;
    let names = async |names: &str| {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        admin.batch_execute(&set).await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    };
    names("nobody").await;
    while admin.query_one("SHOW synchronous_standby_names", &[]).await.unwrap().get::<_, String>(0) != "nobody" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let committing = tokio::spawn({
        let (store, batch) = (Arc::clone(&store), writes(vec![put(place.clone(), 2, b"y")]));
        async move { store.commit(batch).await }
    });
    // The wait is broken off: the server says COMMIT and warns.
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
        WHERE usename = 'jadegate' AND wait_event = 'SyncRep'";
    while admin.query_one(cancel, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(!committing.is_finished(), "the commit did not wait for the standby");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let outcome = committing.await.unwrap();
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    // It is visible on the primary, and would be lost with it: nobody is told yet.
    let mut reading = tokio::spawn({
        let (store, place) = (Arc::clone(&store), place.clone());
        async move { store.get(&place).await }
    });
    let early = tokio::time::timeout(Duration::from_millis(700), &mut reading).await;
    assert!(early.is_err(), "read before the standby had it: {early:?}");
    names("").await;
    assert_eq!(reading.await.unwrap().unwrap(), Some(cell(2, b"y")));
}

/// Whatever the server's own setting, the store's commits wait for the disk, here and at a standby; and its statements and transactions end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_wait_for_the_disk_whatever_the_server_says() {
    let (postgres, server) = started().await;
    drop(store(&postgres, &server, "city").await);
    let admin = server.admin("city").await;
    let look = "CREATE TABLE seen (setting text);
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            INSERT INTO seen SELECT current_setting(name) FROM unnest(ARRAY['synchronous_commit', 'statement_timeout',
                'idle_in_transaction_session_timeout']) AS name;
            RETURN NEW;
        END $$;
        CREATE TRIGGER look BEFORE INSERT ON jadegate_cell FOR EACH ROW EXECUTE FUNCTION look()";
    admin.batch_execute(look).await.unwrap();
    for (n, (said, wanted)) in
        [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
            .into_iter()
            .enumerate()
    {
        let set = format!("ALTER ROLE jadegate SET synchronous_commit = {said}; DELETE FROM seen");
        admin.batch_execute(&set).await.unwrap();
        let store = store(&postgres, &server, "city").await;
        store.commit(writes(vec![put(at(A, format!("k{n}").as_bytes()), 1, b"x")])).await.unwrap();
        let seen = admin.query("SELECT setting FROM seen", &[]).await.unwrap();
        let seen: Vec<String> = seen.iter().map(|row| row.get(0)).collect();
        assert_eq!(seen, [wanted, "10s", "30s"], "the server says {said}");
    }
}
