//! Workbooks as bytes, made cell by cell, so that a test can put anything into one.

use std::io::{Cursor, Write as _};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A workbook to be.
#[derive(Default)]
pub struct Workbook {
    sheets: Vec<(String, String, String)>,
    shared: String,
    pub from_1904: bool,
}

const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";

/// A cell of text.
pub fn text(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!("<c t=\"inlineStr\"><is><t xml:space=\"preserve\">{text}</t></is></c>")
}

/// A cell with a number, as it stands in the file.
pub fn number(number: &str) -> String {
    format!("<c><v>{number}</v></c>")
}

/// A cell with a number that is shown as a date.
pub fn dated(number: &str) -> String {
    format!("<c s=\"1\"><v>{number}</v></c>")
}

/// A cell of a shared text.
pub fn shared(index: usize) -> String {
    format!("<c t=\"s\"><v>{index}</v></c>")
}

/// A row of texts.
pub fn texts(cells: &[&str]) -> String {
    cells.iter().map(|cell| text(cell)).collect()
}

/// A sheet's XML of rows of cells; `after` stands behind the rows.
pub fn sheet(rows: &[String], after: &str) -> String {
    let rows: String = rows.iter().map(|cells| format!("<row>{cells}</row>")).collect();
    format!("<worksheet xmlns=\"{MAIN}\"><sheetData>{rows}</sheetData>{after}</worksheet>")
}

impl Workbook {
    /// A workbook with one sheet.
    pub fn of(rows: &[String]) -> Self {
        Self::default().with("Sheet1", "", &sheet(rows, ""))
    }

    /// One more sheet; `state` is empty or `hidden`.
    pub fn with(mut self, name: &str, state: &str, xml: &str) -> Self {
        let state = if state.is_empty() { String::new() } else { format!(" state=\"{state}\"") };
        self.sheets.push((name.to_owned(), state, xml.to_owned()));
        self
    }

    /// The shared texts, each the inside of an `si`.
    pub fn sharing(mut self, texts: &[&str]) -> Self {
        self.shared = texts.iter().map(|text| format!("<si>{text}</si>")).collect();
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut parts = vec![
            ("[Content_Types].xml".to_owned(), "<Types/>".to_owned()),
            (
                "_rels/.rels".to_owned(),
                format!(
                    "<Relationships><Relationship Id=\"r1\" Type=\"{RELATIONS}/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"
                ),
            ),
            (
                "xl/styles.xml".to_owned(),
                format!(
                    "<styleSheet xmlns=\"{MAIN}\"><cellStyleXfs><xf numFmtId=\"22\"/></cellStyleXfs><cellXfs><xf numFmtId=\"0\"/><xf numFmtId=\"14\"/></cellXfs></styleSheet>"
                ),
            ),
            ("xl/sharedStrings.xml".to_owned(), format!("<sst xmlns=\"{MAIN}\">{}</sst>", self.shared)),
        ];
        let (mut listed, mut relations) = (String::new(), String::new());
        for (at, (name, state, xml)) in self.sheets.iter().enumerate() {
            listed += &format!("<sheet name=\"{name}\" sheetId=\"{at}\"{state} r:id=\"s{at}\"/>");
            relations +=
                &format!("<Relationship Id=\"s{at}\" Type=\"{RELATIONS}/worksheet\" Target=\"worksheets/{at}.xml\"/>");
            parts.push((format!("xl/worksheets/{at}.xml"), xml.clone()));
        }
        let properties = if self.from_1904 { "<workbookPr date1904=\"1\"/>" } else { "<workbookPr/>" };
        parts.push((
            "xl/workbook.xml".to_owned(),
            format!(
                "<workbook xmlns=\"{MAIN}\" xmlns:r=\"{RELATIONS}\">{properties}<sheets>{listed}</sheets></workbook>"
            ),
        ));
        for kind in ["styles", "sharedStrings"] {
            relations +=
                &format!("<Relationship Id=\"{kind}\" Type=\"{RELATIONS}/{kind}\" Target=\"/xl/{kind}.xml\"/>");
        }
        parts.push(("xl/_rels/workbook.xml.rels".to_owned(), format!("<Relationships>{relations}</Relationships>")));
        packed(&parts.iter().map(|(name, content)| (name.as_str(), content.as_bytes())).collect::<Vec<_>>())
    }
}

/// Parts in a packed file.
pub fn packed(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, content) in parts {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}
