//! Who may do what: rules with an id, each a role, actions and conditions by name. What no rule permits is refused.
//!
//! The rule that decided stands in the log entry. Whether a condition holds is the caller's to say; this file only knows
//! its name. Who may ask which question is not here but in the scenarios.

use crate::code::RuleId;
use crate::party::PartyRole;
use crate::policy::{Document, Mistakes, Once, Source, Table};

/// As what somebody acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A business that asks.
    Merchant,
    /// A public office that asks.
    Department,
    /// Reports records.
    Provider,
    /// Keeps the register of people.
    Registrar,
    /// A person, about themselves.
    Person,
    /// Reads the access log for the city.
    Officer,
    /// Runs the city's models, repairs and objections.
    Operator,
}

impl Role {
    /// Every role with its code.
    pub const ALL: [(&'static str, Role); 7] = [
        ("merchant", Role::Merchant),
        ("department", Role::Department),
        ("provider", Role::Provider),
        ("registrar", Role::Registrar),
        ("person", Role::Person),
        ("officer", Role::Officer),
        ("operator", Role::Operator),
    ];

    /// Its code.
    pub fn as_str(self) -> &'static str {
        word(&Self::ALL, self)
    }
}

impl From<PartyRole> for Role {
    fn from(role: PartyRole) -> Self {
        match role {
            PartyRole::Merchant => Self::Merchant,
            PartyRole::Department => Self::Department,
            PartyRole::Provider => Self::Provider,
            PartyRole::Registrar => Self::Registrar,
        }
    }
}

/// What somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Asks a scenario's question.
    Ask,
    /// Reports records.
    Report,
    /// Sends lines of the register.
    Register,
    /// Withdraws a record of its own.
    Withdraw,
    /// Looks at what it sent: its records by id, the receipts of its batches.
    ReadSent,
    /// Reads a person's own score, records, consents and accesses.
    ReadOwn,
    /// Consents.
    Consent,
    /// Revokes a consent.
    Revoke,
    /// Makes a one-time code.
    MakeCode,
    /// Reads the access log.
    ReadLog,
    /// Opens a case.
    OpenCase,
    /// Confirms a case.
    ConfirmCase,
    /// Looks up who asked about one person.
    LookUp,
    /// Scores everybody under another model, to see how grades would move.
    TryModel,
    /// Publishes a draft of a model for comment.
    DraftModel,
    /// Approves a draft.
    ApproveModel,
    /// Publishes an approved draft, from a day on.
    PublishModel,
}

impl Action {
    /// Every action with its code.
    pub const ALL: [(&'static str, Action); 17] = [
        ("ask", Action::Ask),
        ("report", Action::Report),
        ("register", Action::Register),
        ("withdraw", Action::Withdraw),
        ("read-sent", Action::ReadSent),
        ("read-own", Action::ReadOwn),
        ("consent", Action::Consent),
        ("revoke", Action::Revoke),
        ("make-code", Action::MakeCode),
        ("read-log", Action::ReadLog),
        ("open-case", Action::OpenCase),
        ("confirm-case", Action::ConfirmCase),
        ("look-up", Action::LookUp),
        ("try-model", Action::TryModel),
        ("draft-model", Action::DraftModel),
        ("approve-model", Action::ApproveModel),
        ("publish-model", Action::PublishModel),
    ];

    /// Its code.
    pub fn as_str(self) -> &'static str {
        word(&Self::ALL, self)
    }
}

/// What must hold besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The scenario names the party that asks.
    ScenarioNamesParty,
    /// The catalogue names the party as a provider of the indicator.
    IndicatorNamesProvider,
    /// The data are the person's own.
    OwnData,
    /// A case about the person is open and confirmed.
    OpenCase,
    /// It is another officer than the one who opened the case.
    AnotherOfficer,
    /// The draft's period for comment is over.
    CommentPeriodOver,
    /// Two different officers or operators have approved the draft.
    TwoApprovals,
}

impl Condition {
    /// Every condition with its code.
    pub const ALL: [(&'static str, Condition); 7] = [
        ("scenario-names-party", Condition::ScenarioNamesParty),
        ("indicator-names-provider", Condition::IndicatorNamesProvider),
        ("own-data", Condition::OwnData),
        ("open-case", Condition::OpenCase),
        ("another-officer", Condition::AnotherOfficer),
        ("comment-period-over", Condition::CommentPeriodOver),
        ("two-approvals", Condition::TwoApprovals),
    ];

    /// Its code.
    pub fn as_str(self) -> &'static str {
        word(&Self::ALL, self)
    }
}

fn word<T: Copy + PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    all.iter().find(|(_, v)| *v == value).map_or("", |(word, _)| word)
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    id: RuleId,
    role: Role,
    actions: Vec<Action>,
    conditions: Vec<Condition>,
}

/// All rules, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    rules: Vec<Rule>,
}

impl Access {
    /// Reads `access.toml`.
    pub fn parse(source: &Source, mistakes: &mut Mistakes) -> Option<Self> {
        let before = mistakes.len();
        let read = Self::read(&Document::parse(source, mistakes), mistakes);
        (mistakes.len() == before).then_some(read)
    }

    pub(crate) fn read(document: &Document<'_>, mistakes: &mut Mistakes) -> Self {
        let (mut rules, mut ids, mut root) = (Vec::new(), Once::default(), document.root());
        for mut table in root.tables("rule", true, mistakes) {
            rules.extend(rule(&mut table, &mut ids, mistakes));
            table.finish(mistakes);
        }
        root.finish(mistakes);
        Self { rules }
    }

    /// The first rule that permits `action` to somebody with these roles, whose conditions all hold; `None` refuses.
    pub fn permit(&self, roles: &[Role], action: Action, holds: &dyn Fn(Condition) -> bool) -> Option<&RuleId> {
        let fits = |r: &&Rule| {
            roles.contains(&r.role) && r.actions.contains(&action) && r.conditions.iter().all(|c| holds(*c))
        };
        self.rules.iter().find(fits).map(|r| &r.id)
    }
}

fn rule(table: &mut Table<'_>, ids: &mut Once, mistakes: &mut Mistakes) -> Option<Rule> {
    let id = table.need("id", mistakes).and_then(|v| {
        let id = v.code(RuleId::parse, mistakes)?;
        ids.is_new(id.as_str(), &v, mistakes).then_some(id)
    });
    let role = table.need("role", mistakes).and_then(|v| v.choice(&Role::ALL, mistakes));
    let actions = table.need("actions", mistakes).map(|v| v.list_of_some(mistakes)).unwrap_or_default();
    let actions = actions.iter().filter_map(|v| v.choice(&Action::ALL, mistakes)).collect();
    let conditions = table.take("conditions").map(|v| v.list(mistakes)).unwrap_or_default();
    let conditions = conditions.iter().filter_map(|v| v.choice(&Condition::ALL, mistakes)).collect();
    Some(Rule { id: id?, role: role?, actions, conditions })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "[[rule]]\nid = \"first\"\nrole = \"officer\"\nactions = [\"look-up\"]\nconditions = [\"open-case\"]\n\
                         [[rule]]\nid = \"second\"\nrole = \"officer\"\nactions = [\"read-log\", \"look-up\"]\nconditions = [\"another-officer\"]\n";

    #[test]
    fn the_first_rule_that_fits_decides_and_no_rule_refuses() {
        let access = Access::parse(&Source::new("access.toml", PLAIN), &mut Mistakes::new()).unwrap();
        let permit = |roles: &[Role], action, holds: &[Condition]| {
            access.permit(roles, action, &|c| holds.contains(&c)).map(|id| id.as_str().to_owned())
        };
        let both = [Condition::OpenCase, Condition::AnotherOfficer];
        assert_eq!(permit(&[Role::Officer], Action::LookUp, &both).as_deref(), Some("first"));
        assert_eq!(permit(&[Role::Officer], Action::LookUp, &[Condition::AnotherOfficer]).as_deref(), Some("second"));
        assert_eq!(permit(&[Role::Officer], Action::LookUp, &[]), None);
        assert_eq!(permit(&[Role::Operator, Role::Merchant], Action::LookUp, &both), None);
        assert_eq!(permit(&[Role::Officer], Action::Ask, &both), None);
        assert_eq!(permit(&[], Action::LookUp, &both), None);
    }

    #[test]
    fn a_rule_with_a_mistake_does_not_load() {
        let check = |from: &str, to: &str, want: &str| {
            let mut m = Mistakes::new();
            assert_eq!(Access::parse(&Source::new("access.toml", PLAIN.replacen(from, to, 1)), &mut m), None, "{to}");
            assert_eq!(m.iter().map(|m| m.what.as_str()).collect::<Vec<_>>(), [want]);
        };
        check("open-case", "open-cases", "`conditions` is \"open-cases\"");
        check("look-up", "lookup", "`actions` is \"lookup\"");
        check("officer", "police", "`role` is \"police\"");
        check("second", "first", "`id` \"first\" is said twice, first in line 2");
        check("[\"look-up\"]", "[]", "`actions` is an empty list");
    }
}
