//! The checkpoint's copies outside the store: two files in turn, of which one always reads.

use std::sync::Arc;

use jadegate::clock::SystemClock;
use jadegate::keys::path_name;
use jadegate::ledger::outside::{Outside, OutsideFolder};

use crate::support::Folder;
use crate::support::deployment::Deployment;

const ORIGIN: &str = "yuxi.example/log";

fn files(folder: &Folder) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn note(size: u64) -> String {
    format!("{ORIGIN}\n{size}\n{}\n\n— {ORIGIN} {}\n", "A".repeat(44), "B".repeat(92))
}

#[test]
fn the_newest_two_notes_are_kept_to_the_byte() {
    let folder = Folder::new();
    let mut outside = OutsideFolder::new(folder.path(), ORIGIN);
    assert_eq!(outside.kept().unwrap(), [] as [&str; 0]);
    // Longer and shorter ones in turn, so that a shorter one lies over a longer one.
    for size in [1, 2, 1_000_000, 2_000_000, 3, 4, u64::MAX, 5, 6] {
        outside.keep(&note(size)).unwrap();
        assert!(outside.kept().unwrap().contains(&note(size)), "{size}");
    }
    let mut kept = OutsideFolder::new(folder.path(), ORIGIN).kept().unwrap();
    kept.sort();
    assert_eq!(kept, [note(5), note(6)]);
    assert_eq!(files(&folder).len(), 2);
}

/// The longest origin makes a note beyond 512 bytes as its size grows; a shorter one still covers it.
#[test]
fn a_shorter_note_covers_a_longer_one_whole() {
    let folder = Folder::new();
    for digits in 1..=256 {
        let name = "o".repeat(digits);
        let note = |size: u64| format!("{name}\n{size}\n{}\n\n— {name} {}\n", "A".repeat(44), "B".repeat(92));
        let mut outside = OutsideFolder::new(folder.path(), ORIGIN);
        for size in [u64::MAX, u64::MAX, 8, 9] {
            outside.keep(&note(size)).unwrap();
        }
        let kept = outside.kept().unwrap();
        assert!(kept.contains(&note(8)) && kept.contains(&note(9)), "{kept:?}");
    }
}

#[test]
fn a_torn_file_leaves_the_other() {
    let folder = Folder::new();
    let mut outside = OutsideFolder::new(folder.path(), ORIGIN);
    outside.keep(&note(1)).unwrap();
    outside.keep(&note(2)).unwrap();
    for (torn, other) in [(0, note(2)), (1, note(1))] {
        let whole = std::fs::read(&files(&folder)[torn]).unwrap();
        for bytes in [&whole[..60], b"\xff\xfe", b""] {
            std::fs::write(&files(&folder)[torn], bytes).unwrap();
            let kept = OutsideFolder::new(folder.path(), ORIGIN).kept().unwrap();
            assert!(kept.contains(&other), "{kept:?}");
        }
        std::fs::write(&files(&folder)[torn], whole).unwrap();
    }
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = Folder::new();
    let gone = folder.path().join("gone");
    let mut outside = OutsideFolder::new(&gone, ORIGIN);
    let error = outside.keep(&note(1)).unwrap_err().to_string();
    assert!(error.contains(gone.to_str().unwrap()), "{error}");
}

/// Logs of two origins may share a folder.
#[test]
fn each_origin_has_its_own_files() {
    let folder = Folder::new();
    let (mut one, mut two) =
        (OutsideFolder::new(folder.path(), ORIGIN), OutsideFolder::new(folder.path(), "yuxi.example/log-2"));
    one.keep(&note(1)).unwrap();
    two.keep(&note(2)).unwrap();
    assert_eq!((one.kept().unwrap(), two.kept().unwrap()), (vec![note(1)], vec![note(2)]));
}

/// A power cut in the very first write leaves a file of nothing or of zeros. A deployment on which nothing was released
/// yet starts over it: it once took such a file for another deployment's.
#[tokio::test]
async fn a_first_write_that_a_power_cut_took_is_no_copy() {
    for left in [&[][..], &[0; 1024], &[note(0).as_bytes(), &[0; 512]].concat()] {
        let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
        let file = city.config.checkpoints.join(format!("{}.0.checkpoint", path_name(&city.config.log_origin)));
        std::fs::create_dir_all(&city.config.checkpoints).unwrap();
        std::fs::write(&file, left).unwrap();
        city.start().await;
        city.stop().await.unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().starts_with(&city.config.log_origin));
    }
}
