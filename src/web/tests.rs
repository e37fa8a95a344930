//! The pages through their router, over a gateway with the memory store.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode, header};

use super::words::Lang;
use super::*;
use crate::policies::shipped;
use world::{Got, World};

const ORIGIN: &str = "http://127.0.0.1:8080";
const MARKUP: &str = "<img src=x onerror=alert(1)>";

/// Every page that can be reached, with its status, in one language.
async fn every_page(world: &World, lang: Lang) -> Vec<(String, Got)> {
    let [good, fair, unscored] = &world.people;
    let (person, other, child) = (world.log_in(good).await, world.log_in(fair).await, world.log_in(unscored).await);
    let (officer, second) = (world.log_in("officer-a").await, world.log_in("officer-b").await);
    let (operator, library) = (world.log_in("operator").await, world.log_in("yx-library").await);
    let provider = world.log_in("yx-public-security").await;
    let mut pages = Vec::new();
    let mut add = |name: &str, got: Got| pages.push((name.to_owned(), got));
    add("home", world.get("/", "", lang).await);
    add("home-in", world.get("/", &person, lang).await);
    add("scenarios", world.get("/scenarios", "", lang).await);
    add("not-logged-in", world.get("/me", "", lang).await);
    add("wrong-role", world.get("/me", &officer, lang).await);
    add("unknown-login", world.post("/demo/login", "", lang, "as=nobody").await);
    add("consents-none", world.get("/me/consents", &child, lang).await);
    add("accesses-none", world.get("/me/accesses", &child, lang).await);
    add("score", world.get("/me", &person, lang).await);
    add("score-fair", world.get("/me", &other, lang).await);
    add("score-none", world.get("/me", &child, lang).await);
    add("answers", world.get("/me/answers", &person, lang).await);
    add("choose-party", world.get("/me/consent?scenario=library-deposit", &person, lang).await);
    add("consent", world.get("/me/consent?scenario=library-deposit&party=yx-library", &person, lang).await);
    add("consent-named", world.get("/me/consent?scenario=library-more-books&party=yx-library", &other, lang).await);
    let form = "scenario=library-deposit&party=yx-library&days=90&uses=3&choice=show";
    add("given", world.post("/me/consent", &person, lang, form).await);
    add("beyond", world.post("/me/consent", &person, lang, &form.replace("days=90", "days=9999")).await);
    let (id, token) = world.consent("library-more-books", false).await;
    let (declined, _) = world.consent("library-deposit", true).await;
    add("code", world.post(&format!("/me/consents/{id}/codes"), &person, lang, "").await);
    world.post(&format!("/me/consents/{declined}/revoke"), &person, lang, "").await;
    add("consents", world.get("/me/consents", &person, lang).await);
    add("market-none", world.get("/me/market", &person, lang).await);
    world.post("/me/market", &person, lang, "provider=yx-telecom").await;
    let market = world.get("/me/market", &person, lang).await;
    let given = market.html.split("/me/market/").nth(1).unwrap().split('/').next().unwrap().to_owned();
    add("market", market);
    add("market-wrong", world.post("/me/market", &person, lang, "provider=yx-bike").await);
    add("market-foreign", world.post(&format!("/me/market/{given}/withdraw"), &other, lang, "").await);
    world.post(&format!("/me/market/{given}/withdraw"), &person, lang, "").await;
    add("market-withdrawn", world.get("/me/market", &person, lang).await);
    add("counter", world.get("/counter", &library, lang).await);
    add("counter-wrong", world.post("/counter", &library, lang, "scenario=library-deposit&code=0000-0000-0000").await);
    let ask = format!("scenario=library-more-books&code={token}");
    add("answer-met", world.post("/counter", &library, lang, &ask).await);
    world.post("/counter", &library, lang, &ask).await;
    add("answer-withheld", world.post("/counter", &library, lang, &ask).await);
    add("provider", world.get("/provider", &provider, lang).await);
    add("provider-none", world.get("/provider", &library, lang).await);
    add("cases", world.get("/officer/cases", &officer, lang).await);
    add("case-wrong", world.post("/officer/cases", &officer, lang, "reason=<b>&id_number=1").await);
    let opened = world
        .post(
            "/officer/cases",
            &officer,
            lang,
            &format!("reason=%E6%9F%A5%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E%7B%7B7*7%7D%7D&id_number={good}"),
        )
        .await;
    let case = opened.html.split("<code>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let case = format!("case={case}");
    add("case-opened", opened);
    add("case-own", world.post("/officer/cases/confirm", &officer, lang, &case).await);
    add("case-confirmed", world.post("/officer/cases/confirm", &second, lang, &case).await);
    add("look-up", world.post("/officer/cases/look-up", &second, lang, &case).await);
    add("accesses", world.get("/me/accesses", &person, lang).await);
    add("log", world.get("/officer", &officer, lang).await);
    add("log-filtered", world.get("/officer?party=yx-library&action=ask&from=2026-11-25", &officer, lang).await);
    add("log-none", world.get("/officer?to=2020-01-01", &officer, lang).await);
    add("rules", world.get("/operator", &operator, lang).await);
    add("catalogue", world.get("/catalogue", "", lang).await);
    add("models", world.get("/models", "", lang).await);
    add("models-operator", world.get("/models", &operator, lang).await);
    let model = String::from_utf8(shipped()["models/yuxi-2026.toml"].clone()).unwrap();
    let form = |text: &str| format!("file={}", text.bytes().map(|b| format!("%{b:02X}")).collect::<String>());
    let next = form(&model.replace("id = \"yuxi-2026\"", "id = \"yuxi-2027\""));
    add("model-tried", world.post("/models/try", &operator, lang, &next).await);
    add(
        "model-wrong",
        world.post("/models/draft", &operator, lang, &form(&model.replace("min = 800", "min = 1"))).await,
    );
    assert_eq!(world.post("/models/draft", &operator, lang, &next).await.status, 303);
    assert_eq!(world.post("/models/yuxi-2027/approve", &officer, lang, "").await.status, 303);
    add("model-approved", world.post("/models/yuxi-2027/approve", &officer, lang, "").await);
    add("model-in-comment", world.post("/models/yuxi-2027/publish", &operator, lang, "from=2027-03-01").await);
    add("models-draft", world.get("/models", &officer, lang).await);
    pages
}

/// What is true of every page.
fn check(name: &str, got: &Got, lang: Lang) {
    let html = &got.html;
    let fail = |what: &str| panic!("{name} in {}: {what}\n{html}", lang.code());
    let expected = match name {
        "not-logged-in" => 401,
        "wrong-role" | "case-own" | "counter-wrong" => 403,
        "unknown-login" | "market-foreign" => 404,
        "market-wrong" => 400,
        "beyond" | "case-wrong" | "model-wrong" => 422,
        "model-approved" | "model-in-comment" => 409,
        _ => 200,
    };
    assert_eq!(got.status, expected, "{name}: {html}");
    if !html.starts_with("<!doctype html>\n<html lang=\"") || !html.contains(&format!("lang=\"{}\"", lang.tag())) {
        fail("no language");
    }
    if html.matches("<h1").count() != 1 {
        fail("not one h1");
    }
    for never in ["<script", "style=\"", "<img", " onerror=alert(1)>", "javascript:", "<style", "{{", "{%"] {
        if html.contains(never) {
            fail(never);
        }
    }
    // Headings in order, controls with labels, tables with captions.
    let mut level = 1;
    for part in html.split("<h").skip(1).filter(|part| part.starts_with(|c: char| c.is_ascii_digit())) {
        let this = part[..1].parse::<u32>().unwrap();
        if this > level + 1 {
            fail("a heading skips a level");
        }
        level = this;
    }
    for control in ["<input ", "<select ", "<textarea "] {
        for tag in html.split(control).skip(1).map(|rest| rest.split('>').next().unwrap()) {
            let id = tag.split("id=\"").nth(1).and_then(|rest| rest.split('"').next());
            let labelled = id.is_some_and(|id| html.contains(&format!("<label for=\"{id}\"")));
            if !labelled && !tag.contains("type=\"hidden\"") {
                fail(tag);
            }
        }
    }
    if html.matches("<table").count() != html.matches("<caption").count() {
        fail("a table without a caption");
    }
    assert_eq!(got.headers[header::CACHE_CONTROL], "no-store", "{name}");
    assert!(got.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none';"));
}

#[tokio::test]
async fn every_page_is_whole_in_both_languages() {
    for lang in Lang::ALL {
        let world = World::new(shipped(), true).await;
        for (name, got) in every_page(&world, lang).await {
            check(&name, &got, lang);
            assert!(got.html.contains(lang.words().demo_banner), "{name} does not say that this is a demo");
        }
    }
}

/// The shipped policies with something in front of every name.
fn renamed(front: &str) -> BTreeMap<String, Vec<u8>> {
    let rename = |text: Vec<u8>| {
        let text = String::from_utf8(text).unwrap();
        text.replace("zh = \"", &format!("zh = \"{front}")).replace("en = \"", &format!("en = \"{front}")).into_bytes()
    };
    shipped().into_iter().map(|(name, text)| (name, rename(text))).collect()
}

#[tokio::test]
async fn markup_in_names_shows_as_text() {
    let world = World::new(renamed(MARKUP), true).await;
    for (name, got) in every_page(&world, Lang::Zh).await {
        check(&name, &got, Lang::Zh);
        if name == "score" {
            assert!(got.html.contains("&#60;img src=x onerror=alert(1)&#62;"), "{}", got.html);
        }
    }
}

#[tokio::test]
async fn the_longest_names_fit_everywhere() {
    let world = World::new(renamed(&"名".repeat(900)), true).await;
    for (name, got) in every_page(&world, Lang::En).await {
        check(&name, &got, Lang::En);
    }
}

#[tokio::test]
async fn both_answers_have_one_size_and_the_same_headers() {
    for front in ["", "名名名名名名名名名名"] {
        let world = World::new(renamed(front), true).await;
        let pages: BTreeMap<String, Got> = every_page(&world, Lang::Zh).await.into_iter().collect();
        let (met, withheld) = (&pages["answer-met"], &pages["answer-withheld"]);
        assert!(
            met.html.contains("<h1 class=\"said\">可享受</h1>")
                && withheld.html.contains("<h1 class=\"said\">不适用</h1>")
        );
        assert_eq!(met.html.len(), withheld.html.len());
        assert_eq!(met.html.len() % (16 * 1024), 0);
        assert_eq!(met.headers, withheld.headers);
        let place = |html: &str| html.find("<h1 class=\"said\">").unwrap();
        assert_eq!(place(&met.html), place(&withheld.html));
    }
}

#[tokio::test]
async fn a_decline_looks_like_a_consent() {
    let world = World::new(shipped(), true).await;
    let person = world.log_in(&world.people[0]).await;
    let form = |choice: &str| format!("scenario=library-deposit&party=yx-library&choice={choice}");
    let given = world.post("/me/consent", &person, Lang::Zh, &form("show")).await;
    let declined = world.post("/me/consent", &person, Lang::Zh, &form("decline")).await;
    // All that differs is the random id and token.
    let shape = |html: &str| -> String {
        html.split(['"', '/', '<', '>']).filter(|part| part.len() < 22 || part.contains(' ')).collect()
    };
    assert_eq!(shape(&given.html), shape(&declined.html));
    assert_eq!(given.headers, declined.headers);
    let choice = world.post("/me/consent", &person, Lang::Zh, &form("")).await;
    assert_eq!(choice.status, StatusCode::BAD_REQUEST, "nothing is consented to by default");
}

#[tokio::test]
async fn the_demo_logs_in_and_out_and_a_deployment_does_not() {
    let world = World::new(shipped(), true).await;
    let logins = [
        (world.people[0].as_str(), "/me"),
        ("officer-a", "/officer"),
        ("operator", "/operator"),
        ("yx-library", "/counter"),
        ("yx-court", "/provider"),
    ];
    for (name, to) in logins {
        let request = Request::post("/demo/login").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let got = world.send(request.body(Body::from(format!("as={name}"))).unwrap()).await;
        assert_eq!((got.status, got.headers[header::LOCATION].to_str().unwrap()), (StatusCode::SEE_OTHER, to));
        let cookie = got.headers[header::SET_COOKIE].to_str().unwrap();
        let token = cookie.split(['=', ';']).nth(1).unwrap();
        assert_eq!(world.get(to, token, Lang::Zh).await.status, StatusCode::OK);
        let out = world.post("/logout", token, Lang::Zh, "").await;
        assert_eq!(out.status, StatusCode::SEE_OTHER);
        assert_eq!(world.get(to, token, Lang::Zh).await.status, StatusCode::UNAUTHORIZED, "the session is over");
    }
    let real = World::new(shipped(), false).await;
    let got = real.post("/demo/login", "", Lang::Zh, "as=officer-a").await;
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    let home = real.get("/", "", Lang::Zh).await.html;
    assert!(!home.contains("demo/login") && home.contains("请从本市的政务应用登录"));
    assert!(!home.contains(Lang::Zh.words().demo_banner));
}

#[tokio::test]
async fn a_form_from_elsewhere_changes_nothing() {
    let world = World::new(shipped(), true).await;
    let person = world.log_in(&world.people[0]).await;
    for (name, value) in [("origin", "https://elsewhere.example"), ("sec-fetch-site", "cross-site")] {
        let request = Request::post("/me/consent")
            .header(header::COOKIE, format!("jadegate_session={person}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(name, value);
        let form = "scenario=library-deposit&party=yx-library&choice=show";
        let got = world.send(request.body(Body::from(form)).unwrap()).await;
        assert_eq!(got.status, StatusCode::FORBIDDEN);
    }
    let list = world.get("/me/consents", &person, Lang::Zh).await.html;
    assert!(list.contains(Lang::Zh.words().consents_none));
}

#[tokio::test]
async fn nobody_sees_another_roles_pages() {
    let world = World::new(shipped(), true).await;
    let (id, _) = world.consent("library-deposit", false).await;
    let mut sessions = Vec::new();
    for name in [world.people[0].as_str(), "officer-a", "operator", "yx-library"] {
        sessions.push(world.log_in(name).await);
    }
    let pages = ["/me", "/officer", "/operator", "/counter"];
    for (who, session) in sessions.iter().enumerate() {
        for (whose, path) in pages.iter().enumerate() {
            let expected = if who == whose { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(world.get(path, session, Lang::En).await.status, expected, "{path}");
        }
    }
    let other = world.log_in(&world.people[1]).await;
    for path in [format!("/me/consents/{id}/codes"), format!("/me/consents/{id}/revoke")] {
        assert_eq!(world.post(&path, &other, Lang::En, "").await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(world.get("/me/accesses/0/proof", &other, Lang::En).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn wrong_codes_are_limited_and_tokens_go_on() {
    let world = World::new(shipped(), true).await;
    let library = world.log_in("yx-library").await;
    let wrong = "scenario=library-deposit&code=0000-0000-0000";
    for _ in 0..10 {
        assert_eq!(world.post("/counter", &library, Lang::Zh, wrong).await.status, 403);
    }
    assert_eq!(world.post("/counter", &library, Lang::Zh, wrong).await.status, 429);
    let (_, token) = world.consent("library-deposit", false).await;
    let form = format!("scenario=library-deposit&code={token}");
    assert_eq!(world.post("/counter", &library, Lang::Zh, &form).await.status, 200);
}

#[tokio::test]
async fn a_code_on_the_page_is_the_code_that_works() {
    let world = World::new(shipped(), true).await;
    let (person, library) = (world.log_in(&world.people[0]).await, world.log_in("yx-library").await);
    let (id, _) = world.consent("library-deposit", false).await;
    let page = world.post(&format!("/me/consents/{id}/codes"), &person, Lang::Zh, "").await.html;
    let groups = page.split("<p class=\"code\"").nth(1).unwrap().split("</p>").next().unwrap();
    let code: Vec<&str> = groups.split("<span>").skip(1).map(|part| part.split('<').next().unwrap()).collect();
    assert_eq!(code.len(), 3);
    let form = format!("scenario=library-deposit&code={}", code.join("+").to_lowercase());
    let answer = world.post("/counter", &library, Lang::Zh, &form).await;
    assert!(answer.html.contains("<h1 class=\"said\">可享受</h1>"), "{}", answer.html);
    world.clock.advance(Duration::from_secs(1));
    let again = world.post("/counter", &library, Lang::Zh, &form).await;
    assert!(again.html.contains("<h1 class=\"said\">不适用</h1>"), "a code works once");
    let asked = world.get("/me/accesses", &person, Lang::Zh).await.html;
    assert_eq!(asked.matches("玉溪市图书馆为“免押金借书”询问").count(), 2);
}

#[tokio::test]
async fn many_records_and_many_entries_are_shown_by_the_page() {
    let world = World::new(shipped(), true).await;
    let person = &world.people[0];
    for day in 1..=28 {
        world.report("yx-civil-affairs", person, "volunteer-hours", &format!("2026-02-{day:02}"), Some(1)).await;
    }
    let session = world.log_in(person).await;
    let page = world.get("/me", &session, Lang::En).await.html;
    assert_eq!(page.matches("Hours of volunteering").count(), 29 + page.matches("“Hours of volunteering”").count());
    let library = world.log_in("yx-library").await;
    for _ in 0..30 {
        let (_, token) = world.consent("library-deposit", false).await;
        for _ in 0..2 {
            world.post("/counter", &library, Lang::En, &format!("scenario=library-deposit&code={token}")).await;
        }
    }
    let first = world.get("/me/accesses", &session, Lang::En).await.html;
    assert_eq!(first.matches("/proof\"").count(), 50);
    let older = first.split("/me/accesses?before=").nth(1).unwrap().split('"').next().unwrap();
    let second = world.get(&format!("/me/accesses?before={older}"), &session, Lang::En).await.html;
    assert_eq!(second.matches("/proof\"").count(), 10);
    let index = second.split("/me/accesses/").nth(1).unwrap().split('/').next().unwrap();
    let proof = world.get(&format!("/me/accesses/{index}/proof"), &session, Lang::En).await;
    assert!(proof.html.starts_with("c2sp.org/tlog-proof@v1\n"), "the oldest entries have their proof too");
}

#[tokio::test]
async fn the_style_sheet_is_small_and_kept() {
    assert!(page::STYLE.len() < 12 * 1024, "{} bytes", page::STYLE.len());
    let world = World::new(shipped(), true).await;
    let home = world.get("/", "", Lang::Zh).await.html;
    let path = home.split("rel=\"stylesheet\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let style = world.get(path, "", Lang::Zh).await;
    assert_eq!(style.headers[header::CONTENT_TYPE], "text/css; charset=utf-8");
    assert!(style.headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    assert_eq!(world.get("/assets/style.css", "", Lang::Zh).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_stepped_clock_gives_a_page_with_a_sentence() {
    let world = World::new(shipped(), true).await;
    world.clock.step_to("2026-11-25T05:00:00Z".parse().unwrap());
    let got = world.get("/", "", Lang::En).await;
    assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(got.html.contains("clock has to be set right"));
}

#[tokio::test]
async fn the_language_that_was_chosen_is_kept() {
    let world = World::new(shipped(), true).await;
    let got = world.send(Request::get("/?lang=en").body(Body::empty()).unwrap()).await;
    assert!(got.headers[header::SET_COOKIE].to_str().unwrap().starts_with("lang=en; "));
    assert!(got.html.contains("<html lang=\"en\">"));
}

#[tokio::test]
async fn what_is_no_form_is_refused() {
    let world = World::new(shipped(), true).await;
    let person = world.log_in(&world.people[0]).await;
    let large = format!("scenario={}", "x".repeat(FORM_BYTES_MAX));
    let got = world.post("/me/consent", &person, Lang::Zh, &large).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST);
    for query in ["/me/accesses?before=x", "/officer?from=yesterday", "/officer?action=guess", "/officer?party=<b>"] {
        let session = if query.starts_with("/me") { person.clone() } else { world.log_in("officer-a").await };
        let got = world.get(&query.replace('<', "%3C").replace('>', "%3E"), &session, Lang::Zh).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn everything_at_a_counter_leaves_at_a_multiple_of_the_fixed_time() {
    let world = World::new(shipped(), true).await;
    let library = world.log_in("yx-library").await;
    let (_, token) = world.consent("library-deposit", false).await;
    let (_, declined) = world.consent("library-deposit", true).await;
    let form = |code: &str| format!("scenario=library-deposit&code={code}");
    for (form, status) in [
        (form(&token), 200),
        (form(&declined), 200),
        (form("0000-0000-0000"), 403),
        (form(""), 422),
        ("scenario=bus-fare&code=0000-0000-0000".into(), 403),
    ] {
        let began = tokio::time::Instant::now();
        assert_eq!(world.post("/counter", &library, Lang::Zh, &form).await.status, status);
        assert_eq!(began.elapsed(), Duration::from_millis(50), "{form}");
    }
}

/// What ends, what a law bounds and who reported it before stand on the catalogue's page, each with its basis.
#[tokio::test]
async fn the_catalogues_page_shows_ends_bounds_and_former_providers_with_their_basis() {
    let mut files = shipped();
    let text = String::from_utf8(files["catalogue.toml"].clone()).unwrap();
    let more = "code = \"blood-donation\"\ncounts_until = \"2027-01-01\"\ncounts_until_basis = \"甲号文\"\nvalid_for_years_max = 5\n\
                valid_for_years_max_basis = \"乙法\"\nformer_providers = [\"yx-court\"]\nformer_providers_basis = \"丙号文\"\n";
    files.insert("catalogue.toml".into(), text.replace("code = \"blood-donation\"\n", more).into_bytes());
    let world = World::new(files, true).await;
    let zh = world.get("/catalogue", "", Lang::Zh).await.html;
    for said in ["自2027年1月1日起不再计入 (甲号文)", "最长 5 年 (乙法)", "原报送单位：", "(丙号文)"]
    {
        assert!(zh.contains(said), "{said}: {zh}");
    }
    let en = world.get("/catalogue", "", Lang::En).await.html;
    for said in ["does not count from 1 Jan 2027 on (甲号文)", "5 years at most (乙法)", "formerly reported by "] {
        assert!(en.contains(said), "{said}");
    }
}
