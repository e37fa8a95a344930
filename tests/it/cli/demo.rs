//! `jadegate demo` as a process: what it leaves, what it says, and that it goes on after any end.

use std::time::Duration;

use serde_json::Value;

use crate::support::Folder;
use crate::support::deployment::{free_addresses, login};
use crate::support::process::{Serving, run};
use crate::support::wait::until;

/// Waits for `demo.json`, which appears when the story has been told.
async fn told(demo: &mut Serving, file: &std::path::Path) -> Value {
    until("the story's end", async || {
        assert!(file.exists() || demo.ended(Duration::ZERO).await.is_none(), "{}", demo.wrote());
        file.exists()
    })
    .await;
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_tells_nothing_personal_and_goes_on_after_ctrl_c_and_kill_9() {
    let folder = Folder::new();
    let dir = folder.path().join("city");
    let [listen, api] = free_addresses().map(|address| address.to_string());
    let args = ["demo", "--data", dir.to_str().unwrap(), "--people", "30", "--listen", &listen, "--api", &api];
    let start = || Serving::command(&args, &folder.path().join("output"), &[]);
    let file = dir.join("demo.json");

    let mut demo = start();
    let json = told(&mut demo, &file).await;
    let score = async || {
        let mut me = login(json["web"].as_str().unwrap(), json["people"][0]["id_number"].as_str().unwrap()).await;
        me.get("/v1/me/score").await.unwrap().json().unwrap()["score"].clone()
    };
    let first = score().await;
    assert!(first.as_u64().is_some_and(|score| score >= 600), "{first}");
    // The bulk file of the story: two rows were refused, and the import is over the real API.
    let rejects = std::fs::read_to_string(dir.join("try/volunteers.csv.rejects.ndjson")).unwrap();
    let rejects: Vec<Value> = rejects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named: Vec<_> = rejects.iter().map(|r| (r["line"].as_u64().unwrap(), r["code"].as_str().unwrap())).collect();
    assert_eq!(named, [(4, "malformed"), (6, "wrong-check-digit")]);
    assert!(demo.wrote().contains("4 rows taken, 2 refused"), "{}", demo.wrote());
    let [receipts, bulk, jwks, log_key] = ["volunteers.csv.receipts.ndjson", "volunteers.csv", "jwks.json", "log-key"]
        .map(|name| dir.join("try").join(name));
    let [receipts, bulk, jwks, log_key] = [&receipts, &bulk, &jwks, &log_key].map(|path| path.to_str().unwrap());
    let (code, out, err) =
        run(&["verify", "--receipts", receipts, "--file", bulk, "--jwks", jwks, "--log-key", log_key]);
    assert!(code == 0 && out.contains("lines 2 to 7 (6 lines)"), "{out}{err}");
    demo.signal("-INT");
    assert_eq!(demo.ended(Duration::from_secs(15)).await.unwrap().code(), Some(0), "{}", demo.wrote());
    assert!(!file.exists(), "scripts would be led to a gateway that is gone");

    // The same city; killed while it tells its story, and once more after it.
    let mut demo = start();
    demo.kill();
    let mut demo = start();
    told(&mut demo, &file).await;
    demo.kill();
    // What a killed one left behind; the next one takes it away first thing, but this test looks sooner.
    std::fs::remove_file(&file).unwrap();
    let mut demo = start();
    assert_eq!(told(&mut demo, &file).await["people"], json["people"]);
    assert_eq!(score().await, first);
    demo.signal("-TERM");
    assert_eq!(demo.ended(Duration::from_secs(15)).await.unwrap().code(), Some(0));

    let wrote = demo.wrote();
    for person in json["people"].as_array().unwrap() {
        for said in [&person["id_number"], &person["name"]] {
            assert!(!wrote.contains(said.as_str().unwrap()), "{said} is printed");
        }
    }
    assert!(wrote.contains("jadegate log verify") || wrote.contains(" log verify http://"), "{wrote}");
}
