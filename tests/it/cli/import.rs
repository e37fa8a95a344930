//! `jadegate import`, as a clerk types it: every form of file, offline and over the API, and whatever goes wrong with one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jadegate::clock::SystemClock;
use serde_json::{Value, json};

use crate::support::deployment::{Deployment, P1, REGISTRAR, rewrite};
use crate::support::process::run;
use crate::support::workbook::{Workbook, texts};

mod cases;
mod database;
mod interrupted;
mod receipts;

pub const PROVIDER: &str = "yx-civil-affairs";
pub const HEADINGS: &str = "记录编号,报送单位,指标代码,证件号码,姓名,发生日期,数量";

/// A sample of the documents.
pub fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/feeds").join(name)
}

/// A row of volunteering.
pub fn row(id: &str, number: &str, name: &str, hours: u32) -> String {
    format!("{id},{PROVIDER},volunteer-hours,{number},{name},2026-03-01,{hours}\n")
}

/// What an import ended with, and what it said.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Accepted, unchanged, replaced and refused, of all files together.
    pub fn counts(&self) -> [u64; 4] {
        let mut sums = [0; 4];
        for line in self.out.lines().filter(|line| line.contains(" accepted, ")) {
            let english = line.split(" / ").nth(1).unwrap();
            let numbers = english.split(", ").map(|part| part.split(' ').next().unwrap().parse::<u64>().unwrap());
            sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
        sums
    }
}

/// A deployment that is made and not started, and a folder for files.
pub struct City {
    pub deployment: Deployment,
    pub files: PathBuf,
}

impl City {
    pub fn stopped() -> Self {
        let deployment = Deployment::provisioned(Arc::new(SystemClock::new()));
        let files = deployment.dir().join("files");
        std::fs::create_dir(&files).unwrap();
        Self { deployment, files }
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.files.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A sample where its rejects may be written.
    fn sample(&self, name: &str) -> PathBuf {
        self.file(name, std::fs::read(sample(name)).unwrap())
    }

    pub fn arguments(&self, more: &[&str], files: &[&Path]) -> Vec<String> {
        let config = self.deployment.config_file();
        let first = ["import", "--config", config.to_str().unwrap()];
        let files = files.iter().map(|file| file.to_str().unwrap());
        first.into_iter().chain(more.iter().copied()).chain(files).map(str::to_owned).collect()
    }

    /// Imports in a process of its own.
    pub async fn import(&self, more: &[&str], files: &[&Path]) -> Ended {
        let arguments = self.arguments(more, files);
        let work = move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let (code, out, err) = tokio::task::spawn_blocking(work).await.unwrap();
        Ended { code, out, err }
    }

    pub async fn records(&self, files: &[&Path]) -> Ended {
        self.import(&["--provider", PROVIDER], files).await
    }

    /// Line and code of what was refused of a file.
    pub fn rejects(&self, file: &Path) -> Vec<(u64, String)> {
        let text = std::fs::read_to_string(rejects_of(file)).unwrap_or_default();
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line.as_object().unwrap().len(), 3);
            assert!(line["message"].as_str().unwrap().len() > 10);
            (line["line"].as_u64().unwrap(), line["code"].as_str().unwrap().to_owned())
        };
        text.lines().map(line).collect()
    }
}

pub fn rejects_of(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.rejects.ndjson", file.display()))
}

fn owned(list: &[(u64, &str)]) -> Vec<(u64, String)> {
    list.iter().map(|(line, code)| (*line, (*code).to_owned())).collect()
}

/// The three records of the samples are the same in every form, so whatever comes second changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_samples_of_the_documents_are_taken_offline_and_over_the_api() {
    let mut city = City::stopped();
    let register = city.sample("register.csv");
    let first = city.import(&["--register"], &[&register]).await;
    assert_eq!((first.code, first.counts()), (0, [3, 0, 0, 0]), "{} {}", first.out, first.err);
    assert!(first.err.contains("no gateway runs"), "{}", first.err);
    let dry = city.import(&["--provider", PROVIDER, "--dry-run"], &[&city.sample("records.csv")]).await;
    assert_eq!((dry.code, dry.counts()), (0, [3, 0, 0, 0]), "{}", dry.err);
    assert!(dry.out.contains("试运行"), "{}", dry.out);
    let first = city.records(&[&city.sample("records.csv")]).await;
    assert_eq!((first.code, first.counts()), (0, [3, 0, 0, 0]), "a dry run changed something: {}", first.err);
    let all = ["records-gb18030.txt", "records-english.csv", "records.xlsx", "records.ndjson"].map(|f| city.sample(f));
    let all: Vec<&Path> = all.iter().map(PathBuf::as_path).collect();
    let again = city.records(&all).await;
    assert_eq!((again.code, again.counts()), (0, [0, 12, 0, 0]), "{} {}", again.out, again.err);
    let (own, mapping) = (city.sample("own-headings.csv"), city.sample("own-headings.toml"));
    let mapping = ["--provider", PROVIDER, "--mapping", mapping.to_str().unwrap()];
    let mapped = city.import(&mapping, &[&own]).await;
    assert_eq!((mapped.code, mapped.counts()), (0, [0, 3, 0, 0]), "{} {}", mapped.out, mapped.err);
    assert!(!rejects_of(&own).exists());

    // The same over the API of the gateway that runs now, by the deployment's copy of the shared key, by a key that is
    // named, and by certificate.
    city.deployment.start().await;
    let file =
        |name: &str| city.deployment.dir().join(format!("parties/{PROVIDER}.{name}")).to_str().unwrap().to_owned();
    let (key, cert, pem) = (file("hmac"), file("pem"), file("key"));
    for proof in [vec![], vec!["--hmac-key", &key], vec!["--cert", &cert, "--key", &pem]] {
        let over = city.import(&[&["--provider", PROVIDER][..], &proof].concat(), &all).await;
        assert_eq!((over.code, over.counts()), (0, [0, 12, 0, 0]), "{} {}", over.out, over.err);
        assert!(over.err.contains("over the running gateway's API: https://"), "{}", over.err);
    }
    let register = city.import(&["--register", "--provider", REGISTRAR], &[&register]).await;
    assert_eq!((register.code, register.counts()), (0, [0, 3, 0, 0]), "{} {}", register.out, register.err);
    let mut me = city.deployment.login("53049919880307004X").await;
    let exported = me.get("/v1/me/export").await.unwrap().json().unwrap();
    assert_eq!(exported["records"][0]["person"]["name"], "欧阳\u{4DAE}");
    assert_eq!(exported["records"].as_array().unwrap().len(), 1);
    city.deployment.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_named_and_a_corrected_file_counts_nothing_twice() {
    let mut city = City::stopped();
    let expected = owned(&[
        (4, "malformed"),
        (5, "wrong-check-digit"),
        (6, "impossible-date"),
        (7, "quantity-required"),
        (8, "unknown-indicator"),
    ]);
    for running in [false, true] {
        if running {
            city.deployment.start().await;
        }
        let (bad, good) = (city.sample("refused.csv"), std::fs::read(sample("refused-corrected.csv")).unwrap());
        for dry in [&["--dry-run"][..], &[]] {
            let sent = city.import(&[&["--provider", PROVIDER][..], dry].concat(), &[&bad]).await;
            let known = u64::from(running);
            assert_eq!((sent.code, sent.counts()), (3, [1 - known, known, 0, 5]), "{} {}", sent.out, sent.err);
            let told = format!("{}{}", sent.out, sent.err);
            assert!(!told.contains("53049919") && !told.contains("王芳") && !told.contains("李静"), "{told}");
            assert_eq!(city.rejects(&bad), expected);
        }
        let named = std::fs::read_to_string(rejects_of(&bad)).unwrap();
        assert!(named.contains("as text") && !named.contains("5304") && !named.contains("李静"), "{named}");
        std::fs::write(&bad, good).unwrap();
        let mended = city.records(&[&bad]).await;
        let fresh = if running { 0 } else { 5 };
        assert_eq!((mended.code, mended.counts()), (0, [fresh, 6 - fresh, 0, 0]), "{}", mended.err);
        assert!(!rejects_of(&bad).exists(), "a file of an earlier run would be taken for this one's");
    }
    city.deployment.stop().await.unwrap();
}

/// What a dry run says of lines that come twice is what the import then does.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_the_import_does() {
    let city = City::stopped();
    let mut rows: Vec<String> = (0..1_200).map(|n| row(&format!("V-{n}"), P1, "王芳", 1)).collect();
    rows.push(row("V-7", P1, "王芳", 1));
    rows.push(row("V-8", P1, "王芳", 2));
    rows.push(row("V-8", P1, "王芳", 2));
    rows.push(row("V-9", "530499199001010016", "王芳", 2));
    let file = city.file("a.csv", format!("{HEADINGS}\n{}", rows.concat()));
    let dry = city.import(&["--provider", PROVIDER, "--dry-run"], &[&file]).await;
    let real = city.records(&[&file]).await;
    assert_eq!((dry.code, real.code), (3, 3), "{}", dry.err);
    assert_eq!(dry.counts(), [1_200, 2, 1, 1]);
    assert_eq!(real.counts(), [1_200, 2, 1, 1], "{}", real.err);
    assert_eq!(city.rejects(&file), owned(&[(1_205, "wrong-check-digit")]));
    let again = city.import(&["--provider", PROVIDER, "--dry-run"], &[&file]).await;
    // Lines 9 and 1203: the first version again, and then the second.
    assert_eq!(again.counts(), [0, 1_201, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_line_about_a_record_or_a_person_counts() {
    let mut city = City::stopped();
    let people: String =
        (0..1_100).map(|n| format!("{P1},王{},是,是\n", if n < 1_099 { "甲" } else { "芳" })).collect();
    let register = city.file("r.csv", format!("证件号码,姓名,常住人口,完全民事行为能力\n{people}"));
    let taken = city.import(&["--register"], &[&register]).await;
    assert_eq!((taken.code, taken.counts()), (0, [1, 1_098, 1, 0]), "{}", taken.err);
    let rows: String = (1..=1_100).map(|n| row("V-1", P1, "王芳", n)).collect();
    let taken = city.records(&[&city.file("a.csv", format!("{HEADINGS}\n{rows}"))]).await;
    assert_eq!((taken.code, taken.counts()), (0, [1, 0, 1_099, 0]), "{}", taken.err);
    city.deployment.start().await;
    let mut me = city.deployment.login(P1).await;
    let exported = me.get("/v1/me/export").await.unwrap().json().unwrap();
    assert_eq!(
        (&exported["records"][0]["quantity"], &exported["register"][0]["name"]),
        (&json!(1_100), &json!("王芳"))
    );
    city.deployment.stop().await.unwrap();
}

/// One file is of no use, the other is taken: which, why, and how it ends.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_of_no_use_are_named_and_the_others_are_taken() {
    let city = City::stopped();
    let good = row("V-1", P1, "王芳", 1);
    let table = format!("{HEADINGS}\n{good}");
    let gb18030 = |text: &str| encoding_rs::GB18030.encode(text).0.into_owned();
    let sheets = |rows: &[String]| Workbook::of(rows).bytes();
    let whole = std::fs::read(sample("records.xlsx")).unwrap();
    let mixed = [table.as_bytes(), &gb18030(&row("V-2", P1, "李静", 1).repeat(20))].concat();
    let wide: String = (0..70).map(|n| format!(",列{n}")).collect();
    for (name, content, said) in [
        ("empty.csv", Vec::new(), "is empty"),
        ("empty.xlsx", sheets(&[]), "is empty"),
        ("a.xlsx", b"%PDF-1.7 and more".to_vec(), "a PDF"),
        ("a.csv", vec![0xD0, 0xCF, 0x11, 0xE0, 0, 0], "old .xls"),
        ("a.ndjson", b"[{\"id\":\"1\"}]".to_vec(), "a JSON array"),
        ("a.xls", b"<html><body><table>".to_vec(), "a web page"),
        ("cut.xlsx", whole[..whole.len() - 40].to_vec(), "damaged or cut off"),
        ("mixed.csv", mixed, "--encoding"),
        ("twice.csv", table.replacen("姓名", "姓名,name", 1).into_bytes(), "two columns for `name`"),
        ("without.csv", table.replacen("发生日期,", "", 1).into_bytes(), "no column `occurred_on`"),
        ("wide.csv", table.replacen('\n', &format!("{wide}\n"), 1).into_bytes(), "70 unknown headings"),
        ("forbidden.csv", table.replacen("数量", "数量,血型", 1).into_bytes(), "prohibited-item"),
        ("rows.csv", good.clone().into_bytes(), "no known heading"),
        ("wide-comma.csv", table.replace(',', "，").into_bytes(), "full-width"),
    ] {
        let file = city.file(name, &content);
        let ended = city.records(&[&file]).await;
        assert_eq!(ended.code, 1, "{name}: {}", ended.out);
        assert!(ended.out.contains(said) && ended.out.contains(name), "{name}: {}", ended.out);
        assert!(!format!("{}{}", ended.out, ended.err).contains("5304"), "{name}: {}", ended.out);
        assert!(
            std::fs::read_dir(&city.files)
                .unwrap()
                .all(|entry| { !entry.unwrap().file_name().to_string_lossy().contains("rejects") })
        );
    }
    // Of a file that is nearly all UTF-8 the rows of the other encoding are refused one by one.
    let few = [table.as_bytes(), &gb18030(&row("V-2", P1, "李静", 1))].concat();
    let few = city.file("few.csv", few);
    let ended = city.records(&[&few]).await;
    assert_eq!((ended.code, ended.counts(), city.rejects(&few)), (3, [1, 0, 0, 1], owned(&[(3, "malformed")])));
    std::fs::remove_file(rejects_of(&few)).unwrap();
    for missing in ["missing.csv", "no-such-folder/missing.csv", "."] {
        let ended = city.records(&[&city.files.join(missing)]).await;
        assert_eq!(ended.code, 1);
        assert!(ended.out.contains(missing) && ended.out.contains("cannot be read"), "{}", ended.out);
    }
    let (good, bad) = (city.file("good.csv", &table), city.file("bad.csv", "nonsense"));
    let both = city.records(&[&bad, &good]).await;
    assert_eq!((both.code, both.counts()), (3, [0, 1, 0, 0]), "{}", both.out);
    let both = city.records(&[&good, &good]).await;
    assert_eq!((both.code, both.counts()), (0, [0, 2, 0, 0]), "{}", both.out);
}

/// Marks, ends of lines, blank lines; and a row of which one name is cut inside a character.
#[tokio::test(flavor = "multi_thread")]
async fn marks_ends_and_cut_characters() {
    let mut city = City::stopped();
    let rows = |from: u32| (from..from + 3).map(|n| row(&format!("V-{n}"), P1, "王芳", 1)).collect::<String>();
    let windows = format!("\u{FEFF}{HEADINGS}\n{}\n\n", rows(0)).replace('\n', "\r\n");
    let ndjson = |n: u32| {
        json!({"id": format!("V-{n}"), "provider": PROVIDER, "indicator": "volunteer-hours", "quantity": 1,
            "person": {"id_number": P1, "name": "王芳"}, "occurred_on": "2026-03-01"})
        .to_string()
    };
    let lines = format!("\u{FEFF}{}\r\n{}\r\n\r\n\r\n", ndjson(0), ndjson(3));
    let taken = city.records(&[&city.file("a.csv", windows), &city.file("a.ndjson", lines)]).await;
    assert_eq!((taken.code, taken.counts()), (0, [4, 1, 0, 0]), "{} {}", taken.out, taken.err);
    let mut table =
        format!("{HEADINGS}\n{}", (0..1_000).map(|n| row(&format!("W-{n}"), P1, "张伟", 1)).collect::<String>())
            .into_bytes();
    let name = "张伟".as_bytes();
    let at = table.windows(name.len()).enumerate().filter(|(_, w)| *w == name).nth(499).unwrap().0;
    table.drain(at + 2..at + 6);
    let cut = city.file("cut.csv", table);
    let taken = city.records(&[&cut]).await;
    assert_eq!((taken.code, taken.counts()), (3, [999, 0, 0, 1]), "{} {}", taken.out, taken.err);
    assert_eq!(city.rejects(&cut), owned(&[(501, "malformed")]));
    let long = format!("{}\n{}\n{}\n", ndjson(9), "x".repeat(20_000), ndjson(10));
    let long = city.file("long.ndjson", long);
    let taken = city.records(&[&long]).await;
    assert_eq!((taken.code, taken.counts(), city.rejects(&long)), (3, [2, 0, 0, 1], owned(&[(2, "too-large")])));

    // Names beyond the common ones are the same from every form of file.
    let names = ["\u{4DAE}\u{9FB4}", "\u{36C3}\u{1E3F}", "\u{2CB5A}"];
    let numbers = [P1, "53049919901015001X", "53049919250101001X"];
    let people: Vec<_> = names.iter().zip(numbers).collect();
    let register: String = people.iter().map(|(name, number)| format!("{number},{name},是,是\n")).collect();
    let headings = "证件号码,姓名,常住人口,完全民事行为能力";
    let register = format!("{headings}\n{register}");
    let rows: Vec<_> = register.lines().map(|line| texts(&line.split(',').collect::<Vec<_>>())).collect();
    let gb18030 = encoding_rs::GB18030.encode(&register).0.into_owned();
    let ndjson: String = people
        .iter()
        .map(|(name, number)| {
            json!({"id_number": number, "name": name, "resident": true, "full_capacity": true}).to_string() + "\n"
        })
        .collect();
    for (at, (name, content)) in
        [("r.csv", gb18030), ("r.xlsx", Workbook::of(&rows).bytes()), ("r.ndjson", ndjson.into_bytes())]
            .iter()
            .enumerate()
    {
        let taken = city.import(&["--register"], &[&city.file(name, content)]).await;
        let expected = if at == 0 { [3, 0, 0, 0] } else { [0, 3, 0, 0] };
        assert_eq!((taken.code, taken.counts()), (0, expected), "{name}: {} {}", taken.out, taken.err);
    }
    city.deployment.start().await;
    for (name, number) in people {
        let mut me = city.deployment.login(number).await;
        let exported = me.get("/v1/me/export").await.unwrap().json().unwrap();
        assert_eq!(exported["register"][0]["name"], *name);
    }
    city.deployment.stop().await.unwrap();
}

/// A party that sends more calls than the city allows is put off, and its import waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_puts_calls_off_is_waited_for() {
    let mut city = City::stopped();
    let slow = |line: &str| match line.split_once(" = ") {
        Some((name @ ("calls_per_second" | "calls_burst"), _)) => format!("{name} = 1\n"),
        _ => format!("{line}\n"),
    };
    rewrite(&city.deployment.dir().join("policies/city.toml"), |text| text.lines().map(slow).collect());
    city.deployment.start().await;
    let numbers = [P1, "53049919880307004X"];
    let rows: String = (0..1_400).map(|n| row(&format!("V-{n}"), numbers[n % 2], "王芳", 1)).collect();
    let sent = city.records(&[&city.file("a.csv", format!("{HEADINGS}\n{rows}"))]).await;
    assert_eq!((sent.code, sent.counts()), (0, [1_400, 0, 0, 0]), "{} {}", sent.out, sent.err);
    city.deployment.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_send_and_what_is_typed_wrong() {
    let mut city = City::stopped();
    let file = city.file("a.csv", format!("{HEADINGS}\n{}", row("V-1", P1, "王芳", 1)));
    for (more, code, said) in [
        (vec!["--provider", "nobody"], 2, "no provider of this id"),
        (vec!["--register", "--provider", PROVIDER], 2, "no registrar of this id"),
        (vec!["--provider", PROVIDER, "--mapping", "/nowhere"], 1, "/nowhere"),
    ] {
        let ended = city.import(&more, &[&file]).await;
        assert_eq!(ended.code, code, "{}", ended.err);
        assert!(ended.err.contains(said), "{said}: {}", ended.err);
    }
    let wrong = city.file("m.toml", "providr = \"x\"\n[headings]\nnam = \"x\"\n");
    let ended = city.import(&["--provider", PROVIDER, "--mapping", wrong.to_str().unwrap()], &[&file]).await;
    assert!(ended.code == 1 && ended.err.contains("m.toml:1:1") && ended.err.contains("m.toml:3:1"), "{}", ended.err);
    let other = city.import(&["--provider", "yx-court"], &[&file]).await;
    assert_eq!((other.code, other.counts()), (3, [0, 0, 0, 1]), "{}", other.out);
    assert_eq!(city.rejects(&file), owned(&[(2, "provider-not-allowed")]));
    city.deployment.start().await;
    let key = city.file("key", "bm90IHRoZSBrZXkgb2YgdGhpcyBwYXJ0eQ==");
    let ended = city.import(&["--provider", PROVIDER, "--hmac-key", key.to_str().unwrap()], &[&file]).await;
    assert!(ended.code == 1 && ended.err.contains("signature-wrong"), "{}", ended.err);
    city.deployment.stop().await.unwrap();
}
