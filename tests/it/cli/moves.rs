//! A city that outgrows one machine: from a folder into a database, and back, by the commands.

use serde_json::json;

use crate::support::deployment::{
    ANSWERS, Deployment, LIBRARY, SCENARIO, ask, consent, outcome, question, revoke, text,
};
use crate::support::postgres::Postgres;
use crate::support::process::run;

async fn on(city: &Deployment, words: &[&str], more: &[&str]) -> String {
    let config = city.config_file().display().to_string();
    let args: Vec<String> = [words, &["--config", &config], more].concat().into_iter().map(str::to_owned).collect();
    let work = move || run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let (code, out, err) = tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_into_a_database_and_back_and_gives_the_same_answers() {
    let (postgres, server) = Postgres::start(&["fsync=off"]).await;
    server.database("city", "jadegate").await;
    let mut city = Deployment::city().await;
    let mut me = city.person(0).await;
    let given = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 4})).await;
    let taken_back = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 4})).await;
    let questions: Vec<_> = (0..2).map(|_| question(SCENARIO, &text(&given, "token"))).collect();
    let mut answers = Vec::new();
    for question in &questions {
        answers.push(city.party(LIBRARY).post_json(ANSWERS, question).await.unwrap().body);
    }
    revoke(&mut me, &taken_back).await;
    city.stop().await.unwrap();

    let folder = city.config.store.clone();
    let database = postgres.place_for(&city.dir(), &[&server], "city");

    let mut uses = 2;
    for (turn, place) in [database, folder].into_iter().enumerate() {
        let backup = city.dir().join(format!("move-{turn}.backup")).display().to_string();
        let made = on(&city, &["store", "export"], &[&backup]).await;
        assert!(made.contains(if turn == 0 { "the stopped store" } else { "the database" }), "{made}");
        if let Some(folder) = place.folder() {
            std::fs::rename(folder, city.dir().join("store-before")).unwrap();
        }
        city.config.store = place;
        city.choose_ports();
        on(&city, &["store", "import"], &[&backup]).await;
        assert!(on(&city, &["audit"], &[]).await.contains("AGREES"));
        assert!(on(&city, &["store", "verify"], &[]).await.contains("SOUND"));

        city.start().await;
        let mut library = city.party(LIBRARY);
        for (question, answer) in questions.iter().zip(&answers) {
            let again = library.post_json(ANSWERS, question).await.unwrap();
            assert_eq!(again.body, *answer, "the repeat is the first answer to the byte");
        }
        assert_eq!(outcome(&ask(&mut library, SCENARIO, &text(&taken_back, "token")).await).1, "withheld");
        assert_eq!(outcome(&ask(&mut library, SCENARIO, &text(&given, "token")).await).1, "met");
        uses += 1;
        assert!(uses <= 4);
        city.stop().await.unwrap();
    }
    // Used up on both sides of the move: what was spent before stays spent.
    city.start().await;
    assert_eq!(outcome(&ask(&mut city.party(LIBRARY), SCENARIO, &text(&given, "token")).await).1, "withheld");
}
