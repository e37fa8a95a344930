//! The story: one answer from report to log, told while it happens.
//!
//! Chinese first, then English, two lines a step. It names parties and scenarios, and never a person: whoever watches the
//! terminal learns what a merchant learns. The resident of the story is excellent and keeps away from the first two of the
//! city, and the first scenario of the list is not asked about, so that scripts find those untouched.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::access_log::checkpoint::VerifierKey;
use crate::access_log::proof::Proof;
use crate::attestation::jwks::Jwks;
use crate::attestation::{Expected, LEEWAY_S, verify};
use crate::cli::demo::bulk::FILE;
use crate::cli::demo::calls::{By, Held, body, find_in_log, nonce, public, read, text};
use crate::cli::demo::{Stage, replace};
use crate::cli::{Failure, init, say};
use crate::client::Client;
use crate::clock::Clock;
use crate::config::StaffRole;
use crate::entropy::Entropy;
use crate::model::Grade;
use crate::party::{Party, PartyRole};
use crate::scenario::{Question, Scenario};
use crate::text::Bilingual;
use crate::trial::Impact;

/// Where to look first for a resident whom every scenario of the story fits.
const EXCELLENT: [usize; 4] = [2, 9, 16, 24];
/// How many residents are tried.
const TRIES_MAX: usize = 60;

/// Somebody who asks, and for what.
#[derive(Clone, Copy)]
struct Asker<'s> {
    party: &'s Party,
    scenario: &'s Scenario,
}

/// Walks the whole story and leaves what a visitor can try next in the folder `try`.
pub(super) async fn tell_all(
    stage: &Stage,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    began: Duration,
) -> Result<(), Failure> {
    let bulk = (Arc::clone(clock), Arc::clone(entropy));
    let (clock, entropy) = (clock.as_ref(), entropy.as_ref());
    let mut web = stage.web()?;
    let (first, second, office) = stage.askers(&mut web).await?;
    let city = &stage.set.city.name;
    say(&format!(
        "玉溪分演示 · {}，合成城市，没有一个真人  /  {}: a synthetic city, nobody in it is real",
        city.zh, city.en
    ));
    say(
        "可用不可见：问的人只得到“是”，得不到分数、姓名、证件号  /  usable but invisible: they learn “yes” and nothing else",
    );
    say("");

    let people = stage.send_register().await?;
    let (zh, en) = if stage.sent { ("（上次已办）", " (done last time)") } else { ("", "") };
    let n = grouped(people);
    step(
        1,
        "登记",
        &format!("登记机关经双向 TLS 登记 {n} 人{zh}。"),
        &format!("The registrar registers {n} people over mutual TLS{en}."),
    );
    let sent = stage.send_records().await?;
    let (n, records) = (sent.providers, grouped(sent.records));
    step(
        2,
        "报送",
        &format!("{n} 家单位各凭证书报送 {records} 条记录{zh}，调用返回时即计入积分。"),
        &format!("{n} providers report {records} records{en}; each is in the score before its call returns."),
    );

    let done = stage.import_file(bulk).await?;
    let (taken, refused, receipts) = (done.taken, done.refused, done.receipts);
    step(
        3,
        "导入",
        &format!(
            "经办人导入一份 GB18030 的 CSV：接收 {taken} 行，退回 {refused} 行，原因在 {FILE}.rejects.ndjson；回执 {receipts} 份，双方都赖不掉。"
        ),
        &format!(
            "A clerk imports a CSV in GB18030: {taken} rows taken, {refused} refused, named with line and reason; {receipts} receipt proves what was sent."
        ),
    );

    let mut me = stage.resident([first, second, office]).await?;
    let score = read(&mut me, "/v1/me/score").await?;
    let (points, grade) = (score.get("score").and_then(Value::as_u64).unwrap_or(0), stage.grade(&score));
    step(
        4,
        "查分",
        &format!("一位居民登录，看到 {points} 分（{}）、由来和何时会变。只有本人看得到。", grade.zh),
        &format!("A resident logs in and sees {points} points ({}), why, and until when. Only they see it.", grade.en),
    );

    let token = stage.consent(&mut me, &first.scenario.id, &first.party.id, json!({})).await?;
    step(
        5,
        "授权",
        &format!("先看答案再决定：同意{}为“{}”询问。", first.party.name.zh, first.scenario.title.zh),
        &format!("They see the answer first, then let {} ask for “{}”.", first.party.name.en, first.scenario.title.en),
    );
    let now = (clock, entropy);
    let held = stage.ask(&first.party.id, &first.scenario.id, &token, By::Certificate, now).await?;
    let (attestation, proof) = met(&held, first)?;
    stage.learned(6, first, "凭证书", "by certificate");

    let token = stage.consent(&mut me, &second.scenario.id, &second.party.id, json!({})).await?;
    met(&stage.ask(&second.party.id, &second.scenario.id, &token, By::Signature, now).await?, second)?;
    stage.learned(7, second, "凭签名", "by RFC 9421 signature");

    let token = stage.consent(&mut me, &office.scenario.id, &office.party.id, json!({})).await?;
    met(&stage.ask(&office.party.id, &office.scenario.id, &token, By::Certificate, now).await?, office)?;
    stage.learned(8, office, "凭证书", "by certificate");

    let token = stage.consent(&mut me, &second.scenario.id, &second.party.id, json!({"decline": true})).await?;
    let declined = stage.ask(&second.party.id, &second.scenario.id, &token, By::Signature, now).await?;
    if declined.met.is_some() || declined.bytes != held.bytes {
        return Err(Failure::Failed("a declined consent was answered in a way that shows".into()));
    }
    let bytes = grouped(declined.bytes);
    step(
        9,
        "不出示",
        &format!("居民也可不出示：与分数不够、撤回、过期逐字节相同，和“是”一样长（{bytes} 字节）。"),
        &format!("The resident may decline: byte for byte like a low score, and as long as a “yes” ({bytes})."),
    );

    let evidence = Evidence {
        jwks: public(&mut web, "/.well-known/jwks.json").await?,
        log_key: public(&mut web, "/log/key").await?,
        attestation,
        proof,
        nonce: held.nonce,
    };
    let (proof, key) = evidence.verify(first, clock)?;
    step(
        10,
        "验证",
        "商户离线核对：签名、收件方、随机数、日期，全部成立。",
        "The merchant verifies offline: signature, audience, nonce and day all hold.",
    );
    let size = find_in_log(&mut web, &key, &proof).await?;
    step(
        11,
        "日志",
        &format!("这次回答在公开日志的第 {} 位（长 {size}），商户凭证明可查；旁人什么也读不出。", proof.index),
        &format!(
            "It is entry {} in the public log of {size}: the merchant can prove it, and nobody else can read it.",
            proof.index
        ),
    );

    let accesses = read(&mut me, "/v1/me/accesses").await?;
    let asks = accesses
        .as_array()
        .map_or(0, |list| list.iter().filter(|a| a.get("action").and_then(Value::as_str) == Some("ask")).count());
    step(
        12,
        "知情",
        &format!("居民看到 {asks} 次询问：谁、何时、为哪项优惠，各附证明。"),
        &format!("The resident sees {asks} questions: who, when, for which benefit, each with its proof."),
    );
    stage.officer_looks().await?;
    step(
        13,
        "监督",
        "监督员看到谁问、何时、凭哪条规则；看不到问的是谁、答了什么。",
        "The officer sees who asked, when, by which rule; not about whom, nor the answer.",
    );

    let tried = stage.operator_tries().await?;
    let of = |count: Option<u64>| count.map_or_else(|| "·".to_owned(), |count| count.to_string());
    let (up, same, down) = (of(tried.ways.up), of(tried.ways.same), of(tried.ways.down));
    step(
        14,
        "试算",
        &format!(
            "运维人员试算起点低 20 分的模型：升级 {up} 人，不变 {same}，降级 {down}。取整到十，十人以下的不显示（·）。"
        ),
        &format!(
            "The operator tries a model that begins 20 points lower: {up} up, {same} the same, {down} down. Tens; under ten is a dot."
        ),
    );

    let call = nonce(entropy)?;
    let uses = json!({"uses": first.scenario.uses_max});
    let token = stage.consent(&mut me, &first.scenario.id, &first.party.id, uses).await?;
    let ask = json!({"scenario": first.scenario.id.as_str(), "consent": token, "nonce": call}).to_string();
    stage.leave_to_try(&evidence, &ask)?;
    stage.say_what_next(first, &evidence.nonce);
    let seconds = clock.monotonic().saturating_sub(began).as_secs_f32();
    say(&format!("\n用时 {seconds:.1} 秒 / in {seconds:.1} s"));
    Ok(())
}

/// What a relying party keeps, and what it needs to check it.
struct Evidence {
    jwks: String,
    log_key: String,
    attestation: String,
    proof: String,
    nonce: String,
}

impl Evidence {
    /// Checks it as a merchant would, with nothing but what is here.
    fn verify(&self, asker: Asker<'_>, clock: &dyn Clock) -> Result<(Proof, VerifierKey), Failure> {
        let jwks = Jwks::parse(&self.jwks).map_err(Failure::of)?;
        let expected = Expected {
            aud: Some(asker.party.id.as_str()),
            nonce: Some(&self.nonce),
            now: clock.now(),
            leeway_s: LEEWAY_S,
        };
        verify(&self.attestation, &jwks, &expected).map_err(Failure::of)?;
        let key = VerifierKey::parse(self.log_key.trim_ascii()).map_err(Failure::of)?;
        let proof = Proof::parse(&self.proof).map_err(Failure::of)?;
        proof.verify(&key).map_err(Failure::of)?;
        let commitment = ring::digest::digest(&ring::digest::SHA256, self.attestation.as_bytes());
        if !proof.extra.starts_with(commitment.as_ref()) {
            return Err(Failure::Failed("the log entry in the proof is of another attestation".into()));
        }
        Ok((proof, key))
    }
}

impl Stage {
    /// Two merchants and a department, each with a scenario; never the first of the list.
    async fn askers(&self, web: &mut Client) -> Result<(Asker<'_>, Asker<'_>, Asker<'_>), Failure> {
        let listed = read(web, "/v1/scenarios").await?;
        let avoid = listed.pointer("/0/id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut all: Vec<Asker<'_>> = Vec::new();
        for scenario in self.set.scenarios.values().filter(|s| s.id.as_str() != avoid) {
            let parties = scenario.parties.iter().filter_map(|id| self.set.parties.get(id));
            all.extend(parties.map(|party| Asker { party, scenario }));
        }
        // A cut is the plainest question. The attestation of the first is left for the visitor to verify, so it should last.
        all.sort_by_key(|a| {
            let cut = if let Question::ScoreAtLeast(cut) = a.scenario.question { cut } else { u16::MAX };
            (cut, std::cmp::Reverse(a.scenario.answer_minutes))
        });
        let with = |role: PartyRole, not: Option<Asker<'_>>| {
            let other = |a: &&Asker<'_>| not.is_none_or(|n| n.party.id != a.party.id && n.scenario.id != a.scenario.id);
            let found = all.iter().filter(|a| a.party.roles.contains(&role)).find(other);
            found.copied().ok_or_else(|| {
                Failure::Failed(format!("the story needs two merchants and a department with scenarios of their own; the policies lack a {}", role.as_str()))
            })
        };
        let first = with(PartyRole::Merchant, None)?;
        Ok((first, with(PartyRole::Merchant, Some(first))?, with(PartyRole::Department, None)?))
    }

    /// A resident whose answer is met in each of these scenarios today, logged in. A look fixes nothing.
    async fn resident(&self, askers: [Asker<'_>; 3]) -> Result<Client, Failure> {
        let rest = (3..self.people.len()).filter(|i| !EXCELLENT.contains(i));
        for person in EXCELLENT.into_iter().chain(rest).take(TRIES_MAX).filter_map(|i| self.people.get(i)) {
            let mut me = self.login(&person.id_number).await?;
            let mut all = true;
            for asker in askers {
                let path = format!("/v1/me/answers/{}", asker.scenario.id);
                all = all && text(&read(&mut me, &path).await?, "answer", &path)? == "met";
            }
            if all {
                return Ok(me);
            }
        }
        Err(Failure::Failed("no resident was found whose answers are met; begin anew in another folder".into()))
    }

    async fn officer_looks(&self) -> Result<(), Failure> {
        let officer = self.config.staff.iter().find(|s| s.role == StaffRole::Officer);
        let officer = officer.ok_or_else(|| Failure::Failed("jadegate.toml names no officer".into()))?;
        let mut officer = self.login(&officer.login).await?;
        read(&mut officer, "/v1/access-log/summary").await?;
        read(&mut officer, "/v1/access-log?limit=20").await?;
        Ok(())
    }

    /// A model with another beginning is tried on everybody, and left for the visitor to try again. Nothing changes by it.
    async fn operator_tries(&self) -> Result<Impact, Failure> {
        const PATH: &str = "/v1/models/trials";
        let operator = self.operator()?;
        let model = self.set.model();
        let text = self.set.model_file(model.id.as_str()).unwrap_or_default();
        let text = text
            .replacen(&format!("id = \"{}\"", model.id), &format!("id = \"{}-trial\"", model.id), 1)
            .replacen(&format!("base = {}", model.base), &format!("base = {}", (model.base - 20).max(model.floor)), 1);
        init::folder(&self.dir.join("try"), 0o700)?;
        replace(&self.dir.join("try/model.toml"), text.as_bytes())?;
        let mut operator = self.login(operator).await?;
        let answer = operator.post(PATH, "application/toml", text, Vec::new()).await.map_err(Failure::of)?;
        serde_json::from_value(body(&answer, PATH)?).map_err(Failure::of)
    }

    fn operator(&self) -> Result<&str, Failure> {
        let operator = self.config.staff.iter().find(|s| s.role == StaffRole::Operator);
        let operator = operator.ok_or_else(|| Failure::Failed("jadegate.toml names no operator".into()))?;
        Ok(&operator.login)
    }

    fn grade(&self, score: &Value) -> Bilingual {
        let code = score.get("grade").and_then(Value::as_str).unwrap_or_default();
        let found = self.set.model().grades.iter().find(|g| g.code.as_str() == code);
        found.map_or_else(|| Bilingual { zh: code.to_owned(), en: code.to_owned() }, called)
    }

    fn learned(&self, n: u32, asker: Asker<'_>, zh: &str, en: &str) {
        let Bilingual { zh: met_zh, en: met_en } = self.in_words(&asker.scenario.question);
        let (party, title) = (&asker.party.name, &asker.scenario.title);
        step(
            n,
            "询问",
            &format!("{}{zh}问“{}”，得知：{met_zh}。看不到分数、姓名、证件号。", party.zh, title.zh),
            &format!("{}, {en}, learns: {met_en}. It sees no score, no name, no number.", party.en),
        );
    }

    /// What a party learns when the answer is met.
    fn in_words(&self, question: &Question) -> Bilingual {
        let grade = |code: &str| {
            let found = self.set.model().grades.iter().find(|g| g.code.as_str() == code);
            found.map_or_else(|| Bilingual { zh: code.to_owned(), en: code.to_owned() }, called)
        };
        match question {
            Question::ScoreAtLeast(cut) => {
                Bilingual { zh: format!("{cut} 分及以上"), en: format!("{cut} or more") }
            }
            Question::GradeAtLeast(code) => {
                let Bilingual { zh, en } = grade(code.as_str());
                let highest = self.set.model().grades.first().is_some_and(|g| g.code == *code);
                let (zh_more, en_more) = if highest { ("", "") } else { ("及以上", " or better") };
                Bilingual { zh: format!("{zh}{zh_more}"), en: format!("{en}{en_more}") }
            }
            Question::GradeNamed => Bilingual { zh: "等级".into(), en: "the grade".into() },
        }
    }

    fn leave_to_try(&self, evidence: &Evidence, ask: &str) -> Result<(), Failure> {
        init::folder(&self.dir.join("try"), 0o700)?;
        for (name, content) in [
            ("ask.json", ask),
            ("attestation.jwt", evidence.attestation.as_str()),
            ("jwks.json", evidence.jwks.as_str()),
            ("proof.tlog-proof", evidence.proof.as_str()),
            ("log-key", evidence.log_key.as_str()),
        ] {
            replace(&self.dir.join("try").join(name), content.as_bytes())?;
        }
        Ok(())
    }

    fn say_what_next(&self, asker: Asker<'_>, nonce: &str) {
        let d = shell_word(&self.dir.to_string_lossy());
        let me = shell_word(&std::env::args().next().unwrap_or_else(|| "jadegate".into()));
        let (party, api, web) = (&asker.party.id, &self.config.api_base, &self.config.web_base);
        say("\n接着试 · try next");
        say(&format!("# 以{}的身份再问一次 / ask again as {}", asker.party.name.zh, asker.party.name.en));
        say(&format!(
            "curl --cacert {d}/pki/ca.pem --cert {d}/parties/{party}.pem --key {d}/parties/{party}.key --json @{d}/try/ask.json {api}/v1/answers"
        ));
        if let Ok(operator) = self.operator() {
            say("# 试算一个模型 / try a model");
            say(&format!("{me} model try {d}/try/model.toml --gateway {web} --login {operator}"));
        }
        say("# 离线验证，连同日志证明 / verify offline, with the log proof");
        say(&format!(
            "{me} verify @{d}/try/attestation.jwt --jwks {d}/try/jwks.json --aud {party} --nonce {nonce} --proof {d}/try/proof.tlog-proof --log-key {d}/try/log-key"
        ));
        say("# 凭回执核对报送的文件 / hold the receipts against the file that was sent");
        say(&format!(
            "{me} verify --receipts {d}/{FILE}.receipts.ndjson --file {d}/{FILE} --jwks {d}/try/jwks.json --log-key {d}/try/log-key"
        ));
        say("# 读完整个日志 / read the whole log");
        say(&format!("{me} log verify {web}"));
        say("# 自己重算积分 / compute the scores yourself");
        let model = &self.set.city.model;
        say(&format!(
            "{me} evaluate --catalogue {d}/policies/catalogue.toml --model {d}/policies/models/{model}.toml --register {d}/city/register.ndjson --records {d}/city/records/*.ndjson --on {}",
            self.today
        ));
        say("# 看退回的行；改正后整份再导一次 / see the refused rows; correct the file and import it again");
        say(&format!("cat {d}/{FILE}.rejects.ndjson"));
        say(&format!("{me} import --config {d}/jadegate.toml --provider yx-civil-affairs {d}/{FILE}"));
        say(&format!("# 登录所用的居民、工作人员和单位 / whom to log in as: {d}/demo.json"));
    }
}

fn met(held: &Held, asker: Asker<'_>) -> Result<(String, String), Failure> {
    held.met.clone().ok_or_else(|| {
        Failure::Failed(format!(
            "{} was answered withheld for {}, where the resident saw met",
            asker.party.id, asker.scenario.id
        ))
    })
}

fn called(grade: &Grade) -> Bilingual {
    let plain = || Bilingual { zh: grade.code.to_string(), en: grade.code.to_string() };
    grade.name.clone().unwrap_or_else(plain)
}

/// Two lines of the story.
fn step(n: u32, title: &str, zh: &str, en: &str) {
    say(&format!("{n:>2} {title}  {zh}\n   {en}"));
}

/// A count with its thousands apart.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A path as one word of a shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_paths_are_written_for_people_and_shells() {
        assert_eq!([1, 999, 1000, 1_234_567].map(grouped), ["1", "999", "1,000", "1,234,567"]);
        assert_eq!(shell_word("/tmp/a-b_c.d"), "/tmp/a-b_c.d");
        assert_eq!(shell_word("/tmp/it's here"), "'/tmp/it'\\''s here'");
    }
}
