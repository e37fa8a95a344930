//! Writes `FILE.receipts.ndjson`.
//!
//! What a run is given goes to a file under another name, batch by batch, so an import that is killed has it too; at the
//! end, or when the next run begins, its whole lines are put behind those of earlier runs, in a new file that gets the
//! name when it is whole and durable. Receipts are never taken away: an earlier one says on which day a line was first
//! sent. Memory does not grow with the file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Failure;
use super::rejects::{name_durably, remove};
use crate::cli::receipts::{LINE_BYTES_MAX, Receipt, beside};

/// The receipts of one run, as they come.
pub(super) struct Receipts {
    names: Names,
    out: BufWriter<File>,
    count: u64,
}

struct Names {
    path: PathBuf,
    /// Those of a run, as they come.
    partial: PathBuf,
    /// All of them, while they are put together.
    whole: PathBuf,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| Failure::file("write receipts to", path, error)
}

fn create(path: &Path) -> Result<File, Failure> {
    remove(path)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(failed(path))
}

/// Held by a run for as long as it lasts, so that a second one does not take its receipts for those of a killed one.
fn lock(file: &File, path: &Path) -> Result<(), Failure> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Failure::Failed(format!(
            "这份文件正在由另一个进程导入 / this file is being imported by another process: {} is in use",
            path.display()
        ))),
        // A file system without locks has no second run to fear more than before.
        _ => Ok(()),
    }
}

impl Receipts {
    /// Begins the file beside `of`; what a run that was killed left is kept first.
    pub(super) fn begin(of: &Path) -> Result<Self, Failure> {
        let names = Names { path: beside(of, ""), partial: beside(of, ".partial"), whole: beside(of, ".whole") };
        names.join()?;
        let file = create(&names.partial)?;
        lock(&file, &names.partial)?;
        Ok(Self { names, out: BufWriter::new(file), count: 0 })
    }

    /// Adds receipts; whoever kills the process from now on does not take them away.
    pub(super) fn add(&mut self, receipts: &[Receipt]) -> Result<(), Failure> {
        for receipt in receipts {
            self.out.write_all(receipt.to_line().as_bytes()).map_err(failed(&self.names.partial))?;
            self.count += 1;
        }
        self.out.flush().map_err(failed(&self.names.partial))
    }

    /// Puts them behind those of earlier runs: how many came, and where all are.
    pub(super) fn finish(self) -> Result<(u64, PathBuf), Failure> {
        let Self { names, out, count } = self;
        let file = out.into_inner().map_err(|e| failed(&names.partial)(e.into_error()))?;
        file.sync_all().map_err(failed(&names.partial))?;
        drop(file);
        names.join()?;
        Ok((count, names.path))
    }
}

impl Names {
    /// Puts the receipts of a run behind those of earlier ones. It may end at any point and be begun again.
    fn join(&self) -> Result<(), Failure> {
        let partial = match File::open(&self.partial) {
            Ok(partial) => partial,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed(&self.partial)(e)),
        };
        lock(&partial, &self.partial)?;
        let earlier = match File::open(&self.path) {
            Ok(earlier) => Some(earlier),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(failed(&self.path)(e)),
        };
        let kept = Whole::of(&partial).try_fold(0, |sum, line| Ok(sum + line?.len() as u64));
        let kept = kept.map_err(failed(&self.partial))?;
        let there = kept == 0 || ends_with(earlier.as_ref(), &partial, kept).map_err(failed(&self.path))?;
        if !there {
            let mut all = BufWriter::new(create(&self.whole)?);
            put(earlier, &partial, &mut all).map_err(failed(&self.whole))?;
            let all = all.into_inner().map_err(|e| failed(&self.whole)(e.into_error()))?;
            name_durably(&all, &self.whole, &self.path).map_err(failed(&self.path))?;
        }
        remove(&self.partial)
    }
}

/// The whole lines of a file that may have been cut off, from its beginning.
struct Whole<'f>(BufReader<&'f File>);

impl<'f> Whole<'f> {
    fn of(file: &'f File) -> impl Iterator<Item = io::Result<Vec<u8>>> + 'f {
        let mut file = file;
        let sought = file.seek(SeekFrom::Start(0)).map(|_| Vec::new());
        let failed = sought.is_err().then_some(sought);
        failed.into_iter().chain(Self(BufReader::new(file)))
    }
}

impl Iterator for Whole<'_> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = Vec::new();
            match (&mut self.0).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) if line.ends_with(b"\n") && Receipt::parse(&line).is_ok() => return Some(Ok(line)),
                Ok(_) => {}
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// Whether the receipts of a run were put there already.
fn ends_with(earlier: Option<&File>, partial: &File, kept: u64) -> io::Result<bool> {
    let Some(mut earlier) = earlier else { return Ok(false) };
    let Some(at) = earlier.metadata()?.len().checked_sub(kept) else { return Ok(false) };
    earlier.seek(SeekFrom::Start(at))?;
    let mut tail = BufReader::new(earlier);
    for line in Whole::of(partial) {
        let line = line?;
        let mut same = vec![0; line.len()];
        tail.read_exact(&mut same)?;
        if same != line {
            return Ok(false);
        }
    }
    Ok(true)
}

fn put(earlier: Option<File>, partial: &File, all: &mut impl io::Write) -> io::Result<()> {
    if let Some(mut earlier) = earlier {
        earlier.seek(SeekFrom::Start(0))?;
        let mut last = b'\n';
        let mut earlier = BufReader::new(earlier);
        loop {
            let read = earlier.fill_buf()?;
            let Some(end) = read.last() else { break };
            last = *end;
            all.write_all(read)?;
            let length = read.len();
            earlier.consume(length);
        }
        if last != b'\n' {
            all.write_all(b"\n")?;
        }
    }
    Whole::of(partial).try_for_each(|line| all.write_all(&line?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn receipt(n: u64) -> Receipt {
        let (batch, receipt, proof) = (n.to_string(), "a.b.c".into(), "p\n".into());
        Receipt { lines_form: crate::cli::receipts::LINES_FORM, batch, first_line: n, last_line: n, receipt, proof }
    }

    fn text(of: &Path) -> String {
        fs::read_to_string(beside(of, "")).unwrap_or_default()
    }

    fn lines(numbers: &[u64]) -> String {
        numbers.iter().map(|n| receipt(*n).to_line()).collect()
    }

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder(test: &str) -> (Folder, PathBuf) {
        let folder = std::env::temp_dir().join(format!("jadegate-receipts-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("a.csv");
        (Folder(folder), file)
    }

    #[test]
    fn receipts_of_a_run_come_behind_those_of_earlier_ones_and_are_never_taken_away() {
        let (_folder, file) = folder("runs");
        let mut first = Receipts::begin(&file).unwrap();
        first.add(&[receipt(1), receipt(2)]).unwrap();
        assert_eq!(text(&file), "", "half of a run has no name");
        assert_eq!(first.finish().unwrap(), (2, beside(&file, "")));
        assert_eq!(text(&file), lines(&[1, 2]));
        assert_eq!(Receipts::begin(&file).unwrap().finish().unwrap().0, 0);
        assert_eq!(text(&file), lines(&[1, 2]));
        let mut second = Receipts::begin(&file).unwrap();
        assert!(Receipts::begin(&file).is_err(), "two runs at once");
        second.add(&[receipt(1)]).unwrap();
        second.finish().unwrap();
        assert_eq!(text(&file), lines(&[1, 2, 1]));
        assert!(!beside(&file, ".partial").exists() && !beside(&file, ".whole").exists());
    }

    /// Cut off at every byte of what a run wrote, and at each step of putting it behind the others.
    #[test]
    fn what_a_killed_run_left_is_kept_as_far_as_it_is_whole_and_only_once() {
        let (_folder, file) = folder("killed");
        let run = lines(&[3, 4]);
        let one = lines(&[3]).len();
        for cut in 0..=run.len() {
            fs::write(beside(&file, ""), lines(&[1, 2])).unwrap();
            fs::write(beside(&file, ".partial"), &run[..cut]).unwrap();
            fs::write(beside(&file, ".whole"), "half").unwrap();
            Receipts::begin(&file).unwrap().finish().unwrap();
            let whole = if cut == run.len() {
                4
            } else if cut >= one {
                3
            } else {
                2
            };
            assert_eq!(text(&file), lines(&[1, 2, 3, 4][..whole]), "cut at {cut}");
        }
        // Named, and killed before the other one was removed.
        fs::write(beside(&file, ".partial"), &run).unwrap();
        Receipts::begin(&file).unwrap().finish().unwrap();
        assert_eq!(text(&file), lines(&[1, 2, 3, 4]));
        // What a lost power left, and an earlier file that somebody cut the last line end off.
        fs::write(beside(&file, ""), lines(&[1]).trim_end()).unwrap();
        fs::write(beside(&file, ".partial"), format!("{}\0\0\0\n{}", lines(&[2]), lines(&[3]))).unwrap();
        Receipts::begin(&file).unwrap().finish().unwrap();
        assert_eq!(text(&file), lines(&[1, 2, 3]));
    }
}
