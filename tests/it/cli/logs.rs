//! Another gateway gets a log of its own by the commands, and each log is served, verified and kept for ever.

use jadegate::client::Client;
use serde_json::Value;

use crate::support::deployment::{Deployment, LIBRARY, SCENARIO, ask, log_size, nonce, token};
use crate::support::process::run;

const SECOND: &str = "gate.yuxi.example/log-2";

fn log(city: &Deployment, args: &[&str]) -> (i32, String, String) {
    let config = city.config_file().display().to_string();
    run(&[&["log", args[0], "--config", &config], &args[1..]].concat())
}

async fn origins(public: &mut Client) -> Vec<(String, String)> {
    let listed = public.get("/log/origins").await.unwrap();
    assert_eq!(listed.status, 200);
    let text = |log: &Value, name: &str| log[name].as_str().unwrap().to_owned();
    let listed = listed.json().unwrap();
    listed.as_array().unwrap().iter().map(|log| (text(log, "origin"), text(log, "path"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_log_is_made_served_verified_and_retired() {
    let mut city = Deployment::city().await;
    let first = city.config.log_origin.clone();
    assert_eq!(origins(&mut city.public()).await.len(), 1);
    let token = token(&mut city.person(0).await, LIBRARY).await;
    let asked = |nonce: String| serde_json::json!({ "scenario": SCENARIO, "consent": &token, "nonce": nonce });
    let nonce = nonce();
    let said = city.party(LIBRARY).post_json("/v1/answers", &asked(nonce.clone())).await.unwrap();
    city.stop().await.unwrap();

    let (code, out, err) = log(&city, &["add", SECOND]);
    assert!(code == 0 && out.contains(SECOND) && out.contains("every host"), "{out}{err}");
    let (code, _, err) = log(&city, &["add", SECOND]);
    assert!(code == 1 && err.contains("taken"), "{err}");
    let (code, out, _) = log(&city, &["list"]);
    assert!(code == 0 && out.lines().count() == 2 && out.contains(&format!("{SECOND}+")), "{out}");

    // As the second gateway's host has it: the same keys and store, its own log and outside copies.
    let (old, checkpoints) = (city.config.clone(), city.dir().join("checkpoints-2"));
    std::fs::create_dir(&checkpoints).unwrap();
    (city.config.log_origin, city.config.checkpoints) = (SECOND.into(), checkpoints.clone());
    city.choose_ports();
    city.start().await;
    let mut public = city.public();
    let paths = origins(&mut public).await;
    assert_eq!(paths.iter().map(|(origin, _)| origin.as_str()).collect::<Vec<_>>(), [first.as_str(), SECOND]);
    assert_eq!(paths[1].1, "/log/gate.yuxi.example_log-2");
    let before = log_size(&mut public).await;
    let again = city.party(LIBRARY).post_json("/v1/answers", &asked(nonce)).await.unwrap();
    assert_eq!(again.body, said.body, "the answer that the first gateway gave, with its proof");
    ask(&mut city.party(LIBRARY), SCENARIO, &token).await;
    assert_eq!(log_size(&mut public).await, before, "the first log is nobody's to write here");
    for (origin, path) in &paths {
        let url = format!("{}{path}", city.config.web_base);
        let said = tokio::task::spawn_blocking(move || run(&["log", "verify", &url])).await.unwrap();
        assert!(said.0 == 0 && said.1.contains(origin.as_str()), "{said:?}");
        let key = public.get(&format!("{path}/key")).await.unwrap();
        assert!(key.body.starts_with(origin.as_bytes()));
    }
    for nothing in
        ["/log/nobody/checkpoint", "/log/nobody/key", "/log/nobody/tile/0/000", "/log/gate.yuxi.example_log-2/tile/x"]
    {
        assert_eq!(public.get(nothing).await.unwrap().status, 404, "{nothing}");
    }
    drop(public);
    city.stop().await.unwrap();

    let config = city.config_file().display().to_string();
    let (code, out, err) = run(&["audit", "--config", &config]);
    assert!(code == 0 && err.contains(&format!("no outside copy of the log {first}")), "{out}{err}");
    let kept = old.checkpoints.display().to_string();
    let (code, out, err) = run(&["audit", "--config", &config, "--checkpoints", &kept]);
    assert!(code == 0 && !err.contains("no outside copy"), "{out}{err}");

    let (code, _, err) = log(&city, &["retire", SECOND]);
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = run(&["serve", "--config", &config]);
    assert!(code == 1 && err.contains("was retired"), "{err}");
    (city.config.log_origin, city.config.checkpoints) = (old.log_origin, old.checkpoints);
    city.choose_ports();
    city.start().await;
    assert_eq!(origins(&mut city.public()).await.len(), 2);
    let url = format!("{}{}", city.config.web_base, paths[1].1);
    let said = tokio::task::spawn_blocking(move || run(&["log", "verify", &url])).await.unwrap();
    assert_eq!(said.0, 0, "{said:?}");
}
