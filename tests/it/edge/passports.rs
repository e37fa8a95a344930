//! People without an 18-digit number (Article 7): a passport in the register, in records, at the log-in, on the person's
//! pages, in cases and in the export, which scores to the same.

use serde_json::{Value, json};

use crate::support::deployment::{COURT, Deployment, NDJSON, P1, REGISTRAR, ask, outcome};
use crate::support::process::run;

const CIVIL: &str = "yx-civil-affairs";
const ANNA: &str = "UTO1234567";

fn anna(number: &str) -> Value {
    json!({ "id_type": "passport", "id_number": number, "name": "Anna Möller",
        "born_on": "1988-02-29", "resident": true, "full_capacity": true })
}

async fn send(city: &Deployment, party: &str, path: &str, lines: &[Value]) -> (u64, u64, Vec<String>) {
    let body = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let response = city.party(party).post(path, NDJSON, body, vec![]).await.unwrap();
    let counts = response.json().unwrap();
    let codes = counts["rejected"].as_array().unwrap().iter().map(|r| r["code"].as_str().unwrap().to_owned()).collect();
    (counts["accepted"].as_u64().unwrap(), counts["unchanged"].as_u64().unwrap(), codes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_with_a_passport_is_one_person_everywhere() {
    let city = Deployment::empty().await;
    // In the register: the date of birth must be said, the form must be right (capitals too), and blanks around it are nothing.
    let mut unborn = anna(ANNA);
    unborn.as_object_mut().unwrap().remove("born_on");
    let wrong = ["UT1234567", "UTO1234", "UTO-123456", "uto1234567", "UTO1234567890123"].map(anna);
    let lines: Vec<Value> =
        [unborn].into_iter().chain(wrong).chain([anna(ANNA), anna(" UTO1234567\u{3000}")]).collect();
    let (accepted, unchanged, codes) = send(&city, REGISTRAR, "/v1/register", &lines).await;
    assert_eq!((accepted, unchanged), (1, 1));
    assert_eq!(codes, ["missing-field", "malformed", "malformed", "malformed", "malformed", "malformed"]);

    // In records; the same characters as a resident's number would be somebody else, and are no number at all.
    let record = |id: &str, person: Value| {
        json!({ "id": id, "provider": CIVIL, "indicator": "volunteer-hours", "person": person,
            "occurred_on": "2026-06-01", "quantity": 300 })
    };
    let own = |number: &str| json!({ "id_type": "passport", "id_number": number, "name": "Anna Möller" });
    let other = json!({ "id_number": ANNA, "name": "Anna Möller" });
    let lines = [record("h", own(ANNA)), record("h", own("\u{a0}UTO1234567")), record("x", other)];
    let (accepted, unchanged, codes) = send(&city, CIVIL, "/v1/records", &lines).await;
    assert_eq!((accepted, unchanged, codes), (1, 1, vec!["malformed".to_owned()]));

    // The log-in of the demo takes it, and the page is hers.
    for typed in [ANNA, "+UTO1234567"] {
        let mut me = city.login(typed).await;
        let score = me.get("/v1/me/score").await.unwrap().json().unwrap();
        assert_eq!((score["status"].as_str(), score["score"].as_u64()), (Some("scored"), Some(650)));
        let page = me.get("/me").await.unwrap();
        assert!(page.status == 200 && String::from_utf8_lossy(&page.body).contains("650"));
    }

    // The export says what she is, and `evaluate` scores it to the same.
    let mut me = city.login(ANNA).await;
    let export = me.get("/v1/me/export").await.unwrap().json().unwrap();
    let register = &export["register"][0];
    assert_eq!((register["id_type"].as_str(), register["id_number"].as_str()), (Some("passport"), Some(ANNA)));
    assert_eq!(export["records"][0]["person"]["id_type"], "passport");
    let path = |name: &str| city.dir().join(name).to_str().unwrap().to_owned();
    for (name, member) in [("catalogue.toml", "catalogue"), ("model.toml", "model")] {
        std::fs::write(path(name), export[member].as_str().unwrap()).unwrap();
    }
    for (name, member) in [("register.ndjson", "register"), ("records.ndjson", "records")] {
        let lines = export[member].as_array().unwrap().iter().map(|line| format!("{line}\n")).collect::<String>();
        std::fs::write(path(name), lines).unwrap();
    }
    let day = me.get("/v1/me/score").await.unwrap().json().unwrap()["day"].as_str().unwrap().to_owned();
    let (catalogue, model) = (path("catalogue.toml"), path("model.toml"));
    let (people, records) = (path("register.ndjson"), path("records.ndjson"));
    let files = ["--catalogue", &catalogue, "--model", &model, "--register", &people, "--records", &records];
    let (code, out, err) = run(&[&["evaluate", "--on", &day][..], &files].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out.lines().nth(1), Some(format!("{ANNA},scored,650,good").as_str()), "{out}");

    // A case about her, by API and by page; the same letters as a resident's number are refused.
    let (mut one, mut two) = (city.login("officer-one").await, city.login("officer-two").await);
    let about = |person: Value| json!({ "reason": "a question", "person": person });
    let refused = one.post_json("/v1/cases", &about(json!({ "id_number": ANNA }))).await.unwrap();
    assert_eq!(refused.status, 400);
    let person = json!({ "id_type": "passport", "id_number": " UTO1234567 " });
    let opened = one.post_json("/v1/cases", &about(person)).await.unwrap();
    assert_eq!(opened.status, 201);
    let case = opened.json().unwrap()["id"].as_str().unwrap().to_owned();
    let confirm = format!("/v1/cases/{case}/confirm");
    let done = two.send(http::Method::POST, &confirm, http::HeaderMap::new(), vec![].into()).await.unwrap();
    assert_eq!(done.status, 204);
    one.get(&format!("/v1/access-log?case={case}")).await.unwrap();
    let seen = me.get("/v1/me/accesses").await.unwrap().json().unwrap();
    assert_eq!(seen[0]["action"], "look-up", "she sees that an officer looked: {seen}");
    let form = format!("reason=x&id_type=passport&id_number={ANNA}");
    let page = one.post("/officer/cases", "application/x-www-form-urlencoded", form, vec![]).await.unwrap();
    assert!(page.status == 200 && String::from_utf8_lossy(&page.body).contains("<code>"));

    // And she may consent and be answered about like anybody.
    let consent = json!({ "scenario": "library-deposit", "party": "yx-library" });
    let given = me.post_json("/v1/me/consents", &consent).await.unwrap().json().unwrap();
    let token = given["token"].as_str().unwrap();
    let asked = ask(&mut city.party("yx-library"), "library-deposit", token).await;
    let (status, said) = outcome(&asked);
    assert_eq!((status, said.as_str()), (200, "met"));
    let market = me.post_json("/v1/me/market-consents", &json!({ "provider": "yx-telecom" })).await.unwrap();
    assert_eq!(market.status, 201);
}

/// A record about a passport that is not registered yet counts once it is, in whatever order they come.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_may_come_before_the_passport_is_registered() {
    let city = Deployment::empty().await;
    let line = json!({ "id": "j", "provider": COURT, "indicator": "civil-judgment-unperformed",
        "person": { "id_type": "passport", "id_number": "XUT7654321", "name": "Ben" }, "occurred_on": "2026-03-01" });
    assert_eq!(send(&city, COURT, "/v1/records", &[line]).await.0, 1);
    let person = json!({ "id_type": "passport", "id_number": "XUT7654321", "name": "Ben", "born_on": "1990-01-01",
        "resident": true, "full_capacity": true });
    let resident = json!({ "id_number": P1, "name": "Ben", "resident": true, "full_capacity": true });
    assert_eq!(send(&city, REGISTRAR, "/v1/register", &[person, resident]).await.0, 2);
    let score = city.login("XUT7654321").await.get("/v1/me/score").await.unwrap().json().unwrap();
    assert!(score["score"].as_u64().unwrap() < 500);
    let other = city.login(P1).await.get("/v1/me/score").await.unwrap().json().unwrap();
    assert_eq!(other["score"], 500, "a number and a passport are two people");
}
