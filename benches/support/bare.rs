//! sled alone, and the cells that it is given, written down so that they take no memory.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

/// A cell: its table and key, version, value.
pub type Put = (Vec<u8>, u64, Vec<u8>);

/// sled with cells under their table and key, long ones in pieces as the store has them.
pub struct Bare {
    db: sled::Db,
    data: File,
}

impl Bare {
    pub fn open(folder: &Path) -> Self {
        let config = sled::Config::new().path(folder).cache_capacity(256 << 20).flush_every_ms(None);
        let db = config.open().unwrap();
        Self { db, data: File::open(folder.join("db")).unwrap() }
    }

    pub fn batch(writes: &[Put]) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, version, value) in writes {
            if value.len() <= 4096 {
                batch.insert(key.clone(), [&version.to_be_bytes(), value.as_slice()].concat());
                continue;
            }
            for (piece, number) in value.chunks(4096).zip(0u8..) {
                batch.insert([&[0xff], key.as_slice(), &[number]].concat(), piece);
            }
            batch.insert(key.clone(), &version.to_be_bytes());
        }
        batch
    }

    pub fn apply(&self, batch: sled::Batch) {
        self.db.apply_batch(batch).unwrap();
        self.db.flush().unwrap();
        self.data.sync_data().unwrap();
    }
}

fn write_part(out: &mut impl Write, part: &[u8]) {
    out.write_all(&u32::try_from(part.len()).unwrap().to_be_bytes()).unwrap();
    out.write_all(part).unwrap();
}

/// Writes a batch down.
pub fn write_down(out: &mut impl Write, writes: &[Put]) {
    out.write_all(&u32::try_from(writes.len()).unwrap().to_be_bytes()).unwrap();
    for (key, version, value) in writes {
        write_part(out, key);
        out.write_all(&version.to_be_bytes()).unwrap();
        write_part(out, value);
    }
}

/// The batches that were written down.
pub struct Recorded(BufReader<File>);

impl Recorded {
    pub fn open(path: &Path) -> Self {
        Self(BufReader::with_capacity(1 << 20, File::open(path).unwrap()))
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    fn part(&mut self) -> Vec<u8> {
        let mut part = vec![0; u32::from_be_bytes(self.number().unwrap()) as usize];
        self.0.read_exact(&mut part).unwrap();
        part
    }
}

impl Iterator for Recorded {
    type Item = Vec<Put>;

    fn next(&mut self) -> Option<Vec<Put>> {
        let count = u32::from_be_bytes(self.number()?);
        Some((0..count).map(|_| (self.part(), u64::from_be_bytes(self.number().unwrap()), self.part())).collect())
    }
}
