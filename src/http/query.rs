//! The part of an address behind the question mark, and the pages of a list.
//!
//! As strict as a body: a parameter nobody knows or one said twice is refused by name, and no value
//! is ever repeated.

use axum::extract::Query as Pairs;
use http::Uri;

use super::problem::{Problem, code};
use crate::gateway::EntryId;

/// How many entries a page has unless the caller says.
pub const PAGE_ENTRIES: usize = 100;
/// The most entries a page has.
pub const PAGE_ENTRIES_MAX: usize = 1_000;

/// The parameters of a call, each known and said once.
#[derive(Clone)]
pub struct Query(Vec<(String, String)>);

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Query {
    /// Reads them; `known` is what this call takes.
    pub fn read(target: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Ok(Pairs(pairs)) = Pairs::<Vec<(String, String)>>::try_from_uri(target) else {
            return Err(Problem::new(code::BAD_QUERY, "the query is not name=value&name=value"));
        };
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let detail = match known {
                    [] => "this call takes no parameters".to_owned(),
                    known => format!("one of the parameters is not known; this call takes {}", known.join(", ")),
                };
                return Err(Problem::new(code::BAD_QUERY, detail));
            }
            if pairs.iter().take(at).any(|(earlier, _)| earlier == name) {
                return Err(Problem::new(code::BAD_QUERY, "say each parameter once").with("field", name.as_str()));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter, decoded.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Which page of a list is asked for.
    pub fn page(&self) -> Result<Page, Problem> {
        let limit = match self.get("limit") {
            None => PAGE_ENTRIES,
            Some(said) => said
                .parse()
                .ok()
                .filter(|n| (1..=PAGE_ENTRIES_MAX).contains(n) && said.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| {
                    Problem::new(code::BAD_PAGE, format!("limit is a whole number from 1 to {PAGE_ENTRIES_MAX}"))
                        .with("field", "limit")
                        .with("limit", PAGE_ENTRIES_MAX)
                })?,
        };
        Ok(Page { limit, before: self.get("before").map(str::to_owned) })
    }
}

/// A page of a list that stands newest first.
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    /// At most so many entries.
    pub limit: usize,
    /// Only what stands behind the entry with this id.
    pub before: Option<String>,
}

/// Without what the caller wrote.
impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page(limit {}, ..)", self.limit)
    }
}

impl Page {
    /// Cuts this page out of the whole list.
    pub fn of<T>(&self, list: Vec<T>, is: impl Fn(&T, &str) -> bool) -> Result<Vec<T>, Problem> {
        let skip = match &self.before {
            None => 0,
            Some(id) => list.iter().position(|entry| is(entry, id)).ok_or_else(not_in_list)?.saturating_add(1),
        };
        Ok(list.into_iter().skip(skip).take(self.limit).collect())
    }
}

/// `before` as the id of a log entry, in its one spelling.
pub(super) fn before_entry(page: &Page) -> Result<Option<EntryId>, Problem> {
    page.before.as_ref().map(|text| EntryId::parse(text).ok_or_else(not_in_list)).transpose()
}

/// The refusal of a `before` that is not in the list.
pub fn not_in_list() -> Problem {
    Problem::new(code::BAD_PAGE, "before is the id of an entry of this list; ask again from the start")
        .with("field", "before")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["limit", "before", "party"];

    fn read(query: &str) -> Result<Query, Problem> {
        Query::read(&format!("/list{query}").parse().unwrap(), KNOWN)
    }

    fn page(query: &str) -> Result<(usize, Option<String>), &'static str> {
        read(query).and_then(|q| q.page()).map(|p| (p.limit, p.before)).map_err(|problem| problem.code())
    }

    #[test]
    fn parameters_are_known_and_said_once() {
        assert_eq!(read("?party=a%2Fb+c&limit=5").unwrap().get("party"), Some("a/b c"));
        for bad in ["?x=1", "?party=a&party=a", "?limit=1&limit=1", "?a", "?=1", "?party=%ff&x"] {
            let problem = read(bad).unwrap_err();
            assert_eq!(problem.code(), code::BAD_QUERY, "{bad}");
        }
        let told = read("?530499199001010015=1").unwrap_err().to_json().to_string();
        assert!(!told.contains("530499"), "{told}");
    }

    #[test]
    fn a_page_has_1_to_1000_entries() {
        assert_eq!(page(""), Ok((100, None)));
        assert_eq!(page("?limit=1000&before=x"), Ok((1000, Some("x".into()))));
        for bad in ["0", "1001", "-1", "+5", "5.0", "", "1e2", "99999999999999999999", "%205"] {
            assert_eq!(page(&format!("?limit={bad}")), Err(code::BAD_PAGE), "{bad}");
        }
    }

    #[test]
    fn pages_follow_each_other_and_a_stranger_is_no_start() {
        let list: Vec<String> = (0..250).map(|n| n.to_string()).collect();
        let of = |limit, before: Option<&str>| {
            Page { limit, before: before.map(str::to_owned) }.of(list.clone(), |entry, id| entry == id)
        };
        assert_eq!(of(100, None).unwrap(), list[..100]);
        assert_eq!(of(100, Some("99")).unwrap(), list[100..200]);
        assert_eq!(of(100, Some("249")).unwrap(), Vec::<String>::new());
        assert_eq!(of(100, Some("250")).unwrap_err().code(), code::BAD_PAGE);
    }
}
