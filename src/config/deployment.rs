//! Opens a deployment: keys, policies, store and outside copies, in the folders that `jadegate.toml` names.
//!
//! The only place that knows which backend keeps the cells.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{Config, ConfigError, StaffRole, StorePlace, read_policies};
use crate::access::Role;
use crate::access_log::checkpoint::VerifierKey;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::gateway::{Ended, Gateway, LoadError, Parts, Staff, StartError};
use crate::keys::{Keyring, KeyringError, LogKey, NewKeyring, RootKey, RootKeyError, is_public_secret};
use crate::ledger;
use crate::ledger::audit::{Audit, audit};
use crate::ledger::outside::{Outside, OutsideFolder, OutsideFolders};
use crate::ledger::restored::{Held, held};
use crate::party::{KeyAlgorithm, Party};
use crate::policies::PolicySet;
use crate::policy::Mistakes;
use crate::store::postgres::{PostgresError, PostgresOptions, PostgresStore};
use crate::store::sled::{OpenError, SledOptions, SledStore};
use crate::store::{Store, StoreError};

/// The root key's file in the key folder.
pub const ROOT_KEY_FILE: &str = "root.key";
/// The wrapped keys' file in the key folder.
pub const KEYRING_FILE: &str = "keyring.json";
/// The folder of the parties' secrets in the key folder.
pub const PARTY_SECRETS_FOLDER: &str = "parties";
/// The fewest bytes of a party's secret.
const SECRET_BYTES_MIN: usize = 16;

/// Parties' secrets by the name of their file, as `parties.toml` has it.
pub type PartySecrets = HashMap<String, Zeroizing<Vec<u8>>>;

/// Why a deployment does not open, or does not take over new policies.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// A file cannot be read.
    #[error("cannot read {}: {why}; put it back from your copy of the key folder, or correct `keys` in jadegate.toml", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// Others than its owner can read a secret.
    #[error("{} can be read by others than its owner (mode {mode:o}): chmod 600 it, and make new keys if anybody had access", path.display())]
    Readable {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The root key.
    #[error("{}: {source}", path.display())]
    Root {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: RootKeyError,
    },
    /// The keyring.
    #[error("{}: {source}", path.display())]
    Keyring {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeyringError,
    },
    /// The keyring of another deployment, or an older one.
    #[error("{} is of the log {keyring}, and jadegate.toml names the log {config} as `log_origin`: put the keys of this deployment back; a log never changes its name, and `jadegate log add` makes a further one", path.display())]
    OtherLog {
        /// The keyring's file.
        path: PathBuf,
        /// The log of the keyring.
        keyring: String,
        /// The log of the configuration.
        config: String,
    },
    /// A party's secret.
    #[error("{}: a party's shared key is at least {SECRET_BYTES_MIN} bytes in base64; put the one there that the party has", .0.display())]
    Secret(PathBuf),
    /// A party's secret that everybody can read.
    #[error("{}: this secret is published with the source; make one of your own, 32 random bytes in base64", .0.display())]
    PublicSecret(PathBuf),
    /// The policy folder cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policies have mistakes.
    #[error("{}: {mistakes}", folder.display())]
    Policies {
        /// The policy folder.
        folder: PathBuf,
        /// All of them.
        mistakes: Mistakes,
    },
    /// The policies cannot be loaded now.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The database.
    #[error(transparent)]
    Database(#[from] PostgresError),
    /// There is no store.
    #[error("{}: there is no store here; name the configuration of a deployment that has run", .0.display())]
    NoStore(PathBuf),
    /// The store cannot be read.
    #[error("{0}. If that does not pass, keep a copy of the store and restore a backup")]
    Read(StoreError),
    /// The gateway.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl DeploymentError {
    pub(super) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File { path: path.to_owned(), why: error.to_string() }
    }
}

/// A deployment that is open.
pub struct Deployment {
    /// The use cases over it.
    pub gateway: Gateway,
    /// What parties sign with.
    pub secrets: PartySecrets,
}

impl Config {
    /// Opens keys, policies, store and log.
    pub async fn open(&self, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Deployment, DeploymentError> {
        let keys = self.open_keys()?;
        let store = self.open_store(true).await?;
        // Under whatever name this gateway's log goes: an old store shows by each copy that this host keeps.
        let own = keys.log().origin().to_owned();
        let held = held(&store, &keys, &|origin| self.outside(origin)).await.map_err(StartError::from)?;
        if let Some(behind) = held.into_iter().find(|held| held.is_behind() && held.origin != own) {
            let (store, outside) = (behind.store, behind.outside.unwrap_or_default());
            let place = self.outside(&behind.origin).place();
            return Err(StartError::from(ledger::OpenError::RolledBack { store, outside, place }).into());
        }
        self.open_over(keys, store, None, clock, entropy).await
    }

    /// Opens a deployment whose store was restored from a backup, under a new log: the one act that does so.
    ///
    /// It may be repeated until it has succeeded, and changes nothing then.
    pub async fn open_restored(
        &self,
        origin: &str,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Deployment, DeploymentError> {
        if !self.logs()?.iter().any(|(known, ..)| known == origin) {
            self.add_log(origin, clock.now(), &*entropy)?;
        }
        let under = Self { log_origin: origin.to_owned(), ..self.clone() };
        let keys = under.open_keys()?;
        let store = self.open_store(true).await?;
        let held = held(&store, &keys, &|origin| self.outside(origin)).await.map_err(StartError::from)?;
        let ends = |held: &Held| held.origin != origin && (held.is_behind() || held.origin == self.log_origin);
        let ended: Ended = held.into_iter().filter(ends).collect();
        let deployment = under.open_over(keys, store, Some(&ended), clock.clone(), entropy).await?;
        for held in ended {
            // Nobody goes on writing it; and what its copies said beyond the store is kept beside them.
            self.retire_log(&held.origin, clock.now())?;
            if !held.is_behind() && held.outside.is_some() {
                continue;
            }
            let set_aside = OutsideFolder::new(&self.checkpoints, &held.origin).replace(held.note.as_deref());
            set_aside.map_err(|e| StartError::from(ledger::OpenError::Outside(e)))?;
        }
        Ok(deployment)
    }

    fn outside(&self, origin: &str) -> Box<dyn Outside> {
        Box::new(OutsideFolder::new(&self.checkpoints, origin))
    }

    async fn open_over(
        &self,
        keys: Keyring,
        store: Arc<dyn Store>,
        ended: Option<&Ended>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Deployment, DeploymentError> {
        let (policies, secrets) = self.open_policies()?;
        let outside = self.outside(keys.log().origin());
        let role = |role| match role {
            StaffRole::Officer => Role::Officer,
            StaffRole::Operator => Role::Operator,
        };
        let staff = self.staff.iter().map(|staff| Staff { login: staff.login.clone(), role: role(staff.role) });
        let issuer = self.issuer.clone();
        let parts = Parts { store, keys, policies, outside, clock, entropy, issuer, staff: staff.collect() };
        Ok(Deployment { gateway: Gateway::open_restored(parts, ended).await?, secrets })
    }

    /// Replays the log of a stopped deployment against its store.
    ///
    /// `further` are folders with outside copies of other hosts.
    pub async fn audit(&self, further: &[PathBuf], progress: &mut dyn FnMut(u64)) -> Result<Audit, DeploymentError> {
        let keys = self.open_keys()?;
        let store = self.open_store(false).await?;
        let folders = std::iter::once(&self.checkpoints).chain(further);
        let copies = folders.flat_map(|folder| keys.logs().iter().map(|log| OutsideFolder::new(folder, log.origin())));
        let outside = OutsideFolders(copies.collect());
        audit(&store, &keys, &outside, progress).await.map_err(DeploymentError::Read)
    }

    /// Opens the store; where nothing was ever stored, one is made there if `create`, else that is refused.
    pub(super) async fn open_store(&self, create: bool) -> Result<Arc<dyn Store>, DeploymentError> {
        let database = match &self.store {
            StorePlace::Folder(folder) => {
                if !create && !SledStore::is_at(folder) {
                    return Err(DeploymentError::NoStore(folder.clone()));
                }
                let cache_bytes = u64::from(self.store_cache_mib) * 1024 * 1024;
                let options = SledOptions { cache_bytes, ..SledOptions::default() };
                return Ok(Arc::new(SledStore::open(folder, options)?));
            }
            StorePlace::Database(database) => database,
        };
        let mut options =
            PostgresOptions { create, plain: database.plain, ..PostgresOptions::new(database.address.clone()) };
        if let Some(file) = &database.password_file {
            let text = Zeroizing::new(read_secret(file)?);
            options.password = Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
        }
        if let Some(file) = &database.ca {
            let failed = |e: std::io::Error| DeploymentError::File { path: file.clone(), why: e.to_string() };
            options.authorities = Some(fs::read(file).map_err(failed)?);
        }
        Ok(Arc::new(PostgresStore::open(options).await?))
    }

    /// The policies and the parties' secrets as their folders hold them now.
    pub fn open_policies(&self) -> Result<(PolicySet, PartySecrets), DeploymentError> {
        let policies = PolicySet::parse(read_policies(&self.policies)?)
            .map_err(|mistakes| DeploymentError::Policies { folder: self.policies.clone(), mistakes })?;
        let secrets = self.party_secrets(policies.parties.values())?;
        Ok((policies, secrets))
    }

    /// The root key, and the keyring's text with its path.
    pub(super) fn read_keyring(&self) -> Result<(RootKey, String, PathBuf), DeploymentError> {
        let path = self.keys.join(ROOT_KEY_FILE);
        let text = Zeroizing::new(read_secret(&path)?);
        let root = RootKey::parse(&text, self.demo).map_err(|source| DeploymentError::Root { path, source })?;
        let path = self.keys.join(KEYRING_FILE);
        let text = read_secret(&path)?;
        Ok((root, text, path))
    }

    /// What tells one keyring file from the next without reading it.
    pub fn keyring_stamp(&self) -> Option<(u64, i64, i64)> {
        use std::os::unix::fs::MetadataExt as _;
        let file = fs::metadata(self.keys.join(KEYRING_FILE)).ok()?;
        Some((file.ino(), file.mtime(), file.mtime_nsec()))
    }

    /// The keyring as its file holds it now.
    pub fn open_keys(&self) -> Result<Keyring, DeploymentError> {
        let (root, text, path) = self.read_keyring()?;
        let keys =
            Keyring::open(&text, &root).map_err(|source| DeploymentError::Keyring { path: path.clone(), source })?;
        // Each gateway writes one log of the deployment; under a name that no keyring has, a stray one would begin.
        let (keyring, config) = (keys.origins(), self.log_origin.clone());
        keys.writing(&self.log_origin).map_err(|source| match source {
            KeyringError::NoLog(..) => DeploymentError::OtherLog { path, keyring, config },
            source => DeploymentError::Keyring { path, source },
        })
    }

    /// Gives the keyring keys for one more log, for another gateway over the same store.
    pub fn add_log(&self, origin: &str, now: Timestamp, entropy: &dyn Entropy) -> Result<(), DeploymentError> {
        self.change_keyring(|text, root| NewKeyring::add_log(text, root, origin, now, entropy))
    }

    /// Marks a log as one that no gateway writes any more.
    pub fn retire_log(&self, origin: &str, now: Timestamp) -> Result<(), DeploymentError> {
        self.change_keyring(|text, root| NewKeyring::retire_log(text, root, origin, now))
    }

    /// The logs of the keyring: origin, verifier key, and since when it is retired.
    pub fn logs(&self) -> Result<Vec<(String, VerifierKey, Option<Timestamp>)>, DeploymentError> {
        let (root, text, path) = self.read_keyring()?;
        let keys = Keyring::open(&text, &root).map_err(|source| DeploymentError::Keyring { path, source })?;
        let named = |key: &Arc<LogKey>| {
            let verifier = VerifierKey::new(key.origin(), key.public()).ok()?;
            Some((key.origin().to_owned(), verifier, key.retired()))
        };
        Ok(keys.logs().iter().filter_map(named).collect())
    }

    fn change_keyring(
        &self,
        change: impl FnOnce(&str, &RootKey) -> Result<String, KeyringError>,
    ) -> Result<(), DeploymentError> {
        let (root, text, path) = self.read_keyring()?;
        let changed = change(&text, &root).map_err(|source| DeploymentError::Keyring { path: path.clone(), source })?;
        replace_secret(&path, changed.as_bytes(), &mut |_| Ok(()))
    }

    fn party_secrets<'a>(&self, parties: impl Iterator<Item = &'a Party>) -> Result<PartySecrets, DeploymentError> {
        let mut secrets = PartySecrets::new();
        for key in parties.flat_map(|party| &party.keys) {
            let KeyAlgorithm::HmacSha256 { file } = &key.algorithm else { continue };
            let path = self.keys.join(PARTY_SECRETS_FOLDER).join(file);
            let text = Zeroizing::new(read_secret(&path)?);
            let secret = BASE64.decode(text.trim_end()).ok().filter(|secret| secret.len() >= SECRET_BYTES_MIN);
            let Some(secret) = secret.map(Zeroizing::new) else { return Err(DeploymentError::Secret(path)) };
            if !self.demo && is_public_secret(&secret) {
                return Err(DeploymentError::PublicSecret(path));
            }
            secrets.insert(file.clone(), secret);
        }
        Ok(secrets)
    }
}

/// Puts a secret in the place of another, whole or not at all.
pub(super) fn replace_secret(
    path: &Path,
    content: &[u8],
    before: &mut dyn FnMut(&'static str) -> std::io::Result<()>,
) -> Result<(), DeploymentError> {
    use std::io::Write as _;
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
    let failed = |e: std::io::Error| DeploymentError::File { path: path.to_owned(), why: e.to_string() };
    let new = path.with_extension("new");
    // What an interrupted attempt left there is of no use to anybody.
    fs::remove_file(&new)
        .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
        .map_err(failed)?;
    before("create").map_err(failed)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    // Whoever runs the gateway goes on reading it, whoever runs this command.
    let (owner, own) = (fs::metadata(path).map_err(failed)?, file.metadata().map_err(failed)?);
    if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid())).map_err(failed)?;
    }
    before("write").map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    before("sync").map_err(failed)?;
    file.sync_all().map_err(failed)?;
    before("rename").map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    before("sync the folder").map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Reads a file that nobody but its owner may read.
fn read_secret(path: &Path) -> Result<String, DeploymentError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |e: std::io::Error| DeploymentError::File { path: path.to_owned(), why: e.to_string() };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(DeploymentError::Readable { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map_err(failed)
}
