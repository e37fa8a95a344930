//! The synthetic city: people who are nobody, and records about them that the city's model scores as wished.
//!
//! Everything follows from the number of people, the policies and the day: the same three make the same
//! city. Identity numbers carry region 530499, which is assigned to nobody, and passports the states UTO and XUT.
//! The first thirty people are cast, so that even a small city has somebody on each side of each cut, some near
//! the cut of 600, and some without a score; the rest follow a distribution. It knows the scoring only through
//! `score::evaluate`: records are added and taken away until the score is where it should be.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use jiff::{Span, ToSpan};

use crate::catalogue::{Catalogue, Indicator};
use crate::cli::demo::dice::Dice;
use crate::code::{PartyId, RecordId};
use crate::model::{Model, Rule};
use crate::party::PartyRole;
use crate::person::{IdType, Identity, Name, Person};
use crate::policies::PolicySet;
use crate::record::{Held, Record};
use crate::score;

/// The city's chance begins here.
const SEED: u64 = 530_499;
/// How many people with a number there are to each one with a passport.
const PEOPLE_A_PASSPORT: usize = 40;
/// How many changes are tried before a person's records are begun anew.
const CHANGES_MAX: usize = 80;
/// How often a person's records are begun anew.
const BEGINNINGS_MAX: usize = 40;

const SURNAMES: &[&str] = &[
    "王", "李", "张", "刘", "陈", "杨", "黄", "赵", "周", "吴", "徐", "孙", "马", "朱", "胡", "郭", "何", "林", "高",
    "罗", "郑", "梁", "谢", "宋", "唐", "许", "邓", "冯", "韩", "曹", "普", "矣", "白", "施", "沐",
];
const GIVEN: &[&str] = &[
    "云", "江", "澄", "海", "峨", "溪", "明", "华", "丽", "芳", "伟", "敏", "静", "强", "磊", "军", "洋", "艳", "勇",
    "杰", "娟", "涛", "超", "霞", "平", "刚", "桂", "英", "文", "建", "国", "志", "玉", "兰", "慧", "晨", "思", "远",
    "雨", "宁", "安", "若", "嘉", "欣", "博", "睿", "雪", "春",
];
const GUESTS: &[&str] = &["Anna Berg", "阮氏明", "O’Neil, Seán", "José Núñez", "Kim Min-jun", "Fatima Noor"];

/// What a person's score shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Score(u16, u16),
    UnderAge,
    NotResident,
    NoFullCapacity,
}

use Wish::{NoFullCapacity, NotResident, Score, UnderAge};

/// The first thirty.
const CAST: [Wish; 30] = [
    Score(620, 690),
    Score(530, 590),
    Score(815, 900),
    Score(400, 490),
    Score(700, 790),
    Score(510, 590),
    UnderAge,
    Score(630, 699),
    Score(500, 599),
    Score(801, 880),
    Score(300, 499),
    Score(600, 660),
    Score(710, 799),
    Score(515, 599),
    NotResident,
    Score(605, 690),
    Score(810, 950),
    Score(540, 599),
    Score(700, 799),
    Score(600, 699),
    Score(350, 499),
    Score(500, 570),
    NoFullCapacity,
    Score(610, 699),
    Score(800, 870),
    Score(700, 799),
    Score(500, 599),
    Score(640, 699),
    Score(420, 499),
    Score(720, 799),
];

/// Who shall be like what, beyond the cast: in a hundred people.
const REST: [(i64, Wish); 8] = [
    (7, Score(300, 499)),
    (38, Score(500, 599)),
    (30, Score(600, 699)),
    (15, Score(700, 799)),
    (7, Score(800, 950)),
    (1, UnderAge),
    (1, NotResident),
    (1, NoFullCapacity),
];

/// Why no city can be made from these policies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CityError {
    /// The catalogue has nothing that the parties may report and the model counts in both directions.
    #[error(
        "these policies cannot make a city: the model needs indicators that raise and that lower a score, and providers among the parties for them"
    )]
    NothingToReport,
    /// No records bring a person where the city needs them.
    #[error("these policies cannot make a city: under the model no records bring a score between {0} and {1}")]
    OutOfReach(u16, u16),
    /// A part of the city breaks a rule of its own gateway, which is a fault of this program.
    #[error("the synthetic city has a {0} that the gateway would refuse")]
    Malformed(&'static str),
}

/// One person and what was reported about them.
pub struct Resident {
    /// Their line of the register.
    pub person: Person,
    /// What the departments and companies hold about them.
    pub records: Vec<Held>,
}

/// Everybody, in the order in which `demo.json` lists them.
pub struct City {
    /// Those with an 18-digit number first, then those with a passport.
    pub residents: Vec<Resident>,
}

impl City {
    /// A city of `people` with a number, and one in forty more with a passport, as it is on `today`.
    pub fn make(people: usize, policies: &PolicySet, today: Date) -> Result<Self, CityError> {
        let mut maker = Maker::new(policies, today)?;
        let mut residents = Vec::new();
        for i in 0..people {
            let wish = CAST.get(i).copied().unwrap_or_else(|| maker.wish());
            let person = maker.numbered(wish)?;
            residents.push(maker.reported(person, wish, i)?);
        }
        for i in 0..people / PEOPLE_A_PASSPORT {
            let wish = maker.wish();
            let person = maker.guest(wish, i)?;
            residents.push(maker.reported(person, wish, people + i)?);
        }
        Ok(Self { residents })
    }

    /// The register as the registrar sends it, a line each.
    pub fn register(&self) -> Vec<String> {
        self.residents.iter().map(|r| r.person.to_json().to_string()).collect()
    }

    /// The records as each provider sends them, a line each.
    pub fn records(&self) -> BTreeMap<PartyId, Vec<String>> {
        let mut by_provider: BTreeMap<PartyId, Vec<String>> = BTreeMap::new();
        for held in self.residents.iter().flat_map(|r| &r.records) {
            by_provider.entry(held.record.provider.clone()).or_default().push(held.to_json().to_string());
        }
        by_provider
    }
}

/// An indicator that somebody in the city may report.
struct Kind<'p> {
    indicator: &'p Indicator,
    rule: &'p Rule,
    providers: Vec<&'p PartyId>,
}

struct Maker<'p> {
    catalogue: &'p Catalogue,
    model: &'p Model,
    raising: Vec<Kind<'p>>,
    lowering: Vec<Kind<'p>>,
    today: Date,
    dice: Dice,
    taken: BTreeSet<String>,
}

impl<'p> Maker<'p> {
    fn new(policies: &'p PolicySet, today: Date) -> Result<Self, CityError> {
        let model = policies.model();
        let (mut raising, mut lowering) = (Vec::new(), Vec::new());
        let provides =
            |id: &&PartyId| policies.parties.get(*id).is_some_and(|p| p.roles.contains(&PartyRole::Provider));
        for indicator in policies.catalogue.iter() {
            let Some(rule) = model.rules.get(&indicator.code) else { continue };
            let providers: Vec<_> = indicator.providers.iter().filter(provides).collect();
            let over = indicator.counts_until.is_some_and(|day| day <= today);
            if providers.is_empty() || over || rule.points == 0 {
                continue;
            }
            let kind = Kind { indicator, rule, providers };
            if kind.rule.points > 0 { raising.push(kind) } else { lowering.push(kind) }
        }
        if raising.is_empty() || lowering.is_empty() {
            return Err(CityError::NothingToReport);
        }
        let dice = Dice::new(SEED);
        Ok(Self { catalogue: &policies.catalogue, model, raising, lowering, today, dice, taken: BTreeSet::new() })
    }

    fn wish(&mut self) -> Wish {
        let mut at = self.dice.between(1, REST.iter().map(|(weight, _)| weight).sum());
        for (weight, wish) in REST {
            if at <= weight {
                return wish;
            }
            at -= weight;
        }
        Score(500, 599)
    }

    /// A day of birth that fits the wish, and is clear of the eighteenth birthday.
    fn birth(&mut self, wish: Wish) -> Result<Date, CityError> {
        let days = match wish {
            UnderAge => self.dice.between(4 * 366, 17 * 365),
            _ => self.dice.between(19 * 366, 82 * 365),
        };
        self.today.checked_sub(days.days()).map_err(|_| CityError::Malformed("day of birth"))
    }

    fn numbered(&mut self, wish: Wish) -> Result<Person, CityError> {
        loop {
            let born_on = self.birth(wish)?;
            // 2 January 1990 is left to whoever adds people by hand.
            if (born_on.year(), born_on.month(), born_on.day()) == (1990, 1, 2) {
                continue;
            }
            let body = format!("530499{}{:03}", born_on.strftime("%Y%m%d"), self.dice.between(1, 999));
            if !self.taken.insert(body.clone()) {
                continue;
            }
            let identity = "0123456789X"
                .chars()
                .find_map(|check| Identity::parse(IdType::ResidentId, &format!("{body}{check}"), self.today).ok())
                .ok_or(CityError::Malformed("number"))?;
            let mut name = String::new();
            name.push_str(self.dice.pick(SURNAMES).copied().unwrap_or_default());
            for _ in 0..self.dice.between(1, 2) {
                name.push_str(self.dice.pick(GIVEN).copied().unwrap_or_default());
            }
            return person(identity, &name, born_on, wish);
        }
    }

    fn guest(&mut self, wish: Wish, i: usize) -> Result<Person, CityError> {
        let born_on = self.birth(wish)?;
        let state = if i.is_multiple_of(2) { "UTO" } else { "XUT" };
        let number = format!("{state}E{:07}", 1_000_000 + i * 37);
        let identity =
            Identity::parse(IdType::Passport, &number, self.today).map_err(|_| CityError::Malformed("passport"))?;
        let name = self.dice.pick(GUESTS).copied().unwrap_or_default();
        person(identity, name, born_on, wish)
    }

    /// The person with records that bring them where they are wished.
    fn reported(&mut self, person: Person, wish: Wish, index: usize) -> Result<Resident, CityError> {
        let Score(low, high) = wish else {
            let mut resident = Resident { person, records: Vec::new() };
            let mut made = 0;
            for _ in 0..self.dice.between(0, 3) {
                self.add(&mut resident, index, &mut made, true)?;
            }
            return Ok(resident);
        };
        let mut resident = Resident { person, records: Vec::new() };
        for _ in 0..BEGINNINGS_MAX {
            resident.records.clear();
            let mut made = 0;
            // Most people have a little of both, so that a score is not only its last few points.
            for _ in 0..self.dice.between(2, 5) {
                self.add(&mut resident, index, &mut made, true)?;
            }
            if self.dice.chance(if low < 500 { 90 } else { 25 }) {
                self.add(&mut resident, index, &mut made, false)?;
            }
            for _ in 0..CHANGES_MAX {
                let outcome =
                    score::evaluate(&resident.person, &resident.records, self.catalogue, self.model, self.today);
                let Some(score) = outcome.score else { return Err(CityError::Malformed("person")) };
                if (low..=high).contains(&score) {
                    return Ok(resident);
                }
                let upwards = score < low;
                // Now and then a record of the other direction goes instead of one more coming.
                if self.dice.chance(30) {
                    self.take_away(&mut resident, !upwards);
                } else {
                    self.add(&mut resident, index, &mut made, upwards)?;
                }
            }
        }
        Err(CityError::OutOfReach(low, high))
    }

    fn take_away(&mut self, resident: &mut Resident, raising: bool) {
        let points = |held: &Held| self.model.rules.get(&held.record.indicator).map_or(0, |rule| rule.points);
        let found = resident.records.iter().rposition(|held| (points(held) > 0) == raising);
        if let Some(at) = found {
            resident.records.remove(at);
        }
    }

    fn add(&mut self, resident: &mut Resident, index: usize, made: &mut usize, raising: bool) -> Result<(), CityError> {
        let kinds = if raising { &self.raising } else { &self.lowering };
        let dice = &mut self.dice;
        let Some(kind) = dice.pick(kinds) else { return Ok(()) };
        let Some(provider) = dice.pick(&kind.providers) else { return Ok(()) };
        *made += 1;
        let occurred_on = self.today.saturating_sub(Span::new().days(dice.between(1, longest(kind.indicator))));
        let after_birth = resident.person.born_on.saturating_add(1.day());
        let quantity = kind.indicator.unit.as_ref().map(|_| {
            let most = kind.rule.per.saturating_mul(30).clamp(1, 300);
            u32::try_from(dice.between(1, most)).unwrap_or(1)
        });
        let rests_on_consent = kind.indicator.category.rests_on_consent();
        let record = Record {
            id: RecordId::parse(&format!("{}-{:06}-{made:02}", occurred_on.year(), index + 1))
                .map_err(|_| CityError::Malformed("record"))?,
            provider: (*provider).clone(),
            indicator: kind.indicator.code.clone(),
            identity: resident.person.identity.clone(),
            name: resident.person.name.clone(),
            occurred_on: occurred_on.max(after_birth),
            valid_until: None,
            quantity,
            consent_ref: rests_on_consent.then(|| format!("paper:{:06}-{made:02}", index + 1)),
            detail: None,
        };
        resident.records.push(Held::new(record));
        Ok(())
    }
}

/// How many days ago the oldest record lies that is worth reporting: nearly as long as such records count.
fn longest(indicator: &Indicator) -> i64 {
    let years =
        indicator.valid_for_years_max.map_or(indicator.valid_for_years, |most| most.min(indicator.valid_for_years));
    (i64::from(years) * 365).clamp(30, 5 * 365) - 10
}

fn person(identity: Identity, name: &str, born_on: Date, wish: Wish) -> Result<Person, CityError> {
    Ok(Person {
        identity,
        name: Name::parse(name).map_err(|_| CityError::Malformed("name"))?,
        born_on,
        resident: wish != NotResident,
        full_capacity: wish != NoFullCapacity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies;
    use jiff::civil::date;

    const TODAY: Date = date(2026, 11, 25);

    fn set() -> PolicySet {
        PolicySet::parse(policies::shipped()).unwrap()
    }

    fn scores(city: &City, policies: &PolicySet) -> Vec<Option<u16>> {
        let score =
            |r: &Resident| score::evaluate(&r.person, &r.records, &policies.catalogue, policies.model(), TODAY).score;
        city.residents.iter().filter(|r| r.person.identity.id_type() == IdType::ResidentId).map(score).collect()
    }

    #[test]
    fn every_city_has_somebody_on_each_side_of_each_cut() {
        let policies = set();
        for people in [30, 40, 50, 60, 75, 1000] {
            let city = City::make(people, &policies, TODAY).unwrap();
            let all = scores(&city, &policies);
            assert_eq!(all.len(), people);
            let first = all.get(..30).unwrap();
            let within = |low: u16, high: u16| first.iter().flatten().filter(|s| (low..=high).contains(s)).count();
            assert!(within(500, 599) >= 4 && within(600, 699) >= 4, "{people}: {first:?}");
            assert!(within(0, 499) >= 2 && within(801, 1000) >= 2 && within(700, 799) >= 2, "{people}: {first:?}");
            assert!(first.iter().filter(|s| s.is_none()).count() >= 2, "{people}: {first:?}");
        }
    }

    #[test]
    fn a_city_of_a_thousand_is_believable() {
        let policies = set();
        let all = scores(&City::make(1000, &policies, TODAY).unwrap(), &policies);
        let share = |low: u16, high: u16| all.iter().flatten().filter(|s| (low..=high).contains(s)).count();
        for (low, high, least, most) in
            [(0, 499, 40, 120), (500, 599, 300, 460), (600, 799, 370, 530), (800, 1000, 40, 120)]
        {
            assert!((least..=most).contains(&share(low, high)), "{low} to {high}: {}", share(low, high));
        }
    }

    #[test]
    fn the_same_city_is_made_again_and_nobody_in_it_is_somebody() {
        let policies = set();
        let (one, two) = (City::make(60, &policies, TODAY).unwrap(), City::make(60, &policies, TODAY).unwrap());
        assert_eq!((one.register(), one.records()), (two.register(), two.records()));
        let mut numbers = BTreeSet::new();
        for r in &one.residents {
            let number = r.person.identity.number();
            assert!(number.starts_with("530499") || number.starts_with("UTO") || number.starts_with("XUT"));
            assert!(numbers.insert(number.to_owned()), "a number twice");
        }
        assert!(one.residents.iter().any(|r| r.person.identity.id_type() == IdType::Passport));
    }

    #[test]
    fn the_gateway_would_take_every_line() {
        let policies = set();
        let city = City::make(75, &policies, TODAY).unwrap();
        for line in city.register() {
            crate::intake::person(line.as_bytes(), TODAY, &policies.prohibited).unwrap();
        }
        let mut ids = BTreeSet::new();
        for (provider, lines) in city.records() {
            let source = crate::intake::Source::Party(&provider);
            let rules = crate::intake::RecordRules {
                catalogue: &policies.catalogue,
                prohibited: &policies.prohibited,
                today: TODAY,
                source,
            };
            for line in lines {
                let held = crate::intake::record(line.as_bytes(), &rules).unwrap();
                assert!(ids.insert((provider.clone(), held.record.id)), "a record id twice");
            }
        }
    }
}
