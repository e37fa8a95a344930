//! The receipt of a batch, offline: what was sent, by whom, when, and what became of it.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;

use super::{Args, Logged, Trouble, key_set, logged};
use crate::access_log::checkpoint::Checkpoint;
use crate::attestation::batch::{self, Feed, Verified};
use crate::attestation::{Expected, LEEWAY_S};

/// The longest file that was sent: as large as a body may be at most, and more.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Checks a receipt; 0 if it holds, 1 if not, 2 for wrong usage.
pub(super) fn run(args: &Args, token: &str, now: Timestamp, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
    if args.nonce.is_some() {
        let _ = writeln!(err, "a receipt of a batch has no nonce: leave --nonce out");
        return 2;
    }
    match check(args, token, now) {
        Ok((verified, logged)) => {
            let _ = out.write_all(words(args, &verified, logged.as_ref()).as_bytes());
            let _ = err.write_all(doubts(args, &verified).as_bytes());
            0
        }
        Err(trouble) => trouble.tell(err),
    }
}

fn check(args: &Args, token: &str, now: Timestamp) -> Result<(Verified, Option<Logged>), Trouble> {
    let jwks = key_set(args)?;
    let expected = Expected { aud: args.aud.as_deref(), nonce: None, now, leeway_s: LEEWAY_S };
    let verified = batch::verify(token, &jwks, &expected).map_err(|e| Trouble::Invalid(e.to_string()))?;
    let logged = logged(args, token)?;
    // The entry commits to the receipt's bytes, and nothing but a gateway writes entries: a receipt outlives its key.
    if !verified.signed && logged.is_none() {
        return Err(Trouble::Invalid(format!(
            "no key {:?} in the key set: fetch /.well-known/jwks.json again; if the key has ended since, the log still \
             proves the receipt: give --proof and --log-key",
            verified.kid
        )));
    }
    if let Some(file) = &args.file {
        compare(file, &verified)?;
    }
    Ok((verified, logged))
}

/// Whether the lines of the batch stand in the file that was sent.
fn compare(file: &Path, verified: &Verified) -> Result<(), Trouble> {
    let claims = &verified.claims;
    let unread = |e: &dyn std::fmt::Display| Trouble::Unread(format!("{}: {e}; check the path", file.display()));
    let length = std::fs::metadata(file).map_err(|e| unread(&e))?.len();
    if length > FILE_BYTES_MAX {
        return Err(Trouble::Unread(format!("{} is longer than {FILE_BYTES_MAX} bytes", file.display())));
    }
    let bytes = std::fs::read(file).map_err(|e| unread(&e))?;
    let mut lines = batch::lines(&bytes);
    lines.retain(|(number, _)| (claims.first_line..=claims.last_line).contains(number));
    let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    if count != claims.lines || batch::digest(&lines) != claims.sha256 {
        return Err(Trouble::Invalid(format!(
            "{}: lines {} to {} are not those that were sent in this batch; give the very file that was sent",
            file.display(),
            claims.first_line,
            claims.last_line
        )));
    }
    Ok(())
}

fn words(args: &Args, verified: &Verified, logged: Option<&Logged>) -> String {
    let claims = &verified.claims;
    let mut text = match verified.signed {
        true => format!("有效的报送回执 · VALID receipt of a batch, signed with key {}\n", verified.kid),
        false => "有效的报送回执 · VALID receipt of a batch, by its entry in the log\n".to_owned(),
    };
    let mut line = |zh: &str, en: &str, value: &str| {
        let _ = writeln!(text, "  {zh} · {en}: {value}");
    };
    line("签发", "issuer", &claims.iss);
    line("报送单位", "sent by", claims.aud.as_str());
    line("批次", "batch", &claims.jti);
    line("收到", "taken at", &Timestamp::from_second(claims.iat).map(|t| t.to_string()).unwrap_or_default());
    let kind = match claims.feed {
        Feed::Records => "信用记录 records",
        Feed::Register => "人员登记 register",
    };
    line("内容", "feed", kind);
    let lines = format!("{} ({} to {} of what was sent)", claims.lines, claims.first_line, claims.last_line);
    line("行数", "lines", &lines);
    let [accepted, unchanged, replaced, rejected] = claims.counts;
    line("采纳", "accepted", &accepted.to_string());
    line("未变", "unchanged", &unchanged.to_string());
    line("替换", "replaced", &replaced.to_string());
    line("退回", "rejected", &rejected.to_string());
    line("摘要", "sha256", &crate::hex::hex(&claims.sha256));
    if args.file.is_some() {
        line("文件", "file", "其中的行就是所报送的行 its lines are those that were sent");
    }
    if let Some(Logged { index, checkpoint }) = logged {
        let Checkpoint { origin, size, .. } = checkpoint;
        line("已记入日志", "in the access log", &format!("entry {index} of {size}, {origin}"));
    }
    text
}

/// What a reader of a valid receipt should still know.
fn doubts(args: &Args, verified: &Verified) -> String {
    let mut text = String::new();
    if !verified.signed {
        text.push_str("注意:签名密钥已不在密钥集中,由日志证明。\n");
        let _ =
            writeln!(text, "note: the key {} is not in the key set; the log alone proves this receipt", verified.kid);
    }
    if args.file.is_none() {
        text.push_str("注意:未核对所报送的文件。\n");
        text.push_str(
            "note: without --file nothing is said about which lines were sent, but their number and digest\n",
        );
    }
    text
}
