//! `jadegate model` as an operator meets it: on a stopped deployment, beside a running gateway, killed in between.

use std::path::PathBuf;
use std::time::Duration;

use jadegate::clock::day_of;
use jadegate::policies::shipped;
use jiff::ToSpan;
use jiff::civil::Date;
use serde_json::Value;

use crate::support::deployment::{Deployment, rewrite};
use crate::support::nightly;
use crate::support::process::{Serving, run};

/// A city of three whose drafts need no time for comment.
async fn city() -> Deployment {
    let none = "model_comment_days = 0";
    let mut city = Deployment::bent(|dir| {
        rewrite(&dir.join("policies/city.toml"), |text| text.replace("model_comment_days = 30", none));
    })
    .await;
    city.populate(3).await;
    city
}

/// The shipped model under another id, as a file beside the deployment.
fn file(city: &Deployment, id: &str, edit: (&str, &str)) -> PathBuf {
    let text = String::from_utf8(shipped()["models/yuxi-2026.toml"].clone()).unwrap();
    let text = text.replace("id = \"yuxi-2026\"", &format!("id = \"{id}\"")).replace(edit.0, edit.1);
    let path = city.dir().join(format!("{id}.toml"));
    std::fs::write(&path, text).unwrap();
    path
}

fn model(city: &Deployment, args: &[&str]) -> (i32, String, String) {
    let config = city.config_file();
    run(&[&["model"], args, &["--config", config.to_str().unwrap()]].concat())
}

fn today(city: &Deployment) -> Date {
    day_of(city.clock.now())
}

async fn approve(city: &Deployment, id: &str) {
    for login in ["officer-one", "operator-one"] {
        let mut staff = city.login(login).await;
        let path = format!("/v1/models/{id}/approval");
        for expected in [204, 409] {
            let done = staff.send(http::Method::POST, &path, http::HeaderMap::new(), vec![].into()).await.unwrap();
            assert_eq!(done.status, expected);
            assert!(expected == 204 || done.json().unwrap()["code"] == "model-approved");
        }
    }
}

fn audited(city: &Deployment) {
    let (code, out, err) = run(&["audit", "--config", city.config_file().to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_tried_drafted_and_published_by_the_commands() {
    let mut city = city().await;
    let (path, later) = (file(&city, "yuxi-2027", ("base = 500", "base = 480")), today(&city) + 2.days());
    let name = path.to_str().unwrap();
    let gateway = city.config.web_base.clone();
    let beside = |args: &[&str]| run(&[&["model"], args, &["--gateway", &gateway, "--login", "operator-one"]].concat());
    // Beside a running gateway.
    let (code, _, err) = model(&city, &["try", name]);
    assert!(code == 1 && err.contains("--gateway"), "{err}");
    let (code, out, err) = beside(&["try", name, "--json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["people"], &shown["least"], &shown["rounded_to"]), (&Value::Null, &10.into(), &10.into()));
    let wrong = file(&city, "wrong", ("min = 800", "min = 790"));
    let (code, _, err) = beside(&["draft", wrong.to_str().unwrap()]);
    assert!(code == 1 && err.contains(&format!("{}:", wrong.display())) && err.contains("cut 800"), "{err}");
    let (code, out, err) = beside(&["draft", name]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let (code, _, err) = beside(&["publish", "yuxi-2027", "--from", &later.to_string()]);
    assert!(code == 1 && err.contains("2 more approval"), "{err}");
    let (code, _, err) = beside(&["publish", "no-such", "--from", &later.to_string()]);
    assert!(code == 1 && err.contains("no model has the id no-such"), "{err}");
    // By a session that was opened elsewhere.
    let form = "application/x-www-form-urlencoded";
    let opened = city.public().post("/demo/login", form, "as=operator-one", vec![]).await.unwrap();
    let cookie = opened.headers["set-cookie"].to_str().unwrap().split([';', '=']).nth(1).unwrap().to_owned();
    let session = city.dir().join("session");
    std::fs::write(&session, format!("{cookie}\n")).unwrap();
    let by = ["model", "try", name, "--gateway", &gateway, "--session", session.to_str().unwrap()];
    assert_eq!(run(&by).0, 0, "{:?}", run(&by));
    let nobody = run(&["model", "try", name, "--gateway", &gateway]);
    assert!(nobody.0 == 2 && nobody.2.contains("--session"), "{nobody:?}");
    approve(&city, "yuxi-2027").await;
    let officer = run(&["model", "try", name, "--gateway", &gateway, "--login", "officer-one"]);
    assert!(officer.0 == 1 && officer.2.contains("not-permitted"), "{officer:?}");
    city.stop().await.unwrap();

    // On the stopped deployment: a trial changes nothing, and draws.
    let drawing = city.dir().join("try.svg");
    let (code, out, err) = model(&city, &["try", name, "--svg", drawing.to_str().unwrap()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("yuxi-2026#sha256-") && out.contains("年龄 / age"), "{out}");
    assert!(std::fs::read_to_string(&drawing).unwrap().starts_with("<svg "));
    let (code, _, err) = model(&city, &["publish", "no-such", "--from", &later.to_string()]);
    assert!(code == 1 && err.contains("no model has the id no-such"), "{err}");
    let (code, _, err) = model(&city, &["publish", "yuxi-2027", "--from", &today(&city).to_string()]);
    assert!(code == 1 && err.contains("a day that begins an hour from now or later"), "{err}");
    for (other, said) in [("/nowhere.toml", "/nowhere.toml"), ("/", "cannot"), ("/dev/zero", "larger than")] {
        for what in ["try", "draft"] {
            let (code, _, err) = model(&city, &[what, other]);
            assert!(code == 1 && err.contains(said) && err.contains(other), "{err}");
        }
    }
    let (code, _, err) = model(&city, &["try", wrong.to_str().unwrap()]);
    assert!(code == 1 && err.contains(&format!("{}:", wrong.display())) && err.contains("cut 800"), "{err}");
    for _ in 0..2 {
        let (code, out, err) = model(&city, &["publish", "yuxi-2027", "--from", &later.to_string()]);
        assert!(code == 0 && out.contains("yuxi-2027"), "{out}{err}");
    }
    let (code, _, err) = model(&city, &["publish", "yuxi-2027", "--from", &(later + 1.day()).to_string()]);
    assert!(code == 1 && err.contains("published already"), "{err}");
    audited(&city);
    city.start().await;
    let listed = city.public().get("/v1/models").await.unwrap().json().unwrap();
    assert_eq!((&listed[0]["id"], &listed[0]["state"]), (&"yuxi-2027".into(), &"scheduled".into()));
    assert_eq!(listed[0]["from"], later.to_string());
    assert_eq!((&listed[1]["state"], &listed[1]["until"]), (&"in-force".into(), &later.to_string().into()));
    city.stop().await.unwrap();
}

/// kill -9 of a publication, at random moments and as each of its commits is made durable: it happened or it did not, and the
/// same command again makes it so.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_killed_at_random_moments_is_whole_or_not_there() {
    let mut city = city().await;
    let rounds = nightly::rounds(9, 60);
    let gateway = city.config.web_base.clone();
    for round in 0..=rounds {
        let path = file(&city, &format!("next-{round}"), ("base = 500", &format!("base = {}", 499 - round)));
        let drafted =
            run(&["model", "draft", path.to_str().unwrap(), "--gateway", &gateway, "--login", "operator-one"]);
        assert_eq!(drafted.0, 0, "{drafted:?}");
        approve(&city, &format!("next-{round}")).await;
    }
    city.stop().await.unwrap();
    let (config, first) = (city.config_file(), today(&city) + 2.days());
    let (database, mut killed) = (city.config.store.folder().unwrap().join("sled/db"), 0);
    let publication = |round: usize| {
        let from = first + i32::try_from(round).unwrap().days();
        [format!("next-{round}"), "--from".to_owned(), from.to_string()]
    };
    let publish = |round: usize| {
        let [id, flag, from] = publication(round);
        model(&city, &["publish", &id, &flag, &from])
    };
    let began = tokio::time::Instant::now();
    assert_eq!(publish(rounds).0, 0);
    let whole = began.elapsed();
    for round in 0..rounds {
        let [id, flag, from] = publication(round);
        let args = ["model", "publish", &id, &flag, &from, "--config", config.to_str().unwrap()];
        let output = city.dir().join("output");
        // One in three by time; the others as the first commit is made durable, the second and so on, where half of it could be
        // left: what a killed process has written stays.
        match (round % 3).checked_sub(1) {
            None => {
                let mut publishing = Serving::command(&args, &output, &[]);
                publishing.ended(whole.mul_f64((round as f64 + 0.5) / rounds as f64)).await;
                publishing.kill();
            }
            Some(turn) => {
                let mut strace: Vec<String> =
                    ["-f", "-qq", "-o", "/dev/null", "-etrace=fdatasync", "-P"].map(str::to_owned).into();
                strace.push(database.to_str().unwrap().to_owned());
                strace.push(format!("-einject=fdatasync:signal=KILL:when={}", 1 + (round / 3 * 2 + turn) % 4));
                let mut publishing = Serving::command_traced(&strace, &args, &output);
                let ended = publishing.ended(Duration::from_secs(60)).await.expect("it ends or is killed");
                killed += usize::from(!ended.success());
            }
        }
        audited(&city);
        let (code, out, err) = publish(round);
        assert_eq!(code, 0, "{round}: {out}{err}");
    }
    assert!(killed > 0, "nothing was killed at a commit");
    audited(&city);
    city.start().await;
    let listed = city.public().get("/v1/models").await.unwrap().json().unwrap();
    let listed = listed.as_array().unwrap();
    let scheduled: Vec<_> = listed.iter().filter(|model| model["state"] == "scheduled").collect();
    assert_eq!(scheduled.len(), rounds + 1);
    for model in scheduled {
        assert!(model["published_at"].is_string() && model["from"].is_string(), "half a publication: {model}");
    }
    assert!(city.person(0).await.get("/v1/me/score").await.unwrap().status.is_success());
    city.stop().await.unwrap();
    nightly::figure(
        "publication killed",
        format_args!("{rounds} of {rounds} whole, and made so again; {killed} killed at a commit"),
    );
}
