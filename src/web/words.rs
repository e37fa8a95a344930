//! The words of the pages, in both languages. One table, so that neither language can lack one.
//!
//! Both are written, not translated word by word. Sentences with something in them are in `say`.

/// The languages of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lang {
    /// Chinese, the city's own.
    Zh,
    /// English.
    En,
}

impl Lang {
    #[cfg(test)]
    pub(super) const ALL: [Self; 2] = [Self::Zh, Self::En];

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "zh" => Some(Self::Zh),
            "en" => Some(Self::En),
            _ => None,
        }
    }

    /// The code of `?lang=` and of the cookie.
    pub(super) fn code(self) -> &'static str {
        self.pick("zh", "en")
    }

    /// The `lang` attribute.
    pub(super) fn tag(self) -> &'static str {
        self.pick("zh-Hans", "en")
    }

    pub(super) fn pick<'a>(self, zh: &'a str, en: &'a str) -> &'a str {
        match self {
            Self::Zh => zh,
            Self::En => en,
        }
    }

    pub(super) fn words(self) -> &'static Words {
        match self {
            Self::Zh => &ZH,
            Self::En => &EN,
        }
    }
}

macro_rules! words {
    ($($name:ident: $zh:literal, $en:literal;)*) => {
        pub(super) struct Words { $(pub(super) $name: &'static str,)* }
        static ZH: Words = Words { $($name: $zh,)* };
        static EN: Words = Words { $($name: $en,)* };
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str, &str)] = &[$((stringify!($name), $zh, $en),)*];
    };
}

words! {
    // every page
    skip: "跳到正文", "Skip to the content";
    language: "语言", "Language";
    menu: "栏目", "Sections";
    log_out: "退出", "Log out";
    demo_banner: "演示：这里没有真实的人。", "A demo: nobody here is real.";
    foot: "可用不可见：对方得到答复，得不到分数。", "Usable but invisible: others get an answer, never the score.";
    verify_log: "公开日志", "Public log";
    back: "返回", "Back";
    older: "更早的", "Older";

    // sections
    nav_score: "我的积分", "Score";
    nav_answers: "可享受的", "Benefits";
    nav_consents: "我的同意", "Consents";
    nav_market: "市场信息", "Market";
    nav_accesses: "谁问过", "Who asked";
    nav_log: "访问日志", "Access log";
    nav_cases: "案件", "Cases";
    nav_city: "规则", "Rules";
    nav_counter: "柜台", "Counter";
    nav_report: "报送", "Reporting";
    nav_scenarios: "用在哪里", "Where it is used";
    nav_catalogue: "指标目录", "Catalogue";
    nav_models: "评分模型", "Models";

    // who can see this
    only_you: "仅您本人可见", "Only you see this";
    person_sees_look_up: "本人会看到这次查询", "The person will see this look-up";
    tried_sees: "仅您可见；公开日志只记下试算过", "Only you see this; the log says no more than that a model was tried";
    public_sees: "公开内容，不涉及任何个人", "This is public; it is about nobody";
    officer_sees: "仅工作人员可见：没有答复结果，没有分数，没有姓名", "Officers see this: no outcome, no score, no names";
    counter_sees: "您只会看到：可享受，或不适用", "You see: applies, or no benefit. Nothing else";

    // home
    home_title: "诚信积分，可用不可见", "An integrity score that is used and not seen";
    home_lead: "图书馆想知道能不能免押金借书给您，不需要知道您的分数。这里替您回答：是，或者不说。",
               "A library that wants to lend you books without a deposit does not need to know your score. Here it gets its answer: yes, or nothing.";
    home_how_1: "您同意，才有人能问。同意随时可以收回。", "Nobody can ask unless you consented. You can take a consent back at any time.";
    home_how_2: "对方得到一个答复，得不到分数、姓名和证件号码。", "Whoever asks gets one answer; no score, no name, no identity number.";
    home_how_3: "谁在什么时候为了什么问过，您都看得到，而且改不掉。", "You see who asked, when and for what, and nobody can alter that.";
    home_incentive: "积分只用来给好处。公共服务和法定权利，人人照常享有。", "The score only ever gives benefits. Public services and legal rights are everybody's, as usual.";
    home_log_in: "登录", "Log in";
    home_log_in_city: "请从本市的政务应用登录。", "Log in through your city's app.";
    home_demo_choose: "以这座虚构城市里的一位登录看看：", "Look around as somebody of this made-up city:";
    home_demo_as: "证件号码、工作人员账号或单位代码", "Identity number, staff login or party id";
    home_demo_hint: "演示文件夹里的 demo.json 列出了全部。", "demo.json in the demo's folder lists all of them.";
    home_demo_unknown: "演示里没有这一位。请照 demo.json 里的写法再填一次。", "Nobody of this name is in the demo. Write it as demo.json has it.";
    home_you_are_in: "您已登录。", "You are logged in.";
    home_go_on: "继续", "Go on";

    // score
    score_title: "我的积分", "My score";
    score_none: "没有积分", "No score";
    score_none_under_age: "未满 18 周岁，不评分。这不影响您的任何权利。", "Nobody under 18 is scored. This takes nothing from you.";
    score_none_not_resident: "积分只评本市常住居民。登记有误的，请到公安机关更正。",
        "Only residents of the city are scored. If the register is wrong, the public security bureau corrects it.";
    score_none_no_capacity: "不具有完全民事行为能力的，不评分。这不影响您的任何权利。",
        "Whoever does not have full legal capacity is not scored. This takes nothing from you.";
    score_none_consent: "没有积分也可以给出同意，对方分辨不出。", "You can give consents all the same; nobody can tell the difference.";
    score_follows: "积分随记录即时变化；当天第一次答复之后，给别人的答复从次日起跟上。",
        "The score follows records at once; after the day's first answer, answers to others follow by the next day.";
    score_held_floor: "总和低于下限，按下限计。", "The sum lies below the lowest score, which holds.";
    score_held_ceiling: "总和高于上限，按上限计。", "The sum lies above the highest score, which holds.";
    raise_title: "怎样会变化", "What would change it";
    raise_none: "目前没有什么会再提高它。", "Nothing would raise it further now.";
    changes_title: "最近的变化", "What changed lately";
    made_title: "由什么组成", "What it is made of";
    made_base: "每人的起点", "Where everybody starts";
    made_none: "没有计入的记录。", "No records count here.";
    made_other: "不计分的记录", "Records that do not count";
    made_model: "评分模型", "Model";
    dial_cuts: "弧线从 0 到 1000，短线是本市的分档", "The arc runs from 0 to 1,000; the ticks are the city's cuts";
    col_day: "日期", "Day";
    col_from: "报送单位", "Reported by";
    col_until: "计到", "Counts until";
    held_gain: "已达这一项的加分上限", "At the most that this part may add";
    held_loss: "已达这一项的减分上限", "At the most that this part may take";
    why_counts: "计入", "Counts";
    why_not_yet: "日期未到", "Not yet";
    why_ended: "有效期已过", "Its time is over";
    why_indicator_ended: "本市已停用这一指标", "The city ended this kind of record";
    why_repaired: "已信用修复", "Repaired";
    why_withdrawn: "已撤回", "Withdrawn";
    why_frozen: "异议处理中，暂不计入", "Set aside while an objection is open";
    why_not_in_model: "现行模型不计这一指标", "The model does not count this kind of record";
    why_not_highest: "同类只计最高的一条", "Only the highest of its kind counts";
    why_not_latest: "同类只计最近的一条", "Only the latest of its kind counts";
    export_title: "带走我的数据", "Take my data with me";
    export_lead: "登记、记录、同意、目录和模型，一份文件。用它可以自己重算积分。",
        "Register, records, consents, catalogue and model in one file. With it you can work the score out yourself.";
    export_link: "下载（JSON）", "Download (JSON)";
    objection: "记录有误的，您有权提出异议（第二十二条）。请向报送单位或信用主管部门提出。",
        "If a record is wrong, you have the right to object (Article 22): to whoever reported it, or to the credit office.";

    // answers
    answers_title: "可享受的", "Benefits";
    answers_lead: "如果今天出示，对方会得到的答复。看一看不会告诉任何人，也不会固定任何东西。",
        "What the answer would be if you showed it today. Looking tells nobody and fixes nothing.";
    col_benefit: "优惠", "Benefit";
    answer_met: "可享受", "Applies";
    answer_withheld: "不适用", "No benefit";
    answer_fixed: "今天的答复已经固定，到午夜为止。", "Today's answers are fixed until midnight.";
    answer_open: "在有人问之前，今天的答复还可能变化。", "It may still change today until somebody asks.";
    show: "出示", "Show";
    basic_service: "服务本身人人照常享有", "The service itself is everybody's, as usual";

    // consents
    consents_title: "我的同意", "My consents";
    consents_none: "您还没有给出过同意。没有您的同意，谁也问不到。", "You have given no consent yet. Without one, nobody can ask.";
    consents_new: "去出示", "Show something";
    state_stands: "有效", "Stands";
    state_revoked: "已收回", "Taken back";
    state_restored: "系统从备份恢复后已失效，请重新同意", "Ended: the gateway was restored from a backup; give it anew";
    state_ended: "已到期", "Over";
    state_used_up: "次数已用完", "Used up";
    col_made: "给出", "Given";
    col_ends: "到期", "Ends";
    col_uses: "剩余次数", "Uses left";
    revoke: "收回", "Take back";
    make_code: "生成一次性码", "Make a code";
    your_choice: "您的选择", "Your choice";
    choice_show: "同意", "Consent";
    choice_decline: "不出示", "Do not show";
    choice_seen: "只有您在这里看得到", "Seen here, by you only";

    // give a consent
    give_title: "要出示吗", "Show it?";
    give_choose_party: "出示给谁", "Show it to whom?";
    give_who: "谁来问", "Who asks";
    give_get: "您得到", "You get";
    give_learn: "对方会知道", "They learn";
    give_long: "多久、几次", "How often";
    give_today: "今天的答复", "Today";
    give_yes: "同意", "Consent";
    give_no: "不出示", "Do not show";
    give_same: "选“不出示”也会得到凭证和一次性码，谁也分辨不出。", "Not showing makes a token and codes too; nobody can tell the difference.";
    give_nothing_else: "不适用时，对方不知道为什么。", "Where there is no benefit, they do not learn why.";
    give_links: "对方看得出这几次是同一份凭证。", "They can see that these uses are of one token.";
    give_pseudonym: "每人一份的优惠：对方另得到一个只在这里用的代号，好知道您来过。",
        "A benefit of one a person: they also get a pseudonym, used here only, to know that you came before.";
    give_change: "改期限和次数", "Change how long and how often";
    give_days: "天数", "Days";
    give_uses: "次数", "Uses";

    // given
    given_title: "凭证已生成", "The token is made";
    given_lead: "凭证只显示这一次。在柜台请用一次性码；网上办理时，把凭证交给对方。",
        "The token is shown this once. At a counter use a code; online, give the token to whoever asks.";
    given_token: "凭证", "Token";
    given_list: "查看我的同意", "See my consents";

    // code
    code_title: "一次性码", "One-time code";
    code_for: "给对方扫，或者念给对方听。用一次就失效。", "Let them scan it, or read it to them. It works once.";
    code_alt: "一次性码的二维码", "The code as a QR code";
    code_over: "这个码已过期。", "This code is over.";
    code_again: "再生成一个", "Make another";

    // market information
    market_title: "市场信息", "Market information";
    market_sees: "仅您本人可见；报送单位会知道您是否同意它报送", "Only you see this; a provider learns whether you let it report";
    market_lead: "企业、协会等的市场信用信息，要经您同意才能计入积分（第八条）。同意可以随时收回，收回后，凭它报送的记录立即不再计入。",
        "Information from businesses and associations counts only with your consent (Article 8). Take a consent back at any time, and the records that rest on it stop counting at once.";
    market_none: "您没有同意任何单位报送市场信息。", "You let nobody report market information about you.";
    market_given: "在这里同意", "Given here";
    market_paper: "纸质授权，由报送单位保管并负责", "On paper: the provider keeps it and answers for it";
    market_reference: "纸质授权编号", "Number of the form";
    market_id: "授权编号", "Number to give the provider";
    market_what: "哪些信息", "Which information";
    market_records: "凭它报送的", "Resting on it";
    market_new: "同意一个单位报送", "Let a provider report";
    market_new_lead: "同意以后，把授权编号告诉该单位。不同意，不影响您的任何权利。",
        "Then give the provider the number. Not consenting takes nothing from you.";

    // who asked
    accesses_title: "谁问过", "Who asked";
    accesses_lead: "每一次询问都先写进日志，才有答复。", "Every question is written to the log before it is answered.";
    accesses_none: "还没有人问过。", "Nobody has asked yet.";
    look_up_mark: "查询", "Look-up";
    proof: "日志证明", "Proof";
    proof_says: "证明文件说明这一条在公开日志里，没有被改动或删除；用 jadegate log verify 可以核对整个日志。",
        "A proof shows that this entry is in the public log, unaltered; jadegate log verify checks the whole log.";

    // officer
    log_title: "访问日志", "Access log";
    log_none: "没有符合条件的条目。", "No entries fit.";
    log_caption: "日志条目，新的在前", "Log entries, newest first";
    log_counts: "每天的条目数", "Entries a day";
    log_counts_table: "按天、单位、场景和操作的次数", "Counts by day, party, scenario and action";
    log_truncated: "更早的条目没有计入。", "Earlier entries are not counted.";
    filter: "筛选", "Filter";
    filter_all: "全部", "All";
    filter_apply: "查看", "Show";
    filter_party: "单位", "Party";
    filter_scenario: "场景", "Scenario";
    filter_action: "操作", "Action";
    filter_from: "从", "From";
    filter_to: "到（含）", "To, inclusive";
    col_id: "条目", "Entry";
    col_at: "时间", "Time";
    col_party: "单位", "Party";
    col_scenario: "场景", "Scenario";
    col_action: "操作", "Action";
    col_rule: "规则", "Rule";
    col_count: "次数", "Count";
    case_title: "案件", "Cases";
    case_lead: "按人查询要先立案，再由另一位工作人员确认。查询本身记入日志，本人看得到。",
        "To look up by person, one officer opens a case and another confirms it. The look-up is logged, and the person sees it.";
    case_open: "立案", "Open a case";
    case_reason: "事由", "Reason";
    case_kind: "证件类型", "Kind of document";
    case_resident: "居民身份证", "Resident identity card";
    case_passport: "护照", "Passport";
    case_number: "证件号码", "Document number";
    case_bad_number: "证件号码不对：请检查位数、日期和校验位。", "This number is not right: check its length, date and check digit.";
    case_opened: "案件已立", "The case is opened";
    case_opened_lead: "请把编号交给另一位工作人员确认。", "Give this number to another officer to confirm.";
    case_id: "案件编号", "Case number";
    case_confirm: "确认别人的案件", "Confirm another officer's case";
    case_confirm_button: "确认", "Confirm";
    case_confirmed: "案件已确认，可以查询。", "The case is confirmed and can be looked up.";
    case_look_up: "按案件查询", "Look up by case";
    case_look_up_button: "查询并记入日志", "Look up, and log it";
    case_result: "案件查询结果", "What the case's look-up found";

    // operator
    city_title: "现行规则", "The rules in force";
    city_lead: "今天有效的规则。评分模型在“评分模型”一页试算、征求意见和发布。",
        "The rules of today. Models are tried, drafted and published on the page of models.";
    city_policies: "规则摘要", "Policies' digest";
    city_model: "评分模型", "Model";
    city_grades: "等级", "Grades";
    city_cuts: "分档", "Cuts";
    city_floor: "答复时间", "Time to answer";
    city_catalogue: "指标目录", "Catalogue";
    city_scenarios: "今天的场景", "Today's scenarios";
    col_code: "代码", "Code";
    col_name: "名称", "Name";
    col_years: "有效期（年）", "Years";
    col_limits: "期限与变更", "Ends and changes";
    col_providers: "报送单位", "Providers";
    col_unit: "计量", "Unit";
    col_basis: "依据", "Legal basis";

    // models
    models_title: "评分模型", "Models";
    models_lead: "怎样算分，全部公开：征求意见的草案、现行的、以前的。发布过的模型一个字节也不再改动。",
        "How scores come about is public: drafts open for comment, the model in force, and those before it. Not a byte of a published model changes.";
    model_comment: "征求意见", "open for comment";
    model_draft: "待批准或发布", "waiting for approval or publication";
    model_scheduled: "已发布，尚未施行", "published, not yet in force";
    model_in_force: "现行", "in force";
    model_past: "已停用", "no longer in force";
    model_text: "原文", "Its text";
    model_impact: "等级会怎样变化", "How grades would move";
    model_try: "试算一个模型", "Try a model";
    model_try_lead: "按它给每个人重算，不改变任何东西，只记入日志。征求意见会公开文件和结果。",
        "Everybody is scored under it; nothing changes, and the log says that it was done. A draft makes the file and the result public.";
    model_file: "模型文件（TOML）", "The model's file (TOML)";
    model_try_button: "试算", "Try";
    model_draft_button: "公开征求意见", "Publish for comment";
    model_tried: "试算结果", "What it would do";
    model_hidden: "取整到十。“·”是十人以下，或者会透露十人以下的数。", "Rounded to tens. A dot is a count under ten, or one that would give such a count away.";
    model_grades: "等级：现行（行）到试算（列）", "Grades: now (rows) to tried (columns)";
    model_now: "现行等级", "Grade now";
    model_all: "合计", "All";
    model_ages: "按年龄", "By age";
    model_age: "年龄", "Age";
    model_up: "升级", "Higher grade";
    model_same: "不变", "The same";
    model_down: "降级", "Lower grade";
    model_dimensions: "按维度", "By dimension";
    model_dimension: "维度", "Dimension";
    model_more: "加分多了", "More points";
    model_fewer: "加分少了", "Fewer points";
    model_approve_button: "批准", "Approve";
    model_from: "施行日期", "First day";
    model_publish_button: "发布", "Publish";

    // catalogue
    catalogue_lead: "只有目录里的信息可以归集：由谁报送，计多少年，依据哪条法律。",
        "Only what is listed here may be collected: by whom, for how many years, and by which law.";

    // counter
    counter_title: "柜台", "Counter";
    counter_scenario: "哪一项优惠", "Which benefit";
    counter_code: "一次性码", "Code";
    counter_hint: "扫码，或输入 12 位码后按回车", "Scan it, or type its 12 characters and press Enter";
    counter_ask: "询问", "Ask";
    counter_next: "下一位", "Next";
    counter_none: "本单位今天没有可以询问的优惠。", "There is no benefit for which you may ask today.";
    counter_grade: "等级", "Grade";
    counter_no_grade: "无", "none";
    counter_time: "时间", "Time";
    counter_not_recognised: "这不是为本单位的这项优惠生成的码。请对方重新生成一个。",
        "This code was not made for you and this benefit. Ask for a new one.";
    counter_too_many: "一分钟内错码太多。请等一分钟再试。", "Too many wrong codes within a minute. Wait a minute.";
    counter_empty: "请输入一次性码。", "Enter a code.";

    // provider
    report_title: "报送", "Reporting";
    report_lead: "本单位可以报送目录里的这些信息：", "You may report these kinds of information of the catalogue:";
    report_none: "目录没有让本单位报送任何信息。", "The catalogue lets you report nothing.";
    report_caption: "可以报送的指标", "Indicators that you may report";
    report_how: "怎样报送", "How to report";
    report_how_lead: "每行一条记录（NDJSON），用本单位的客户端证书：", "One record a line (NDJSON), with your client certificate:";
    report_register: "登记信息送到：", "Lines of the register go to:";
    report_result: "回执逐行说明：采纳、未变、替换或退回，退回的有代码和原因。",
        "The answer says of each line whether it was accepted, unchanged, replaced or refused, with a code and a reason.";

    report_receipts: "回执、清单和撤回", "Receipts, your list, withdrawals";
    report_receipts_lead: "答复里的 batches 是各批的编号，receipts 是每批签名的回执和日志证明，请与报送的文件一起保存；撤回的记录不再计入，本人看得到原因。",
        "The answer names the batches, and holds the signed receipt of each with its log proof: keep them with what you sent. A withdrawn record counts no more, and the person sees why.";

    // scenarios
    scenarios_title: "用在哪里", "Where it is used";
    scenarios_lead: "只有这些地方可以问，只能问这一句。", "Only these may ask, and only this question.";
    col_question: "问什么", "Question";

    // what went wrong
    wrong_log_in: "请先登录", "Please log in";
    wrong_log_in_say: "这一页要登录后才能看。登录可能已经过期。", "This page needs a log-in. Yours may have ended.";
    wrong_role: "这一页不是给您的", "This page is not for you";
    wrong_role_say: "您登录的身份看不到这一页。", "What you logged in as does not see this page.";
    wrong_origin: "没有执行", "Not done";
    wrong_origin_say: "这次提交不是从本站的页面发出的，所以没有执行。请回到本站再操作一次。",
        "This was not sent from a page of this site, so nothing was done. Go back to this site and do it there.";
    wrong_form: "看不懂这次提交", "This form cannot be read";
    wrong_form_say: "表单不完整或太大。请返回重填。", "The form is incomplete or too large. Go back and fill it in again.";
    wrong_refused: "没有办成", "Not done";
    wrong_fault: "系统出错", "Something is wrong here";
    wrong_fault_say: "问题在我们这里，不在您。什么都没有改变；请稍后再试。",
        "The fault is ours, not yours. Please try again later.";
    wrong_too_many: "请求太多。请稍等再试。", "Too many requests. Wait a moment and try again.";
    wrong_incident: "事件编号", "Incident";
    wrong_gone: "没有这一页", "There is no such page";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_there_in_both_languages() {
        for (name, zh, en) in ALL {
            assert!(zh.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{name} has no Chinese");
            assert!(en.is_ascii() && en.chars().any(|c| c.is_ascii_alphabetic()), "{name} has no English");
            assert!(!zh.contains(['!', '！', '亲']) && !en.contains('!'), "{name} shouts");
        }
    }
}
