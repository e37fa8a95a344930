//! A department's mapping file: what its own headings and codes mean, and whose records they are.
//!
//! TOML, read as policies are: every mistake at once, each with its place. It says what words mean and never
//! changes a value that it does not name.

use std::collections::BTreeMap;

use super::table::{FIELDS, Field};
use crate::code::{IndicatorCode, PartyId};
use crate::policy::{Document, Mistakes, Once, Source, Table};

/// The largest mapping file that is read.
pub const MAPPING_BYTES_MAX: u64 = 256 * 1024;

/// What the words of a department mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Whose records they are, where the table has no such column.
    pub provider: Option<PartyId>,
    /// Which indicator they have, where the table has no such column.
    pub indicator: Option<IndicatorCode>,
    /// Columns that are left out.
    pub ignore: Vec<String>,
    /// Whether columns that nothing here names are left out too, and not refused.
    pub ignore_others: bool,
    headings: BTreeMap<String, &'static str>,
    values: BTreeMap<(&'static str, String), String>,
}

impl Mapping {
    /// Reads a mapping file; what is wrong with it goes to `mistakes`.
    pub fn parse(source: &Source, mistakes: &mut Mistakes) -> Option<Self> {
        let before = mistakes.len();
        let document = Document::parse(source, mistakes);
        let mut root = document.root();
        let provider = root.take("provider").and_then(|v| v.code(PartyId::parse, mistakes));
        let indicator = root.take("indicator").and_then(|v| v.code(IndicatorCode::parse, mistakes));
        let mut ignored = Once::default();
        let mut ignore = Vec::new();
        for value in root.take("ignore").iter().flat_map(|v| v.list(mistakes)).collect::<Vec<_>>() {
            if let Some(text) = value.text(mistakes)
                && ignored.is_new(text, &value, mistakes)
            {
                ignore.push(text.to_owned());
            }
        }
        let others = root.take("others").and_then(|v| v.choice(&[("refuse", false), ("ignore", true)], mistakes));
        let headings = match root.take("headings").and_then(|v| v.table("[headings]", mistakes)) {
            Some(table) => headings(table, &mut ignored, mistakes),
            None => BTreeMap::new(),
        };
        let mut values = BTreeMap::new();
        for mut table in root.tables("value", false, mistakes) {
            let names: Vec<_> = FIELDS.iter().map(|field| (field.name, field.name)).collect();
            let field = table.need("field", mistakes).and_then(|v| v.choice(&names, mistakes));
            let from_value = table.need("from", mistakes);
            let from = from_value.as_ref().and_then(|v| v.text(mistakes));
            let to = table.need("to", mistakes).and_then(|v| v.text(mistakes));
            if let (Some(field), Some(from), Some(to)) = (field, from, to)
                && let Some(first) = values.insert((field, from.to_owned()), to.to_owned())
                && let Some(value) = from_value
            {
                let what = format!("`{from}` of `{field}` is said twice, first as \"{first}\"");
                value.wrong(mistakes, what, "each value of a field once", "take one of the two out");
            }
            table.finish(mistakes);
        }
        root.finish(mistakes);
        let read = Self { provider, indicator, ignore, ignore_others: others.unwrap_or(false), headings, values };
        (mistakes.len() == before).then_some(read)
    }

    /// The field that a heading of the department's own stands for.
    pub(super) fn field(&self, heading: &str) -> Option<&'static str> {
        self.headings.get(heading).copied()
    }

    /// Whether a column is left out.
    pub(super) fn leaves_out(&self, heading: &str) -> bool {
        self.ignore_others || self.ignore.iter().any(|ignored| ignored == heading)
    }

    /// What a value of a field means.
    pub(super) fn value<'a>(&'a self, field: &'static str, cell: &'a str) -> &'a str {
        if self.values.is_empty() {
            return cell;
        }
        self.values.get(&(field, cell.to_owned())).map_or(cell, String::as_str)
    }
}

fn headings(mut table: Table<'_>, said: &mut Once, mistakes: &mut Mistakes) -> BTreeMap<String, &'static str> {
    let mut found = BTreeMap::new();
    for Field { name, .. } in FIELDS {
        let Some(value) = table.take(name) else { continue };
        let list = match value.as_text() {
            Some(_) => vec![value],
            None => value.list_of_some(mistakes),
        };
        for heading in list {
            if let Some(text) = heading.text(mistakes)
                && said.is_new(text, &heading, mistakes)
            {
                found.insert(text.to_owned(), *name);
            }
        }
    }
    table.finish(mistakes);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mapping, Vec<String>> {
        let mut mistakes = Mistakes::new();
        let read = Mapping::parse(&Source::new("court.toml", text), &mut mistakes);
        mistakes.or(read).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_a_department_calls_things() {
        let mapping = parse(
            "provider = \"yx-court\"\nindicator = \"judgment\"\nignore = [\"序号\"]\n\
             [headings]\nid = \"案号\"\nid_number = [\"身份证号\", \"公民身份号码\"]\n\
             [[value]]\nfield = \"id_type\"\nfrom = \"身份证\"\nto = \"resident-id\"\n",
        )
        .unwrap();
        assert_eq!((mapping.field("公民身份号码"), mapping.field("姓名")), (Some("id_number"), None));
        assert!(mapping.leaves_out("序号") && !mapping.leaves_out("民族"));
        assert_eq!((mapping.value("id_type", "身份证"), mapping.value("name", "身份证")), ("resident-id", "身份证"));
    }

    #[test]
    fn each_mistake_has_its_place_and_says_what_to_do() {
        for (text, place, said) in [
            ("providr = \"x\"", "court.toml:1:1", "did you mean `provider`?"),
            ("[headings]\nid_numbr = \"x\"", "court.toml:2:1", "did you mean `id_number`?"),
            ("[headings]\nid = \"编号\"\nname = \"编号\"", "court.toml:3:8", "said twice, first in line 2"),
            ("ignore = [\"编号\"]\n[headings]\nid = \"编号\"", "court.toml:3:6", "said twice, first in line 1"),
            ("provider = \"no such id\"", "court.toml:1:12", "such an id"),
            ("others = \"drop\"", "court.toml:1:10", "one of \"refuse\", \"ignore\""),
            ("[[value]]\nfield = \"nam\"\nfrom = \"a\"\nto = \"b\"", "court.toml:2:9", "did you mean \"name\"?"),
            ("[[value]]\nfield = \"name\"\nfrom = \"a\"", "court.toml:1:1", "without `to`"),
            ("[headings]\nid = []", "court.toml:2:6", "at least one value"),
            ("[headings", "court.toml:1:", "correct the line"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.iter().any(|m| m.starts_with(place) && m.contains(said)), "{text}: {found:?}");
        }
    }
}
