//! Mistakes of the field in files, by the command as a clerk types it: those whose right outcome is the whole gateway's
//! and not the reader's alone.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{City, HEADINGS, PROVIDER, owned, rejects_of, row};
use crate::cli::feed_bombs::blanks;
use crate::support::bomb;
use crate::support::deployment::P1;
use crate::support::workbook::{Workbook, number, sheet, text, texts};

/// A table's lines as a workbook of texts.
fn book(table: &str) -> Vec<u8> {
    let rows: Vec<_> = table.lines().map(|line| texts(&line.split(',').collect::<Vec<_>>())).collect();
    Workbook::of(&rows).bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_a_spreadsheet_spoilt_is_refused_with_what_to_do() {
    let city = City::stopped();
    let table = format!("{HEADINGS}\n{}{}", row("V-1", "5.30499E+17", "王芳", 1), row("V-2", P1, "王芳", 1));
    let cells = |id: &str, identity: String| {
        texts(&[id, PROVIDER, "volunteer-hours"]) + &identity + &texts(&["王芳", "2026-03-01", "1"])
    };
    let headings = texts(&HEADINGS.split(',').collect::<Vec<_>>());
    let rows = [headings, cells("V-3", number(P1)), cells("V-4", number("5.30499E+17")), cells("V-5", text(P1))];
    for (name, content, bad) in
        [("a.csv", table.into_bytes(), vec![2]), ("a.xlsx", Workbook::of(&rows).bytes(), vec![2, 3])]
    {
        let file = city.file(name, content);
        let ended = city.records(&[&file]).await;
        assert_eq!((ended.code, ended.counts()), (3, [1, 0, 0, bad.len() as u64]), "{name}: {}", ended.out);
        let expected: Vec<_> = bad.iter().map(|line| (*line, "malformed")).collect();
        assert_eq!(city.rejects(&file), owned(&expected));
        let named = std::fs::read_to_string(rejects_of(&file)).unwrap();
        for line in named.lines() {
            assert!(line.contains(" / ") && line.contains("as text") && !line.contains("5304"), "{line}");
        }
    }
}

/// The bytes as they lie in the files of others, and not as this program would write them.
#[tokio::test(flavor = "multi_thread")]
async fn rare_characters_are_the_same_from_every_feed_in_the_export_and_on_a_page() {
    let mut city = City::stopped();
    let names: [(&[u8], &str, &str); 5] = [
        (&[0xFE, 0x9F], "\u{4DAE}", P1),
        (&[0x82, 0x30, 0xB7, 0x31], "\u{36C3}", "53049919880307004X"),
        (&[0x99, 0x33, 0xAA, 0x34], "\u{2CB5A}", "53049919901015001X"),
        (&[0xFE, 0x59], "\u{9FB4}", "53049919250101001X"),
        (&[0xA8, 0xBC], "\u{1E3F}", "530499200802290016"),
    ];
    let gb18030 = |text: &str| encoding_rs::GB18030.encode(text).0.into_owned();
    let (people, records) = ("证件号码,姓名,常住人口,完全民事行为能力\n", format!("{HEADINGS}\n"));
    let (mut register, mut table) = (gb18030(people), gb18030(&records));
    for (at, (name, _, number)) in names.iter().enumerate() {
        // A blank of A3 A0 behind the number.
        let number = [number.as_bytes(), &[0xA3, 0xA0]].concat();
        register.extend([&number[..], b",", name, &gb18030(",是,是\n")].concat());
        let (before, after) = (format!("V-{at},{PROVIDER},volunteer-hours,"), b",2026-03-01,1\n");
        table.extend([before.as_bytes(), &number, b",", name, after].concat());
    }
    let people: String =
        people.to_owned() + &names.map(|(_, name, number)| format!("{number},{name},是,是\n")).concat();
    let (mut ndjson, mut records) = (String::new(), records);
    for (at, (_, name, number)) in names.iter().enumerate() {
        let id = format!("V-{at}");
        records += &row(&id, number, name, 1);
        let person = json!({"id_number": number, "name": name});
        let line = json!({"id": id, "provider": PROVIDER, "indicator": "volunteer-hours", "person": person,
            "occurred_on": "2026-03-01", "quantity": 1});
        ndjson += &format!("{line}\n");
    }
    for (file, content, expected) in [
        ("r.txt", register, [5, 0, 0, 0]),
        ("r.xlsx", book(&people), [0, 5, 0, 0]),
        ("r.csv", people.into_bytes(), [0, 5, 0, 0]),
    ] {
        let taken = city.import(&["--register"], &[&city.file(file, content)]).await;
        assert_eq!((taken.code, taken.counts()), (0, expected), "{file}: {} {}", taken.out, taken.err);
    }
    for (file, content, expected) in [
        ("a.txt", table, [5, 0, 0, 0]),
        ("a.ndjson", ndjson.into_bytes(), [0, 5, 0, 0]),
        ("a.xlsx", book(&records), [0, 5, 0, 0]),
    ] {
        let taken = city.records(&[&city.file(file, content)]).await;
        assert_eq!((taken.code, taken.counts()), (0, expected), "{file}: {} {}", taken.out, taken.err);
    }
    // No page shows a name; that of a paper which the person signed stands on one.
    let rental = "yx-rental-association";
    let mut table = gb18030(&format!("{HEADINGS},授权编号\n"));
    for (at, (name, _, number)) in names.iter().enumerate() {
        let (before, mid) =
            (format!("M-{at},{rental},rental-contract-kept,{number},"), gb18030(",2026-03-01,,paper:第"));
        table.extend([before.as_bytes(), name, &mid, name, &gb18030("号\n")].concat());
    }
    let taken = city.import(&["--provider", rental], &[&city.file("m.txt", table)]).await;
    assert_eq!(
        (taken.code, taken.counts()),
        (0, [5, 0, 0, 0]),
        "{}",
        std::fs::read_to_string(city.files.join("m.txt.rejects.ndjson")).unwrap_or_default()
    );
    // Lengths are counted in characters, of whatever length in bytes.
    let long = |id, length| row(id, "53049919250101001X", &"\u{2CB5A}".repeat(length), 1);
    let file = city.file("long.txt", gb18030(&format!("{HEADINGS}\n{}{}", long("L-1", 100), long("L-2", 101))));
    let taken = city.records(&[&file]).await;
    assert_eq!((taken.code, taken.counts()), (3, [1, 0, 0, 1]), "{}", taken.out);
    assert_eq!(city.rejects(&file), owned(&[(3, "too-large")]));

    city.deployment.start().await;
    for (_, name, number) in names {
        let mut me = city.deployment.login(number).await;
        let exported = me.get("/v1/me/export").await.unwrap().json().unwrap();
        assert_eq!(
            (&exported["register"][0]["name"], &exported["register"][0]["id_number"]),
            (&json!(name), &json!(number))
        );
        let records = exported["records"].as_array().unwrap();
        let named = records.iter().filter(|record| record["id"] != "L-1").map(|record| &record["person"]["name"]);
        assert_eq!(named.collect::<Vec<_>>(), [name, name]);
        let page = me.get("/me/market").await.unwrap();
        assert!(String::from_utf8_lossy(&page.body).contains(&format!("第{name}号")), "no {name} on the page");
    }
    city.deployment.stop().await.unwrap();
}

/// What a provider took back does not come again with its next file, whatever that says and however it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_withdrawn_comes_back_with_no_file() {
    let mut city = City::stopped();
    let people = format!("证件号码,姓名,常住人口,完全民事行为能力\n{P1},王芳,是,是\n");
    assert_eq!(city.import(&["--register"], &[&city.file("r.csv", people)]).await.code, 0);
    let table = |hours| format!("{HEADINGS}\n{}{}", row("V-1", P1, "王芳", hours), row("V-2", P1, "王芳", 1));
    assert_eq!(city.records(&[&city.file("a.csv", table(300))]).await.counts(), [2, 0, 0, 0]);
    city.deployment.start().await;
    let mut me = city.deployment.login(P1).await;
    let mut score = async || me.get("/v1/me/score").await.unwrap().json().unwrap()["score"].as_u64().unwrap();
    let with_it = score().await;
    let withdrawal = ("/v1/records/V-1/withdrawal", json!({"reason": "写错了人"}));
    let done = city.deployment.party(PROVIDER).post_json(withdrawal.0, &withdrawal.1).await.unwrap();
    assert_eq!(done.status, 200);
    let without = score().await;
    assert!(without < with_it, "{without} {with_it}");
    for (file, content, expected) in [
        ("a.csv", table(300).into_bytes(), [0, 2, 0, 0]),
        ("b.csv", table(299).into_bytes(), [0, 1, 1, 0]),
        ("c.xlsx", book(&table(298)), [0, 1, 1, 0]),
    ] {
        let again = city.records(&[&city.file(file, content)]).await;
        assert_eq!((again.code, again.counts()), (0, expected), "{file}: {} {}", again.out, again.err);
        assert_eq!(score().await, without, "{file}");
    }
    city.deployment.stop().await.unwrap();
    let again = city.records(&[&city.file("d.csv", table(297))]).await;
    assert_eq!((again.code, again.counts()), (0, [0, 1, 1, 0]), "{} {}", again.out, again.err);
    city.deployment.start().await;
    let mut me = city.deployment.login(P1).await;
    assert_eq!(me.get("/v1/me/score").await.unwrap().json().unwrap()["score"], without);
    let exported = me.get("/v1/me/export").await.unwrap().json().unwrap();
    let records = exported["records"].as_array().unwrap();
    let withdrawn = records.iter().find(|record| record["id"] == "V-1").unwrap();
    assert_eq!((&withdrawn["withdrawn"], &withdrawn["quantity"]), (&json!(true), &json!(297)));
    city.deployment.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn workbooks_that_are_more_than_they_look_and_which_sheet_is_read() {
    let city = City::stopped();
    let blown = city.file("blown.xlsx", bomb::workbook(blanks()));
    let began = tokio::time::Instant::now();
    let ended = city.records(&[&blown]).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(ended.code, 1, "{}", ended.out);
    assert!(ended.out.contains("blown.xlsx: 超出上限") && ended.out.contains("too-large"), "{}", ended.out);
    assert!(!rejects_of(&blown).exists());
    let headings = texts(&HEADINGS.split(',').collect::<Vec<_>>());
    let values = |id| texts(&row(id, P1, "王芳", 1).trim_end().split(',').collect::<Vec<_>>());
    let far = sheet(&[headings.clone(), values("V-1")], "")
        .replace("</sheetData>", "<row r=\"1048576\"><c r=\"XFD1048576\"><v>1</v></c></row></sheetData>");
    let far = city.file("far.xlsx", Workbook::default().with("a", "", &far).bytes());
    let ended = city.records(&[&far]).await;
    assert_eq!((ended.code, ended.counts()), (3, [1, 0, 0, 1]), "{}", ended.out);
    assert_eq!(city.rejects(&far), owned(&[(1_048_576, "malformed")]));
    let two = ["V-2", "V-3"].map(|id| sheet(&[headings.clone(), values(id)], ""));
    let two = Workbook::default().with("一月", "", &two[0]).with("二月", "", &two[1]).bytes();
    let two = city.file("two.xlsx", two);
    let ended = city.records(&[&two]).await;
    assert_eq!((ended.code, ended.counts()), (0, [1, 0, 0, 0]), "{}", ended.out);
    assert!(ended.err.contains("two.xlsx: 只读工作表 `一月`；另有 `二月`"), "{}", ended.err);
    let other: &[&Path] = &[&two];
    let ended = city.import(&["--provider", PROVIDER, "--sheet", "二月"], other).await;
    assert_eq!((ended.code, ended.counts()), (0, [1, 0, 0, 0]), "{}", ended.out);
}
