//! The command line: what each command is called, and how it ends.
//!
//! Results go to standard output, everything else to standard error. A command ends as an [`Exit`] or
//! as a [`Failure`], and [`main`] alone turns these into the exit code: 0 done, 1 failed, 2 wrong usage, 3 done in
//! part. The commands know the gateway by its configuration and its HTTP surface; none of them opens the store.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::{Client, Tls};
use crate::clock::{Clock, SystemClock};
use crate::entropy::SystemEntropy;

pub mod audit;
pub mod demo;
pub mod evaluate;
pub mod feed_args;
pub mod import;
pub mod init;
pub mod log_keys;
pub mod log_verify;
pub mod model;
pub mod pki;
pub mod policy_check;
pub mod receipts;
pub mod rotate;
pub mod serve;
pub mod store;
pub mod verify;

/// Answers questions about a person's integrity score without showing the score.
#[derive(Debug, Parser)]
#[command(name = "jadegate", version, arg_required_else_help = true, max_term_width = 100)]
struct Jadegate {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a synthetic city, walks the whole story once with real calls, and serves until Ctrl-C
    Demo(DemoArgs),
    /// Makes a deployment in an empty folder: keys, certificates, policies, jadegate.toml
    Init(InitArgs),
    /// Runs a deployment; SIGHUP reads policies and keys again, SIGTERM finishes what is under way and stops
    Serve(ServeArgs),
    /// Takes bulk feeds (NDJSON, CSV, XLSX): into a stopped deployment, or into a running gateway over its API
    Import(import::Args),
    /// Scores plain files, with no store: the same engine as the gateway's
    Evaluate(evaluate::Args),
    /// Replays the log of a stopped deployment against its store, and names what was rolled back, deleted or moved
    Audit(audit::Args),
    /// Makes new working, consent and signing keys, on a stopped deployment or under a running gateway
    Rotate(rotate::Args),
    /// Backs a store up, restores it, and looks at its health
    #[command(subcommand, name = "store")]
    Backup(store::Command),
    /// Tries a model, drafts it for comment, publishes it
    #[command(subcommand)]
    Model(model::Command),
    /// Works on a folder of policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Verifies an attestation offline, and its log proof if you have it
    Verify(verify::Args),
    /// Works on a gateway's public log, or on the keys of a deployment's logs
    #[command(subcommand)]
    Log(LogCommand),
}

/// `jadegate demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// The folder of the city: a new temporary one unless told; an existing city is continued
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// How many people live in a new city
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(3..=1_000_000))]
    pub people: u32,
    /// Where people, staff and the public come in (loopback only) [default: 127.0.0.1:8080, or the city's own]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub listen: Option<SocketAddr>,
    /// Where relying parties, providers and the registrar come in (loopback only) [default: 127.0.0.1:8443, or the city's own]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub api: Option<SocketAddr>,
}

/// `jadegate init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The folder to make it in; nothing that lies there is overwritten
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `jadegate serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The deployment's jadegate.toml
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Goes on from a store that was restored from a backup older than what was released: once, under a new log with
    /// this name, and with every consent lapsed. Afterwards put the name into jadegate.toml as log_origin
    #[arg(long, value_name = "NEW_ORIGIN")]
    pub restored_under: Option<String>,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Checks every file of a policy folder and names each mistake with file, line and reason
    Check(PolicyCheckArgs),
}

/// `jadegate policy check`.
#[derive(Debug, Clone, Args)]
pub struct PolicyCheckArgs {
    /// The folder with city.toml, catalogue.toml, models/ and the others
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Reads the whole log, from the first entry to the checkpoint, as a stranger would
    Verify(log_verify::Args),
    /// Makes keys for one more log, for another gateway over the same store
    Add(log_keys::ChangeArgs),
    /// Says that no gateway writes a log any more; it stays served and verified for ever
    Retire(log_keys::ChangeArgs),
    /// Names the logs of a deployment, with their verifier keys
    List(log_keys::ListArgs),
}

/// How a command ended that has said all there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All of it is done.
    Done,
    /// Nothing could be done.
    Failed,
    /// It was called in a way that cannot work.
    Usage,
    /// Done in part; what was left out has been named.
    Partly,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partly => 3,
        }
    }
}

/// Why a command did not do its work: a sentence for whoever typed it, which [`main`] prints.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was called in a way that cannot work.
    #[error("{0}")]
    Usage(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// A failure told by any error.
    pub fn of(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// A file or folder that could not be used, and what was wanted of it.
    pub fn file(what: &str, path: &std::path::Path, error: impl std::fmt::Display) -> Self {
        Self::Failed(format!("cannot {what} {}: {error}", path.display()))
    }
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let command = match Jadegate::try_parse() {
        Ok(args) => args.command,
        Err(error) => {
            let wrong = error.use_stderr();
            // A closed pipe is no reason for another message.
            error.print().ok();
            return ExitCode::from(if wrong { 2 } else { 0 });
        }
    };
    let exit = run(command).unwrap_or_else(|failure| {
        tell(&format!("jadegate: {failure}"));
        if matches!(failure, Failure::Usage(_)) { Exit::Usage } else { Exit::Failed }
    });
    ExitCode::from(exit.code())
}

fn run(command: Command) -> Result<Exit, Failure> {
    let (clock, entropy) = (SystemClock::new(), SystemEntropy::new());
    match command {
        Command::Demo(args) => {
            log_to_stderr("warn");
            on_runtime(demo::run(args, std::sync::Arc::new(clock), std::sync::Arc::new(entropy)))
        }
        Command::Init(args) => init::run(&args, &clock, &entropy),
        Command::Serve(args) => {
            log_to_stderr("info");
            on_runtime(serve::run(args, std::sync::Arc::new(clock), std::sync::Arc::new(entropy)))
        }
        Command::Import(args) => {
            on_runtime(import::run(args, std::sync::Arc::new(clock), std::sync::Arc::new(entropy)))
        }
        Command::Rotate(args) => {
            on_runtime(
                async move { rotate::run(&args, std::sync::Arc::new(clock), std::sync::Arc::new(entropy)).await },
            )
        }
        Command::Audit(args) => on_runtime(async move { audit::run(&args).await }),
        Command::Backup(command) => on_runtime(async move { store::run(command, &clock, &entropy).await }),
        Command::Model(command) => {
            on_runtime(
                async move { model::run(command, std::sync::Arc::new(clock), std::sync::Arc::new(entropy)).await },
            )
        }
        Command::Policy(PolicyCommand::Check(args)) => policy_check::run(&args),
        Command::Evaluate(args) => {
            Ok(evaluate::run(&args, &mut std::io::stdout().lock(), &mut std::io::stderr().lock()))
        }
        Command::Verify(args) => {
            Ok(ended(verify::run(&args, clock.now(), &mut std::io::stdout().lock(), &mut std::io::stderr().lock())))
        }
        Command::Log(LogCommand::Verify(args)) => on_runtime(read_log(args)),
        Command::Log(LogCommand::Add(args)) => log_keys::add(&args, &clock, &entropy),
        Command::Log(LogCommand::Retire(args)) => log_keys::retire(&args, &clock),
        Command::Log(LogCommand::List(args)) => log_keys::list(&args),
    }
}

/// The end of a command that gives its exit code as a number.
fn ended(code: i32) -> Exit {
    match code {
        0 => Exit::Done,
        2 => Exit::Usage,
        3 => Exit::Partly,
        _ => Exit::Failed,
    }
}

async fn read_log(args: log_verify::Args) -> Result<Exit, Failure> {
    let (base, folder) = split(&args.url);
    let tls = if base.starts_with("https:") { Some(system_trust()?) } else { None };
    let client = tokio::sync::Mutex::new(Client::new(&base, tls).map_err(|e| Failure::Usage(e.to_string()))?);
    let fetch = async |path: String| {
        let response = client.lock().await.get(&format!("{folder}/{path}")).await.map_err(|e| e.to_string())?;
        if response.status.is_success() {
            Ok(response.body.to_vec())
        } else {
            Err(format!("it answered {}", response.status))
        }
    };
    let bar = indicatif::ProgressBar::new(0);
    let progress = |read, all| {
        bar.set_length(all);
        bar.set_position(read);
    };
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let code = log_verify::run(&args, fetch, progress, &mut out, &mut err).await;
    Ok(ended(code))
}

/// An address without its path, and the path without a slash at its end.
fn split(url: &str) -> (String, String) {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(begin..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| begin + at);
    let part = |text: Option<&str>| text.unwrap_or_default().trim_end_matches('/').to_owned();
    (part(url.get(..end)), part(url.get(end..)))
}

/// The authorities that this system trusts.
pub(crate) fn system_trust() -> Result<Tls, Failure> {
    let usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
    let named = std::env::var("SSL_CERT_FILE").into_iter();
    let file = named.chain(usual.map(str::to_owned)).find(|file| std::path::Path::new(file).exists());
    let file =
        file.ok_or_else(|| Failure::Failed("no file of trusted authorities found; name one in SSL_CERT_FILE".into()))?;
    let pem = std::fs::read(&file).map_err(|e| Failure::file("read", std::path::Path::new(&file), e))?;
    Tls::trusting(&pem).map_err(|e| Failure::Failed(format!("{file}: {e}")))
}

fn on_runtime(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)?;
    runtime.block_on(work)
}

/// Structured logs on standard error; `JADEGATE_LOG` sets another level or filter.
fn log_to_stderr(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("JADEGATE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// One line of results.
pub(crate) fn say(line: &str) {
    // Whoever closed the pipe has read enough.
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

/// One line of everything else.
pub(crate) fn tell(line: &str) {
    writeln!(std::io::stderr().lock(), "{line}").ok();
}

/// Whether somebody watches standard error.
pub(crate) fn watched() -> bool {
    std::io::stderr().is_terminal()
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write HOST:PORT with a numeric host, as 127.0.0.1:8080".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the demo listens on loopback only, as 127.0.0.1:8080".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(line: &str) -> Option<clap::error::ErrorKind> {
        Jadegate::try_parse_from(line.split_whitespace()).err().map(|e| e.kind())
    }

    #[test]
    fn the_contracts_commands_are_read() {
        <Jadegate as clap::CommandFactory>::command().debug_assert();
        for line in [
            "jadegate demo",
            "jadegate demo --data d --people 30 --listen 127.0.0.1:1 --api [::1]:2",
            "jadegate init d",
            "jadegate serve --config jadegate.toml",
            "jadegate evaluate --catalogue c --model m --register r --records a b --on 2026-11-24",
            "jadegate import --config jadegate.toml --provider yx-court a.csv b.xlsx",
            "jadegate import --config jadegate.toml --register a.ndjson --dry-run --encoding gb18030 --sheet s --mapping m",
            "jadegate import --config jadegate.toml --provider p --cert c --key k --ca a f",
            "jadegate audit --config jadegate.toml",
            "jadegate store export --config jadegate.toml out",
            "jadegate store import --config jadegate.toml in",
            "jadegate store verify --config jadegate.toml",
            "jadegate policy check d",
            "jadegate model try m.toml --config jadegate.toml --json --svg out.svg",
            "jadegate model try m.toml --gateway http://127.0.0.1:8080 --login operator",
            "jadegate model draft m.toml --config jadegate.toml",
            "jadegate model publish yuxi-2027 --from 2027-01-01 --gateway http://127.0.0.1:8080 --session s",
            "jadegate verify a.b.c --jwks j --aud x --nonce n",
            "jadegate verify a.b.c --jwks j --proof p --log-key k",
            "jadegate verify --receipts r --file f --jwks j --log-key k",
            "jadegate verify --receipts r --file f --jwks j --log-key k --mapping m --encoding gb18030 --sheet s --provider p",
            "jadegate log verify http://127.0.0.1:8080",
        ] {
            assert_eq!(code_of(line), None, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_named() {
        for line in [
            "jadegate",
            "jadegate dance",
            "jadegate demo --people none",
            "jadegate demo --people 0",
            "jadegate demo --listen 0.0.0.0:80",
            "jadegate evaluate --catalogue c --model m --register r --on 2026-11-24",
            "jadegate evaluate --catalogue c --model m --register r --records a --on 2026-02-30",
            "jadegate evaluate --catalogue c --model m --register r --records a --on 2026-2-3",
            "jadegate import --config jadegate.toml a.csv",
            "jadegate import --config jadegate.toml --provider p",
            "jadegate import --config jadegate.toml --provider p --cert c f",
            "jadegate import --config jadegate.toml --provider p --encoding latin1 f",
            "jadegate verify a.b.c",
            "jadegate verify a.b.c --jwks j --proof p",
            "jadegate verify --jwks j --log-key k",
            "jadegate verify a.b.c --receipts r --file f --jwks j --log-key k",
            "jadegate verify --receipts r --jwks j --log-key k",
            "jadegate verify --receipts r --file f --jwks j",
            "jadegate model try m.toml",
            "jadegate model try m.toml --config c --gateway g",
            "jadegate model publish yuxi-2027 --config c",
            "jadegate model publish yuxi-2027 --from soon --config c",
        ] {
            assert!(code_of(line).is_some(), "{line}");
        }
    }

    #[test]
    fn a_logs_address_may_have_a_path() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(split("http://127.0.0.1:8080"), pair("http://127.0.0.1:8080", ""));
        assert_eq!(split("http://127.0.0.1:8080/"), pair("http://127.0.0.1:8080", ""));
        assert_eq!(split("https://gate.example.cn/log/"), pair("https://gate.example.cn", "/log"));
        assert_eq!(split("nonsense"), pair("nonsense", ""));
    }
}
