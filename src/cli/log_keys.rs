//! `jadegate log add`, `log retire`, `log list`: the logs that a deployment's keyring has keys for.
//!
//! Every gateway over one store writes a log of its own. A new one is first known everywhere, then written.

use std::path::PathBuf;

use clap::Args as Arguments;

use crate::cli::{Exit, Failure, say};
use crate::clock::Clock;
use crate::config::Config;
use crate::entropy::Entropy;

/// `jadegate log list`.
#[derive(Debug, Clone, Arguments)]
pub struct ListArgs {
    /// The deployment's jadegate.toml
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `jadegate log add` and `jadegate log retire`.
#[derive(Debug, Clone, Arguments)]
pub struct ChangeArgs {
    /// The deployment's jadegate.toml
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The log's origin, as `log_origin` in jadegate.toml will name it: gate.example.cn/log-2
    #[arg(value_name = "ORIGIN")]
    pub origin: String,
}

/// Gives the keyring keys for one more log.
pub fn add(args: &ChangeArgs, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Exit, Failure> {
    let config = Config::read(&args.config).map_err(Failure::of)?;
    config.add_log(&args.origin, clock.now(), entropy).map_err(Failure::of)?;
    say(&format!("{} now has keys for the log {}.", config.keys.join("keyring.json").display(), args.origin));
    say("1. copy keyring.json to the key folder of every host, and restart the gateways there one by one");
    say("2. only then start the new gateway: its jadegate.toml differs in log_origin, checkpoints and addresses");
    Ok(Exit::Done)
}

/// Marks a log as one that no gateway writes any more.
pub fn retire(args: &ChangeArgs, clock: &dyn Clock) -> Result<Exit, Failure> {
    let config = Config::read(&args.config).map_err(Failure::of)?;
    config.retire_log(&args.origin, clock.now()).map_err(Failure::of)?;
    say(&format!("The log {} is retired: no gateway starts with it any more.", args.origin));
    say("It stays served and verified for ever. Copy keyring.json to every host.");
    Ok(Exit::Done)
}

/// Names the logs of the keyring.
pub fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let config = Config::read(&args.config).map_err(Failure::of)?;
    for (origin, verifier, retired) in config.logs().map_err(Failure::of)? {
        let state = match retired {
            Some(at) => format!("retired {at}"),
            None if origin == config.log_origin => "written by this configuration".to_owned(),
            None => "written by another gateway".to_owned(),
        };
        say(&format!("{origin}  {verifier}  {state}"));
    }
    Ok(Exit::Done)
}
