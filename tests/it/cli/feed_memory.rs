//! The memory that reading takes does not grow with the file. Each test is a process of its own, so its peak is the reading's.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::path::Path;

use jadegate::feed::{self, Form, How, Kind};
use jadegate::prohibited::Prohibited;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::Folder;
use crate::support::nightly::{figure, rounds};
use crate::support::process::peak_kib as peak;
use crate::support::workbook::texts;

/// A beginning and a row many times, which lie nowhere.
struct Rows {
    head: Vec<u8>,
    row: Vec<u8>,
    rows: u64,
    at: u64,
}

impl Rows {
    fn length(&self) -> u64 {
        self.head.len() as u64 + self.row.len() as u64 * self.rows
    }
}

impl Read for Rows {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let (head, row) = (self.head.len() as u64, self.row.len() as u64);
        let left = self.length() - self.at;
        let from = match self.at.checked_sub(head) {
            None => &self.head[self.at as usize..],
            Some(after) => &self.row[(after % row) as usize..],
        };
        let length = from.len().min(out.len()).min(left as usize);
        out[..length].copy_from_slice(&from[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Rows {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(back) => self.length().checked_add_signed(back).unwrap(),
            SeekFrom::Current(on) => self.at.checked_add_signed(on).unwrap(),
        };
        Ok(self.at)
    }
}

fn read(name: &str, source: impl feed::Source, form: Form) -> u64 {
    let prohibited = Prohibited::none();
    let opened = feed::open(name, source, &How::plain(Kind::Records, &prohibited)).unwrap();
    assert_eq!(opened.form, form);
    opened.lines.map(|line| line.unwrap()).filter(|line| line.bytes.is_ok()).count() as u64
}

const HEADINGS: &str = "记录编号,报送单位,指标代码,证件号码,姓名,发生日期,detail\n";

#[test]
fn a_file_of_any_length_is_read_in_the_same_few_megabytes() {
    let rows = rounds(4_000, 400_000) as u64;
    let detail = "社区图书馆整理".repeat(60);
    let row = format!("V-1,yx-civil-affairs,volunteer-hours,530499199001010015,王芳,2026-03-01,{detail}\n");
    let gb18030 = |text: &str| encoding_rs::GB18030.encode(text).0.into_owned();
    let line = format!("{{\"id\":\"V-1\",\"name\":\"王芳\",\"detail\":\"{detail}\"}}\n");
    let source = |head: &[u8], row: &[u8], rows| Rows { head: head.to_vec(), row: row.to_vec(), rows, at: 0 };
    let csv = |rows| source(HEADINGS.as_bytes(), row.as_bytes(), rows);
    let gb = |rows| source(&gb18030(HEADINGS), &gb18030(&row), rows);
    let ndjson = |rows| source(b"", line.as_bytes(), rows);
    // An open quotation mark: the rest of the file is one cell.
    let open = |rows| source(&[HEADINGS.as_bytes(), b"V-1,\"y"].concat(), row.as_bytes(), rows);
    assert_eq!(read("a.csv", csv(rows), Form::Csv), rows);
    assert_eq!(read("a.csv", gb(rows), Form::Csv), rows);
    assert_eq!(read("a.ndjson", ndjson(rows), Form::Ndjson), rows);
    assert_eq!(read("a.csv", open(10 * rows), Form::Csv), 0);
    let before = peak();
    assert_eq!(read("a.csv", csv(3 * rows), Form::Csv), 3 * rows);
    let grown = peak() - before;
    let megabytes = csv(3 * rows).length() / 1_048_576;
    figure("memory of reading", format_args!("{grown} KiB more for a table of {megabytes} MiB than for a third of it"));
    assert!(grown < 2_048 && before < 96 * 1024, "{before} KiB, and {grown} more");
}

/// A workbook in a file, written row by row.
fn book(path: &Path, rows: usize) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default();
    for (name, content) in [
        ("[Content_Types].xml", "<Types/>"),
        ("xl/workbook.xml", "<workbook><sheets><sheet name=\"a\" r:id=\"s\"/></sheets></workbook>"),
        ("xl/_rels/workbook.xml.rels", "<R><Relationship Id=\"s\" Type=\"x/worksheet\" Target=\"s.xml\"/></R>"),
    ] {
        zip.start_file(name, options).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.start_file("xl/s.xml", options).unwrap();
    let headings = texts(&HEADINGS.trim_end().split(',').collect::<Vec<_>>());
    write!(zip, "<worksheet><sheetData><row>{headings}</row>").unwrap();
    for n in 0..rows {
        let cells = ["p", "i", "530499199001010015", "王芳", "2026-03-01", &format!("{:0>200}", n * 7919)];
        write!(zip, "<row>{}{}</row>", texts(&[&format!("V-{n}")]), texts(&cells)).unwrap();
    }
    zip.write_all(b"</sheetData></worksheet>").unwrap();
    zip.finish().unwrap();
}

#[test]
fn a_workbook_is_read_row_by_row() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name);
    let many = rounds(4_000, 200_000);
    book(&path("small.xlsx"), 200);
    book(&path("large.xlsx"), many);
    let rows = |name: &str| read(name, File::open(path(name)).unwrap(), Form::Xlsx);
    assert_eq!(rows("small.xlsx"), 200);
    let before = peak();
    assert_eq!(rows("large.xlsx"), many as u64);
    let grown = peak() - before;
    figure("memory of reading a workbook", format_args!("{grown} KiB more for {many} rows than for 200"));
    assert!(grown < 2_048, "{grown} KiB more");
}
