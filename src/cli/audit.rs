//! `jadegate audit`: replays the logs of a stopped deployment against its store.

use std::path::PathBuf;

use clap::Args as Arguments;

use crate::cli::{Exit, Failure, say, tell, watched};
use crate::config::Config;

/// How many findings are written out.
const FINDINGS_MAX: usize = 1_000;

/// `jadegate audit`.
#[derive(Debug, Clone, Arguments)]
pub struct Args {
    /// The deployment's jadegate.toml; no gateway may be running on it
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Folders with the outside checkpoints of other hosts, beside that of this one
    #[arg(long, value_name = "DIR")]
    pub checkpoints: Vec<PathBuf>,
}

/// Audits, and says what is not as the log says.
pub async fn run(args: &Args) -> Result<Exit, Failure> {
    let config = Config::read(&args.config).map_err(Failure::of)?;
    let bar = if watched() { indicatif::ProgressBar::new_spinner() } else { indicatif::ProgressBar::hidden() };
    let mut progress = |entries| bar.set_message(format!("{entries} 条 / entries"));
    let audit = config.audit(&args.checkpoints, &mut progress).await.map_err(Failure::of)?;
    bar.finish_and_clear();
    for finding in audit.findings.iter().take(FINDINGS_MAX) {
        say(&finding.to_string());
    }
    for origin in &audit.unwitnessed {
        tell(&format!(
            "日志 {origin} 的外部检查点不在本机：若该日志被整体回退，本次核查看不出 / no outside copy of the log {origin} is here: if that log was rolled back whole, this audit does not show it; bring the folder from its host and name it with --checkpoints"
        ));
    }
    let (entries, cells, wrong) = (audit.entries, audit.cells, audit.findings.len());
    if wrong == 0 {
        say(&format!("相符 · AGREES: {entries} 条日志，{cells} 个单元 / {entries} entries, {cells} cells"));
        return Ok(Exit::Done);
    }
    if wrong > FINDINGS_MAX {
        tell(&format!("只列出前 {FINDINGS_MAX} 处 / only the first {FINDINGS_MAX} are listed"));
    }
    tell(&format!(
        "不符 {wrong} 处：请停止服务，查明谁动过存储，从备份恢复 / {wrong} findings: keep the gateway stopped, find out who touched the store, restore a backup"
    ));
    Ok(Exit::Failed)
}
