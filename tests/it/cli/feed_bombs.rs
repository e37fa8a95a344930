//! Workbooks that look small and unpack to 512 MiB, or whose one value lies in the farthest cell. Each test is a process
//! of its own, so its peak of memory is the reading's.

use std::io::Cursor;
use std::time::Duration;

use jadegate::clock::{Clock as _, SystemClock};
use jadegate::feed::{self, FeedError, How, Kind};
use jadegate::prohibited::Prohibited;

use crate::support::bomb::{Part, workbook};
use crate::support::nightly::{figure, rounds};
use crate::support::process::peak_kib;
use crate::support::workbook::{Workbook, sheet, texts};

const SHEET: &str = "xl/s.xml";
const MIB: usize = 1024 * 1024;
const HEADINGS: [&str; 7] = ["记录编号", "报送单位", "指标代码", "证件号码", "姓名", "发生日期", "数量"];
const ROW: [&str; 7] = ["V-1", "yx-civil-affairs", "volunteer-hours", "530499199001010015", "王芳", "2026-03-01", "1"];

/// Reads all of it, and holds the reading to ten seconds and far less than 300 MB.
fn read(name: &str, bytes: Vec<u8>) -> Lines {
    let (read, took) = timed(name, bytes);
    assert!(took < Duration::from_secs(10), "{name}: {took:?}");
    read
}

type Lines = Result<Vec<Result<u64, &'static str>>, FeedError>;

/// The same, as long as it takes.
fn timed(name: &str, bytes: Vec<u8>) -> (Lines, Duration) {
    let (before, clock, prohibited) = (peak_kib(), SystemClock::new(), Prohibited::none());
    let began = clock.now();
    let opened = feed::open("a.xlsx", Cursor::new(bytes), &How::plain(Kind::Records, &prohibited));
    let read = opened.and_then(|opened| {
        let line = |line: feed::Line| line.bytes.map(|_| line.number).map_err(|e| e.code.as_str());
        opened.lines.map(|read| read.map(line)).collect()
    });
    let (took, grown) = (clock.now().duration_since(began).unsigned_abs(), peak_kib().saturating_sub(before));
    figure("a workbook that is more than it looks", format_args!("{name}: {took:?}, {grown} KiB"));
    assert!(grown < 64 * 1024, "{name}: {grown} KiB");
    (read, took)
}

fn refused(name: &str, bytes: Vec<u8>) -> String {
    read(name, bytes).unwrap_err().to_string()
}

/// A sheet of 512 MiB of blanks, in half a megabyte.
pub fn blanks() -> Part {
    Part::repeated(SHEET, "<worksheet><sheetData>", &[b' '; MIB], 512, "</sheetData></worksheet>")
}

#[test]
fn half_a_megabyte_that_unpacks_to_512_is_refused_with_the_limit() {
    let bytes = workbook(blanks());
    assert!(bytes.len() < 700_000, "{}", bytes.len());
    let limit = |bytes: &[u8]| bytes.len() as u64 * 100 + 9 * MIB as u64;
    for (name, lie) in [("as it is", None), ("said to be small", Some(100)), ("said to be just within", Some(50 * MIB))]
    {
        let mut sheet = blanks();
        if let Some(size) = lie {
            sheet.size = u32::try_from(size).unwrap();
        }
        let said = refused(name, workbook(sheet));
        assert!(said.contains("too-large"), "{name}: {said}");
        let most: u64 = said.split("at most ").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
        assert!(most < limit(&bytes), "{name}: {said}");
    }
}

/// As large, and packed no better than sheets are: its blanks are passed over a tag at a time.
#[test]
fn a_sheet_of_512_mib_within_the_limits_is_read_in_bounded_memory() {
    // Nothing packs noise, so a block of 64 KiB with a kilobyte of it is within a hundred to one.
    let mut seed = 1_u32;
    let letter = |_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (seed >> 24) as u8 % 26)
    };
    let noise: String = (0..1_024).map(letter).collect();
    let mut block = format!("<!--{noise}-->").into_bytes();
    block.resize(64 * 1024, b' ');
    block.extend(b"</row><row>");
    let head = format!("<worksheet><sheetData><row>{}</row><row>{}", texts(&HEADINGS), texts(&ROW));
    let times = rounds(16, 512) * 16;
    let sheet = Part::repeated(SHEET, &head, &block, times, "</row></sheetData></worksheet>");
    let (said, _) = timed(&format!("{} MiB within the limits", times / 16), workbook(sheet));
    assert_eq!(said.unwrap(), [Ok(2)]);
    // Without a tag it is one text that has no end.
    let long = Part::repeated(SHEET, "<worksheet>", noise.as_bytes(), 1_024, "</worksheet>");
    let said = refused("without a tag", workbook(long));
    assert!(said.contains("too-large"), "{said}");
}

#[test]
fn one_value_in_the_farthest_cell_costs_nothing() {
    let far = "<row r=\"1048576\"><c r=\"XFD1048576\"><v>1</v></c></row>";
    let alone = format!("<worksheet><sheetData>{far}</sheetData></worksheet>");
    let said = refused("alone", Workbook::default().with("a", "", &alone).bytes());
    assert!(said.contains("no known heading"), "{said}");
    let below = sheet(&[texts(&HEADINGS), texts(&ROW)], "").replace("</sheetData>", &format!("{far}</sheetData>"));
    let said = read("below a table", Workbook::default().with("a", "", &below).bytes());
    assert_eq!(said.unwrap(), [Ok(2), Err("malformed")]);
    let beside = below.replace("XFD1048576", "XFD2").replace(" r=\"1048576\"", "");
    let said = read("beside a row", Workbook::default().with("a", "", &beside).bytes());
    assert_eq!(said.unwrap(), [Ok(2), Err("malformed")]);
}
