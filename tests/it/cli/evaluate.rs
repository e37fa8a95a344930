//! `jadegate evaluate` reads every form of file that `import` reads, and gives the same scores for all of them.

use std::path::{Path, PathBuf};

use crate::support::Folder;
use crate::support::deployment::P1;
use crate::support::process::run;
use crate::support::workbook::{Workbook, texts};

fn of(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn sample(name: &str) -> PathBuf {
    of("docs/feeds").join(name)
}

/// Exit code, scores and what else was said, for a register and files of records.
fn evaluate(register: &Path, records: &[&Path], more: &[&str]) -> (i32, String, String) {
    let model = std::fs::read_dir(of("policies/models")).unwrap().next().unwrap().unwrap().path();
    let catalogue = of("policies/catalogue.toml");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mut args = vec!["evaluate".to_owned(), "--catalogue".into(), text(&catalogue), "--model".into(), text(&model)];
    args.extend(["--register".into(), text(register), "--on".into(), "2026-11-24".into()]);
    args.extend(more.iter().map(|word| (*word).to_owned()));
    args.push("--records".into());
    args.extend(records.iter().map(|path| text(path)));
    run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn every_form_of_file_gives_the_same_scores() {
    let folder = Folder::new();
    let register = sample("register.csv");
    let none = folder.path().join("none.ndjson");
    std::fs::write(&none, "").unwrap();
    let (_, without, _) = evaluate(&register, &[&none], &[]);
    let (code, expected, err) = evaluate(&register, &[&sample("records.ndjson")], &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(expected.lines().count() == 4 && expected != without, "{expected}");
    for form in ["records.csv", "records-gb18030.txt", "records-english.csv", "records.xlsx"] {
        let (code, scores, err) = evaluate(&register, &[&sample(form)], &[]);
        assert_eq!((code, scores.as_str(), err.as_str()), (0, expected.as_str(), ""), "{form}");
    }
    // The register has its own headings, which a mapping leaves as they are.
    let mapping = sample("own-headings.toml");
    let mapped = evaluate(&register, &[&sample("own-headings.csv")], &["--mapping", mapping.to_str().unwrap()]);
    assert_eq!(mapped, (0, expected.clone(), String::new()));
    // Everything at once is said again, and changes nothing.
    let all = ["records.ndjson", "records.csv", "records-gb18030.txt", "records.xlsx"].map(sample);
    let all: Vec<&Path> = all.iter().map(PathBuf::as_path).collect();
    assert_eq!(evaluate(&register, &all, &[]), (0, expected, String::new()));
    let (code, _, err) = evaluate(&register, &[&sample("refused.csv")], &[]);
    let named = err.lines().filter(|line| line.contains("refused.csv:")).count();
    assert_eq!((code, named), (3, 5), "{err}");
}

/// Spellings of one number, in a table and in a workbook: one person, and 18 characters out.
#[test]
fn spellings_of_a_number_in_tables_and_workbooks() {
    let folder = Folder::new();
    let headings = "证件号码,姓名,常住人口,完全民事行为能力";
    let numbers = ["53049919880307004X", "530499250101001", P1, "53049919901015001X", "530499200802290016"];
    let rows: String = numbers.iter().map(|number| format!("{number},王芳,是,是\n")).collect();
    let records = "id,provider,indicator,id_number,name,occurred_on,quantity\n\
        1,yx-civil-affairs,volunteer-hours,53049919880307004x,王芳,2026-03-01,10\n\
        2,yx-civil-affairs,volunteer-hours,53049919880307004Ｘ,王芳,2026-03-01,10\n\
        3,yx-civil-affairs,volunteer-hours,53049919250101001X,王芳,2026-03-01,10\n\
        4,yx-civil-affairs,volunteer-hours, 530499199001010015\u{3000},王芳,2026-03-01,10\n\
        5,yx-civil-affairs,volunteer-hours,530499199001010015,王芳,2026-03-01,0\n\
        6,yx-civil-affairs,volunteer-hours,5304991990O101001X,王芳,2026-03-01,1\n\
        7,yx-civil-affairs,volunteer-hours,XYZ530490010101,王芳,2026-03-01,1\n\
        8,yx-civil-affairs,volunteer-hours,5.30499E+17,王芳,2026-03-01,1\n\
        9,yx-civil-affairs,volunteer-hours,53049920000230001X,王芳,2026-03-01,1\n";
    let book = |table: &str| {
        let rows: Vec<_> = table.lines().map(|line| texts(&line.split(',').collect::<Vec<_>>())).collect();
        Workbook::of(&rows).bytes()
    };
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let register = format!("{headings}\n{rows}");
    let mut said = Vec::new();
    for (form, register, records) in
        [("csv", register.clone().into_bytes(), records.as_bytes().to_vec()), ("xlsx", book(&register), book(records))]
    {
        let files = (write(&format!("register.{form}"), &register), write(&format!("records.{form}"), &records));
        let (code, scores, err) = evaluate(&files.0, &[&files.1], &[]);
        assert_eq!(code, 3, "{err}");
        let people: Vec<_> = scores.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect();
        assert_eq!(
            people,
            ["53049919250101001X", "53049919880307004X", P1, "53049919901015001X", "530499200802290016"]
        );
        let codes: Vec<_> = err.lines().filter_map(|line| line.split(".xlsx:").last()?.split(".csv:").last()).collect();
        let codes: Vec<_> = codes.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            codes[..5],
            ["6 malformed", "7 malformed", "8 malformed", "9 malformed", "10 impossible-date"],
            "{err}"
        );
        assert!(!err.contains("5304"), "{err}");
        said.push(scores);
    }
    assert_eq!(said[0], said[1]);
    assert!(said[0].lines().filter(|line| line.contains(",scored,5")).count() >= 4, "{}", said[0]);
}

/// What two encodings could be is refused, and named it is read.
#[test]
fn a_file_in_doubt_scores_nobody_until_its_encoding_is_named() {
    let folder = Folder::new();
    let register = folder.path().join("r.csv");
    let table = format!("id_number,name,resident,full_capacity\n{P1},维通,true,true\n");
    std::fs::write(&register, encoding_rs::GB18030.encode(&table).0).unwrap();
    let none = folder.path().join("none.ndjson");
    std::fs::write(&none, "").unwrap();
    let (code, scores, err) = evaluate(&register, &[&none], &[]);
    assert_eq!((code, scores.as_str()), (1, ""));
    assert!(err.contains("see line 2") && err.contains("--encoding gb18030"), "{err}");
    let (code, scores, _) = evaluate(&register, &[&none], &["--encoding", "gb18030"]);
    assert!(code == 0 && scores.contains(P1), "{scores}");
}
