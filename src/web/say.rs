//! Sentences, days and numbers as people read them, in both languages.

use jiff::tz::Offset;
use jiff::{Timestamp, civil::Date};

use super::words::Lang;
use crate::catalogue::Indicator;
use crate::code::PartyId;
use crate::disclosure::{Cause, ScoreChange};
use crate::gateway::Refusal;
use crate::model::Model;
use crate::scenario::Question;
use crate::score::Counting;
use crate::text::Bilingual;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["一", "二", "三", "四", "五", "六", "日"];

fn nth<'a>(names: &[&'a str], from_one: i8) -> &'a str {
    usize::try_from(from_one - 1).ok().and_then(|i| names.get(i)).copied().unwrap_or_default()
}

impl Lang {
    pub(super) fn of(self, text: &Bilingual) -> &str {
        self.pick(&text.zh, &text.en)
    }

    /// The name, or the code of what has none.
    pub(super) fn name(self, text: Option<&Bilingual>, code: &str) -> String {
        text.map_or(code, |text| self.of(text)).to_owned()
    }

    /// `2026年11月25日 (周三)`, `25 Nov 2026`.
    pub(super) fn day(self, day: Date) -> String {
        match self {
            Self::Zh => {
                let weekday = nth(&WEEKDAYS, day.weekday().to_monday_one_offset());
                format!("{}年{}月{}日 (周{weekday})", day.year(), day.month(), day.day())
            }
            Self::En => self.short_day(day),
        }
    }

    /// Without the day of the week, for tables.
    pub(super) fn short_day(self, day: Date) -> String {
        match self {
            Self::Zh => format!("{}年{}月{}日", day.year(), day.month(), day.day()),
            Self::En => format!("{} {} {}", day.day(), nth(&MONTHS, day.month()), day.year()),
        }
    }

    /// A score, at least which is asked.
    fn at_least(self, cut: u16) -> String {
        match self {
            Self::Zh => format!("{cut} 分及以上"),
            Self::En => format!("{cut} or more"),
        }
    }

    /// What whoever asks learns, when the answer is given.
    pub(super) fn learns(self, question: &Question, model: &Model, cuts: &[u16]) -> String {
        let grade = |code: &str| {
            let grade = model.grades.iter().find(|grade| grade.code.as_str() == code);
            self.name(grade.and_then(|grade| grade.name.as_ref()), code)
        };
        let lowest = || grade(model.grade(cuts.first().copied().unwrap_or_default().into()).as_str());
        match (question, self) {
            (Question::ScoreAtLeast(cut), _) => self.at_least(*cut),
            (Question::GradeAtLeast(code), Self::Zh) => format!("“{}”或更高", grade(code.as_str())),
            (Question::GradeAtLeast(code), Self::En) => format!("“{}” or better", grade(code.as_str())),
            (Question::GradeNamed, Self::Zh) => format!("等级的名称（从“{}”起）", lowest()),
            (Question::GradeNamed, Self::En) => format!("the grade's name, from “{}” up", lowest()),
        }
    }

    /// Who will learn what, and that it is all.
    pub(super) fn learns_only(self, party: &str, what: &str) -> String {
        match self {
            Self::Zh => format!("{party}只会知道：{what}"),
            Self::En => format!("{party} learns: {what}; nothing else"),
        }
    }

    /// For how long and how often.
    pub(super) fn term(self, days: u32, uses: u32) -> String {
        match self {
            Self::Zh => format!("{days} 天，{uses} 次"),
            Self::En => format!("{}, {}", plural(days, "day"), plural(uses, "use")),
        }
    }

    pub(super) fn range(self, max: u32) -> String {
        match self {
            Self::Zh => format!("1 至 {max}"),
            Self::En => format!("1 to {max}"),
        }
    }

    pub(super) fn next_change(self, day: Option<Date>) -> String {
        match (self, day) {
            (Self::Zh, Some(day)) => format!("如果没有新的记录，它会在{}自己变化。", self.short_day(day)),
            (Self::En, Some(day)) => {
                format!("If nothing new arrives, it changes by itself on {}.", self.short_day(day))
            }
            (Self::Zh, None) => "如果没有新的记录，它不会变化。".into(),
            (Self::En, None) => "If nothing new arrives, it stays as it is.".into(),
        }
    }

    /// One change of the score, as a sentence.
    pub(super) fn changed(self, change: &ScoreChange) -> String {
        let none = self.pick("没有积分", "no score");
        let score = |score: Option<u16>| score.map_or_else(|| none.to_owned(), |score| score.to_string());
        let why = match (change.cause, change.from) {
            (Cause::Records, _) => self.pick("有新的或更正的记录", "records came, or were corrected"),
            (Cause::Register, _) => self.pick("人员登记有变化", "the register changed"),
            (Cause::Withdrawal, _) => self.pick("报送单位撤回了记录", "a provider withdrew a record"),
            (Cause::MarketConsent, _) => {
                self.pick("您改变了市场信息的同意", "you changed a consent to market information")
            }
            (Cause::Days, None) => self.pick("您已年满 18 周岁", "you came of age"),
            (Cause::Days, Some(_)) => self
                .pick("时间过去：有记录到期、生效或权重变化", "time passed: a record ended, began or weighs otherwise"),
            (Cause::Rules, _) => self.pick("目录或评分模型有变化", "the catalogue or the model changed"),
            (Cause::Restore, _) => self.pick(
                "系统从备份恢复，此前对市场信息的同意全部失效",
                "the gateway was restored from a backup, and your consents to market information ended with that",
            ),
        };
        let (day, from, to) = (self.short_day(change.on), score(change.from), score(change.to));
        match self {
            Self::Zh => format!("{day}：{from} → {to}。原因：{why}。"),
            Self::En => format!("{day}: {from} → {to}, because {why}."),
        }
    }

    pub(super) fn as_of(self, day: Date) -> String {
        match self {
            Self::Zh => format!("截至{}", self.day(day)),
            Self::En => format!("As of {}", self.day(day)),
        }
    }

    pub(super) fn limited_to(self, limit: i64) -> String {
        match self {
            Self::Zh => format!("有一条记录使积分最高为 {limit} 分。"),
            Self::En => format!("A record holds the score to {limit} at most."),
        }
    }

    pub(super) fn earn(self, indicator: &str, units: Option<(i64, &str)>, gain: i64) -> String {
        let gain = points(gain);
        match (self, units) {
            (Self::Zh, Some((n, unit))) => format!("再有“{indicator}”{n} {}：{gain} 分", unit_zh(unit)),
            (Self::Zh, None) => format!("再有一条“{indicator}”：{gain} 分"),
            (Self::En, Some((n, unit))) => {
                format!("{} more of “{indicator}”: {gain} points", plural(u32::try_from(n).unwrap_or(u32::MAX), unit))
            }
            (Self::En, None) => format!("One more record of “{indicator}”: {gain} points"),
        }
    }

    pub(super) fn outlast(self, indicator: &str, ends_on: Date, gain: i64) -> String {
        let (day, gain) = (self.short_day(ends_on), points(gain));
        match self {
            Self::Zh => format!("“{indicator}”从{day}起不再计入：{gain} 分"),
            Self::En => format!("“{indicator}” stops counting on {day}: {gain} points"),
        }
    }

    pub(super) fn records(self, count: usize) -> String {
        match self {
            Self::Zh => format!("{count} 条记录"),
            Self::En => plural(u32::try_from(count).unwrap_or(u32::MAX), "record"),
        }
    }

    /// The text of a bar from the middle, for whoever does not see it.
    pub(super) fn part_of(self, max_loss: i64, max_gain: i64) -> String {
        match (self, max_loss) {
            (Self::Zh, 0) => format!("最多 +{max_gain}"),
            (Self::En, 0) => format!("+{max_gain} at most"),
            (Self::Zh, _) => format!("可在 −{max_loss} 与 +{max_gain} 之间"),
            (Self::En, _) => format!("between −{max_loss} and +{max_gain}"),
        }
    }

    pub(super) fn unit(self, unit: &str) -> &str {
        self.pick(unit_zh(unit), unit)
    }

    pub(super) fn quantity(self, quantity: u32, unit: &str) -> String {
        match self {
            Self::Zh => format!("{quantity} {}", unit_zh(unit)),
            Self::En => plural(quantity, unit),
        }
    }

    /// By age: years and the weight that follows from them.
    pub(super) fn weighed(self, weight: i64) -> String {
        match self {
            Self::Zh => format!("按年限计 {weight}%"),
            Self::En => format!("{weight}% by its age"),
        }
    }

    pub(super) fn why(self, counting: Counting) -> &'static str {
        let w = self.words();
        match counting {
            Counting::Counts => w.why_counts,
            Counting::NotYet => w.why_not_yet,
            Counting::Ended => w.why_ended,
            Counting::IndicatorEnded => w.why_indicator_ended,
            Counting::Repaired => w.why_repaired,
            Counting::Withdrawn => w.why_withdrawn,
            Counting::Frozen => w.why_frozen,
            Counting::NotInModel => w.why_not_in_model,
            Counting::NotHighest => w.why_not_highest,
            Counting::NotLatest => w.why_not_latest,
        }
    }

    /// One entry of who asked, as a sentence.
    pub(super) fn asked(self, party: Option<&str>, benefit: Option<&str>) -> String {
        match (self, party) {
            (Self::Zh, Some(party)) => format!("{party}为“{}”询问，凭您的同意。", benefit.unwrap_or("—")),
            (Self::En, Some(party)) => format!("{party} asked for “{}”, by your consent.", benefit.unwrap_or("—")),
            (Self::Zh, None) => "工作人员凭案件查询了谁问过您。".into(),
            (Self::En, None) => "An officer with an open case looked up who asked about you.".into(),
        }
    }

    pub(super) fn valid_until(self, time: &str, seconds: i64) -> String {
        match self {
            Self::Zh => format!("{seconds} 秒内有效，到 {time} 为止"),
            Self::En => format!("Valid for {seconds} seconds, until {time}"),
        }
    }

    pub(super) fn entries_on(self, day: Date, count: u64) -> String {
        match self {
            Self::Zh => format!("{}：{count} 条", self.short_day(day)),
            Self::En => format!("{}: {count}", self.short_day(day)),
        }
    }

    pub(super) fn as_resident(self, n: usize) -> String {
        match self {
            Self::Zh => format!("居民{n}"),
            Self::En => format!("Resident {n}"),
        }
    }

    /// An age band.
    pub(super) fn ages(self, from: i16, to: Option<i16>) -> String {
        match (self, to) {
            (_, Some(to)) => format!("{from}–{to}"),
            (Self::Zh, None) => format!("{from} 岁及以上"),
            (Self::En, None) => format!("{from} and older"),
        }
    }

    /// Of whom a trial is.
    pub(super) fn tried(self, people: Option<u64>, on: Date) -> String {
        let people = people.map_or_else(|| "·".to_owned(), |people| people.to_string());
        match self {
            Self::Zh => format!("{}，约 {people} 人有积分。", self.short_day(on)),
            Self::En => format!("About {people} people with a score, on {}.", self.short_day(on)),
        }
    }

    pub(super) fn model_drafted(self, on: Date) -> String {
        match self {
            Self::Zh => format!("{}公布", self.short_day(on)),
            Self::En => format!("Made public on {}", self.short_day(on)),
        }
    }

    pub(super) fn model_comment(self, until: Date) -> String {
        match self {
            Self::Zh => format!("征求意见，{}零时截止", self.short_day(until)),
            Self::En => format!("Open for comment before {}", self.short_day(until)),
        }
    }

    /// What a draft still lacks before it can be published.
    pub(super) fn model_waits(self, open_until: Option<Date>, approvals: usize) -> String {
        let approved = match self {
            Self::Zh => format!("须两人批准，已有 {approvals} 人"),
            Self::En => format!("it needs two approvals and has {approvals}"),
        };
        match (self, open_until) {
            (Self::Zh, Some(until)) => format!("还不能发布：征求意见{}零时才截止；{approved}。", self.short_day(until)),
            (Self::Zh, None) => format!("还不能发布：{approved}。"),
            (Self::En, Some(until)) => {
                format!(
                    "It cannot be published yet: it is open for comment until {}, and {approved}.",
                    self.short_day(until)
                )
            }
            (Self::En, None) => format!("It cannot be published yet: {approved}."),
        }
    }

    pub(super) fn model_approved(self, officer: bool, who: Option<&str>, on: Date, time: &str) -> String {
        let role =
            if officer { self.pick("工作人员", "an officer") } else { self.pick("运维人员", "an operator") };
        let who = who.map_or_else(String::new, |who| format!(" {who}"));
        match self {
            Self::Zh => format!("{}{time} 由{role}{who}批准", self.short_day(on)),
            Self::En => format!("Approved by {role}{who} on {}, {time}", self.short_day(on)),
        }
    }

    pub(super) fn model_published(self, on: Date) -> String {
        match self {
            Self::Zh => format!("{}发布", self.short_day(on)),
            Self::En => format!("Published on {}", self.short_day(on)),
        }
    }

    pub(super) fn model_holds(self, from: Date, until: Option<Date>) -> String {
        match (self, until) {
            (Self::Zh, None) => format!("自{}起施行", self.short_day(from)),
            (Self::Zh, Some(until)) => format!("自{}起施行，至{}零时止", self.short_day(from), self.short_day(until)),
            (Self::En, None) => format!("Holds from {}", self.short_day(from)),
            (Self::En, Some(until)) => format!("Holds from {} until {}", self.short_day(from), self.short_day(until)),
        }
    }

    /// What bounds an indicator, each with the basis of that bound where the catalogue says one.
    pub(super) fn limits(self, indicator: &Indicator, name: impl Fn(&PartyId) -> String) -> Vec<String> {
        let with = |said: String, basis: &Option<String>| match basis {
            Some(basis) => format!("{said} ({basis})"),
            None => said,
        };
        let mut limits = Vec::new();
        if let Some(years) = indicator.valid_for_years_max {
            let said = match self {
                Self::Zh => format!("最长 {years} 年"),
                Self::En => format!("{years} years at most"),
            };
            limits.push(with(said, &indicator.valid_for_years_max_basis));
        }
        if let Some(day) = indicator.counts_until {
            let said = match self {
                Self::Zh => format!("自{}起不再计入", self.short_day(day)),
                Self::En => format!("does not count from {} on", self.short_day(day)),
            };
            limits.push(with(said, &indicator.counts_until_basis));
        }
        if !indicator.former_providers.is_empty() {
            let names: Vec<String> = indicator.former_providers.iter().map(name).collect();
            let said = match self {
                Self::Zh => format!("原报送单位：{}", names.join("、")),
                Self::En => format!("formerly reported by {}", names.join(", ")),
            };
            limits.push(with(said, &indicator.former_providers_basis));
        }
        limits
    }

    /// What an action is called.
    pub(super) fn action(self, action: &str) -> &str {
        match action {
            "ask" => self.pick("询问", "Ask"),
            "refuse" => self.pick("拒绝", "Refuse"),
            "report" => self.pick("报送", "Report"),
            "register" => self.pick("登记", "Register"),
            "withdraw" => self.pick("撤回记录", "Withdraw a record"),
            "read-sent" => self.pick("查阅报送", "Read what was sent"),
            "consent" => self.pick("给出同意", "Consent"),
            "revoke" => self.pick("收回同意", "Revoke"),
            "market-consent" => self.pick("同意报送市场信息", "Consent to market information"),
            "market-withdrawal" => self.pick("收回市场信息同意", "Take back consent to market information"),
            "make-code" => self.pick("生成一次性码", "Make a code"),
            "open-case" => self.pick("立案", "Open a case"),
            "confirm-case" => self.pick("确认案件", "Confirm a case"),
            "look-up" => self.pick("按案件查询", "Look up"),
            "policy" => self.pick("载入规则", "Load policies"),
            "model" => self.pick("发布模型", "Publish a model"),
            "try-model" => self.pick("试算模型", "Try a model"),
            "draft-model" => self.pick("模型征求意见", "Draft a model"),
            "approve-model" => self.pick("批准模型", "Approve a model"),
            "restore" => self.pick("从备份恢复", "Restore from a backup"),
            "sweep" => self.pick("按日更新", "Days passed"),
            "rotate" => self.pick("更换密钥", "Rotate keys"),
            other => other,
        }
    }

    /// Why something was refused, and what to do.
    pub(super) fn refusal(self, refusal: &Refusal) -> String {
        let plain = |zh: &str, en: &str| self.pick(zh, en).to_owned();
        match refusal {
            Refusal::UnknownScenario => plain(
                "没有这项优惠，或者它不向您开放。请从列表里选。",
                "There is no such benefit, or none that is open to you. Choose one from the list.",
            ),
            Refusal::ConsentNotRecognised => self.words().counter_not_recognised.to_owned(),
            Refusal::NotPermitted => plain("规则不允许这样做。", "No rule lets you do this."),
            Refusal::ReplayedSignature => plain("这次提交已经收到过。", "This was sent before."),
            Refusal::ClockStepped(_) => plain(
                "系统的时钟需要校准，暂时不办理。请稍后再试。",
                "The system's clock has to be set right first. Please try again later.",
            ),
            Refusal::OutOfRange { field, .. } => match self {
                Self::Zh => format!("“{field}”填得不对，请检查后再填。"),
                Self::En => format!("“{field}” is not right; check it and fill it in again."),
            },
            Refusal::BeyondLimits { field, max, .. } => match (self, *field) {
                (Self::Zh, "days") => format!("天数要在 1 至 {max} 之间。"),
                (Self::Zh, _) => format!("次数要在 1 至 {max} 之间。"),
                (Self::En, field) => format!("The number of {field} must be from 1 to {max}."),
            },
            Refusal::PartyRequired(_) => plain("请选择出示给谁。", "Choose to whom it is shown."),
            Refusal::UnknownParty(_) => {
                plain("这个单位不参加这项优惠。", "This party does not take part in this benefit.")
            }
            Refusal::NotFound => plain("这里没有您要找的。", "What you look for is not here."),
            Refusal::ConsentOver => plain(
                "这份同意已经结束，不能再生成码。需要的话，请重新给出同意。",
                "This consent is over, so no code can be made. Give a new one if you want to.",
            ),
            Refusal::AfterRestore(_) => plain(
                "系统今天刚从备份恢复，明天起可以重新给出同意。",
                "The gateway was restored from a backup today. You can give your consent anew from tomorrow on.",
            ),
            Refusal::CaseNotOpen => {
                plain("案件还没有由另一位工作人员确认。", "Another officer has not confirmed this case yet.")
            }
            Refusal::CaseOwn => {
                plain("自己立的案要由另一位工作人员确认。", "Your own case is confirmed by another officer.")
            }
            Refusal::ModelMistakes(mistakes) => match self {
                Self::Zh => format!("模型文件有错：\n{mistakes}"),
                Self::En => format!("The model's file has mistakes:\n{mistakes}"),
            },
            Refusal::ModelChanged(id) => match self {
                Self::Zh => format!("编号 {id} 已用于另一份文件。发布过的模型不再改动，请给新模型另取编号。"),
                Self::En => format!(
                    "The id {id} stands for another file. A published model never changes; give this one its own id."
                ),
            },
            Refusal::ModelInComment(until) => match self {
                Self::Zh => format!("征求意见到{}为止，那天起才能发布。", self.short_day(*until)),
                Self::En => format!("It is open for comment, and can be published from {} on.", self.short_day(*until)),
            },
            Refusal::ModelNotApproved(missing) => match self {
                Self::Zh => format!("还差 {missing} 位工作人员批准。"),
                Self::En => format!("{missing} more must approve it first."),
            },
            Refusal::ModelApproved(_) => plain(
                "您已经批准过这份草案，每人只算一次。还需要另一位工作人员批准。",
                "You approved this draft before; one person counts once. Somebody else must approve it too.",
            ),
            Refusal::ModelPublished(from) => match self {
                Self::Zh => format!("这个模型已经发布，自{}起施行，不能再改。", self.short_day(*from)),
                Self::En => {
                    format!("This model is published and holds from {}; that cannot change.", self.short_day(*from))
                }
            },
            Refusal::BadPage(_) => {
                plain("列表里没有这一页。请从头看起。", "The list has no such page. Start from its top.")
            }
            Refusal::Busy => {
                plain("同时办理的太多，没有办成。请再试一次。", "Too much at once; nothing was done. Please try again.")
            }
        }
    }
}

fn plural(count: u32, unit: &str) -> String {
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

/// The units that catalogues use, in Chinese; another is shown as it is written.
fn unit_zh(unit: &str) -> &str {
    match unit {
        "month" => "个月",
        "violation" | "time" | "donation" => "次",
        "hour" => "小时",
        "day" => "天",
        "year" => "年",
        other => other,
    }
}

/// Hundredths as points with their sign: `+12.5`, `−30`, `0`.
pub(super) fn points(hundredths: i64) -> String {
    let sign = match hundredths {
        0 => "",
        1.. => "+",
        _ => "−",
    };
    let (whole, rest) = (hundredths.unsigned_abs() / 100, hundredths.unsigned_abs() % 100);
    match (rest, rest % 10) {
        (0, _) => format!("{sign}{whole}"),
        (_, 0) => format!("{sign}{whole}.{}", rest / 10),
        _ => format!("{sign}{whole}.{rest:02}"),
    }
}

/// The time of day in Shanghai.
pub(super) fn time(at: Timestamp) -> String {
    let at = Offset::constant(8).to_datetime(at);
    format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_carry_their_sign() {
        let cases = [(0, "0"), (1_250, "+12.5"), (-3_000, "−30"), (1_205, "+12.05"), (-7, "−0.07"), (100, "+1")];
        for (hundredths, said) in cases {
            assert_eq!(points(hundredths), said);
        }
    }

    #[test]
    fn days_read_as_the_city_writes_them() {
        let day = jiff::civil::date(2026, 11, 25);
        assert_eq!(Lang::Zh.day(day), "2026年11月25日 (周三)");
        assert_eq!(Lang::En.day(day), "25 Nov 2026");
        assert_eq!(time("2026-11-24T16:04:05Z".parse().unwrap()), "00:04:05");
    }
}
