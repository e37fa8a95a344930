//! A dry run: what each line would do, though none before it did anything.
//!
//! The gateway says what a batch would change in what it holds. A line that says something again that an earlier batch of
//! this run said is held against that: for each record or person two numbers are kept, so this, unlike an import, takes
//! some 30 bytes for each.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::batches::Batch;
use super::target::{Counts, Target};
use super::{Failure, upload};

/// What earlier batches of this run would have left.
#[derive(Default)]
pub(super) struct Seen {
    hasher: RandomState,
    versions: HashMap<u64, u64>,
}

impl Seen {
    /// Tries a batch, and counts what it would do.
    pub(super) async fn try_batch(&mut self, target: &Target, batch: Batch) -> Result<Counts, Failure> {
        let (mut first, mut again) = (Batch::default(), Batch::default());
        for (number, line, key) in batch.lines() {
            let known = key.is_some_and(|key| self.versions.contains_key(&self.hasher.hash_one(key)));
            if known { &mut again } else { &mut first }.push(number, line, key.cloned());
        }
        first.refused = batch.refused.clone();
        let again_lines: Vec<_> =
            again.lines().map(|(number, line, key)| (number, self.version(line), key.cloned())).collect();
        let mut counts = upload(target, first).await?;
        let told = upload(target, again).await?;
        let refused: HashSet<u64> = counts.rejected.iter().chain(&told.rejected).map(|line| line.line).collect();
        counts.rejected.extend(told.rejected);
        counts.rejected.sort_by_key(|rejected| rejected.line);
        for (number, version, key) in again_lines {
            let Some(key) = key.filter(|_| !refused.contains(&number)) else { continue };
            let same = self.versions.insert(self.hasher.hash_one(&key), version) == Some(version);
            *(if same { &mut counts.unchanged } else { &mut counts.replaced }) += 1;
        }
        for (number, line, key) in batch.lines() {
            if let Some(key) = key.filter(|_| !refused.contains(&number)) {
                let version = self.version(line);
                self.versions.insert(self.hasher.hash_one(key), version);
            }
        }
        Ok(counts)
    }

    fn version(&self, line: &[u8]) -> u64 {
        self.hasher.hash_one(line)
    }
}
