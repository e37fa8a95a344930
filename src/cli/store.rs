//! `jadegate store export|import|verify`: a sealed backup, and back; the store's own health.

use std::path::PathBuf;

use clap::{Args as Arguments, Subcommand};
use indicatif::ProgressBar;

use crate::cli::{Exit, Failure, say, tell, watched};
use crate::clock::Clock;
use crate::config::Config;
use crate::entropy::Entropy;

/// How many findings are written out.
const FINDINGS_MAX: usize = 1_000;

/// `jadegate store`.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Makes a sealed backup in one file; beside a running gateway it is the gateway that makes it
    Export(Export),
    /// Puts a backup into the empty store that the configuration names; it is read and checked whole first
    Import(Import),
    /// Reads the whole store of a stopped deployment, without keys, and says whether it is sound
    Verify(Verify),
}

/// `jadegate store export`.
#[derive(Debug, Clone, Arguments)]
pub struct Export {
    /// The deployment's jadegate.toml
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The backup to make; a file that is there is not written over
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
}

/// `jadegate store import`.
#[derive(Debug, Clone, Arguments)]
pub struct Import {
    /// The deployment's jadegate.toml: its key folder opens the backup, and its store must be empty
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The backup
    #[arg(value_name = "IN")]
    pub from: PathBuf,
}

/// `jadegate store verify`.
#[derive(Debug, Clone, Arguments)]
pub struct Verify {
    /// The deployment's jadegate.toml; no gateway may be running on its store
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs one of them.
pub async fn run(command: Command, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Exit, Failure> {
    match command {
        Command::Export(args) => export(&args, clock, entropy).await,
        Command::Import(args) => import(&args).await,
        Command::Verify(args) => verify(&args).await,
    }
}

fn bar() -> ProgressBar {
    if watched() { ProgressBar::new_spinner() } else { ProgressBar::hidden() }
}

async fn export(args: &Export, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Exit, Failure> {
    let config = Config::read(&args.config).map_err(Failure::of)?;
    let bar = bar();
    let mut progress = |done| bar.set_message(format!("{done}"));
    let made = config.export_store(&args.out, (clock, entropy), &mut progress).await.map_err(Failure::of)?;
    bar.finish_and_clear();
    let by = match (config.store.folder(), made.running) {
        (None, _) => "数据库 / the database",
        (Some(_), true) => "运行中的网关 / the running gateway",
        (Some(_), false) => "已停的存储 / the stopped store",
    };
    say(&format!("已备份 · BACKED UP: {} ({} 字节 / bytes; {by})", args.out.display(), made.bytes));
    tell("其中没有密钥：密钥目录另行备份 / it holds no key: keep a copy of the key folder apart from it");
    Ok(Exit::Done)
}

async fn import(args: &Import) -> Result<Exit, Failure> {
    let config = Config::read(&args.config).map_err(Failure::of)?;
    let bar = bar();
    let mut progress = |done| bar.set_message(format!("{done} 字节 / bytes"));
    let imported = config.import_store(&args.from, &mut progress).await.map_err(Failure::of)?;
    bar.finish_and_clear();
    say(&format!(
        "已导入 · IMPORTED: {} 个单元 / {} cells, {} (jadegate {})",
        imported.cells, imported.cells, imported.made, imported.version
    ));
    tell("下一步 / next: jadegate audit --config FILE");
    Ok(Exit::Done)
}

async fn verify(args: &Verify) -> Result<Exit, Failure> {
    let config = Config::read(&args.config).map_err(Failure::of)?;
    let bar = bar();
    let mut progress = |done| bar.set_message(format!("{done} 个单元 / cells"));
    let health = config.verify_store(&mut progress).await.map_err(Failure::of)?;
    bar.finish_and_clear();
    for counted in &health.tables {
        say(&format!("{:<12}{:>12} 单元 / cells{:>16} 字节 / bytes", counted.table, counted.cells, counted.bytes));
    }
    for (origin, size) in &health.logs {
        say(&format!("日志 / log {origin}: {size} 条 / entries"));
    }
    for fault in &health.faults {
        say(fault);
    }
    for finding in health.findings.iter().take(FINDINGS_MAX) {
        say(&finding.to_string());
    }
    if health.is_sound() {
        say("完好 · SOUND");
        tell(
            "只看存储本身；单元是否最新、有无被删或移动，请用 / the store alone was looked at; whether a cell is the newest, or was deleted or moved, is for: jadegate audit",
        );
        return Ok(Exit::Done);
    }
    let wrong = health.faults.len() + health.findings.len();
    tell(&format!(
        "有 {wrong} 处不对：请停止服务，留一份存储，从备份恢复 / {wrong} findings: keep the gateway stopped, keep a copy of the store, restore a backup"
    ));
    Ok(Exit::Failed)
}
