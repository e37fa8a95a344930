//! The store that fails on order: each fault does what it says, and the record tells what was touched.

use std::sync::Arc;

use jadegate::store::faulty::{Deed, Fault, FaultyStore};
use jadegate::store::memory::MemoryStore;
use jadegate::store::{Batch, Check, CommitError, Store};

use super::{A, B, at, put, writes};

fn store() -> FaultyStore {
    FaultyStore::new(Arc::new(MemoryStore::new()))
}

#[tokio::test]
async fn a_fault_is_one_of_both_forms() {
    for (fault, persisted) in [(Fault::Failed, false), (Fault::Lost, false), (Fault::Persisted, true)] {
        let store = store();
        store.fail_commit(2, fault);
        store.commit(writes(vec![put(at(A, b"1"), 1, b"x")])).await.unwrap();
        let said = store.commit(writes(vec![put(at(A, b"2"), 1, b"x")])).await.unwrap_err();
        assert_eq!(matches!(said, CommitError::Failed(_)), fault == Fault::Failed);
        assert_eq!(matches!(said, CommitError::Unknown(_)), fault != Fault::Failed);
        assert_eq!(store.get(&at(A, b"2")).await.unwrap().is_some(), persisted);
        store.commit(writes(vec![put(at(A, b"3"), 1, b"x")])).await.unwrap();
        assert_eq!(store.commits(), 3);
    }
}

#[tokio::test]
async fn nothing_is_written_after_a_failed_sync() {
    for (fault, persisted) in [(Fault::SyncFailed, false), (Fault::SyncFailedPersisted, true)] {
        let store = store();
        store.fail_commit(1, fault);
        for key in [b"1", b"2"] {
            let said = store.commit(writes(vec![put(at(A, key), 1, b"x")])).await;
            assert!(matches!(said, Err(CommitError::SyncFailed(_))));
        }
        assert_eq!(store.get(&at(A, b"1")).await.unwrap().is_some(), persisted);
        assert_eq!(store.get(&at(A, b"2")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn reads_fail_on_order_and_a_store_can_stay_down() {
    let store = store();
    store.fail_read(2);
    assert!(store.get(&at(A, b"1")).await.is_ok());
    assert!(store.scan(A, b"", b"z", 1).await.is_err());
    assert!(store.get(&at(A, b"1")).await.is_ok());
    assert_eq!(store.reads(), 3);
    store.fail_every_commit(Some(Fault::Failed));
    for _ in 0..3 {
        assert!(store.commit(Batch::default()).await.is_err());
    }
    store.fail_every_commit(None);
    store.commit(Batch::default()).await.unwrap();
}

#[tokio::test]
async fn the_record_tells_what_was_touched_and_shows_no_bytes() {
    let store = store();
    store.commit(writes(vec![put(at(A, b"before"), 1, b"x")])).await.unwrap();
    store.start_record();
    store.get(&at(A, b"before")).await.unwrap();
    store.get(&at(B, b"nowhere")).await.unwrap();
    store.scan(A, b"", b"z", 9).await.unwrap();
    let checks = vec![Check::Version(at(A, b"before"), 1), Check::Absent(at(B, b"qqq"))];
    let writes = vec![put(at(B, b"qqq"), 1, b"qqqq"), jadegate::store::Write::Delete(at(A, b"before"))];
    store.commit(Batch { checks, writes }).await.unwrap();
    let record = store.take_record();
    let shapes: Vec<_> = record.iter().map(jadegate::store::faulty::Touch::shape).collect();
    assert_eq!(
        shapes,
        [
            (Deed::Get, A, 6, Some(1)),
            (Deed::Get, B, 7, None),
            (Deed::Scan, A, 0, Some(1)),
            (Deed::CheckVersion, A, 6, None),
            (Deed::CheckAbsent, B, 3, None),
            (Deed::Put, B, 3, Some(4)),
            (Deed::Delete, A, 6, None),
        ]
    );
    assert_eq!(record[5].key, b"qqq");
    assert!(!format!("{record:?}").contains("113"), "bytes of q in {record:?}");
    store.get(&at(A, b"before")).await.unwrap();
    assert_eq!(store.take_record(), []);
}
