//! An import into a deployment whose store is a database: beside a running gateway, and on a stopped one while the
//! database is up; interrupted on either way and run again.

use std::path::Path;
use std::process::Stdio;

use super::interrupted::{registered, state, table, undisturbed};
use super::{City, PROVIDER, rejects_of};
use crate::support::postgres::{Postgres, Server};
use crate::support::process::{Serving, jadegate, run};
use crate::support::wait::until;

/// A stopped deployment over an empty database.
async fn over_a_database() -> (City, Postgres, Server) {
    let (postgres, server) = Postgres::start(&["fsync=off"]).await;
    server.database("city", "jadegate").await;
    let mut city = City::stopped();
    city.deployment.config.store = postgres.place_for(&city.deployment.dir(), &[&server], "city");
    city.deployment.choose_ports();
    (city, postgres, server)
}

/// How many cells the database holds.
async fn cells(server: &Server) -> i64 {
    let admin = server.admin("city").await;
    admin.query_one("SELECT count(*) FROM jadegate_cell", &[]).await.unwrap().get(0)
}

/// Starts an import in a process of its own, and waits until some of it is in the database.
async fn begun(city: &City, server: &Server, file: &Path) -> std::process::Child {
    let before = cells(server).await;
    let arguments = city.arguments(&["--provider", PROVIDER], &[file]);
    let output = std::fs::File::create(city.files.join("said")).unwrap();
    let child = jadegate().args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).spawn().unwrap();
    until("some of it", async || cells(server).await > before + 300).await;
    child
}

/// The import runs to its end, and everything is as if nothing had happened.
async fn ends_the_same(city: &mut City, file: &Path, expected: &[String]) {
    let last = city.records(&[file]).await;
    assert_eq!((last.code, last.counts()[3]), (3, 750), "{} {}", last.out, last.err);
    assert_eq!(city.rejects(file).len(), 750);
    assert!(last.counts()[1] > 0, "nothing was taken before: {}", last.out);
    city.deployment.start().await;
    assert!(state(city).await == expected, "the state is another");
    city.deployment.stop().await.unwrap();
    let audit = run(&["audit", "--config", city.deployment.config_file().to_str().unwrap()]);
    assert_eq!(audit.0, 0, "{} {}", audit.1, audit.2);
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_database_without_a_gateway_an_import_that_was_interrupted_ends_the_same() {
    let content = table(3_000);
    let expected = undisturbed(&content).await;
    let (mut city, _postgres, mut server) = over_a_database().await;
    registered(&city).await;
    let file = city.file("a.csv", &content);
    let mut child = begun(&city, &server, &file).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!rejects_of(&file).exists(), "half of a file of rejects has its name, or it was not interrupted");

    // The database goes away, and the import says so.
    let mut child = begun(&city, &server, &file).await;
    server.stop();
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    let said = std::fs::read_to_string(city.files.join("said")).unwrap();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("run the same command again") && !said.contains("5304"), "{said}");
    assert!(!rejects_of(&file).exists(), "half of a file of rejects has its name");
    server.again().await;
    ends_the_same(&mut city, &file, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_database_beside_its_gateway_an_import_that_was_interrupted_ends_the_same() {
    let content = table(3_000);
    let expected = undisturbed(&content).await;
    let (mut city, _postgres, server) = over_a_database().await;
    registered(&city).await;
    let file = city.file("a.csv", &content);
    let config = city.deployment.config_file();
    let mut serving = Serving::start(&config, &city.files.join("output"), &[]).await;
    let mut child = begun(&city, &server, &file).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let before = cells(&server).await;
    let files = [file.as_path()];
    let importing = city.records(&files);
    let killing = async {
        until("more of it", async || cells(&server).await > before + 300).await;
        serving.kill();
    };
    let (ended, ()) = tokio::join!(importing, killing);
    assert_eq!(ended.code, 1, "{} {}", ended.out, ended.err);
    assert!(ended.err.contains("over the running gateway's API"), "{}", ended.err);
    assert!(ended.err.contains("run the same command again") && !ended.err.contains("5304"), "{}", ended.err);
    assert!(!rejects_of(&file).exists(), "half of a file of rejects has its name");
    // Its gateway is gone, and the database is up: the same command goes on by itself.
    ends_the_same(&mut city, &file, &expected).await;
}
