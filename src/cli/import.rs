//! `jadegate import`: bulk feeds into a stopped deployment, or into a running gateway over its API.
//!
//! Lines go in batches of as many as one entry of the log covers, several at a time, but never two at once that say
//! something about one record or one line of the register, so the last one of a file counts as if they went one by one.
//! The same lines again change nothing, so an import that ended half way is simply run again. Memory does not grow with
//! the file: lines are read as the gateway takes them.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args as Arguments;
use tokio::task::JoinHandle;

use crate::cli::feed_args::FeedArgs;
use crate::cli::{Exit, Failure, say, tell};
use crate::clock::Clock;
use crate::config::Config;
use crate::entropy::Entropy;
use crate::feed::{self, FeedError, Kind};
use crate::prohibited::Prohibited;

mod batches;
mod dry;
mod progress;
mod rejects;
pub mod target;

use batches::{Batch, Read, Reading};
use dry::Seen;
use progress::{Progress, Watched};
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
    /// Why the file could not be read, or not to its end.
    pub refused: Option<FeedError>,
}

impl Done {
    fn told(&self, path: &Path, dry: bool) -> String {
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
    let mut rejects = Rejects::begin(path)?;
    let refused = |error, rejects: Rejects| {
        Ok(Done { counts: Counts::default(), rejected: 0, rejects: rejects.abandon(), refused: Some(error) })
    };
    let file = match File::open(path).map_err(FeedError::from).and_then(feed::source) {
        Ok(source) => Watched::new(source),
        Err(error) => return refused(error, rejects),
    };
    let file = match file {
        Ok(file) => file,
        Err(error) => return refused(error, rejects),
    };
    let mut progress = Progress::new(path, &file, clock);
    let mut reading = Reading::start(file, path, what);
    let (mut flights, mut seen, mut refused) = (VecDeque::new(), Seen::default(), None);
    let mut counts = Counts::default();
    loop {
        let read = progress.while_waiting(reading.next()).await;
        match read {
            Read::Opened(notes) => notes.iter().for_each(|note| tell(&format!("{}: {note}", path.display()))),
            Read::Batch(batch) if target.is_dry() => {
                let (taken, lines) = (seen.try_batch(target, batch).await?, &mut rejects);
                lines.add(&taken.rejected)?;
                progress.add(taken.lines());
                counts.add(&taken);
            }
            Read::Batch(batch) => {
                let meets = |flight: &Flight| !flight.keys.is_disjoint(&batch.keys);
                while flights.len() >= FLIGHTS_MAX || flights.iter().any(meets) {
                    let Some(flight) = flights.pop_front() else { break };
                    land(flight, &mut counts, &mut rejects, &mut progress).await?;
                }
                flights.push_back(Flight::start(target, batch));
            }
            Read::Failed(error) => {
                refused = Some(error);
                break;
            }
            Read::End => break,
        }
    }
    while let Some(flight) = flights.pop_front() {
        land(flight, &mut counts, &mut rejects, &mut progress).await?;
    }
    progress.finish();
    let (rejected, rejects) = (rejects.count(), rejects.finish()?);
    Ok(Done { counts, rejected, rejects, refused })
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

async fn land(
    flight: Flight,
    counts: &mut Counts,
    rejects: &mut Rejects,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let interrupted = |failure: Failure, taken: u64| {
        Failure::Failed(format!(
            "{failure}\n导入中断，此前已接收 {taken} 行；排除故障后重新运行同一命令即可，不会重复计入 / the import was interrupted after {taken} lines were taken: put it right and run the same command again, nothing is counted twice"
        ))
    };
    let taken = progress.while_waiting(flight.task).await.map_err(Failure::of)?;
    let taken = taken.map_err(|failure| interrupted(failure, counts.taken()))?;
    rejects.add(&taken.rejected)?;
    progress.add(taken.lines());
    counts.add(&taken);
    Ok(())
}

/// Sends a batch; refused lines get their numbers in the file.
async fn upload(target: &Target, batch: Batch) -> Result<Counts, Failure> {
    let Batch { numbers, body, refused, .. } = batch;
    let mut counts = if numbers.is_empty() { Counts::default() } else { target.upload(body.into()).await? };
    for rejected in &mut counts.rejected {
        let at = usize::try_from(rejected.line.saturating_sub(1)).ok();
        rejected.line = at.and_then(|at| numbers.get(at)).copied().unwrap_or(0);
    }
    counts.rejected.extend(refused);
    counts.rejected.sort_by_key(|rejected| rejected.line);
    Ok(counts)
}
