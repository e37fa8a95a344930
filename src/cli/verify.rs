//! `jadegate verify`: an attestation, the receipt of a batch, or all receipts of a file, offline, with the log's proofs.
//!
//! Everything comes from the arguments and their files; no network is used, so a relying party can
//! keep the evidence and check it years later on another machine. Results go to `out`, doubts and
//! failures to `err`.

mod batch;
mod receipts;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::access_log::checkpoint::{Checkpoint, VerifierKey};
use crate::access_log::proof::Proof;
use crate::attestation::jwks::Jwks;
use crate::attestation::{self, Expected, LEEWAY_S, Verified};
use crate::cli::feed_args::FeedArgs;
use crate::code::GradeCode;

/// The longest file or standard input that is read.
const INPUT_BYTES_MAX: u64 = 1024 * 1024;

/// The arguments of `jadegate verify`.
#[derive(clap::Args, Clone)]
pub struct Args {
    /// The attestation or receipt itself, @FILE to read it from a file, or - for standard input
    #[arg(required_unless_present = "receipts")]
    pub token: Option<String>,
    /// The gateway's key set, as /.well-known/jwks.json gives it
    #[arg(long, value_name = "FILE")]
    pub jwks: PathBuf,
    /// Your own id: the party that asked, or that sent the batch
    #[arg(long, value_name = "ID", visible_alias = "provider")]
    pub aud: Option<String>,
    /// The nonce that you sent with the call; a receipt has none
    #[arg(long, value_name = "NONCE")]
    pub nonce: Option<String>,
    /// The proof that came with the attestation: also checks that the answer is in the access log
    #[arg(long, value_name = "FILE", requires = "log_key")]
    pub proof: Option<PathBuf>,
    /// The log's verifier key, as /log/key gives it; with --receipts one a line, where there are several logs
    #[arg(long, value_name = "FILE")]
    pub log_key: Option<PathBuf>,
    /// Of a receipt: the file that was sent, whole; also checks that its lines are those of the batch
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The receipts that `import` left beside a file: says which lines of --file they prove to have been sent
    #[arg(long, value_name = "FILE", requires = "file", requires = "log_key", conflicts_with_all = ["token", "proof", "nonce"])]
    pub receipts: Option<PathBuf>,
    /// With --receipts: how the file is to be read, as it was imported.
    #[command(flatten)]
    pub feed: FeedArgs,
}

/// Without the attestation, which whoever holds it may show.
impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Args(.., {}, ..)", self.jwks.display())
    }
}

/// Checks an attestation or a receipt and says in plain words what it says; 0 if it holds, 1 if not, 2 for wrong usage.
pub fn run(args: &Args, now: Timestamp, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
    if let Some(held) = &args.receipts {
        return receipts::run(args, held, now, out, err);
    }
    if args.feed.is_given() {
        let _ = writeln!(err, "--encoding, --mapping and --sheet go with --receipts");
        return 2;
    }
    if args.proof.is_some() != args.log_key.is_some() {
        let _ = writeln!(err, "--proof and --log-key go together: the proof, and the key of the log that signed it");
        return 2;
    }
    let token = match token(args) {
        Ok(token) => token,
        Err(trouble) => return trouble.tell(err),
    };
    if attestation::batch::claims_to_be(token.trim_ascii()) {
        return batch::run(args, token.trim_ascii(), now, out, err);
    }
    if args.file.is_some() {
        let _ = writeln!(err, "--file goes with the receipt of a batch, and this is none");
        return 2;
    }
    match check(args, token.trim_ascii(), now) {
        Ok((verified, logged)) => {
            // A closed pipe is no reason to call a good attestation bad.
            let _ = out.write_all(words(&verified, logged.as_ref()).as_bytes());
            let _ = err.write_all(doubts(args, &verified).as_bytes());
            0
        }
        Err(trouble) => trouble.tell(err),
    }
}

/// Why an attestation is not called valid.
enum Trouble {
    /// What it is checked with is not at hand, so nothing is known about it.
    Unread(String),
    /// It does not hold.
    Invalid(String),
}

impl Trouble {
    fn tell(&self, err: &mut dyn Write) -> i32 {
        let _ = match self {
            Self::Unread(why) => writeln!(err, "未核对 · NOT CHECKED: {why}"),
            Self::Invalid(why) => writeln!(err, "无效 · NOT VALID: {why}"),
        };
        1
    }
}

/// Where the answer stands in the log.
struct Logged {
    index: u64,
    checkpoint: Checkpoint,
}

fn token(args: &Args) -> Result<String, Trouble> {
    let token = args.token.as_deref().unwrap_or_default();
    match (token, token.strip_prefix('@')) {
        ("-", _) => read(io::stdin(), "standard input").map_err(Trouble::Unread),
        (_, Some(file)) => read_file(Path::new(file)),
        (token, None) => Ok(token.to_owned()),
    }
}

fn key_set(args: &Args) -> Result<Jwks, Trouble> {
    Jwks::parse(&read_file(&args.jwks)?).map_err(|e| Trouble::Unread(format!("{}: {e}", args.jwks.display())))
}

fn check(args: &Args, token: &str, now: Timestamp) -> Result<(Verified, Option<Logged>), Trouble> {
    let jwks = key_set(args)?;
    let (aud, nonce) = (args.aud.as_deref(), args.nonce.as_deref());
    let expected = Expected { aud, nonce, now, leeway_s: LEEWAY_S };
    let verified = attestation::verify(token, &jwks, &expected).map_err(|e| Trouble::Invalid(e.to_string()))?;
    Ok((verified, logged(args, token)?))
}

/// Where the token stands in the log, if its proof is given.
fn logged(args: &Args, token: &str) -> Result<Option<Logged>, Trouble> {
    match (&args.proof, &args.log_key) {
        (Some(proof), Some(key)) => check_proof(token, proof, key).map(Some),
        _ => Ok(None),
    }
}

fn check_proof(token: &str, proof_file: &Path, key_file: &Path) -> Result<Logged, Trouble> {
    let unread = |e: &dyn std::fmt::Display| Trouble::Unread(format!("{}: {e}", key_file.display()));
    let key = VerifierKey::parse(read_file(key_file)?.trim_ascii()).map_err(|e| unread(&e))?;
    let text = read_file(proof_file)?;
    let named = |why: String| Trouble::Invalid(format!("{}: {why}", proof_file.display()));
    // Shells and editors add or drop the last newline; what is signed stands before the last empty line.
    let proof = Proof::parse(&format!("{}\n", text.trim_end_matches('\n'))).map_err(|e| named(e.to_string()))?;
    let checkpoint = proof.verify(&key).map_err(|e| named(e.to_string()))?;
    if proof.extra.get(..32) != Some(digest(&SHA256, token.as_bytes()).as_ref()) {
        return Err(named(
            "the log entry in this proof is of another answer or batch; take the proof that came with this one".into(),
        ));
    }
    Ok(Logged { index: proof.index, checkpoint })
}

fn read_file(path: &Path) -> Result<String, Trouble> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| Trouble::Unread(format!("cannot open {name}: {e}; check the path")))?;
    read(file, &name).map_err(Trouble::Unread)
}

fn read(from: impl Read, name: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = from.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text);
    match read.map_err(|e| format!("cannot read {name}: {e}"))? {
        length if length as u64 > INPUT_BYTES_MAX => Err(format!("{name} is longer than {INPUT_BYTES_MAX} bytes")),
        _ => Ok(text),
    }
}

fn words(verified: &Verified, logged: Option<&Logged>) -> String {
    let claims = &verified.claims;
    let mut text = format!("有效 · VALID, signed with key {}\n", verified.kid);
    let mut line = |zh: &str, en: &str, value: &str| {
        let _ = writeln!(text, "  {zh} · {en}: {value}");
    };
    line("签发", "issuer", &claims.iss);
    line("出示给", "for", claims.aud.as_str());
    line("事项", "scenario", claims.scenario.as_str());
    line("符合", "met", &met(&claims.met));
    line("当日", "as of", &claims.as_of.to_string());
    line("评分办法", "model", &claims.model);
    line("有效至", "until", &Timestamp::from_second(claims.exp).map(|t| t.to_string()).unwrap_or_default());
    if let Some(sub) = &claims.sub {
        line("化名", "pseudonym", sub);
    }
    if let Some(Logged { index, checkpoint }) = logged {
        let Checkpoint { origin, size, .. } = checkpoint;
        line("已记入日志", "in the access log", &format!("entry {index} of {size}, {origin}"));
    }
    text
}

fn met(met: &Value) -> String {
    let only = |name: &str| met.as_object().filter(|met| met.len() == 1).and_then(|met| met.get(name));
    let grade = |name: &str| only(name).and_then(Value::as_str).and_then(|grade| GradeCode::parse(grade).ok());
    if let Some(score) = only("score_at_least").and_then(Value::as_u64) {
        format!("信用分不低于 {score} · score at least {score}")
    } else if let Some(grade) = grade("grade_at_least") {
        format!("等级不低于 {grade} · grade at least {grade}")
    } else if let Some(grade) = grade("grade") {
        format!("等级 {grade} · grade {grade}")
    } else {
        met.to_string()
    }
}

/// What a reader of a valid attestation should still know.
fn doubts(args: &Args, verified: &Verified) -> String {
    let mut text = String::new();
    let missing = match (&args.aud, &args.nonce) {
        (Some(_), Some(_)) => None,
        (None, Some(_)) => Some("--aud"),
        (Some(_), None) => Some("--nonce"),
        (None, None) => Some("--aud and --nonce"),
    };
    if let Some(missing) = missing {
        text.push_str("注意:未核对对象或随机数,复制件也会通过。\n");
        let _ = writeln!(
            text,
            "note: without {missing} a copy would pass too: an answer given to somebody else, or before"
        );
    }
    if verified.by_leeway {
        text.push_str("注意:因允许时钟误差 60 秒而通过。\n");
        let _ = writeln!(text, "note: valid only because clocks may differ by {LEEWAY_S} s");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::checkpoint::NoteSigner as _;
    use crate::access_log::checkpoint::tests::TestSigner;
    use crate::access_log::{ENTRY_BYTES, leaf_hash, node_hash};
    use crate::attestation::tests::{IAT, issuer};

    /// A folder with a key set, a proof and a log key; the token; all fitting together.
    struct Evidence {
        folder: PathBuf,
        token: String,
    }

    impl Evidence {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("jadegate-verify-{test}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let (issuer, signer) = (issuer(), TestSigner::new("log.example/one", [3; 32]));
            let token = issuer.token();
            let mut entry = digest(&SHA256, token.as_bytes()).as_ref().to_vec();
            entry.resize(ENTRY_BYTES, 9);
            let root = node_hash(&[1; 32], &leaf_hash(&entry));
            let checkpoint = Checkpoint { origin: "log.example/one".into(), size: 2, root }.sign(&signer);
            let proof = Proof { extra: entry, index: 1, path: vec![[1; 32]], checkpoint };
            let this = Self { folder, token };
            this.write("jwks", &issuer.jwks().to_json().to_string());
            this.write("proof", &proof.to_text());
            this.write("key", &format!("{}\n", signer.verifier()));
            this.write("token", &format!("{}\n", this.token));
            this
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.join(name), text).unwrap();
        }

        fn text(&self, name: &str) -> String {
            std::fs::read_to_string(self.folder.join(name)).unwrap()
        }

        fn args(&self) -> Args {
            Args {
                token: Some(self.token.clone()),
                jwks: self.folder.join("jwks"),
                aud: Some("yx-library".into()),
                nonce: Some("n-0123456789abcdef".into()),
                proof: Some(self.folder.join("proof")),
                log_key: Some(self.folder.join("key")),
                file: None,
                receipts: None,
                feed: FeedArgs::default(),
            }
        }
    }

    impl Drop for Evidence {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn call(args: &Args, now: i64) -> (i32, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(args, Timestamp::from_second(now).unwrap(), &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_good_one_is_told_in_plain_words() {
        let evidence = Evidence::new("good");
        let (code, out, err) = call(&evidence.args(), IAT);
        assert_eq!((code, err.as_str()), (0, ""));
        for part in ["VALID", "yx-library", "library-deposit", "score at least 600", "2026-11-24", "entry 1 of 2"] {
            assert!(out.contains(part), "{part} in {out}");
        }
        let from_file = format!("@{}", evidence.folder.join("token").display());
        let from_file = Args { token: Some(from_file), ..evidence.args() };
        assert_eq!(call(&from_file, IAT).1, out);
    }

    #[test]
    fn without_aud_and_nonce_it_says_that_a_copy_passes() {
        let evidence = Evidence::new("copy");
        for (aud, nonce, named) in
            [(true, false, "--nonce "), (false, true, "--aud "), (false, false, "--aud and --nonce ")]
        {
            let mut args = evidence.args();
            args.aud = args.aud.filter(|_| aud);
            args.nonce = args.nonce.filter(|_| nonce);
            let (code, _, err) = call(&args, IAT);
            assert!(code == 0 && err.contains(named) && err.contains("a copy would pass too"), "{err}");
        }
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        let evidence = Evidence::new("clock");
        assert!(call(&evidence.args(), IAT - 2).0 == 0);
        let (code, _, err) = call(&evidence.args(), IAT + 601);
        assert!(code == 0 && err.contains("60 s"), "{err}");
        let (code, out, err) = call(&evidence.args(), IAT + 600 + 3_600);
        assert!(code == 1 && out.is_empty() && err.contains("ended at"), "{err}");
    }

    /// Through the command: grease before and behind, another key id, then one bit wrong.
    #[test]
    fn grease_in_the_proof_passes_and_a_bad_signature_does_not() {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let evidence = Evidence::new("grease");
        let good = evidence.text("proof");
        let (head, line) = good.rsplit_once("\n\n").unwrap();
        let grease = format!("\u{2014} grease.invalid {}\n", STANDARD.encode([0x5a; 40]));
        let other = format!("\u{2014} log.example/one {}\n", STANDARD.encode([0x5a; 68]));
        for lines in [format!("{grease}{line}"), format!("{line}{grease}"), format!("{line}{other}")] {
            evidence.write("proof", &format!("{head}\n\n{lines}"));
            assert_eq!(call(&evidence.args(), IAT).0, 0);
        }
        let (name, signature) = line.trim_end().rsplit_once(' ').unwrap();
        let mut bytes = STANDARD.decode(signature).unwrap();
        bytes[40] ^= 1;
        evidence.write("proof", &format!("{head}\n\n{name} {}\n", STANDARD.encode(bytes)));
        let (code, out, err) = call(&evidence.args(), IAT);
        assert!(code == 1 && out.is_empty() && err.contains("signature on the checkpoint is wrong"), "{err}");
        // What `jq -r` and `$(…)` make of a text is still the same proof.
        for ending in [format!("{good}\n"), good.trim_end().to_owned()] {
            evidence.write("proof", &ending);
            assert_eq!(call(&evidence.args(), IAT).0, 0);
        }
    }

    #[test]
    fn a_proof_of_another_answer_is_refused() {
        let (evidence, other) = (Evidence::new("one"), Evidence::new("other"));
        evidence.write("proof", &other.text("proof"));
        let (code, _, err) = call(&evidence.args(), IAT);
        assert!(code == 1 && err.contains("another answer"), "{err}");
    }

    #[test]
    fn missing_files_and_halves_are_named() {
        let evidence = Evidence::new("missing");
        let (code, _, err) = call(&Args { jwks: evidence.folder.join("nothing"), ..evidence.args() }, IAT);
        assert!(code == 1 && err.contains("nothing"), "{err}");
        assert_eq!(call(&Args { log_key: None, ..evidence.args() }, IAT).0, 2);
        let (code, _, err) = call(&Args { log_key: Some(evidence.folder.join("jwks")), ..evidence.args() }, IAT);
        assert!(code == 1 && err.contains("verifier key"), "{err}");
        evidence.write("jwks", "{\"keys\":[]}");
        let (code, _, err) = call(&evidence.args(), IAT);
        assert!(code == 1 && err.contains("fetch /.well-known/jwks.json again"), "{err}");
    }
}
