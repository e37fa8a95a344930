//! `FILE.rejects.ndjson`: the refused lines of a file, each with its code and message, and nothing of the line itself.
//!
//! It is written under another name and gets its own only when it is whole and durable, so a crash never leaves half of
//! one that is taken for all. A file that is taken whole has none: one of an earlier run is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Failure;
use super::target::Rejected;

/// What is added to the name of a file.
const ENDING: &str = ".rejects.ndjson";
/// And to that while it is not whole.
const PARTIAL: &str = ".partial";

/// Refused lines, as they are written.
pub(super) struct Rejects {
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
    count: u64,
}

impl Rejects {
    /// Begins the file beside `of`, so that a place where nothing can be written is known before anything is sent.
    pub(super) fn begin(of: &Path) -> Result<Self, Failure> {
        let with = |ending: &str| {
            let mut name = of.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let (path, partial) = (with(ENDING), with(&format!("{ENDING}{PARTIAL}")));
        remove(&partial)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let file = file.map_err(|e| Failure::file("write what is refused to", &partial, e))?;
        Ok(Self { path, partial, out: BufWriter::new(file), count: 0 })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Adds lines.
    pub(super) fn add(&mut self, rejected: &[Rejected]) -> Result<(), Failure> {
        for Rejected { line, code, message } in rejected {
            let message = for_a_clerk(code, message);
            let written = writeln!(self.out, "{}", json!({"line": line, "code": code, "message": message}));
            written.map_err(|e| Failure::file("write what is refused to", &self.partial, e))?;
            self.count += 1;
        }
        Ok(())
    }

    /// Gives the file its name, or leaves none where nothing was refused.
    pub(super) fn finish(self) -> Result<PathBuf, Failure> {
        if self.count == 0 {
            remove(&self.partial)?;
            remove(&self.path)?;
            return Ok(self.path);
        }
        let Self { path, partial, out, .. } = self;
        let failed = |e: std::io::Error| Failure::file("write what is refused to", &path, e);
        let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
        name_durably(&file, &partial, &path).map_err(failed)?;
        Ok(path)
    }
}

/// A message in both languages: those of lines, which programs read over the API as well, are in one.
fn for_a_clerk(code: &str, message: &str) -> String {
    let chinese = match code {
        "malformed" => "写法不对",
        "unknown-field" => "有不认识的项",
        "missing-field" => "缺一项",
        "wrong-check-digit" => "证件号码末位不符",
        "impossible-date" => "没有这一天，或与其他日期、证件号矛盾",
        "unknown-indicator" => "目录里没有这个指标",
        "provider-not-allowed" => "该指标不归本单位报送",
        "consent-required" => "市场信息须有本人同意",
        "quantity-required" => "该指标须填数量",
        "quantity-not-allowed" => "该指标不填数量",
        "prohibited-item" => "法律禁止采集",
        "too-large" => "超出上限",
        _ => return message.to_owned(),
    };
    // What the reading of a file says begins in Chinese.
    let both = message.starts_with(|first: char| !first.is_ascii());
    if both { message.to_owned() } else { format!("{chinese} / {message}") }
}

/// Gives a whole file its name: after a crash it has it with all its content, or not at all.
pub(super) fn name_durably(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::file("remove", path, e)),
        _ => Ok(()),
    }
}
