//! Workbooks as Excel, other programs and people with bad intentions make them.

use std::io::Cursor;

use jiff::civil::date;

use super::*;
use crate::catalogue::Catalogue;
use crate::feed::{Kind, Mapping, Opened, open};
use crate::intake::{RecordRules, Source};
use crate::policy::{Mistakes, Source as PolicySource};
use crate::prohibited::Prohibited;
use crate::record::Held;

#[path = "../../../tests/it/support/workbook.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod workbook;

use workbook::{Workbook, dated, number, packed, shared, sheet, text, texts};

const P1: &str = "530499199001010015";
const HEADINGS: [&str; 9] =
    ["记录编号", "报送单位", "指标代码", "证件类型", "证件号码", "姓名", "发生日期", "数量", "detail"];

fn catalogue() -> Catalogue {
    let text = "[[indicator]]\ncode = \"hours\"\ncategory = \"social-activity\"\nproviders = [\"yx-civil\"]\nunit = \"hour\"\n";
    Catalogue::parse(&PolicySource::new("catalogue.toml", text), None, &mut Mistakes::new()).unwrap()
}

/// A row of cells, each as it stands in the file; those that are not said are usual ones.
fn row(changes: &[(&str, String)]) -> String {
    let usual = ["V-1", "yx-civil", "hours", "", P1, "王芳", "2025-03-01", "3", ""];
    let cell = |(heading, usual): (&&str, &str)| match changes.iter().find(|(changed, _)| changed == heading) {
        Some((_, cell)) => cell.clone(),
        None => text(usual),
    };
    HEADINGS.iter().zip(usual).map(cell).collect()
}

fn with_headings(rows: &[String]) -> Vec<String> {
    [&[texts(&HEADINGS)], rows].concat()
}

fn opened(bytes: Vec<u8>, how: &How<'_>) -> Result<Opened<'static>, FeedError> {
    open("table.csv", Cursor::new(bytes), how)
}

fn records_of(bytes: Vec<u8>) -> Vec<(u64, Result<Held, LineError>)> {
    let (catalogue, prohibited) = (catalogue(), Prohibited::none());
    let rules =
        RecordRules { catalogue: &catalogue, prohibited: &prohibited, today: date(2026, 11, 24), source: Source::File };
    let feed = opened(bytes, &How::plain(Kind::Records, &prohibited)).unwrap().lines;
    let read = |line: Line| (line.number, line.bytes.and_then(|bytes| intake::record(&bytes, &rules)));
    feed.map(|line| read(line.unwrap())).collect()
}

fn records(rows: &[String]) -> Vec<(u64, Result<Held, LineError>)> {
    records_of(Workbook::of(&with_headings(rows)).bytes())
}

fn only(changes: &[(&str, String)]) -> Result<Held, LineError> {
    let mut read = records(&[row(changes)]);
    assert_eq!((read.len(), read[0].0), (1, 2));
    read.remove(0).1
}

fn refused(bytes: Vec<u8>) -> String {
    opened(bytes, &How::plain(Kind::Records, &Prohibited::none())).err().unwrap().to_string()
}

fn code(read: &Result<Held, LineError>) -> &'static str {
    read.as_ref().err().map_or("ok", |e| e.code.as_str())
}

#[test]
fn dates_as_text_as_number_and_as_date_in_both_counts() {
    for (cell, expected) in [
        (dated("45717"), "2025-03-01"),
        (dated("45717.9999"), "2025-03-01"),
        (number("20250301"), "2025-03-01"),
        (text("2025年3月1日"), "2025-03-01"),
        (text("2025/3/1"), "2025-03-01"),
        (text(" 2025-03-01 "), "2025-03-01"),
        ("<c t=\"d\"><v>2025-03-01T00:00:00</v></c>".to_owned(), "2025-03-01"),
        (number("45717"), "malformed"),
        (dated("60"), "impossible-date"),
        (dated("0"), "impossible-date"),
        (dated("1e99"), "impossible-date"),
        (number("99999999"), "impossible-date"),
        ("<c t=\"b\"><v>1</v></c>".to_owned(), "malformed"),
        ("<c t=\"e\"><v>#N/A</v></c>".to_owned(), "malformed"),
    ] {
        let read = only(&[("发生日期", cell.clone())]);
        let said = read.map_or_else(|e| e.code.as_str().to_owned(), |held| held.record.occurred_on.to_string());
        assert_eq!(said, expected, "{cell}");
    }
    let mut old = Workbook::of(&with_headings(&[row(&[("发生日期", dated("44255"))])]));
    old.from_1904 = true;
    assert_eq!(records_of(old.bytes())[0].1.as_ref().unwrap().record.occurred_on, date(2025, 3, 1));
}

#[test]
fn numbers_in_cells_of_text() {
    for (heading, cell, expected) in [
        ("证件号码", number(P1), "malformed"),
        ("证件号码", number("5.3049919900101E+17"), "malformed"),
        ("证件号码", number("530499199001010000"), "malformed"),
        ("证件号码", number("530499250101001"), "ok"),
        ("证件号码", text("5.30499E+17"), "malformed"),
        ("证件号码", dated("45717"), "malformed"),
        ("记录编号", number("12345"), "ok"),
        ("记录编号", number("1234567890123456"), "malformed"),
        ("数量", number("3"), "ok"),
        ("数量", number("3.0"), "ok"),
        ("数量", number("1E3"), "ok"),
        ("数量", number("3.5"), "malformed"),
        ("数量", number("0"), "malformed"),
        ("数量", number("-1"), "malformed"),
        ("数量", number("1000000"), "ok"),
        ("数量", number("1000001"), "too-large"),
        ("数量", number("9223372036854775807"), "too-large"),
        ("数量", number("18446744073709551616"), "too-large"),
        ("数量", number("1e300"), "too-large"),
        ("数量", number("x"), "malformed"),
        ("数量", number("NaN"), "malformed"),
        ("数量", text("12"), "ok"),
    ] {
        assert_eq!(code(&only(&[(heading, cell.clone())])), expected, "{cell}");
    }
    assert_eq!(only(&[("记录编号", number("12345"))]).unwrap().record.id.as_str(), "12345");
    let said = only(&[("证件号码", number(P1))]).unwrap_err().message;
    for part in ["E2", "15 位", "“文本”格式", "Excel keeps 15 digits", "as text"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("5304"), "{said}");
}

#[test]
fn texts_as_excel_writes_them() {
    let rows = with_headings(&[
        row(&[("姓名", shared(0))]),
        row(&[("姓名", text("王芳_x000D_"))]),
        row(&[("证件号码", text(&format!("{P1}_x000D_\n")))]),
        row(&[("detail", text("_x005F_x000D_"))]),
        row(&[("姓名", shared(1))]),
        row(&[("姓名", shared(9))]),
        row(&[("姓名", text("\u{4DAE}\u{36C3}\u{2CB5A}"))]),
        row(&[("姓名", text("=HYPERLINK(\"http://example.test\",\"x\")"))]),
    ]);
    let book = Workbook::of(&rows).sharing(&[
        "<r><t>王</t></r><r><rPr><b/></rPr><t>芳</t></r><rPh sb=\"0\" eb=\"1\"><t>おう</t></rPh><phoneticPr/>",
        "<t>A&amp;B &#x738B;</t>",
    ]);
    let read = records_of(book.bytes());
    let name = |at: usize| read[at].1.as_ref().unwrap().record.name.as_str();
    assert_eq!([name(0), name(1), name(2)], ["王芳"; 3]);
    assert_eq!(read[2].1.as_ref().unwrap().record.identity.number(), P1);
    assert_eq!(read[3].1.as_ref().unwrap().record.detail.as_deref(), Some("_x000D_"));
    assert_eq!(name(4), "A&B 王");
    assert_eq!(code(&read[5].1), "malformed");
    assert_eq!(name(6), "\u{4DAE}\u{36C3}\u{2CB5A}");
    assert!(name(7).starts_with("=HYPERLINK"), "a text is a text, whatever it begins with");
}

#[test]
fn formulas_hidden_rows_and_merged_cells_are_refused_row_by_row() {
    let formula = "<c t=\"str\"><f>CONCAT(\"5304991990\",\"01010015\")</f><v>530499199001010015</v></c>".to_owned();
    assert_eq!(code(&only(&[("证件号码", formula.clone())])), "malformed");
    assert!(only(&[("证件号码", formula)]).unwrap_err().message.contains("never evaluated"));
    assert_eq!(code(&only(&[("数量", "<c><f>1+1</f></c>".to_owned())])), "malformed");

    let rows: Vec<String> = with_headings(&[row(&[]), row(&[]), row(&[]), row(&[])]);
    let merged = sheet(&rows, "<mergeCells><mergeCell ref=\"F3:F4\"/><mergeCell ref=\"A1:B1\"/></mergeCells>");
    let read = records_of(Workbook::default().with("a", "", &merged).bytes());
    let said: Vec<_> = read.iter().map(|(row, read)| (*row, code(read))).collect();
    assert_eq!(said, [(2, "ok"), (3, "malformed"), (4, "malformed"), (5, "ok")]);
    assert!(read[1].1.as_ref().unwrap_err().message.contains("merged"));

    let hidden = sheet(&rows, "").replacen("<row>", "<row r=\"1\">", 1);
    let hidden = hidden.replacen("<row>", "<row r=\"7\" hidden=\"1\">", 1);
    let read = records_of(Workbook::default().with("a", "", &hidden).bytes());
    let said: Vec<_> = read.iter().map(|(row, read)| (*row, code(read))).collect();
    assert_eq!(said, [(7, "malformed"), (8, "ok"), (9, "ok"), (10, "ok")]);
    assert!(read[0].1.as_ref().unwrap_err().message.contains("hidden"));
}

#[test]
fn which_sheet_is_read_is_said() {
    let one = sheet(&with_headings(&[row(&[("记录编号", text("one"))])]), "");
    let two = sheet(&with_headings(&[row(&[("记录编号", text("two"))])]), "");
    let book = Workbook::default().with("说明", "hidden", &one).with("甲", "", &two).with("乙", "", &one).bytes();
    let prohibited = Prohibited::none();
    let read = |sheet| opened(book.clone(), &How { sheet, ..How::plain(Kind::Records, &prohibited) });
    let first = read(None).unwrap();
    assert!(first.notes[0].contains("只读工作表 `甲`") && first.notes[0].contains("`乙`"), "{:?}", first.notes);
    let id = |mut opened: Opened<'_>| String::from_utf8(opened.lines.next().unwrap().unwrap().bytes.unwrap()).unwrap();
    assert!(id(first).contains("\"two\""));
    assert!(id(read(Some("乙")).unwrap()).contains("\"one\""));
    let said = read(Some("丙")).unwrap_err().to_string();
    assert!(said.contains("`说明`, `甲`, `乙`"), "{said}");
    let alone = Workbook::of(&with_headings(&[row(&[])])).bytes();
    assert!(opened(alone, &How::plain(Kind::Records, &prohibited)).unwrap().notes.is_empty());
}

#[test]
fn eighty_columns_of_which_ten_are_known() {
    let mut headings: Vec<String> = HEADINGS.iter().map(|h| (*h).to_owned()).collect();
    headings.insert(0, "授权编号".into());
    headings.extend((0..70).map(|n| format!("列{n}")));
    let names: Vec<&str> = headings.iter().map(String::as_str).collect();
    let rows = [texts(&names), format!("<c/>{}{}", row(&[]), texts(&["ZZZ"; 70]))];
    let book = Workbook::of(&rows).bytes();
    let said = refused(book.clone());
    assert!(
        said.contains("70 unknown headings, `列0`") && said.contains("and 65 more") && said.contains("ignore"),
        "{said}"
    );
    let mut mistakes = Mistakes::new();
    let mapping = Mapping::parse(&PolicySource::new("m", "others = \"ignore\""), &mut mistakes).unwrap();
    let prohibited = Prohibited::none();
    let how = How { mapping: Some(&mapping), ..How::plain(Kind::Records, &prohibited) };
    let line = opened(book, &how).unwrap().lines.next().unwrap().unwrap().bytes.unwrap();
    assert!(!String::from_utf8(line).unwrap().contains('Z'), "what is left out goes nowhere");
}

#[test]
fn a_far_cell_costs_nothing_and_is_refused() {
    let far = sheet(&with_headings(&[row(&[])]), "")
        .replace("</sheetData>", "<row r=\"1048576\"><c r=\"XFD1048576\"><v>1</v></c></row></sheetData>");
    let read = records_of(Workbook::default().with("a", "", &far).bytes());
    assert_eq!(
        read.iter().map(|(row, read)| (*row, code(read))).collect::<Vec<_>>(),
        [(2, "ok"), (1_048_576, "malformed")]
    );
    assert!(read[1].1.as_ref().unwrap_err().message.contains("XFD1048576"));
    let outside = far.replace("XFD1048576", "XFE1");
    assert!(refused(Workbook::default().with("a", "", &outside).bytes()).contains("lies nowhere"));
}

#[test]
fn what_is_no_workbook_or_not_whole() {
    let whole = Workbook::of(&with_headings(&[row(&[]), row(&[])])).bytes();
    for length in [5, 30, 100, whole.len() / 2, whole.len() - 30, whole.len() - 1] {
        let said = refused(whole[..length].to_vec());
        assert!(said.contains("damaged or cut off"), "{length}: {said}");
    }
    // The checksum of the sheet in the directory: it is looked at before a row is taken.
    let name = b"xl/worksheets/0.xml";
    let at = whole.windows(name.len()).rposition(|window| window == name).unwrap();
    let mut bent = whole.clone();
    bent[at - 46 + 16] ^= 0x55;
    let said = refused(bent);
    assert!(said.contains("not what its checksum says"), "{said}");
    for (bytes, said) in [
        (packed(&[("word/document.xml", b"<w/>")]), "without an XLSX workbook"),
        (packed(&[("[Content_Types].xml", b"<Types/>"), ("word/document.xml", b"<w/>")]), "without an XLSX workbook"),
        (packed(&[("[Content_Types].xml", b"<Types/>"), ("xl/workbook.bin", b"x")]), "without an XLSX workbook"),
        (vec![0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1], "old .xls"),
        (b"%PDF-1.7".to_vec(), "a PDF"),
        (b"<html><table>".to_vec(), "a web page or XML"),
        (b"\x1f\x8b\x08".to_vec(), "a packed file"),
        (b"{\\rtf1}".to_vec(), "an RTF document"),
        (b"[{\"id\":1}]".to_vec(), "a JSON array"),
        (b"id,name\0".to_vec(), "no text"),
        (Workbook::of(&[]).bytes(), "is empty"),
        (Workbook::default().bytes(), "no sheet of that name"),
        (Workbook::of(&[texts(&["甲", "乙"])]).bytes(), "no known heading"),
        (Workbook::of(&[texts(&["姓名", "name"])]).bytes(), "two columns for `name`"),
        (Workbook::of(&[texts(&["姓名"])]).bytes(), "no column `id` (or `记录编号`)"),
        (Workbook::default().with("a", "", "<worksheet><sheetData><row>").bytes(), "damaged or cut off"),
        (
            Workbook::default().with("a", "", "<worksheet><sheetData>&xxe;<row/></sheetData></worksheet>").bytes(),
            "damaged or cut off",
        ),
        (Workbook::default().with("a", "", "nothing").bytes(), "damaged or cut off"),
        (Workbook::of(&[format!("<c t=\"inlineStr\"><is><t>{}</t></is></c>", "&lol;")]).bytes(), "damaged or cut off"),
    ] {
        let found = refused(bytes);
        assert!(found.contains(said), "{said}: {found}");
    }
}

#[test]
fn what_unpacks_to_far_too_much_is_refused_before_it_does() {
    let blanks = format!("<worksheet>{}</worksheet>", " ".repeat(48 << 20));
    let bomb = Workbook::default().with("a", "", &blanks).bytes();
    assert!(bomb.len() < 100_000);
    let said = refused(bomb);
    assert!(said.contains("too-large") && said.contains("unpacked bytes of a part"), "{said}");
    // The same, and its directory says that it is small.
    let mut lies = Workbook::default().with("a", "", &blanks).bytes();
    let size = u32::try_from(blanks.len()).unwrap().to_le_bytes();
    while let Some(at) = lies.windows(4).position(|four| four == size) {
        lies[at..at + 4].copy_from_slice(&100u32.to_le_bytes());
    }
    let said = refused(lies);
    assert!(said.contains("too-large"), "{said}");
    // Within the ratio, but without a tag for longer than any cell is.
    let noise: String =
        (0u32..1_500_000).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26)).collect();
    let long = format!("<worksheet>{noise}</worksheet>");
    let said = refused(Workbook::default().with("a", "", &long).bytes());
    assert!(said.contains("too-large") && said.contains("without a tag"), "{said}");
    let many: Vec<String> = (0..5_000).map(|n| format!("p{n}")).collect();
    let parts: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let said = refused(packed(&parts));
    assert!(said.contains("too-large") && said.contains("4096"), "{said}");
}

/// Found by fuzzing: attributes behind the first that was looked for.
#[test]
fn what_the_rows_stumble_over_is_found_before_the_first_is_taken() {
    let rows = with_headings(&[row(&[]), row(&[])]);
    for (from, to) in [
        ("<row><c t", "<row r=\"3\" r=\"4\"><c t"),
        ("<row><c t", "<row r=\"3\" hidden><c t"),
        ("<c t=\"inlineStr\"", "<c r=\"A3\" t=\"inlineStr\" s"),
        ("<c t=\"inlineStr\"", "<c t=\"other\""),
        ("</row></sheetData>", "</sheetData>"),
    ] {
        let whole = sheet(&rows, "");
        let at = whole.rfind(from).unwrap();
        let bent = format!("{}{to}{}", &whole[..at], &whole[at + from.len()..]);
        let said = refused(Workbook::default().with("a", "", &bent).bytes());
        assert!(said.contains("damaged or cut off"), "{to}: {said}");
    }
    let long = row(&[("detail", text(&"很长".repeat(60_000)))]);
    let read = records(&[row(&[]), long, row(&[])]);
    assert_eq!(
        read.iter().map(|(row, read)| (*row, code(read))).collect::<Vec<_>>(),
        [(2, "ok"), (3, "too-large"), (4, "ok")]
    );
}

proptest::proptest! {
    #[test]
    fn a_bent_workbook_is_read_without_a_panic(at in 0usize..4_000, byte in proptest::num::u8::ANY, cut in proptest::bool::weighted(0.2)) {
        let mut bytes = Workbook::of(&with_headings(&[row(&[]), row(&[])])).bytes();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(opened) = opened(bytes, &How::plain(Kind::Records, &Prohibited::none())) {
            for line in opened.lines {
                line.unwrap();
            }
        }
    }
}
