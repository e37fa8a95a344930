//! How far a file is read: a bar where somebody watches, a plain line every few seconds where not.

use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{tell, watched};
use crate::clock::Clock;
use crate::feed::{FeedError, Source};

/// How often the bar moves, and how often a line is written.
const BAR: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(5);

/// A file whose place is known elsewhere.
pub(super) struct Watched {
    file: Box<dyn Source>,
    at: Arc<AtomicU64>,
    length: u64,
}

impl Watched {
    /// From its beginning on.
    pub(super) fn new(mut file: Box<dyn Source>) -> Result<Self, FeedError> {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { file, at: Arc::default(), length })
    }
}

impl Read for Watched {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(out)?;
        self.at.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = self.file.seek(to)?;
        self.at.store(at, Relaxed);
        Ok(at)
    }
}

/// How far one file is.
pub(super) struct Progress<'c> {
    name: String,
    bar: ProgressBar,
    watched: bool,
    clock: &'c dyn Clock,
    began: Duration,
    told: Duration,
    lines: u64,
    at: Arc<AtomicU64>,
    length: u64,
}

impl<'c> Progress<'c> {
    pub(super) fn new(path: &Path, file: &Watched, clock: &'c dyn Clock) -> Self {
        let (watched, began) = (watched(), clock.monotonic());
        let bar = if watched { ProgressBar::new(file.length) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent}%") {
            bar.set_style(style);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (at, length) = (Arc::clone(&file.at), file.length);
        Self { name, bar, watched, clock, began, told: began, lines: 0, at, length }
    }

    /// So many more lines are done.
    pub(super) fn add(&mut self, lines: u64) {
        self.lines += lines;
        self.show();
    }

    /// Waits, and shows now and then how far it is.
    pub(super) async fn while_waiting<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut often = tokio::time::interval(BAR);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = often.tick() => self.show(),
            }
        }
    }

    fn show(&mut self) {
        let now = self.clock.monotonic();
        if self.watched {
            self.bar.set_position(self.at.load(Relaxed).min(self.length));
            self.bar.set_message(self.said(now));
        } else if now.saturating_sub(self.told) >= LINE {
            self.told = now;
            let percent = 100 * self.at.load(Relaxed).min(self.length) / self.length.max(1);
            tell(&format!("{} {percent}%", self.said(now)));
        }
    }

    /// Lines, their rate, and how long it will still take.
    fn said(&self, now: Duration) -> String {
        let (name, lines) = (&self.name, self.lines);
        let took = now.saturating_sub(self.began).as_secs_f64();
        if lines == 0 || took < 0.5 {
            return format!("{name}: 检查中 / checking");
        }
        #[allow(clippy::cast_precision_loss, reason = "it is shown to people")]
        let (rate, part) = (lines as f64 / took, self.at.load(Relaxed) as f64 / self.length.max(1) as f64);
        let left = if part > 0.0 { took * (1.0 / part.min(1.0) - 1.0) } else { 0.0 };
        format!("{name}: {lines} 行 / lines, {rate:.0}/s, 剩余 / left {left:.0} s")
    }

    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
