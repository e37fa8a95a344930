//! Answers over PostgreSQL against answers over sled, and through three gateways against one.
//!
//! `cargo bench --bench database`. Everything on: TLS to the gateways and to the database, commits that are synced
//! (`fsync` and `synchronous_commit` as PostgreSQL has them). Clients, gateways and servers share the machine, so three
//! gateways share what one had: this shows what they cost, not what three machines would bring.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that stops has failed"
)]

#[path = "../../tests/it/support/deployment.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod deployment;
#[path = "../../tests/it/support/folder.rs"]
mod folder;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/machine.rs"]
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
mod machine;
#[path = "../../tests/it/support/nightly.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod nightly;
#[path = "../../tests/it/support/postgres.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod postgres;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use deployment::{Deployment, free_addresses};
use folder::Folder;
use jadegate::cli::serve::{Running, start_gateway};
use jadegate::client::Client;
use jadegate::clock::SystemClock;
use jadegate::config::{Config, Database, StorePlace};
use jadegate::entropy::SystemEntropy;
use jadegate::store::postgres::PostgresAddress;
use load::{Asker, PARTY, Ran};
use nightly::figure;
use postgres::{PASSWORD, Postgres, Server};

/// As `src/main.rs` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IN_FLIGHT: usize = 1_024;
const SECONDS: u64 = 8;
const AIM: f64 = 0.5;

/// A city over a database of this name.
fn over(postgres: &Postgres, servers: &[&Server], database: &str) -> Deployment {
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    load::unlimited(&city.dir());
    let password = city.dir().join("database.password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let address = PostgresAddress::parse(&Postgres::url(servers, database)).unwrap();
    let (password_file, ca) = (Some(password), Some(postgres.ca()));
    city.config.store = StorePlace::Database(Box::new(Database { address, password_file, ca, plain: false }));
    city.choose_ports();
    city
}

/// Another gateway of the same city, with a log of its own.
fn further(city: &Deployment, n: usize) -> Config {
    let mut config = city.config.clone();
    config.log_origin = format!("gate.yuxi.example/log-{n}");
    city.config.add_log(&config.log_origin, city.clock.now(), &SystemEntropy::new()).unwrap();
    config.checkpoints = city.dir().join(format!("checkpoints-{n}"));
    std::fs::create_dir(&config.checkpoints).unwrap();
    let [listen, api] = free_addresses();
    (config.listen, config.web_base) = (listen, format!("http://{listen}"));
    (config.api, config.api_base) = (api, format!("https://{api}"));
    config
}

/// The same consents asked through all of these gateways at once.
async fn answers(city: &Deployment, tokens: &[String], gateways: &[&Config]) -> Ran {
    let tls = city.tls(PARTY);
    let asker = |(n, token): (usize, &String)| {
        let base = &gateways[n % gateways.len()].api_base;
        Asker { client: Client::new(base, Some(tls.clone())).unwrap(), token: token.clone(), every: None }
    };
    load::run(tokens.iter().enumerate().map(asker).collect(), SECONDS).await
}

async fn measure() {
    let mut sled = Deployment::provisioned(Arc::new(SystemClock::new()));
    load::unlimited(&sled.dir());
    sled.start().await;
    let consents = load::consents(&mut sled, IN_FLIGHT).await;
    let base = answers(&sled, &consents, &[&sled.config]).await;
    sled.stop().await.unwrap();
    let say = |what: &str, ran: &Ran| {
        let (rate, p50, p99) = (ran.rate, ran.within(0.5), ran.within(0.99));
        let (cpu, cores) = (ran.cpu, ran.cores);
        let here = format!("gateways and clients {cpu:.0} us an answer on {cores:.2} cores");
        figure(what, format_args!("{rate:.0} a second, p50 {p50:.1} ms, p99 {p99:.1} ms; {here}"));
    };
    say("database: answers over sled", &base);

    let (mut postgres, primary) = Postgres::start(&[]).await;
    primary.database("alone", "jadegate").await;
    let mut city = over(&postgres, &[&primary], "alone");
    let hosts: Vec<Config> = (2..=3).map(|n| further(&city, n)).collect();
    city.start().await;
    let consents = load::consents(&mut city, IN_FLIGHT).await;
    let one = answers(&city, &consents, &[&city.config]).await;
    say("database: answers over PostgreSQL", &one);
    figure("database: PostgreSQL over sled", format_args!("{:.2} (aim {AIM})", one.rate / base.rate));

    assert!(one.rate >= base.rate * AIM, "over PostgreSQL it is slower than half of what it is over sled");

    let mut others: Vec<Running> = Vec::new();
    for host in &hosts {
        let entropy = Arc::new(SystemEntropy::new());
        others.push(start_gateway(host, city.clock.clone(), entropy).await.unwrap());
    }
    let all: Vec<&Config> = std::iter::once(&city.config).chain(&hosts).collect();
    let three = answers(&city, &consents, &all).await;
    say("database: answers through three gateways", &three);
    figure("database: three gateways over one", format_args!("{:.2}", three.rate / one.rate));
    for other in others {
        other.drain().await.unwrap();
    }

    let standby = postgres.standby(&primary).await;
    let replicated = answers(&city, &consents, &[&city.config]).await;
    say("database: answers with a synchronous standby", &replicated);
    figure("database: with a synchronous standby over without", format_args!("{:.2}", replicated.rate / one.rate));
    city.stop().await.unwrap();
    drop(standby);
}

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measure());
}
