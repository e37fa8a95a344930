//! Opens a deployment: keys, policies, store and outside copies, in the folders that `jadegate.toml` names.
//!
//! The only place that knows which backend keeps the cells.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use super::{Config, ConfigError, StaffRole, read_policies};
use crate::access::Role;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::gateway::{Gateway, LoadError, Parts, Staff, StartError};
use crate::keys::{Keyring, KeyringError, RootKey, RootKeyError, is_public_secret};
use crate::ledger::audit::{Audit, audit};
use crate::ledger::outside::OutsideFolder;
use crate::party::{KeyAlgorithm, Party};
use crate::policies::PolicySet;
use crate::policy::Mistakes;
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
    /// The keyring of another deployment.
    #[error("{} is of the log {keyring}, and jadegate.toml names the log {config} as `log_origin`: put the keys of this deployment back; a log never changes its name", path.display())]
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
    /// There is no store to audit.
    #[error("{}: there is no store here; name the configuration of a deployment that has run", .0.display())]
    NoStore(PathBuf),
    /// The store cannot be read.
    #[error(transparent)]
    Read(StoreError),
    /// The gateway.
    #[error(transparent)]
    Start(#[from] StartError),
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
        let (policies, secrets) = self.open_policies()?;
        let store = Arc::new(self.open_store()?);
        let outside = Box::new(OutsideFolder::new(&self.checkpoints, keys.log().origin()));
        let role = |role| match role {
            StaffRole::Officer => Role::Officer,
            StaffRole::Operator => Role::Operator,
        };
        let staff = self.staff.iter().map(|staff| Staff { login: staff.login.clone(), role: role(staff.role) });
        let issuer = self.issuer.clone();
        let parts = Parts { store, keys, policies, outside, clock, entropy, issuer, staff: staff.collect() };
        Ok(Deployment { gateway: Gateway::open(parts).await?, secrets })
    }

    /// Replays the log of a stopped deployment against its store.
    pub async fn audit(&self, progress: &mut dyn FnMut(u64)) -> Result<Audit, DeploymentError> {
        let keys = self.open_keys()?;
        if !SledStore::is_at(&self.store) {
            return Err(DeploymentError::NoStore(self.store.clone()));
        }
        let store: Arc<dyn Store> = Arc::new(self.open_store()?);
        let outside = OutsideFolder::new(&self.checkpoints, keys.log().origin());
        audit(&store, &keys, &outside, progress).await.map_err(DeploymentError::Read)
    }

    fn open_store(&self) -> Result<SledStore, OpenError> {
        let cache_bytes = u64::from(self.store_cache_mib) * 1024 * 1024;
        SledStore::open(&self.store, SledOptions { cache_bytes, ..SledOptions::default() })
    }

    /// The policies and the parties' secrets as their folders hold them now.
    pub fn open_policies(&self) -> Result<(PolicySet, PartySecrets), DeploymentError> {
        let policies = PolicySet::parse(read_policies(&self.policies)?)
            .map_err(|mistakes| DeploymentError::Policies { folder: self.policies.clone(), mistakes })?;
        let secrets = self.party_secrets(policies.parties.values())?;
        Ok((policies, secrets))
    }

    fn open_keys(&self) -> Result<Keyring, DeploymentError> {
        let path = self.keys.join(ROOT_KEY_FILE);
        let text = Zeroizing::new(read_secret(&path)?);
        let root = RootKey::parse(&text, self.demo).map_err(|source| DeploymentError::Root { path, source })?;
        let path = self.keys.join(KEYRING_FILE);
        let text = read_secret(&path)?;
        let keys =
            Keyring::open(&text, &root).map_err(|source| DeploymentError::Keyring { path: path.clone(), source })?;
        // A store has one log: under another name nothing would be found in it, and a new log would begin.
        if keys.log().origin() != self.log_origin {
            let (keyring, config) = (keys.log().origin().to_owned(), self.log_origin.clone());
            return Err(DeploymentError::OtherLog { path, keyring, config });
        }
        Ok(keys)
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
