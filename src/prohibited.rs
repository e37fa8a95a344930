//! What may never be collected about a person, whatever a catalogue or a sender says.
//!
//! The list is `policies/prohibited.toml`: each item has a code, names in both languages and the law that forbids it.
//! Names are compared by their words ([`crate::text::words`]), so case, blanks, hyphens and full-width forms hide nothing.

use std::collections::BTreeMap;

use crate::code::IndicatorCode;
use crate::policy::{Document, Mistakes, Once, Source};
use crate::text::{Bilingual, words};

/// One kind of information that the law forbids to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProhibitedItem {
    /// Its code: `blood-type`.
    pub code: IndicatorCode,
    /// What it is called.
    pub name: Bilingual,
    /// Other words for it, in either language.
    pub aliases: Vec<String>,
    /// The statute, with the article where it is known.
    pub legal_basis: String,
}

/// All prohibited items.
#[derive(Debug, Clone, Default)]
pub struct Prohibited {
    items: Vec<ProhibitedItem>,
    /// By the folded words of every code and name, run together; with them the words themselves.
    by_word: BTreeMap<String, (Vec<String>, usize)>,
}

impl Prohibited {
    /// A list that forbids nothing, for files that are scored outside a city.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads `prohibited.toml`.
    pub fn parse(source: &Source, mistakes: &mut Mistakes) -> Option<Self> {
        let before = mistakes.len();
        let read = Self::read(&Document::parse(source, mistakes), mistakes);
        (mistakes.len() == before).then_some(read)
    }

    pub(crate) fn read(document: &Document<'_>, mistakes: &mut Mistakes) -> Self {
        let (mut read, mut codes, mut root) = (Self::none(), Once::default(), document.root());
        for mut table in root.tables("item", true, mistakes) {
            let code = table.need("code", mistakes).and_then(|v| {
                let code = v.code(IndicatorCode::parse, mistakes)?;
                codes.is_new(code.as_str(), &v, mistakes).then_some(code)
            });
            let name = table.need("name", mistakes).and_then(|v| v.bilingual(mistakes));
            let aliases = table.take("aliases").map(|v| v.list(mistakes)).unwrap_or_default();
            let aliases = aliases.iter().filter_map(|v| v.text(mistakes)).map(str::to_owned).collect();
            let legal_basis = table.need("legal_basis", mistakes).and_then(|v| v.text(mistakes)).map(str::to_owned);
            table.finish(mistakes);
            if let (Some(code), Some(name), Some(legal_basis)) = (code, name, legal_basis) {
                read.add(ProhibitedItem { code, name, aliases, legal_basis });
            }
        }
        root.finish(mistakes);
        read
    }

    fn add(&mut self, item: ProhibitedItem) {
        for word in item.words() {
            let folded = words(word);
            if folded.is_empty() {
                continue;
            }
            self.by_word.insert(folded.concat(), (folded, self.items.len()));
        }
        self.items.push(item);
    }

    /// The item that `word` (a code, a field's name, a name in either language) stands for, if it is one.
    pub fn finds(&self, word: &str) -> Option<&ProhibitedItem> {
        self.by_word.get(&words(word).concat()).and_then(|(_, at)| self.items.get(*at))
    }

    /// The item that a longer name speaks of: `patient-blood-type-record`, 血型信息. Stricter than [`Self::finds`], for
    /// names that a person chooses and can choose again, as in the catalogue.
    pub fn finds_in(&self, name: &str) -> Option<&ProhibitedItem> {
        let said = words(name);
        let run = said.concat();
        let speaks_of = |word: &[String], joined: &str| {
            // Chinese has no blanks, so a Chinese word is looked for anywhere; others only as whole words.
            if joined.is_ascii() { said.windows(word.len()).any(|w| w == word) } else { run.contains(joined) }
        };
        let longer = || self.by_word.iter().find(|(joined, (word, _))| speaks_of(word, joined));
        self.finds(name).or_else(|| self.items.get(longer()?.1.1))
    }

    /// All items, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ProhibitedItem> {
        self.items.iter()
    }
}

impl ProhibitedItem {
    fn words(&self) -> impl Iterator<Item = &str> {
        [self.code.as_str(), &self.name.zh, &self.name.en].into_iter().chain(self.aliases.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "[[item]]\ncode = \"blood-type\"\nname = { zh = \"血型\", en = \"Blood type\" }\naliases = [\"ABO group\"]\nlegal_basis = \"x\"\n";

    fn list() -> Prohibited {
        let mut m = Mistakes::new();
        Prohibited::parse(&Source::new("prohibited.toml", LIST), &mut m).unwrap_or_else(|| panic!("{m}"))
    }

    #[test]
    fn an_item_is_found_by_code_and_by_each_name_however_spelt() {
        for word in [
            "blood-type",
            "bloodType",
            "BLOOD_TYPE",
            "blood type",
            "Bloodtype",
            "ＢＬＯＯＤ　ＴＹＰＥ",
            "血型",
            " 血型 ",
            "abo_group",
        ] {
            assert_eq!(list().finds(word).map(|i| i.code.as_str()), Some("blood-type"), "{word}");
        }
        for word in ["blood", "type", "blood-donation", "血", "detail", ""] {
            assert!(list().finds(word).is_none(), "{word}");
        }
    }

    #[test]
    fn a_longer_name_that_speaks_of_an_item_is_found() {
        for name in ["patient-blood-type-record", "血型信息", "Registered blood type"] {
            assert!(list().finds_in(name).is_some(), "{name}");
        }
        for name in ["blood-donation", "无偿献血", "type of blood pressure"] {
            assert!(list().finds_in(name).is_none(), "{name}");
        }
    }

    #[test]
    fn mistakes_have_their_place() {
        let mut m = Mistakes::new();
        let text = format!("{LIST}{LIST}").replacen("aliases", "alias", 1).replace("legal_basis = \"x\"\n[", "[");
        assert!(Prohibited::parse(&Source::new("prohibited.toml", text), &mut m).is_none());
        let said: Vec<_> = m.iter().map(|m| (m.line, m.what.as_str())).collect();
        let want = [
            (1, "item without `legal_basis`"),
            (4, "unknown field `alias` in item"),
            (6, "`code` \"blood-type\" is said twice, first in line 2"),
        ];
        assert_eq!(said, want);
    }
}
