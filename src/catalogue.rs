//! What may be collected: one indicator a kind of information, who may report it, and how long it counts.
//!
//! An item of the prohibited list does not load, by code or by name. It does not know what an indicator is worth; that
//! is the model's.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::code::{ByIndicator, IndicatorCode, PartyId};
use crate::policy::{Document, Mistakes, Once, Source, Table, Value};
use crate::prohibited::Prohibited;
use crate::text::Bilingual;

/// Years that a record counts where the catalogue is silent (Article 10).
pub const VALID_FOR_YEARS: u16 = 3;

/// The kinds of information of Articles 6 to 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Article 7 (1): who a person is.
    Basic,
    /// Article 7 (2): judgments and their enforcement.
    Judicial,
    /// Article 7 (3): licences, penalties and other acts of the administration.
    Administrative,
    /// Article 7 (4): lists of abnormal operation.
    AbnormalOperation,
    /// Article 7 (5): lists of serious dishonesty.
    SeriousDishonesty,
    /// Article 7 (6): contracts and whether they were kept.
    ContractPerformance,
    /// Article 7 (7): promises to authorities and whether they were kept.
    Commitment,
    /// Article 7 (8): results of evaluations.
    Evaluation,
    /// Article 7 (9): whether laws were kept.
    Compliance,
    /// Article 7 (10): honours for honesty.
    Honour,
    /// Article 7 (11): social activities.
    SocialActivity,
    /// Article 7 (12): what a person gives of their own will.
    Volunteered,
    /// Article 8: from the market, only with the person's consent.
    Market,
    /// Articles 6 and 9: what a person adds, or lets a department add.
    Supplementary,
}

impl Category {
    /// Every category with its code, in the order of the measures.
    pub const ALL: [(&'static str, Category); 14] = [
        ("basic", Category::Basic),
        ("judicial", Category::Judicial),
        ("administrative", Category::Administrative),
        ("abnormal-operation", Category::AbnormalOperation),
        ("serious-dishonesty", Category::SeriousDishonesty),
        ("contract-performance", Category::ContractPerformance),
        ("commitment", Category::Commitment),
        ("evaluation", Category::Evaluation),
        ("compliance", Category::Compliance),
        ("honour", Category::Honour),
        ("social-activity", Category::SocialActivity),
        ("volunteered", Category::Volunteered),
        ("market", Category::Market),
        ("supplementary", Category::Supplementary),
    ];

    /// Its code.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, c)| *c == self).map_or("", |(word, _)| word)
    }

    /// Whether a record of it rests on the person's consent rather than on a statute, so that the person can have it erased.
    pub fn rests_on_consent(self) -> bool {
        matches!(self, Category::Market | Category::Volunteered | Category::Supplementary)
    }
}

/// A kind of information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indicator {
    /// Its code.
    pub code: IndicatorCode,
    /// What people call it; always there in a city's own set.
    pub name: Option<Bilingual>,
    /// Which kind it is.
    pub category: Category,
    /// Who may report it; never empty.
    pub providers: Vec<PartyId>,
    /// Who reported it before the provider changed: what they sent still counts, and they send no more.
    pub former_providers: Vec<PartyId>,
    /// The basis of that change, where it has one of its own.
    pub former_providers_basis: Option<String>,
    /// How long a record counts that does not say it.
    pub valid_for_years: u16,
    /// How long a record counts at most, whatever it says.
    pub valid_for_years_max: Option<u16>,
    /// The law that says so, where it is another than the indicator's.
    pub valid_for_years_max_basis: Option<String>,
    /// The day from which on its records do not count.
    pub counts_until: Option<Date>,
    /// The basis of that end, where it has one of its own.
    pub counts_until_basis: Option<String>,
    /// What its quantity counts; without it, its records carry no quantity.
    pub unit: Option<String>,
    /// The article that allows it to be collected; always there in a city's own set.
    pub legal_basis: Option<String>,
}

/// All indicators.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    indicators: ByIndicator<Indicator>,
    /// Codes that the file says, also of indicators that could not be read, so that one mistake is told once.
    said: BTreeSet<String>,
    broken: bool,
}

impl Catalogue {
    /// Reads `catalogue.toml`. Names and legal bases may be missing here; a city's whole set asks for them.
    pub fn parse(source: &Source, prohibited: Option<&Prohibited>, mistakes: &mut Mistakes) -> Option<Self> {
        let before = mistakes.len();
        let read = Self::read(&Document::parse(source, mistakes), prohibited, false, mistakes);
        (mistakes.len() == before).then_some(read)
    }

    /// As much as can be read; `published` asks for what people need to understand it.
    pub(crate) fn read(
        document: &Document<'_>,
        prohibited: Option<&Prohibited>,
        published: bool,
        mistakes: &mut Mistakes,
    ) -> Self {
        let (mut read, mut codes, mut root) = (Self::default(), Once::default(), document.root());
        let mut indicators = BTreeMap::new();
        read.broken = document.is_broken();
        for mut table in root.tables("indicator", true, mistakes) {
            if let Some(indicator) = indicator(&mut table, prohibited, published, &mut codes, mistakes) {
                indicators.insert(indicator.code.clone(), indicator);
            }
            table.finish(mistakes);
        }
        root.finish(mistakes);
        read.indicators = indicators.into();
        read.said = codes.all().map(str::to_owned).collect();
        read
    }

    /// A catalogue of which nothing could be read, so that no mention is called wrong.
    pub(crate) fn unread() -> Self {
        Self { broken: true, ..Self::default() }
    }

    /// The indicator of this code.
    pub fn get(&self, code: &str) -> Option<&Indicator> {
        self.indicators.get(code)
    }

    /// Where it stands among all.
    pub(crate) fn place(&self, code: &str) -> Option<usize> {
        self.indicators.find(code).map(|(place, _)| place)
    }

    /// The indicator of this code, looked for at this place first.
    #[inline]
    pub(crate) fn get_near(&self, place: usize, code: &str) -> Option<&Indicator> {
        let here = self.indicators.at(place).filter(|(found, _)| found.as_str() == code);
        here.map(|(_, indicator)| indicator).or_else(|| self.get(code))
    }

    /// All indicators, by code.
    pub fn iter(&self) -> impl Iterator<Item = &Indicator> {
        self.indicators.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.indicators.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.indicators.is_empty()
    }

    /// Whether a mention of this code is right, as far as the file could be read.
    pub(crate) fn may_know(&self, code: &str) -> bool {
        self.broken || self.said.contains(code)
    }

    /// Every code that the file says.
    pub(crate) fn codes(&self) -> impl Iterator<Item = &str> {
        self.said.iter().map(String::as_str)
    }
}

fn indicator(
    table: &mut Table<'_>,
    prohibited: Option<&Prohibited>,
    published: bool,
    codes: &mut Once,
    mistakes: &mut Mistakes,
) -> Option<Indicator> {
    let code_value = table.need("code", mistakes);
    let code = code_value.as_ref().and_then(|v| {
        let code = v.code(IndicatorCode::parse, mistakes)?;
        codes.is_new(code.as_str(), v, mistakes).then_some(code)
    });
    if let Some(v) = &code_value {
        refuse_prohibited(v, v.as_text(), prohibited, mistakes);
    }
    let name_value = if published { table.need("name", mistakes) } else { table.take("name") };
    let name = name_value.and_then(|v| {
        let name = v.bilingual(mistakes);
        let said = name.as_ref().map(|n| [n.zh.as_str(), n.en.as_str()]);
        refuse_prohibited(&v, said.into_iter().flatten(), prohibited, mistakes);
        name
    });
    let category = table.need("category", mistakes).and_then(|v| v.choice(&Category::ALL, mistakes));
    // Nobody is said twice, nor both as one who reports and as one who did.
    let mut once = Once::default();
    let mut provider = |v: &Value<'_>, mistakes: &mut Mistakes| {
        let id = v.code(PartyId::parse, mistakes)?;
        once.is_new(id.as_str(), v, mistakes).then_some(id)
    };
    let providers = table.need("providers", mistakes).map(|v| v.list_of_some(mistakes)).unwrap_or_default();
    let providers: Vec<_> = providers.iter().filter_map(|v| provider(v, mistakes)).collect();
    let former = table.take("former_providers").map(|v| v.list_of_some(mistakes)).unwrap_or_default();
    let former_providers: Vec<_> = former.iter().filter_map(|v| provider(v, mistakes)).collect();
    let former_providers_basis =
        own_basis(table, "former_providers_basis", "former_providers", !former.is_empty(), mistakes);
    let mut years = |field, mistakes: &mut Mistakes| {
        let years = table.take(field).and_then(|v| v.whole(1..=100, mistakes));
        years.and_then(|years| u16::try_from(years).ok())
    };
    let (valid_for_years, valid_for_years_max) =
        (years("valid_for_years", mistakes), years("valid_for_years_max", mistakes));
    let valid_for_years_max_basis =
        own_basis(table, "valid_for_years_max_basis", "valid_for_years_max", valid_for_years_max.is_some(), mistakes);
    let until = table.take("counts_until");
    let counts_until_basis = own_basis(table, "counts_until_basis", "counts_until", until.is_some(), mistakes);
    let counts_until = until.and_then(|v| v.date(mistakes));
    let unit = table.take("unit").and_then(|v| v.text(mistakes)).map(str::to_owned);
    let legal_basis = if published { table.need("legal_basis", mistakes) } else { table.take("legal_basis") };
    let legal_basis = legal_basis.and_then(|v| v.text(mistakes)).map(str::to_owned);
    let valid_for_years = valid_for_years.unwrap_or(VALID_FOR_YEARS);
    Some(Indicator {
        code: code?,
        name,
        category: category?,
        providers,
        former_providers,
        former_providers_basis,
        valid_for_years,
        valid_for_years_max,
        valid_for_years_max_basis,
        counts_until,
        counts_until_basis,
        unit,
        legal_basis,
    })
}

/// The basis of something that the indicator says; without that it belongs to nothing.
fn own_basis(
    table: &mut Table<'_>,
    field: &'static str,
    of: &str,
    said: bool,
    mistakes: &mut Mistakes,
) -> Option<String> {
    let value = table.take(field)?;
    if !said {
        let what = format!("`{field}` without `{of}`");
        value.wrong(mistakes, what, format!("`{of}` beside it"), "say it, or take this out");
    }
    value.text(mistakes).map(str::to_owned)
}

fn refuse_prohibited<'a>(
    value: &Value<'_>,
    said: impl IntoIterator<Item = &'a str>,
    prohibited: Option<&Prohibited>,
    mistakes: &mut Mistakes,
) {
    let found = said.into_iter().find_map(|name| Some((name, prohibited?.finds_in(name)?)));
    if let Some((name, item)) = found {
        let what = format!(
            "prohibited-item: \"{name}\" is {} ({}), forbidden by {}",
            item.name.en, item.name.zh, item.legal_basis
        );
        value.wrong(mistakes, what, "an indicator that may be collected", "take the indicator out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "[[indicator]]\ncode = \"honour\"\ncategory = \"honour\"\nproviders = [\"yx-office\"]\n";

    fn check(text: &str, want: &[(usize, &str)]) {
        let mut m = Mistakes::new();
        let list =
            "[[item]]\ncode = \"religion\"\nname = { zh = \"宗教信仰\", en = \"Religion\" }\nlegal_basis = \"某法\"\n";
        let prohibited = Prohibited::parse(&Source::new("prohibited.toml", list), &mut m).unwrap();
        let read = Catalogue::parse(&Source::new("catalogue.toml", text), Some(&prohibited), &mut m);
        let said: Vec<_> = m.iter().map(|m| (m.line, m.what.as_str())).collect();
        assert_eq!(said, want, "{text}");
        assert_eq!(read.is_some(), want.is_empty());
    }

    #[test]
    fn silence_means_three_years_and_no_quantity() {
        let read = Catalogue::parse(&Source::new("c", PLAIN), None, &mut Mistakes::new()).unwrap();
        let indicator = read.get("honour").unwrap();
        assert_eq!((indicator.valid_for_years, indicator.valid_for_years_max, &indicator.unit), (3, None, &None));
        assert_eq!(Category::SeriousDishonesty.as_str(), "serious-dishonesty");
    }

    #[test]
    fn a_day_may_be_a_text_or_a_date() {
        for day in ["\"2027-01-01\"", "2027-01-01"] {
            let text = format!("{PLAIN}counts_until = {day}\n");
            let read = Catalogue::parse(&Source::new("c", text), None, &mut Mistakes::new()).unwrap();
            assert_eq!(read.get("honour").unwrap().counts_until, Some(jiff::civil::date(2027, 1, 1)));
        }
        for day in ["\"2027-02-29\"", "2027-01-01T00:00:00", "20270101", "\"1 January\""] {
            check(&format!("{PLAIN}counts_until = {day}\n"), &[(5, "`counts_until` is no day")]);
        }
    }

    #[test]
    fn each_mistake_is_told() {
        check(PLAIN, &[]);
        check(&PLAIN.replace("\"honour\"\np", "\"honor\"\np"), &[(3, "`category` is \"honor\"")]);
        check(&PLAIN.replace("[\"yx-office\"]", "[]"), &[(4, "`providers` is an empty list")]);
        check(&PLAIN.replace("[\"yx-office\"]", "\"yx-office\""), &[(4, "`providers` is a text")]);
        check(&format!("{PLAIN}valid_for_years = 0\n"), &[(5, "`valid_for_years` is 0")]);
        check(&format!("{PLAIN}valid_for_year = 2\n"), &[(5, "unknown field `valid_for_year` in indicator")]);
        check(&format!("{PLAIN}{PLAIN}"), &[(6, "`code` \"honour\" is said twice, first in line 2")]);
        check(&format!("{PLAIN}code = \"other\"\n"), &[(5, "`code` is said twice")]);
        check("", &[(1, "the file without `indicator`")]);
    }

    #[test]
    fn ends_bounds_and_a_change_of_provider_may_have_a_basis_of_their_own() {
        let text = format!(
            "{PLAIN}former_providers = [\"yx-old\"]\nformer_providers_basis = \"甲\"\nvalid_for_years_max = 5\n\
             valid_for_years_max_basis = \"乙\"\ncounts_until = \"2027-01-01\"\ncounts_until_basis = \"丙\"\n"
        );
        check(&text, &[]);
        let read = Catalogue::parse(&Source::new("c", text), None, &mut Mistakes::new()).unwrap();
        let honour = read.get("honour").unwrap();
        assert_eq!(honour.former_providers.iter().map(PartyId::as_str).collect::<Vec<_>>(), ["yx-old"]);
        let bases = [&honour.former_providers_basis, &honour.valid_for_years_max_basis, &honour.counts_until_basis]
            .map(|basis| basis.as_deref());
        assert_eq!(bases, [Some("甲"), Some("乙"), Some("丙")]);
        for (field, of) in [
            ("former_providers_basis", "former_providers"),
            ("valid_for_years_max_basis", "valid_for_years_max"),
            ("counts_until_basis", "counts_until"),
        ] {
            check(&format!("{PLAIN}{field} = \"甲\"\n"), &[(5, &format!("`{field}` without `{of}`"))]);
        }
        check(&format!("{PLAIN}former_providers = []\n"), &[(5, "`former_providers` is an empty list")]);
        check(
            &format!("{PLAIN}former_providers = [\"yx-office\"]\n"),
            &[(5, "`former_providers` \"yx-office\" is said twice, first in line 4")],
        );
    }

    #[test]
    fn a_prohibited_item_does_not_load_by_code_or_name() {
        let what = |name: &str| format!("prohibited-item: \"{name}\" is Religion (宗教信仰), forbidden by 某法");
        check(&PLAIN.replacen("honour", "religion", 1), &[(2, &what("religion"))]);
        check(&format!("{PLAIN}name = {{ zh = \"宗教信仰情况\", en = \"Faith\" }}\n"), &[(5, &what("宗教信仰情况"))]);
        check(&format!("{PLAIN}name = {{ zh = \"情况\", en = \"RELIGION\" }}\n"), &[(5, &what("RELIGION"))]);
    }
}
