//! `jadegate rotate`: new working, consent and signing keys, on a stopped deployment or under a running gateway.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args as Arguments;
use jiff::SignedDuration;

use crate::attestation::jwks::Jwks;
use crate::cli::{Exit, Failure, say, tell};
use crate::client::Client;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::rotate::{RotateReport, RotateWish};
use crate::entropy::Entropy;

/// How long a running gateway is waited for.
const WAIT_SECONDS: u32 = 30;

/// `jadegate rotate`.
#[derive(Debug, Clone, Arguments)]
pub struct Args {
    /// The deployment's jadegate.toml
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// How long the new keys are known before they are used: verifiers keep the public keys for up to 5 minutes, and
    /// every host needs the file before
    #[arg(long, value_name = "MINUTES", default_value_t = 10, value_parser = clap::value_parser!(u32).range(6..=10_080))]
    pub lead: u32,
    /// Keys have leaked: use the new ones now. Verifiers with an older key set must fetch it again
    #[arg(long, conflicts_with = "lead")]
    pub at_once: bool,
}

/// Rotates, and says what happened and what is left to do.
pub async fn run(args: &Args, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Exit, Failure> {
    let config = Config::read(&args.config).map_err(Failure::of)?;
    let wish = RotateWish { lead: SignedDuration::from_mins(args.lead.into()), at_once: args.at_once };
    let done = config.rotate(wish, clock, entropy, &mut |_| Ok(())).await.map_err(Failure::of)?;
    let file = config.keys.join("keyring.json").display().to_string();
    let RotateReport { rotated, from, people, running, shared } = done;
    let Some(rotated) = rotated else {
        say("No new keys: the last were made less than a day ago, or that rotation was finished just now.");
        say(&format!("Its working and consent keys are used from {}, its signing key from {}.", from.0, from.1));
        if people > 0 {
            say(&format!("{people} people's keys were wrapped by its working key now."));
        }
        say("A new one can begin a day after the last; if keys leaked, --at-once begins it now.");
        return Ok(Exit::Done);
    };
    say(&format!("{file} has new keys: working and consent keys {} from {}", rotated.working, from.0));
    say(&format!("and the signing key {} from {}; it stands in the public key set before.", rotated.kid, from.1));
    for (r#use, version) in &rotated.destroyed {
        say(&format!("Destroyed, since nothing needs it any more: {use} key {version}."));
    }
    if shared {
        say(&format!("Copy keyring.json to the key folder of every other host before {}.", from.0));
    }
    if !running {
        say(&format!("{people} people's keys were wrapped by the new working key."));
        say("Make a fresh backup now: the next rotation destroys the old working key, and older backups with it.");
        return Ok(Exit::Done);
    }
    if taken(&config, &rotated.kid).await {
        say("The running gateway has taken them, and wraps people's keys by the new working key.");
        say("The old working key stays until a rotation while the gateway is stopped.");
        return Ok(Exit::Done);
    }
    tell(&format!(
        "jadegate: the running gateway has not shown the key {} at {}/.well-known/jwks.json within {WAIT_SECONDS} s. The file is in place: send the gateway SIGHUP, or restart it, and look at what it logs",
        rotated.kid, config.listen
    ));
    Ok(Exit::Partly)
}

/// Waits until the gateway shows the new public key.
async fn taken(config: &Config, kid: &str) -> bool {
    for _ in 0..WAIT_SECONDS * 4 {
        let client = Client::new(&format!("http://{}", config.listen), None);
        if let Ok(mut client) = client.map(|client| client.patience(Duration::from_secs(2)))
            && let Ok(response) = client.get("/.well-known/jwks.json").await
            && let Ok(jwks) = Jwks::parse(&String::from_utf8_lossy(&response.body))
            && jwks.get(kid).is_some()
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    false
}
