//! Tables as departments really send them.

use std::io::Cursor;

use jiff::civil::date;

use super::*;
use crate::catalogue::Catalogue;
use crate::feed::{Feed, Kind, open};
use crate::intake::{self, RecordRules, Source};
use crate::policy::{Mistakes, Source as PolicySource};
use crate::prohibited::Prohibited;
use crate::record::Held;

const HEADINGS: &str = "记录编号,报送单位,指标代码,证件类型,证件号码,姓名,发生日期,有效期至,数量,授权编号\n";
const P1: &str = "530499199001010015";

fn policies() -> (Catalogue, Prohibited) {
    let mut mistakes = Mistakes::new();
    let catalogue = "[[indicator]]\ncode = \"hours\"\ncategory = \"social-activity\"\nproviders = [\"yx-civil\"]\nunit = \"hour\"\n\
        [[indicator]]\ncode = \"bike\"\ncategory = \"market\"\nproviders = [\"yx-bike\"]\n";
    let prohibited =
        "[[item]]\ncode = \"religion\"\nname = { zh = \"宗教信仰\", en = \"Religion\" }\nlegal_basis = \"x\"\n";
    (
        Catalogue::parse(&PolicySource::new("catalogue.toml", catalogue), None, &mut mistakes).unwrap(),
        Prohibited::parse(&PolicySource::new("prohibited.toml", prohibited), &mut mistakes).unwrap(),
    )
}

/// Line and record, or line and code.
fn records(table: impl AsRef<[u8]>) -> Vec<(u64, Result<Held, &'static str>)> {
    let (catalogue, prohibited) = policies();
    let rules =
        RecordRules { catalogue: &catalogue, prohibited: &prohibited, today: date(2026, 11, 24), source: Source::File };
    let read = |line: Line| {
        let held = line.bytes.and_then(|bytes| intake::record(&bytes, &rules));
        (line.number, held.map_err(|e| e.code.as_str()))
    };
    feed(table.as_ref(), Kind::Records).unwrap().map(|line| read(line.unwrap())).collect()
}

fn feed(table: &[u8], kind: Kind) -> Result<Feed<'static>, FeedError> {
    open("table.csv", Cursor::new(table.to_vec()), &How::plain(kind, &policies().1)).map(|opened| opened.lines)
}

fn codes(table: impl AsRef<[u8]>) -> Vec<(u64, &'static str)> {
    records(table).into_iter().map(|(number, held)| (number, held.err().unwrap_or("ok"))).collect()
}

fn row(id: &str, number: &str, name: &str, on: &str, quantity: &str) -> String {
    format!("{id},yx-civil,hours,,{number},{name},{on},,{quantity},\n")
}

#[test]
fn headings_in_either_language_and_any_order() {
    let chinese = format!("{HEADINGS}V-1,yx-civil,hours,护照,UTO12345,\"O’Neil, Seán\",2025-03-01,2026/1/1,12,\n");
    let english = "Quantity,name,occurred_on,id_number,ID_TYPE,indicator,provider,id,valid_until\n\
        12,\"O’Neil, Seán\",2025年3月1日,UTO12345,passport,hours,yx-civil,V-1,20260101\n";
    let (chinese, english) = (records(chinese), records(english));
    assert!(chinese[0].1.is_ok());
    assert_eq!(chinese, english);
    let market = format!("{HEADINGS}B-1,yx-bike,bike,居民身份证,{P1},王芳,20250301,,,paper-1\n");
    assert_eq!(records(market)[0].1.as_ref().unwrap().record.consent_ref.as_deref(), Some("paper-1"));
}

#[test]
fn the_forms_of_a_date() {
    for (cell, expected) in [
        ("2025-03-01", Ok(date(2025, 3, 1))),
        ("2025/3/1", Ok(date(2025, 3, 1))),
        ("2025/03/01", Ok(date(2025, 3, 1))),
        ("20250301", Ok(date(2025, 3, 1))),
        ("2025年3月1日", Ok(date(2025, 3, 1))),
        (" 2025年12月31日\t", Ok(date(2025, 12, 31))),
        ("2025/2/29", Err("impossible-date")),
        ("2025年13月1日", Err("impossible-date")),
        ("20250000", Err("impossible-date")),
        ("45717", Err("malformed")),
        ("2025/3", Err("malformed")),
        ("25/3/1", Err("malformed")),
        ("3/1/2025", Err("malformed")),
        ("2025年3月1", Err("malformed")),
        ("2025-03-01 00:00:00", Err("malformed")),
        ("", Err("missing-field")),
    ] {
        let read = records(format!("{HEADINGS}{}", row("V-1", P1, "王芳", cell, "1")));
        assert_eq!(read[0].1.as_ref().map(|held| held.record.occurred_on).map_err(|e| *e), expected, "{cell}");
    }
}

#[test]
fn cells_that_a_spreadsheet_spoilt() {
    for (number, quantity, expected) in [
        ("5.30499E+17", "1", "malformed"),
        ("530499199001010000", "1", "wrong-check-digit"),
        (P1, "0012", "ok"),
        (P1, "1000000", "ok"),
        (P1, "1000001", "too-large"),
        (P1, "9223372036854775807", "too-large"),
        (P1, "18446744073709551616", "too-large"),
        (P1, "-1", "malformed"),
        (P1, "0", "malformed"),
        (P1, "1.0", "malformed"),
        (P1, "1e3", "malformed"),
        (P1, "", "quantity-required"),
    ] {
        assert_eq!(codes(format!("{HEADINGS}{}", row("V-1", number, "王芳", "20250301", quantity))), [(2, expected)]);
    }
    let table = format!("{HEADINGS}{}", row("V-1", "5.30499E+17", "王芳", "20250301", "1"));
    let line = feed(table.as_bytes(), Kind::Records).unwrap().next().unwrap().unwrap();
    let (catalogue, prohibited) = policies();
    let rules =
        RecordRules { catalogue: &catalogue, prohibited: &prohibited, today: date(2026, 11, 24), source: Source::File };
    let error = intake::record(&line.bytes.unwrap(), &rules).unwrap_err();
    assert!(error.message.contains("as text"), "{error}");
}

#[test]
fn marks_line_ends_and_blank_lines() {
    let table =
        format!("{HEADINGS}{}{}", row("V-1", P1, "王芳", "20250301", "1"), row("V-2", P1, "王芳", "20250301", "1"));
    let windows = format!("\u{FEFF}{}\r\n\r\n", table.replace('\n', "\r\n"));
    for table in [table.clone(), windows, table.replace('\n', "\r"), format!("{table},,,,,,,,,\n \n\n")] {
        assert_eq!(codes(&table), [(2, "ok"), (3, "ok")], "{table:?}");
    }
}

#[test]
fn lines_are_counted_as_an_editor_shows_them() {
    for end in ["\n", "\r\n"] {
        let table = format!(
            "\n{HEADINGS}\n{}\n\nV-2,yx-civil,hours,,{P1},\"王\n芳\",20250301,,1,\n{}{}",
            row("V-1", P1, "王芳", "20250301", "1"),
            row("V-3", P1, "王芳", "x", "1"),
            row("V-4", P1, "王芳", "20250301", "1").trim_end(),
        );
        let table = table.replace('\n', end);
        assert_eq!(
            codes(&table),
            [(4, "ok"), (7, "malformed"), (8, "malformed"), (9, "malformed"), (10, "ok")],
            "{table:?}"
        );
    }
}

#[test]
fn rows_of_an_odd_shape() {
    let table = format!(
        "{HEADINGS}V-1,yx-civil,hours,,{P1},王芳\nV-2,yx-civil,hours,,{P1},王芳,20250301,,1,,,\n\
         V-3,yx-civil,hours,,{P1},王芳,20250301,,1,,x\nV-4,yx-civil,hours,居住证,{P1},王芳,20250301,,1,\n"
    );
    assert_eq!(codes(table), [(2, "missing-field"), (3, "ok"), (4, "malformed"), (5, "malformed")]);
    let open_quote = format!("{HEADINGS}V-1,yx-civil,hours,,{P1},\"王芳,{}", "20250301,,1,\n".repeat(3_000));
    let swallowed: Vec<_> = (2..=3_001).map(|line| (line, "malformed")).collect();
    assert_eq!(codes(open_quote), swallowed, "each line that the open mark swallowed is named");
    let row = |n: u32, name: &str| format!("V-{n},yx-civil,hours,,{P1},{name},20250301,,1,\n");
    let closed = [row(1, "王芳"), row(2, "\"王芳"), row(3, "王芳"), row(4, "王芳\""), row(5, "王芳")].concat();
    let told = codes(format!("{HEADINGS}{closed}"));
    assert_eq!(told, [(2, "ok"), (3, "malformed"), (4, "malformed"), (5, "malformed"), (6, "ok")]);
}

#[test]
fn headings_that_cannot_be() {
    let all = HEADINGS.trim_end();
    for (headings, expected) in [
        (String::new(), "is empty"),
        (all.replace("姓名", "名字"), "unknown heading, `名字`"),
        (all.replace("姓名", P1), "unknown heading, with a long or odd name"),
        (row("V-1", P1, "王芳", "20250301", "1"), "no known heading"),
        (all.replace(',', "，"), "separated by commas"),
        (format!("{all},宗教信仰"), "prohibited-item"),
        (format!("{all},name"), "two columns for `name`"),
        (all.replace("证件号码,", ""), "no column `id_number` (or `证件号码`)"),
    ] {
        let error = feed(headings.as_bytes(), Kind::Records).err().unwrap().to_string();
        assert!(error.contains(expected) && !error.contains(P1) && !error.contains("王芳"), "{error}");
    }
    assert!(matches!(feed(b"PK\x03\x04rest", Kind::Records).err().unwrap(), FeedError::Damaged(..)));
    assert!(feed(format!("{all},,\n").as_bytes(), Kind::Records).is_ok());
}

#[test]
fn one_cut_name_among_a_thousand() {
    let mut table = HEADINGS.as_bytes().to_vec();
    for at in 1..=1_000 {
        let row = row(&format!("V-{at}"), P1, "张伟", "20250301", "1");
        let mut bytes = row.clone().into_bytes();
        if at == 500 {
            // inside the first character: E5 BC, then the comma
            let name = row.find("张伟").unwrap();
            bytes.drain(name + 2..name + 6);
        }
        table.extend(bytes);
    }
    let read = records(table);
    let bad: Vec<_> = read.iter().filter(|(_, held)| held.is_err()).map(|(n, held)| (*n, held.clone().err())).collect();
    assert_eq!(bad, [(501, Some("malformed"))]);
    assert_eq!(
        read.iter().filter(|(_, held)| held.as_ref().is_ok_and(|h| h.record.name.as_str() == "张伟")).count(),
        999
    );
}

#[test]
fn rare_characters_and_the_2022_edition_in_gb18030() {
    let mut table = encoding_rs::GB18030.encode(HEADINGS).0.into_owned();
    let names: [(&[u8], &str); 5] = [
        (&[0xFE, 0x9F], "\u{4DAE}"),
        (&[0x82, 0x30, 0xB7, 0x31], "\u{36C3}"),
        (&[0x99, 0x33, 0xAA, 0x34], "\u{2CB5A}"),
        (&[0xFE, 0x59], "\u{9FB4}"),
        (&[0xA8, 0xBC], "\u{1E3F}"),
    ];
    for (at, (bytes, _)) in names.iter().enumerate() {
        let (before, after) = (format!("V-{at},yx-civil,hours,,{P1}"), b",20250301,,1,\n");
        table.extend([before.as_bytes(), &[0xA3, 0xA0], b",", bytes, after].concat());
    }
    let read = records(table);
    for ((_, held), (_, name)) in read.iter().zip(names) {
        let record = &held.as_ref().unwrap().record;
        assert_eq!((record.identity.number(), record.name.as_str()), (P1, name));
    }
    assert_eq!(read.len(), names.len());
}

#[test]
fn a_register() {
    let (_, prohibited) = policies();
    let table = format!(
        "姓名,证件类型,证件号码,出生日期,常住人口,完全民事行为能力\n王芳,居民身份证,{P1},,是,TRUE\nAnna,护照,UTO12345,1990年1月1日,否,false\n\
         王芳,,{P1},1990/1/2,是,是\nAnna,护照,UTO12345,,是,是\n王芳,,{P1},,yes,是\n王芳,,{P1},,是,\n"
    );
    let read: Vec<_> = feed(table.as_bytes(), Kind::Register)
        .unwrap()
        .map(|line| line.unwrap().bytes.and_then(|bytes| intake::person(&bytes, date(2026, 11, 24), &prohibited)))
        .map(|person| person.map(|p| (p.resident, p.full_capacity, p.born_on)).map_err(|e| e.code.as_str()))
        .collect();
    assert_eq!(
        read,
        [
            Ok((true, true, date(1990, 1, 1))),
            Ok((false, false, date(1990, 1, 1))),
            Err("impossible-date"),
            Err("missing-field"),
            Err("malformed"),
            Err("missing-field"),
        ]
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        for kind in [Kind::Records, Kind::Register] {
            if let Ok(feed) = feed(&bytes, kind) {
                feed.for_each(drop);
            }
            let rows = [if kind == Kind::Records { HEADINGS.as_bytes() } else { b"id_number,name,resident,full_capacity\n" }, &bytes];
            if let Ok(feed) = self::feed(&rows.concat(), kind) {
                feed.for_each(drop);
            }
        }
    }
}
