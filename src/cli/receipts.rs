//! `FILE.receipts.ndjson`: the receipts of a file's batches, one a line, as `import` is given them and `verify` reads them.
//!
//! Each line says which lines of the department's own file the batch covers, since the receipt counts the lines of one
//! upload. These numbers are not signed and need not be: a range proves nothing unless the lines in it have the digest
//! that the receipt signs. Nothing personal stands in it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::access_log::proof::Proof;
use crate::attestation::batch;

/// What is added to the name of a file.
pub const ENDING: &str = ".receipts.ndjson";
/// How rows of a file become the lines that are sent. Whoever changes a byte of these must count on, or old receipts
/// would be held against lines that were never sent: `the_lines_that_files_become_never_change` keeps the bytes.
pub const LINES_FORM: u32 = 1;
/// The longest line of such a file.
pub const LINE_BYTES_MAX: u64 = 64 * 1024;

/// A batch of a file, and what proves it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Receipt {
    /// How rows became lines.
    pub lines_form: u32,
    /// The batch's id.
    pub batch: String,
    /// The first line (of a workbook: row) of the file that was sent in it; before that is known, of the upload.
    pub first_line: u64,
    /// The last one.
    pub last_line: u64,
    /// The receipt: a compact JWS.
    pub receipt: String,
    /// The proof that its entry is in the log: a C2SP tlog-proof.
    pub proof: String,
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receipt({} to {})", self.first_line, self.last_line)
    }
}

impl Receipt {
    /// A receipt as the gateway gives it, with lines counted as it does.
    pub fn given(batch: String, receipt: String, proof: String) -> Result<Self, String> {
        let claims = batch::said(&receipt).map_err(|e| e.to_string())?;
        Ok(Self {
            lines_form: LINES_FORM,
            batch,
            first_line: claims.first_line,
            last_line: claims.last_line,
            receipt,
            proof,
        })
    }

    /// One line of the file, with its end.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(line).map_err(|e| format!("it is no receipt: {e}"))?;
        match read.lines_form {
            LINES_FORM => Ok(read),
            other => Err(format!(
                "its lines were made in the form {other}, and this version knows the form {LINES_FORM}: take the version of jadegate that sent them, or a later one"
            )),
        }
    }

    /// Whether the entry in the proof is that of the receipt; its signature is not looked at.
    pub fn is_of(&self, proof: &Proof) -> bool {
        proof.extra.starts_with(&Sha256::digest(&self.receipt))
    }
}

/// Whether receipts that just came are for these lines, all of them: a gateway that gives others is not believed.
pub fn fit(receipts: &[Receipt], body: &[u8]) -> bool {
    let lines = batch::lines(body);
    let mut rest = lines.as_slice();
    for given in receipts {
        let Ok(claims) = batch::said(&given.receipt) else { return false };
        let Some((own, after)) = usize::try_from(claims.lines).ok().and_then(|count| rest.split_at_checked(count))
        else {
            return false;
        };
        let numbers = (own.first().map(|(number, _)| *number), own.last().map(|(number, _)| *number));
        let fits = numbers == (Some(claims.first_line), Some(claims.last_line))
            && claims.jti == given.batch
            && batch::digest(own) == claims.sha256
            && Proof::parse(&given.proof).is_ok_and(|proof| given.is_of(&proof));
        if !fits {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// The file of receipts beside a file.
pub fn beside(of: &Path, more: &str) -> PathBuf {
    let mut name = of.as_os_str().to_owned();
    name.push(ENDING);
    name.push(more);
    PathBuf::from(name)
}
