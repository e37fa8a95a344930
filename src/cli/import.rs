//! `jadegate import`: bulk feeds into a stopped deployment, or into a running gateway over its API.
//!
//! Lines go in batches of as many as one entry of the log covers, several at a time, but never two at once that say
//! something about one record or one line of the register, so the last one of a file counts as if they went one by one.
//! The same lines again change nothing, so an import that ended half way is simply run again; the receipts that it got
//! are kept. Memory does not grow with the file: lines are read as the gateway takes them.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args as Arguments;
use hyper::body::Bytes;
use tokio::task::JoinHandle;

use crate::cli::feed_args::FeedArgs;
use crate::cli::receipts::fit;
use crate::cli::{Exit, Failure, say, tell};
use crate::clock::Clock;
use crate::config::Config;
use crate::entropy::Entropy;
use crate::feed::{self, FeedError, Kind};
use crate::prohibited::Prohibited;

mod batches;
mod dry;
mod progress;
mod receipts;
mod rejects;
pub mod target;

use batches::{Batch, Read, Reading};
use dry::Seen;
use progress::{Progress, Watched};
use receipts::Receipts;
use rejects::Rejects;
pub use target::{Counts, Proof, Target};

/// How many batches are on their way at once.
const FLIGHTS_MAX: usize = 4;

/// `jadegate import`.
#[derive(Debug, Clone, Arguments)]
pub struct Args {
    /// The deployment's jadegate.toml; a gateway that runs on it takes the lines over its API
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Whose records these are; with --register, which registrar sends them where there are several
    #[arg(long, value_name = "ID", required_unless_present = "register")]
    pub provider: Option<String>,
    /// The files are of the register, and not of records
    #[arg(long)]
    pub register: bool,
    /// Says what would change, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How the files are to be read.
    #[command(flatten)]
    pub feed: FeedArgs,
    /// The party's client certificate (PEM), for a running gateway; else its shared key signs
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The party's shared key (base64) [default: the one in the deployment's key folder]
    #[arg(long, value_name = "FILE", conflicts_with = "cert")]
    pub hmac_key: Option<PathBuf>,
    /// The authority that the running gateway's certificate comes from (PEM) [default: the one of client certificates]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The files: NDJSON, CSV in UTF-8 or GB18030, or XLSX, whatever they are called
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

impl Args {
    fn kind(&self) -> Kind {
        if self.register { Kind::Register } else { Kind::Records }
    }
}

/// Sends the files, one after the other.
pub async fn run(args: Args, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Exit, Failure> {
    let mapping = Arc::new(args.feed.mapping()?);
    let config = Config::read(&args.config).map_err(Failure::of)?;
    let (set, secrets) = config.open_policies().map_err(Failure::of)?;
    let party = target::party(&set, args.kind(), args.provider.as_deref())?;
    if let (Some(mapped), Kind::Records) = (mapping.as_ref().as_ref().and_then(|m| m.provider.as_ref()), args.kind())
        && mapped != &party.id
    {
        return Err(Failure::Usage(format!(
            "the mapping file is of the provider {mapped}, and --provider is {}",
            party.id
        )));
    }
    let proof =
        Proof { cert: args.cert.clone(), key: args.key.clone(), hmac_key: args.hmac_key.clone(), ca: args.ca.clone() };
    let target = Target::find(&config, party, &secrets, &proof, args.kind(), (clock.clone(), entropy)).await?;
    let target = Arc::new(target.dry(args.dry_run));
    tell(&target.told());
    let what = What {
        feed: args.feed.clone(),
        mapping,
        kind: args.kind(),
        provider: party.id.as_str().to_owned(),
        prohibited: Arc::new(set.prohibited.clone()),
    };
    let mut sent = Vec::new();
    let mut failed = None;
    for path in &args.files {
        match send(&target, &what, path, clock.as_ref()).await {
            Ok(done) => {
                say(&done.told(path, args.dry_run));
                sent.push(done);
            }
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    if let Some(target) = Arc::into_inner(target) {
        target.close().await;
    }
    match failed {
        Some(failure) => Err(failure),
        None => Ok(ended(&sent)),
    }
}

/// 0 where everything was taken, 1 where nothing could be done, else 3.
fn ended(sent: &[Done]) -> Exit {
    if sent.iter().all(|done| done.refused.is_some() && done.counts.taken() == 0) {
        Exit::Failed
    } else if sent.iter().all(|done| done.refused.is_none() && done.rejected == 0) {
        Exit::Done
    } else {
        Exit::Partly
    }
}

/// What all files of one import have in common.
pub struct What {
    /// How they are to be read.
    pub feed: FeedArgs,
    /// What the words of the department mean.
    pub mapping: Arc<Option<feed::Mapping>>,
    /// What their lines are about.
    pub kind: Kind,
    /// Whose records they are, where a table does not say.
    pub provider: String,
    /// What may not be collected.
    pub prohibited: Arc<Prohibited>,
}

/// What became of one file.
pub struct Done {
    /// What became of the lines that were taken.
    pub counts: Counts,
    /// How many were refused.
    pub rejected: u64,
    /// Where the refused lines are named.
    pub rejects: PathBuf,
    /// How many receipts were given, and where they are with those of earlier runs; none in a dry run.
    pub receipts: Option<(u64, PathBuf)>,
    /// How many lines were taken by a gateway that gave no receipt.
    pub unproven: u64,
    /// Why the file could not be read, or not to its end.
    pub refused: Option<FeedError>,
}

impl Done {
    /// Of a file of which nothing was sent.
    fn nothing(rejects: PathBuf, error: FeedError) -> Self {
        let counts = Counts::default();
        Self { counts, rejected: 0, rejects, receipts: None, unproven: 0, refused: Some(error) }
    }

    fn told(&self, path: &Path, dry: bool) -> String {
        let mut told = self.told_of_lines(path, dry);
        if let Some((count, receipts)) = self.receipts.as_ref().filter(|(count, _)| *count > 0) {
            told.push('\n');
            told.push_str(&kept(*count, receipts));
        }
        if self.unproven > 0 {
            let lines = self.unproven;
            told.push_str(&format!("\n  {lines} 行没有回执：网关版本较旧 / {lines} lines have no receipt: the gateway is of an earlier version"));
        }
        told
    }

    fn told_of_lines(&self, path: &Path, dry: bool) -> String {
        let Counts { accepted, unchanged, replaced, .. } = self.counts;
        let file = path.display();
        let dry = if dry { "（试运行，未改动任何数据 / dry run, nothing was changed）" } else { "" };
        if let Some(error) = &self.refused {
            return match self.counts.taken() {
                0 => format!("{file}: {error}"),
                taken => format!("{file}: {error}；此前已接收 {taken} 行 / {taken} lines before that were taken {dry}"),
            };
        }
        let rejects = match self.rejected {
            0 => String::new(),
            _ => format!("，逐行原因见 / named in {}", self.rejects.display()),
        };
        let rejected = self.rejected;
        format!(
            "{file}: 新增 {accepted}，不变 {unchanged}，更新 {replaced}，拒绝 {rejected} / {accepted} accepted, {unchanged} unchanged, {replaced} replaced, {rejected} refused{rejects}{dry}"
        )
    }
}

/// Sends one file. A file that cannot be read is no failure of the import, which goes on with the next.
pub async fn send(target: &Arc<Target>, what: &What, path: &Path, clock: &dyn Clock) -> Result<Done, Failure> {
    // First of all, so that a path that leads nowhere is said as that, and not as a place where nothing can be written.
    let source = File::open(path).map_err(FeedError::from).and_then(feed::source).and_then(Watched::new);
    let file = match source {
        Ok(file) => file,
        Err(error) => return Ok(Done::nothing(path.to_owned(), error)),
    };
    let rejects = Rejects::begin(path)?;
    let receipts = if target.is_dry() { None } else { Some(Receipts::begin(path)?) };
    let progress = Progress::new(path, &file, clock);
    let mut sending = Sending {
        target,
        path,
        rejects,
        receipts,
        progress,
        counts: Counts::default(),
        unproven: 0,
        flights: VecDeque::new(),
    };
    match sending.all(Reading::start(file, path, what)).await {
        Ok(refused) => sending.done(refused),
        Err(failure) => Err(sending.ended_early(failure).await),
    }
}

/// A file on its way.
struct Sending<'s> {
    target: &'s Arc<Target>,
    path: &'s Path,
    rejects: Rejects,
    /// None in a dry run, which gets none.
    receipts: Option<Receipts>,
    progress: Progress<'s>,
    counts: Counts,
    /// How many lines were taken without a receipt.
    unproven: u64,
    flights: VecDeque<Flight>,
}

impl Sending<'_> {
    /// Sends all that can be read; why the rest cannot.
    async fn all(&mut self, mut reading: Reading) -> Result<Option<FeedError>, Failure> {
        let (mut seen, mut refused) = (Seen::default(), None);
        loop {
            match self.progress.while_waiting(reading.next()).await {
                Read::Opened(notes) => notes.iter().for_each(|note| tell(&format!("{}: {note}", self.path.display()))),
                Read::Batch(batch) if self.target.is_dry() => {
                    let taken = seen.try_batch(self.target, batch).await?;
                    self.add(&taken)?;
                }
                Read::Batch(batch) => {
                    let meets = |flight: &Flight| !flight.keys.is_disjoint(&batch.keys);
                    while self.flights.len() >= FLIGHTS_MAX || self.flights.iter().any(meets) {
                        let Some(flight) = self.flights.pop_front() else { break };
                        self.land(flight).await?;
                    }
                    self.flights.push_back(Flight::start(self.target, batch));
                }
                Read::Failed(error) => {
                    refused = Some(error);
                    break;
                }
                Read::End => break,
            }
        }
        while let Some(flight) = self.flights.pop_front() {
            self.land(flight).await?;
        }
        Ok(refused)
    }

    async fn land(&mut self, flight: Flight) -> Result<(), Failure> {
        let taken = self.progress.while_waiting(flight.task).await.map_err(Failure::of)?;
        let before = self.counts.taken();
        let taken = taken.map_err(|failure| {
            Failure::Failed(format!(
                "{failure}\n导入中断，此前已接收 {before} 行；排除故障后重新运行同一命令即可，不会重复计入 / the import was interrupted after {before} lines were taken: put it right and run the same command again, nothing is counted twice"
            ))
        })?;
        self.add(&taken)
    }

    /// Receipts first: they are for what was taken, whatever becomes of the rest.
    fn add(&mut self, taken: &Counts) -> Result<(), Failure> {
        if let Some(receipts) = &mut self.receipts {
            receipts.add(&taken.receipts)?;
            self.unproven += if taken.receipts.is_empty() { taken.taken() } else { 0 };
        }
        self.counts.add(taken);
        self.rejects.add(&taken.rejected)?;
        self.progress.add(taken.lines());
        Ok(())
    }

    fn done(self, refused: Option<FeedError>) -> Result<Done, Failure> {
        self.progress.finish();
        // Whatever becomes of the rejects, the receipts are kept.
        let receipts = self.receipts.map(Receipts::finish).transpose()?;
        let (rejected, rejects) = (self.rejects.count(), self.rejects.finish()?);
        Ok(Done { counts: self.counts, rejected, rejects, receipts, unproven: self.unproven, refused })
    }

    /// What was sent is waited for, and its receipts are kept.
    async fn ended_early(mut self, failure: Failure) -> Failure {
        while let Some(flight) = self.flights.pop_front() {
            if let (Ok(Ok(taken)), Some(receipts)) = (flight.task.await, &mut self.receipts) {
                // The failure that ended the import is the one to tell of.
                receipts.add(&taken.receipts).ok();
            }
        }
        match self.receipts.map(Receipts::finish) {
            Some(Ok((count, path))) if count > 0 => Failure::Failed(format!("{failure}\n{}", kept(count, &path))),
            Some(Err(other)) => Failure::Failed(format!("{failure}\n{other}")),
            _ => failure,
        }
    }
}

/// How many receipts came, and where they are.
fn kept(count: u64, path: &Path) -> String {
    let path = path.display();
    format!("  回执 {count} 份，请与原文件一起保存：{path} / {count} receipt(s), to be kept with the file: {path}")
}

/// A batch on its way.
struct Flight {
    keys: HashSet<String>,
    task: JoinHandle<Result<Counts, Failure>>,
}

impl Flight {
    fn start(target: &Arc<Target>, batch: Batch) -> Self {
        let (target, keys) = (Arc::clone(target), batch.keys.clone());
        Self { keys, task: tokio::spawn(async move { upload(&target, batch).await }) }
    }
}

/// Sends a batch; refused lines and receipts get their numbers in the file.
async fn upload(target: &Target, batch: Batch) -> Result<Counts, Failure> {
    let Batch { numbers, body, refused, .. } = batch;
    let body = Bytes::from(body);
    let mut counts = if numbers.is_empty() { Counts::default() } else { target.upload(body.clone()).await? };
    if !counts.receipts.is_empty() && !fit(&counts.receipts, &body) {
        return Err(Failure::Failed(
            "网关给的回执不是这些行的回执，请与运维人员联系 / the gateway gave receipts that are not for the lines that were sent: ask its operator".into(),
        ));
    }
    let in_file = |line: u64| {
        let at = usize::try_from(line.saturating_sub(1)).ok();
        at.and_then(|at| numbers.get(at)).copied().unwrap_or(0)
    };
    counts.rejected.iter_mut().for_each(|rejected| rejected.line = in_file(rejected.line));
    for receipt in &mut counts.receipts {
        (receipt.first_line, receipt.last_line) = (in_file(receipt.first_line), in_file(receipt.last_line));
    }
    counts.rejected.extend(refused);
    counts.rejected.sort_by_key(|rejected| rejected.line);
    Ok(counts)
}
