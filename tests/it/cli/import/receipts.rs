//! Receipts reach whoever imports a file, and hold against that very file, offline, years later.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jadegate::access_log::checkpoint::VerifierKey;
use jadegate::feed::{self, How, Kind};
use jadegate::prohibited::Prohibited;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{City, Ended, HEADINGS, PROVIDER, row, sample};
use crate::support::deployment::{P1, REGISTRAR};
use crate::support::process::run;
use crate::support::workbook::{Workbook, dated, number, text, texts};

const P2: &str = "53049919880307004X";

pub fn receipts_of(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.receipts.ndjson", file.display()))
}

/// The receipts of a file; every line must be one.
pub fn receipts(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(receipts_of(file)).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ranges(receipts: &[Value]) -> Vec<(u64, u64)> {
    receipts.iter().map(|r| (r["first_line"].as_u64().unwrap(), r["last_line"].as_u64().unwrap())).collect()
}

fn write(file: &Path, receipts: &[Value]) {
    let lines: String = receipts.iter().map(|receipt| format!("{receipt}\n")).collect();
    std::fs::write(receipts_of(file), lines).unwrap();
}

/// What a department keeps of a gateway: its key set and the key of its log.
pub struct Keys {
    jwks: PathBuf,
    log_key: PathBuf,
}

impl Keys {
    pub async fn of(city: &mut City) -> Self {
        city.deployment.start().await;
        let keys = Self::of_running(city).await;
        city.deployment.stop().await.unwrap();
        keys
    }

    async fn of_running(city: &City) -> Self {
        let mut public = city.deployment.public();
        let jwks = public.get("/.well-known/jwks.json").await.unwrap().body;
        let log_key = public.get("/log/key").await.unwrap().body;
        Self { jwks: city.file("jwks.json", jwks), log_key: city.file("log-key", log_key) }
    }

    /// Verifies the receipts beside a file.
    pub fn verify(&self, file: &Path, more: &[&str]) -> Ended {
        self.verify_these(&receipts_of(file), file, more)
    }

    fn verify_these(&self, receipts: &Path, file: &Path, more: &[&str]) -> Ended {
        let [receipts, file, jwks, log_key] =
            [receipts, file, &self.jwks, &self.log_key].map(|path| path.to_str().unwrap());
        let args = ["verify", "--receipts", receipts, "--file", file, "--jwks", jwks, "--log-key", log_key];
        let (code, out, err) = run(&[&args[..], more].concat());
        assert!(!format!("{out}{err}").contains("530499"), "somebody's number: {out}{err}");
        Ended { code, out, err }
    }
}

/// Rows in which some are refused as they stand (a cell without a heading) and some by the gateway.
fn table(rows: u32) -> String {
    let row = |n: u32| match n {
        // Lines 3, 503, 504 and the last one never leave.
        1 | 501 | 502 | 1_099 => row(&format!("V-{n}"), P1, "王芳", 1).replace('\n', ",and more\n"),
        7 | 900 => row(&format!("V-{n}"), "530499199001010016", "王芳", 1),
        _ => row(&format!("V-{n}"), [P1, P2][n as usize % 2], "王芳", 1 + n % 7),
    };
    format!("{HEADINGS}\n{}", (0..rows).map(row).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_leaves_receipts_that_prove_every_line_that_was_sent() {
    let mut city = City::stopped();
    let keys = Keys::of(&mut city).await;
    let file = city.file("a.csv", table(1_100));
    let dry = city.import(&["--provider", PROVIDER, "--dry-run"], &[&file]).await;
    assert!(dry.code == 3 && !dry.out.contains("receipt") && !receipts_of(&file).exists(), "{}", dry.out);
    let mut all = Vec::new();
    for running in [false, true] {
        if running {
            city.deployment.start().await;
        }
        let sent = city.records(&[&file]).await;
        assert_eq!((sent.code, sent.counts()[3]), (3, 6), "{} {}", sent.out, sent.err);
        assert!(
            sent.out.contains(&format!("3 receipt(s), to be kept with the file: {}", receipts_of(&file).display()))
        );
        // 500 of 1,100 rows a batch, the four that never left aside.
        let own = receipts(&file).split_off(all.len());
        assert_eq!(ranges(&own), [(2, 502), (505, 1_004), (1_005, 1_100)]);
        all.extend(own);
        let verified = keys.verify(&file, &[]);
        assert_eq!(verified.code, 0, "{} {}", verified.out, verified.err);
        for part in [
            "VALID: ",
            "lines 2 to 1100 (1096 lines)",
            PROVIDER,
            "in the access log",
            &format!("receipts: {}\n", all.len()),
            if running { "unchanged 1094" } else { "accepted 1094" },
            "rejected 2",
        ] {
            assert!(verified.out.contains(part), "{part} in {}", verified.out);
        }
        assert!(verified.err.contains("4 line(s) were never sent, being refused as they stand: 3, 503, 504, 1101"));
    }
    city.deployment.stop().await.unwrap();

    // Whoever finds the file learns nothing about anybody, and only its owner reads it.
    let written = std::fs::read_to_string(receipts_of(&file)).unwrap();
    assert!(!written.contains("volunteer") && !written.contains("王") && !written.contains("530499"));
    assert_eq!(std::fs::metadata(receipts_of(&file)).unwrap().permissions().mode() & 0o777, 0o600);
    let ids: BTreeSet<&str> = all.iter().map(|receipt| receipt["batch"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 6);

    // Each also verifies by itself, as one that was fetched does.
    let token = all[1]["receipt"].as_str().unwrap();
    let proof = city.file("proof", all[1]["proof"].as_str().unwrap());
    let [jwks, key, proof] = [&keys.jwks, &keys.log_key, &proof].map(|path| path.to_str().unwrap());
    let single = run(&["verify", token, "--jwks", jwks, "--aud", PROVIDER, "--proof", proof, "--log-key", key]);
    assert!(single.0 == 0 && single.1.contains("in the access log"), "{}", single.2);

    // A key that has ended, and one log key among others; another party, and keys of other logs alone.
    let other = VerifierKey::new("log.example/other", [1; 32]).unwrap();
    let own = std::fs::read_to_string(&keys.log_key).unwrap();
    let several =
        Keys { jwks: city.file("no-keys", "{\"keys\":[]}"), log_key: city.file("keys", format!("{other}\n{own}")) };
    let verified = several.verify(&file, &["--provider", PROVIDER]);
    assert!(verified.code == 0 && verified.err.contains("the log alone proves them"), "{}", verified.err);
    let foreign = Keys { jwks: keys.jwks.clone(), log_key: city.file("other-key", other.to_string()) };
    for ended in [foreign.verify(&file, &[]), keys.verify(&file, &["--aud", REGISTRAR])] {
        assert!(
            ended.code == 1 && ended.out.is_empty() && ended.err.contains("no receipt that holds"),
            "{}",
            ended.err
        );
    }
}

/// Workbooks, another encoding with a department's own headings, NDJSON, the register; the options as they were.
#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_file_becomes_the_same_lines_again() {
    let mut city = City::stopped();
    let keys = Keys::of(&mut city).await;
    let mut rows = vec![texts(&["记录编号", "指标代码", "证件号码", "姓名", "发生日期", "数量"])];
    for n in 0..600 {
        let cells = texts(&[&format!("X-{n}"), "volunteer-hours", P1, "欧阳\u{4DAE}"]);
        rows.push(match n {
            // A formula, which is never sent.
            20 | 599 => cells + &dated("46082") + "<c><f>1+1</f><v>2</v></c>",
            _ => cells + &dated("46082") + &number("3"),
        });
    }
    let workbook = city.file("a.xlsx", Workbook::of(&rows).with("other", "", "<worksheet/>").bytes());
    let mapping = city.file(
        "m.toml",
        "indicator = \"volunteer-hours\"\nothers = \"ignore\"\n[headings]\nid = \"编号\"\nid_number = \"证件\"\nname = \"志愿者\"\noccurred_on = \"日期\"\nquantity = \"小时\"\n[[value]]\nfield = \"quantity\"\nfrom = \"半天\"\nto = \"4\"\n",
    );
    let own: String = (0..700).map(|n| format!("M-{n};{P2};欧阳芳;2026年3月1日;半天;不报送\r\n")).collect();
    let own = encoding_rs::GB18030.encode(&format!("编号;证件;志愿者;日期;小时;电话\r\n{own}")).0.into_owned();
    let own = city.file("own.csv", own);
    let ndjson = city.file("a.ndjson", format!("{}\n", std::fs::read_to_string(sample("records.ndjson")).unwrap()));
    let register = city.file("register.csv", std::fs::read(sample("register.csv")).unwrap());
    let map = ["--mapping", mapping.to_str().unwrap()];
    for (more, file, batches) in [
        (&[][..], &workbook, vec![(2, 502), (503, 600)]),
        (&["--sheet", "Sheet1"][..], &workbook, vec![(2, 502), (503, 600)]),
        (&map[..], &own, vec![(2, 501), (502, 701)]),
        (&[map[0], map[1], "--encoding", "gb18030"][..], &own, vec![(2, 501), (502, 701)]),
        (&[][..], &ndjson, vec![(1, 3)]),
    ] {
        let sent = city.import(&[&["--provider", PROVIDER], more].concat(), &[file]).await;
        assert!(sent.code == 0 || file == &workbook, "{}{}", sent.out, sent.err);
        let held = ranges(&receipts(file));
        assert_eq!(held[held.len() - batches.len()..], batches);
        let verified = keys.verify(file, more);
        assert_eq!(verified.code, 0, "{} {}", verified.out, verified.err);
        let with_party = keys.verify(file, &[more, &["--provider", PROVIDER]].concat());
        assert_eq!((with_party.code, with_party.out), (0, verified.out));
    }
    let sent = city.import(&["--register"], &[&register]).await;
    assert_eq!(sent.code, 0, "{}", sent.err);
    let verified = keys.verify(&register, &[]);
    assert!(verified.code == 0 && verified.out.contains("人员登记 register"), "{} {}", verified.out, verified.err);

    // Without the options, or with others: never a false yes, and a word about them.
    let without = keys.verify(&own, &[]);
    assert!(without.code == 1 && without.out.is_empty() && without.err.contains("NOT CHECKED"), "{}", without.err);
    let said = std::fs::read_to_string(&mapping).unwrap().replace("to = \"4\"", "to = \"5\"");
    let other = keys.verify(&own, &["--mapping", city.file("n.toml", said).to_str().unwrap()]);
    assert!(other.code == 1 && other.out.is_empty() && other.err.contains("--mapping"), "{}", other.err);
    let other = keys.verify(&workbook, &["--sheet", "other"]);
    assert!(other.code == 1 && other.out.is_empty(), "{}", other.err);

    // One cell of the workbook, in its second batch.
    let batch = receipts(&workbook)[3]["batch"].as_str().unwrap().to_owned();
    rows[560] = rows[560].replace("<v>3</v>", "<v>4</v>");
    std::fs::write(&workbook, Workbook::of(&rows).with("other", "", "<worksheet/>").bytes()).unwrap();
    let changed = keys.verify(&workbook, &[]);
    assert_eq!(changed.code, 1);
    assert!(changed.out.contains("VALID IN PART") && changed.out.contains("lines 2 to 502 (500 lines)"));
    assert!(
        changed.err.contains(&format!("batch {batch}")) && changed.err.contains("lines 503 to 600"),
        "{}",
        changed.err
    );
    rows[560] = texts(&["one", "two"]) + &text("three");
    assert_eq!(keys.verify(&workbook, &[]).code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_changed_or_sent_again_is_told_line_by_line() {
    let mut city = City::stopped();
    let keys = Keys::of(&mut city).await;
    let content = table(1_100);
    let file = city.file("a.csv", &content);
    city.records(&[&file]).await;
    let held = receipts(&file);
    let second = held[1]["batch"].as_str().unwrap();

    // A cell, a line more, a line less, two lines in another order: the batch and its range, and the others hold.
    let lines: Vec<&str> = content.lines().collect();
    let all = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let mut swapped = lines.clone();
    swapped.swap(700, 701);
    let mut cell = lines.clone();
    let hours = cell[700].rsplit_once(',').unwrap().0.to_owned() + ",9";
    cell[700] = &hours;
    for changed in [swapped, cell] {
        std::fs::write(&file, all(&changed)).unwrap();
        let told = keys.verify(&file, &[]);
        assert_eq!(told.code, 1, "{}", told.out);
        assert!(told.err.contains(&format!(
            "batch {second} (line 2 of the receipts, 500 lines sent) no longer agrees with lines 505 to 1004"
        )));
        assert!(
            told.err.contains("not proven: 第 505 至 1004 行（500 行） · lines 505 to 1004 (500 lines)"),
            "{}",
            told.err
        );
        assert!(told.out.contains("lines 2 to 502 (500 lines)") && told.out.contains("lines 1005 to 1100 (96 lines)"));
        assert!(told.out.contains("VALID IN PART") && !told.err.contains("not one receipt"));
    }
    let mut more = lines.clone();
    more.insert(700, &hours);
    let mut less = lines.clone();
    less.remove(700);
    for (changed, kept) in [(more, "lines 2 to 502"), (less, "lines 2 to 502")] {
        std::fs::write(&file, all(&changed)).unwrap();
        let told = keys.verify(&file, &[]);
        assert!(told.code == 1 && told.out.contains(kept) && told.err.contains(second), "{} {}", told.out, told.err);
        assert!(!told.out.contains("1005"), "the lines behind it have other numbers: {}", told.out);
    }
    // Lines that nobody sent, behind all others, and a file that ends early.
    std::fs::write(&file, content.clone() + &row("W-1", P1, "王芳", 1) + &row("W-2", P1, "王芳", 1)).unwrap();
    let told = keys.verify(&file, &[]);
    assert!(told.code == 1 && told.err.contains("not proven: 第 1102 至 1103 行"), "{}", told.err);
    std::fs::write(&file, all(&lines[..1_004])).unwrap();
    let told = keys.verify(&file, &[]);
    assert!(told.code == 1 && told.err.contains("no longer agrees with lines 1005 to 1100"), "{}", told.err);

    // Corrected and sent again: the new receipts come behind the old ones, which still prove what did not change.
    let corrected = content.replace(",and more\n", "\n").replace("530499199001010016", P1);
    std::fs::write(&file, &corrected).unwrap();
    assert_eq!(keys.verify(&file, &[]).code, 1);
    let again = city.records(&[&file]).await;
    assert_eq!((again.code, again.counts()), (0, [6, 1_094, 0, 0]), "{}", again.err);
    let both = receipts(&file);
    assert_eq!(ranges(&both[3..]), [(2, 501), (502, 1_001), (1_002, 1_101)]);
    assert_eq!(both[..3], held);
    let told = keys.verify(&file, &[]);
    assert!(told.code == 0 && told.out.contains("lines 2 to 1101 (1100 lines)"), "{} {}", told.out, told.err);
    assert!(told.err.contains("2 receipt(s) are of what the file held before"), "{}", told.err);
    // What was sent first is no longer what was sent last, and that is said.
    std::fs::write(&file, &content).unwrap();
    let told = keys.verify(&file, &[]);
    assert!(told.code == 1 && told.out.contains("lines 2 to 1100 (1096 lines)"), "{} {}", told.out, told.err);
    assert!(told.err.contains(both[3]["batch"].as_str().unwrap()), "{}", told.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn bent_receipts_prove_nothing() {
    let mut city = City::stopped();
    let keys = Keys::of(&mut city).await;
    let (file, other) = (city.file("a.csv", table(1_090)), city.file("b.csv", table(900).replace("V-", "U-")));
    city.records(&[&file, &other]).await;
    let (held, foreign) = (receipts(&file), receipts(&other));
    assert_eq!((held.len(), foreign.len()), (3, 2));
    let unproven = "lines 505 to 1004 (500 lines)";
    let bent = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut bent = held.clone();
        change(&mut bent);
        write(&file, &bent);
        keys.verify(&file, &[])
    };
    let flip = |text: &Value, at: usize| {
        let mut bytes = text.as_str().unwrap().as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        Value::from(String::from_utf8(bytes).unwrap())
    };
    let length = held[1]["receipt"].as_str().unwrap().len();
    for at in [1, length / 3, length / 2, length - 40] {
        let told = bent(&|all| all[1]["receipt"] = flip(&all[1]["receipt"], at));
        assert!(
            told.code == 1 && told.err.contains(unproven) && told.err.contains("receipts.ndjson:2"),
            "{}",
            told.err
        );
        assert!(told.out.contains("VALID IN PART"), "{}", told.out);
    }
    let proof = held[1]["proof"].as_str().unwrap();
    let (extra, note) = (proof.find("extra ").unwrap() + 10, proof.rfind("\u{2014} ").unwrap());
    for at in [extra, extra + 200, proof.find("index ").unwrap() + 6, note - 30, proof.len() - 20] {
        let told = bent(&|all| all[1]["proof"] = flip(&all[1]["proof"], at));
        assert!(
            told.code == 1 && told.err.contains(unproven) && told.err.contains("receipts.ndjson:2"),
            "{at}: {}",
            told.err
        );
    }
    // Ranges that were never signed prove nothing by themselves; what stands in two receipts cannot be exchanged.
    for (what, change) in [
        ("a later beginning", &(|all: &mut Vec<Value>| all[1]["first_line"] = 506.into()) as &dyn Fn(&mut Vec<Value>)),
        ("an earlier end", &|all| all[1]["last_line"] = 1_003.into()),
        ("all lines", &|all| {
            (all[1]["first_line"], all[1]["last_line"]) = (1.into(), 2_000.into());
        }),
        ("an end before the beginning", &|all| all[1]["last_line"] = 1.into()),
        ("another batch's id", &|all| all[1]["batch"] = all[0]["batch"].clone()),
        ("another batch's proof", &|all| all[1]["proof"] = all[0]["proof"].clone()),
        ("another batch's receipt", &|all| all[1]["receipt"] = all[0]["receipt"].clone()),
        ("another form of lines", &|all| all[1]["lines_form"] = 2.into()),
        ("not there", &|all| drop(all.remove(1))),
        ("no receipt", &|all| all[1] = "x".into()),
    ] {
        let told = bent(change);
        assert!(told.code == 1 && told.err.contains(unproven), "{what}: {} {}", told.out, told.err);
        assert!(told.out.contains("lines 2 to 502") && told.out.contains("lines 1005 to "), "{what}: {}", told.out);
    }
    // Those of another file, alone and beside the own ones.
    let told = keys.verify_these(&receipts_of(&other), &file, &[]);
    assert!(told.code == 1 && told.out.is_empty() && told.err.contains("not one receipt agrees"), "{}", told.err);
    let told = bent(&|all| all.extend(foreign.clone()));
    assert!(told.code == 1 && told.out.contains("lines 2 to "), "{} {}", told.out, told.err);
    write(&file, &held);
    assert_eq!(keys.verify(&file, &[]).code, 0);

    // What is typed wrong, and what is not there.
    let (f, jwks) = (file.to_str().unwrap(), keys.jwks.to_str().unwrap());
    let receipts = receipts_of(&file);
    for args in [
        &["verify", "--receipts", receipts.to_str().unwrap(), "--file", f, "--jwks", jwks][..],
        &["verify", "a.b.c", "--jwks", jwks, "--sheet", "x"],
    ] {
        assert_eq!(run(args).0, 2);
    }
    for told in
        [keys.verify_these(Path::new("/nowhere"), &file, &[]), keys.verify_these(&receipts, Path::new("/no"), &[])]
    {
        assert!(told.code == 1 && told.err.contains("NOT CHECKED"), "{}", told.err);
    }
    let empty = keys.verify_these(&city.file("empty", ""), &file, &[]);
    assert!(empty.code == 1 && empty.err.contains("no receipt that holds"), "{}", empty.err);
}

/// Old receipts are held against lines that are made anew: so not a byte of these may ever change under one number
/// of `LINES_FORM`, whatever becomes of catalogue, policies and program.
#[test]
fn the_lines_that_files_become_never_change() {
    let lines = |name: &str, content: Vec<u8>, kind: Kind| {
        let none = Prohibited::none();
        let how = How { provider: Some("yx-civil-affairs"), ..How::plain(kind, &none) };
        let opened = feed::open(name, std::io::Cursor::new(content), &how).unwrap();
        let line = |line: feed::Line| (line.number, line.bytes.ok().map(|bytes| String::from_utf8(bytes).unwrap()));
        opened.lines.map(|read| line(read.unwrap())).collect::<Vec<_>>()
    };
    let table = "记录编号,指标代码,证件类型,证件号码,姓名,发生日期,有效期至,数量,detail\n\
        A-1, volunteer-hours ,居民身份证,530499199001010015,\u{20000}·\"王\",2026/3/1,2027年3月1日,007,\n\
        A-2,volunteer-hours,护照,UTO-1,\"a \"\"b\"\" \\ /\",20260301,,12x,\"one\r\ntwo\t\u{1}\u{7f}\u{2028}x\"\n\
        \n\
        A-3,volunteer-hours,x,,,2026-3-1,,99999999999999999999999,\n\
        A-4,volunteer-hours,,1,n,2026-03-01,,,,extra\n";
    let expected = [
        (2, Some(r#"{"provider":"yx-civil-affairs","id":"A-1","indicator":"volunteer-hours","occurred_on":"2026-03-01","valid_until":"2027-03-01","quantity":7,"person":{"id_number":"530499199001010015","name":"𠀀·\"王\""}}"#.to_owned())),
        (3, Some("{\"provider\":\"yx-civil-affairs\",\"id\":\"A-2\",\"indicator\":\"volunteer-hours\",\"occurred_on\":\"2026-03-01\",\"quantity\":\"12x\",\"detail\":\"one\\r\\ntwo\\t\\u0001\u{7f}\u{2028}x\",\"person\":{\"id_type\":\"passport\",\"id_number\":\"UTO-1\",\"name\":\"a \\\"b\\\" \\\\ /\"}}".to_owned())),
        (6, Some(r#"{"provider":"yx-civil-affairs","id":"A-3","indicator":"volunteer-hours","occurred_on":"2026-3-1","quantity":18446744073709551615,"person":{"id_type":"x"}}"#.to_owned())),
        (7, None),
    ];
    assert_eq!(lines("a.csv", table.into(), Kind::Records), expected);
    let people = "姓名,证件号码,常住人口,完全民事行为能力,出生日期\n王芳,530499199001010015,是,FALSE,1990/1/1\n";
    let person = r#"{"name":"王芳","id_number":"530499199001010015","resident":true,"full_capacity":false,"born_on":"1990-01-01"}"#;
    assert_eq!(lines("r.csv", people.into(), Kind::Register), [(2, Some(person.to_owned()))]);

    // The samples of the documents, by what their lines hash to.
    let digest = |name: &str| {
        let kind = if name.starts_with("register") { Kind::Register } else { Kind::Records };
        let mut hash = Sha256::new();
        for (number, line) in lines(name, std::fs::read(sample(name)).unwrap(), kind) {
            hash.update(format!("{number} {}\n", line.unwrap_or_default()));
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let expected = [
        ("records.csv", "2a7d5817b0b1c47f"),
        ("records-gb18030.txt", "2a7d5817b0b1c47f"),
        ("records-english.csv", "fa621159057cf011"),
        ("records.xlsx", "d70ffa500e1c0de1"),
        ("records.ndjson", "d79a10c81c5a5606"),
        ("refused.csv", "ce55b9f43692fbf5"),
        ("register.csv", "671484d02b902c43"),
    ];
    let found = expected.map(|(name, _)| (name, digest(name)));
    assert_eq!(found, expected.map(|(name, digest)| (name, digest.to_owned())));
}
