//! The files that are imported: the same records in each form.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::town;

/// Each person's `k`th record, everybody's first ones first.
fn each(records: u32, people: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..records).map(move |n| (n % people, n / people))
}

pub fn ndjson(path: &Path, records: u32, people: u32) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    for (person, nth) in each(records, people) {
        writeln!(out, "{}", town::record_line(person, nth)).unwrap();
    }
    out.flush().unwrap();
}

/// The cells of a record, as a table has them.
fn cells(person: u32, nth: u32) -> [String; 7] {
    let line: serde_json::Value = serde_json::from_str(&town::record_line(person, nth)).unwrap();
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    [
        text(&line["id"]),
        text(&line["provider"]),
        text(&line["indicator"]),
        text(&line["person"]["id_number"]),
        text(&line["person"]["name"]),
        text(&line["occurred_on"]),
        text(&line["quantity"]),
    ]
}

const HEADINGS: [&str; 7] = ["记录编号", "报送单位", "指标代码", "证件号码", "姓名", "发生日期", "数量"];

pub fn gb18030(path: &Path, records: u32, people: u32) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    let mut row = |cells: &str| out.write_all(&encoding_rs::GB18030.encode(&format!("{cells}\r\n")).0).unwrap();
    row(&HEADINGS.join(","));
    each(records, people).for_each(|(person, nth)| row(&cells(person, nth).join(",")));
    out.flush().unwrap();
}

pub fn xlsx(path: &Path, records: u32, people: u32) {
    let mut zip = ZipWriter::new(BufWriter::new(File::create(path).unwrap()));
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
    let text = |cell: &str| format!("<c t=\"inlineStr\"><is><t>{cell}</t></is></c>");
    let headings: String = HEADINGS.iter().map(|cell| text(cell)).collect();
    write!(zip, "<worksheet><sheetData><row r=\"1\">{headings}</row>").unwrap();
    for ((person, nth), row) in each(records, people).zip(2..) {
        let cells = cells(person, nth);
        let texts: String = cells[..6].iter().map(|cell| text(cell)).collect();
        write!(zip, "<row r=\"{row}\">{texts}<c><v>{}</v></c></row>", cells[6]).unwrap();
    }
    zip.write_all(b"</sheetData></worksheet>").unwrap();
    zip.finish().unwrap().flush().unwrap();
}
