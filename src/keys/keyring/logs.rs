//! Keys for further logs of a deployment, and logs that nobody writes any more.

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{FORMAT_OF_SEVERAL, File, Keyring, KeyringError, LOG_SEAL, LOG_SIGNING, NamedLog, NewKeyring, wrap};
use crate::entropy::{self, Entropy};
use crate::keys::{FIRST_LOG, LOGS_MAX, RootKey, is_origin, path_name};

/// What stands in the place of a log's name under `/log/` already.
const NAMES_TAKEN: [&str; 4] = ["checkpoint", "key", "tile", "origins"];

impl NewKeyring {
    /// The text of this keyring with keys for one more log. Every gateway needs it before any writes that log.
    pub fn add_log(
        text: &str,
        root: &RootKey,
        origin: &str,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<String, KeyringError> {
        Keyring::open(text, root)?;
        let mut file = File::parse(text)?;
        let mut logs = file.logs();
        let name = path_name(origin);
        let wrong = |why| Err(KeyringError::Origin(origin.to_owned(), why));
        if !is_origin(origin) {
            return wrong("it has 1 to 128 ASCII characters, no blank and no +");
        }
        if NAMES_TAKEN.contains(&name.as_str()) || logs.iter().any(|log| path_name(&log.origin) == name) {
            return wrong("its name in paths and files is taken; choose one that differs in letters or digits");
        }
        if logs.len() >= LOGS_MAX {
            return wrong("a deployment has at most 256 logs, since each is served for ever");
        }
        let number = logs.iter().map(|log| log.number).max().unwrap_or(FIRST_LOG).saturating_add(1);
        for r#use in [LOG_SIGNING, LOG_SEAL] {
            let secret = Zeroizing::new(entropy::bytes::<32>(entropy)?);
            file.keys.push(wrap(root, origin, r#use, number.into(), now, &*secret, entropy)?);
        }
        logs.push(NamedLog { number, origin: origin.to_owned(), retired: None });
        (file.format, file.logs) = (FORMAT_OF_SEVERAL, logs);
        file.text()
    }

    /// The text of this keyring with a log marked that nobody writes any more. Its keys stay: it is
    /// served and verified for ever.
    pub fn retire_log(text: &str, root: &RootKey, origin: &str, now: Timestamp) -> Result<String, KeyringError> {
        Keyring::open(text, root)?;
        let mut file = File::parse(text)?;
        let mut logs = file.logs();
        let unknown = || KeyringError::NoLog(origin.to_owned(), file.origins());
        let log = logs.iter_mut().find(|log| log.origin == origin).ok_or_else(unknown)?;
        log.retired.get_or_insert(now);
        (file.format, file.logs) = (FORMAT_OF_SEVERAL, logs);
        file.text()
    }
}
