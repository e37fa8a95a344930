//! All receipts of a file against the file itself: which of its lines are proven to have been sent.
//!
//! The file is read by the code that `import` reads it with, and its rows become the same lines again. Nothing of that
//! rests on policies or on the catalogue, so neither the gateway nor its folder is needed. A line is proven where a
//! receipt that holds covers it and all lines in that receipt's range have the digest that was signed. Memory grows with
//! the receipts, and not with the file.

mod coverage;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::path::Path;

use jiff::Timestamp;

use super::{Args, Trouble, key_set, read_file};
use crate::access_log::checkpoint::VerifierKey;
use crate::access_log::proof::Proof;
use crate::attestation::batch::{self, Claims, Feed};
use crate::attestation::jwks::Jwks;
use crate::attestation::{Expected, LEEWAY_S};
use crate::cli::receipts::{LINE_BYTES_MAX, Receipt};
use crate::feed::{self, FeedError, How, Kind};
use crate::prohibited::Prohibited;
use coverage::{Coverage, Found, Run};

/// How many ranges, batches or lines are named one by one.
const NAMED_MAX: usize = 20;

/// A receipt that holds by itself.
struct Held {
    /// The line of the file of receipts on which it stands.
    at: u64,
    /// The first and last line of the file that it is said to cover.
    range: (u64, u64),
    claims: Claims,
    /// Whether its signature could be checked; else the log alone proves it.
    signed: bool,
    /// In which sending of the file it came, from 0.
    sending: usize,
}

/// What the file of receipts holds.
#[derive(Default)]
struct Receipts {
    held: Vec<Held>,
    /// Those that do not hold: where, of which batch, and why.
    wrong: Vec<String>,
    origins: Vec<String>,
}

/// Checks them; 0 if every line that was sent is proven, 1 if not, 2 for wrong usage.
pub(super) fn run(args: &Args, held: &Path, now: Timestamp, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
    let (Some(file), Some(log_key)) = (&args.file, &args.log_key) else {
        let _ = writeln!(err, "--receipts goes with --file and --log-key: the file that was sent, and the log's key");
        return 2;
    };
    match check(args, held, file, log_key, now) {
        Ok(checked) => checked.tell(file, held, out, err),
        Err(trouble) => trouble.tell(err),
    }
}

fn check(args: &Args, held: &Path, file: &Path, log_key: &Path, now: Timestamp) -> Result<Checked, Trouble> {
    let jwks = key_set(args)?;
    let keys = log_keys(log_key)?;
    let mapping = args.feed.mapping().map_err(|e| Trouble::Unread(e.to_string()))?;
    let expected = Expected { aud: args.aud.as_deref(), nonce: None, now, leeway_s: LEEWAY_S };
    let receipts = Receipts::read(held, &jwks, &keys, &expected)?;
    let Some(first) = receipts.held.first() else {
        let why = receipts.wrong.iter().take(NAMED_MAX).map(|why| format!("\n  {why}")).collect::<String>();
        return Err(Trouble::Invalid(format!("{} has no receipt that holds{why}", held.display())));
    };
    let provider = first.claims.aud.clone();
    // What is prohibited is a matter of headings that refuse a whole file, of which there would be no receipt.
    let none = Prohibited::none();
    let how = How {
        kind: match first.claims.feed {
            Feed::Records => Kind::Records,
            Feed::Register => Kind::Register,
        },
        prohibited: &none,
        encoding: args.feed.encoding,
        mapping: mapping.as_ref(),
        provider: Some(provider.as_str()),
        sheet: args.feed.sheet.as_deref(),
    };
    let unread = |e: FeedError| Trouble::Unread(format!("{}: {e}", file.display()));
    let source = File::open(file).map_err(FeedError::from).and_then(feed::source).map_err(unread)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let opened = feed::open(&name, source, &how).map_err(unread)?;
    let mut coverage = Coverage::new(receipts.held.iter().map(|held| held.range));
    let mut broken = None;
    for line in opened.lines {
        match line {
            Ok(line) => coverage.add(line.number, line.bytes.ok().as_deref()),
            Err(error) => {
                broken = Some(error.to_string());
                break;
            }
        }
    }
    let found = coverage.finish(|at, digest| {
        receipts.held.get(at).is_some_and(|held| digest == (held.claims.lines, held.claims.sha256))
    });
    Ok(Checked { receipts, found, notes: opened.notes, broken })
}

/// The keys of one log or several, one a line.
fn log_keys(path: &Path) -> Result<Vec<VerifierKey>, Trouble> {
    let text = read_file(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Result<Vec<_>, _> = lines.map(VerifierKey::parse).collect();
    match keys {
        Ok(keys) if keys.is_empty() => Err(Trouble::Unread(format!("{} is empty", path.display()))),
        Ok(keys) => Ok(keys),
        Err(e) => Err(Trouble::Unread(format!("{}: {e}", path.display()))),
    }
}

impl Receipts {
    fn read(path: &Path, jwks: &Jwks, keys: &[VerifierKey], expected: &Expected<'_>) -> Result<Self, Trouble> {
        let name = path.display();
        let unread = |e: std::io::Error| Trouble::Unread(format!("cannot read {name}: {e}; check the path"));
        let mut input = BufReader::new(File::open(path).map_err(unread)?);
        let (mut this, mut at) = (Self::default(), 0);
        loop {
            let mut line = Vec::new();
            if (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(unread)? == 0 {
                return Ok(this);
            }
            at += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            if let Err((batch, why)) = this.add(at, &line, jwks, keys, expected) {
                let batch = batch.map(|batch| format!("批次 · batch {}: ", crate::intake::shown(&batch)));
                this.wrong.push(format!("{name}:{at}: {}{why}", batch.unwrap_or_default()));
            }
        }
    }

    /// Adds a receipt that holds; else says of which batch it is and what is wrong with it.
    fn add(
        &mut self,
        at: u64,
        line: &[u8],
        jwks: &Jwks,
        keys: &[VerifierKey],
        expected: &Expected<'_>,
    ) -> Result<(), (Option<String>, String)> {
        let receipt = Receipt::parse(line).map_err(|why| (None, why))?;
        let wrong = |why: String| (Some(receipt.batch.clone()), why);
        let verified = batch::verify(&receipt.receipt, jwks, expected).map_err(|e| wrong(e.to_string()))?;
        let claims = verified.claims;
        if claims.jti != receipt.batch {
            return Err(wrong(format!("the receipt is of the batch {}", claims.jti)));
        }
        let proof = Proof::parse(&receipt.proof).map_err(|e| wrong(e.to_string()))?;
        if !receipt.is_of(&proof) {
            return Err(wrong("the log entry in its proof is of another receipt".into()));
        }
        let mut trouble = String::new();
        let checkpoint = keys.iter().find_map(|key| match proof.verify(key) {
            Ok(checkpoint) => Some(checkpoint),
            Err(e) => {
                trouble = e.to_string();
                None
            }
        });
        let checkpoint = checkpoint.ok_or_else(|| wrong(trouble))?;
        if receipt.first_line > receipt.last_line {
            return Err(wrong("its last line comes before its first".into()));
        }
        let mut sending = 0;
        if let Some(before) = self.held.last() {
            if (&before.claims.aud, before.claims.feed) != (&claims.aud, claims.feed) {
                return Err(wrong(format!(
                    "it is of another feed than the one before it, {} of {}; name the party with --provider",
                    claims.feed.as_str(),
                    claims.aud
                )));
            }
            // Within one sending the lines go up; where they begin again, the file was sent again.
            sending = before.sending + usize::from(receipt.first_line <= before.range.0);
        }
        if !self.origins.contains(&checkpoint.origin) {
            self.origins.push(checkpoint.origin);
        }
        let range = (receipt.first_line, receipt.last_line);
        self.held.push(Held { at, range, claims, signed: verified.signed, sending });
        Ok(())
    }
}

/// What came of it.
struct Checked {
    receipts: Receipts,
    found: Found,
    notes: Vec<String>,
    /// Why the file cannot be read to its end.
    broken: Option<String>,
}

/// Lines of the file, in words.
fn lines(run: &Run) -> String {
    let Run { first, last, count } = run;
    match count {
        1 => format!("第 {first} 行 · line {first}"),
        _ => format!("第 {first} 至 {last} 行（{count} 行） · lines {first} to {last} ({count} lines)"),
    }
}

impl Checked {
    fn agrees(&self, at: usize) -> bool {
        self.found.agree.get(at).copied().unwrap_or(false)
    }

    fn tell(&self, file: &Path, held: &Path, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
        let file = file.display();
        let last = self.receipts.held.last().map_or(0, |held| held.sending);
        let (mut other, mut earlier) = (Vec::new(), 0_u64);
        for (at, held) in self.receipts.held.iter().enumerate().filter(|(at, _)| !self.agrees(*at)) {
            if held.sending == last || self.uncovered(held.range) { other.push((at, held)) } else { earlier += 1 }
        }
        let proven: u64 = self.found.proven.iter().map(|run| run.count).sum();
        let holds = self.found.unproven.is_empty()
            && other.is_empty()
            && self.receipts.wrong.is_empty()
            && self.broken.is_none()
            && proven > 0;
        let mut text = match (holds, proven) {
            (true, _) => {
                format!("有效 · VALID: {file} 中报送的每一行都有回执证明 · every line that was sent is proven\n")
            }
            (false, 0) => String::new(),
            (false, _) => format!("部分有效 · VALID IN PART: {file}\n"),
        };
        if proven > 0 {
            self.add_proven(&mut text);
        }
        let _ = out.write_all(text.as_bytes());
        let mut text = String::new();
        if !holds {
            let _ = writeln!(text, "无效 · NOT VALID: {file}: 以下各项不能证明 · what follows is not proven");
            self.add_not_proven(&mut text, &other);
        }
        self.add_notes(&mut text, earlier, held);
        let _ = err.write_all(text.as_bytes());
        i32::from(!holds)
    }

    /// Whether a line in this range is proven by none.
    fn uncovered(&self, (first, last): (u64, u64)) -> bool {
        self.found.unproven.iter().any(|run| run.first <= last && first <= run.last)
    }

    fn add_proven(&self, text: &mut String) {
        let mut line = |zh: &str, en: &str, value: &str| {
            let _ = writeln!(text, "  {zh} · {en}: {value}");
        };
        for run in self.found.proven.iter().take(NAMED_MAX) {
            line("已证明报送", "proven sent", &lines(run));
        }
        if let Some(more) = self.found.proven.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            line("另有", "and more ranges", &more.to_string());
        }
        let good = || self.receipts.held.iter().enumerate().filter(|(at, _)| self.agrees(*at)).map(|(_, held)| held);
        if let Some(first) = good().next() {
            line("签发", "issuer", &first.claims.iss);
            line("报送单位", "sent by", first.claims.aud.as_str());
            let kind = match first.claims.feed {
                Feed::Records => "信用记录 records",
                Feed::Register => "人员登记 register",
            };
            line("内容", "feed", kind);
        }
        let at = |second: i64| Timestamp::from_second(second).map(|t| t.to_string()).unwrap_or_default();
        let (from, to) = (good().map(|held| held.claims.iat).min(), good().map(|held| held.claims.iat).max());
        line("收到", "taken at", &format!("{} .. {}", at(from.unwrap_or(0)), at(to.unwrap_or(0))));
        line("回执", "receipts", &good().count().to_string());
        let mut sums = [0_u64; 4];
        let newest = good().map(|held| held.sending).max();
        for held in good().filter(|held| Some(held.sending) == newest) {
            sums.iter_mut().zip(held.claims.counts).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        }
        let [accepted, unchanged, replaced, rejected] = sums;
        line(
            "最近一次的结果",
            "what became of them, last time",
            &format!(
                "采纳 accepted {accepted}, 未变 unchanged {unchanged}, 替换 replaced {replaced}, 退回 rejected {rejected}"
            ),
        );
        line("已记入日志", "in the access log", &self.receipts.origins.join(", "));
    }

    fn add_not_proven(&self, text: &mut String, other: &[(usize, &Held)]) {
        if let Some(why) = &self.broken {
            let _ = writeln!(text, "  文件读不到底 · the file cannot be read to its end: {why}");
        }
        for (_, held) in other.iter().take(NAMED_MAX) {
            let (first, last) = held.range;
            let (batch, at, count) = (&held.claims.jti, held.at, held.claims.lines);
            let _ = writeln!(
                text,
                "  批次 {batch}（回执第 {at} 行）与文件第 {first} 至 {last} 行不再相符：其中有行改过、增减过，或读法不同 · batch {batch} (line {at} of the receipts, {count} lines sent) no longer agrees with lines {first} to {last} of the file: a line among them was changed, added or taken away, or is read in another way"
            );
        }
        for run in self.found.unproven.iter().take(NAMED_MAX) {
            let _ = writeln!(text, "  未证明报送 · not proven: {}", lines(run));
        }
        for why in self.receipts.wrong.iter().take(NAMED_MAX) {
            let _ = writeln!(text, "  {why}");
        }
        for (zh, en, all) in [
            ("批次", "batches", other.len()),
            ("行段", "ranges", self.found.unproven.len()),
            ("回执", "receipts", self.receipts.wrong.len()),
        ] {
            if let Some(more) = all.checked_sub(NAMED_MAX).filter(|more| *more > 0) {
                let _ = writeln!(text, "  另有 {more} 个{zh} · and {more} more {en}");
            }
        }
        if self.found.agree.iter().all(|agrees| !agrees) {
            text.push_str(
                "  没有一份回执与文件相符：请核对文件，以及 --mapping、--encoding、--sheet 是否与导入时相同 · not one receipt agrees with the file: is it the file that was sent, and are --mapping, --encoding and --sheet as they were?\n",
            );
        }
    }

    fn add_notes(&self, text: &mut String, earlier: u64, held: &Path) {
        self.notes.iter().for_each(|note| {
            let _ = writeln!(text, "注意 · note: {note}");
        });
        if self.found.never > 0 {
            let named: Vec<String> = self.found.never_sent.iter().map(u64::to_string).collect();
            let (count, named) = (self.found.never, named.join(", "));
            let more = if count > self.found.never_sent.len() as u64 { ", …" } else { "" };
            let _ = writeln!(
                text,
                "注意 · note: {count} 行本身有错，从未报送 · {count} line(s) were never sent, being refused as they stand: {named}{more}"
            );
        }
        if earlier > 0 {
            let _ = writeln!(
                text,
                "注意 · note: {earlier} 份较早的回执是文件以前的内容，各行已由后来的回执证明 · {earlier} receipt(s) are of what the file held before; later ones prove its lines"
            );
        }
        let by_log = self.receipts.held.iter().filter(|held| !held.signed).count();
        if by_log > 0 {
            let _ = writeln!(
                text,
                "注意 · note: {by_log} 份回执的签名密钥已不在密钥集中，由日志证明 · the keys of {by_log} receipt(s) are not in the key set; the log alone proves them ({})",
                held.display()
            );
        }
    }
}
