//! `jadegate.toml`: where a deployment listens, where its folders are, and what it is called.
//!
//! Only what differs from machine to machine stands here; what the city decides is in the policies. Paths
//! are relative to the file. It is read strictly: an unknown key or a value of another kind is refused
//! with its place, since a setting that is silently ignored is worse than none. A plain listener
//! must be on loopback, behind something that ends TLS for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub mod backup;
pub mod deployment;
pub mod models;
mod reading;
pub mod rotate;

pub use reading::ConfigError;

use crate::store::postgres::PostgresAddress;

/// The largest `jadegate.toml` that is read.
pub const CONFIG_BYTES_MAX: u64 = 256 * 1024;
/// The largest policy file that is read.
pub const POLICY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most files that a policy folder may hold.
pub const POLICY_FILES_MAX: usize = 1000;

/// A deployment's settings, with every path made whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A synthetic city: `POST /demo/login` works, and every page says so.
    pub demo: bool,
    /// Where people, staff and the public come in, without TLS: loopback.
    pub listen: SocketAddr,
    /// Where relying parties, providers and the registrar come in, over TLS.
    pub api: SocketAddr,
    /// Where the operator reads figures; port 0 takes a free one.
    pub admin: SocketAddr,
    /// What people's addresses begin with: `http://127.0.0.1:8080`.
    pub web_base: String,
    /// What `@target-uri` begins with, whatever a call claims: `https://127.0.0.1:8443`.
    pub api_base: String,
    /// The `iss` of attestations.
    pub issuer: String,
    /// The name of the access log, for ever: it stands in every checkpoint.
    pub log_origin: String,
    /// Where the cells are kept.
    pub store: StorePlace,
    /// The key folder.
    pub keys: PathBuf,
    /// The policy folder.
    pub policies: PathBuf,
    /// Where the newest checkpoint is kept outside the store.
    pub checkpoints: PathBuf,
    /// The files of the TLS side.
    pub tls: TlsFiles,
    /// How much memory the store may use to remember pages, in MiB.
    pub store_cache_mib: u32,
    /// How long calls under way may go on after SIGTERM.
    pub drain_seconds: u32,
    /// Who works at the city's office. The demo's logins; a deployment's come from its own identity service.
    pub staff: Vec<Staff>,
}

/// Where the cells are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// In a folder, which one process holds.
    Folder(PathBuf),
    /// In a database, which several gateways may use.
    Database(Box<Database>),
}

impl StorePlace {
    /// The folder, where it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Database(_) => None,
        }
    }
}

/// A PostgreSQL database, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Hosts, name and user; never a password.
    pub address: PostgresAddress,
    /// The file that holds the user's password, mode 0600.
    pub password_file: Option<PathBuf>,
    /// The authorities that the server's certificate must come from, as PEM.
    pub ca: Option<PathBuf>,
    /// Plain TCP on loopback is meant.
    pub plain: bool,
}

/// Where certificates and the server's key lie, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate chain.
    pub certificate: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// The authorities that client certificates must come from.
    pub client_ca: PathBuf,
}

/// Somebody who works at the city's office.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staff {
    /// The name that they log in with.
    pub login: String,
    /// What they may do.
    pub role: StaffRole,
}

/// The two kinds of staff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaffRole {
    /// Reads the access log, opens and confirms cases.
    Officer,
    /// Decides on objections and repairs, publishes models.
    Operator,
}

impl StaffRole {
    /// The role as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Officer => "officer",
            Self::Operator => "operator",
        }
    }

    /// Reads a role.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Officer, Self::Operator].into_iter().find(|role| role.as_str() == text)
    }
}

impl Config {
    /// Reads a configuration file; paths in it are relative to the file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::parse(&name, read_limited(file, CONFIG_BYTES_MAX)?, folder)
    }

    /// Reads the bytes of a configuration file that messages call `name`; paths in it are relative to `folder`.
    pub fn parse(name: &str, bytes: Vec<u8>, folder: &Path) -> Result<Self, ConfigError> {
        reading::parse(name, bytes, folder)
    }

    /// The text of a configuration file with these settings, for a file in `folder`.
    pub fn to_toml(&self, folder: &Path) -> String {
        let path = |p: &Path| quoted(&p.strip_prefix(folder).unwrap_or(p).to_string_lossy());
        let mut out = String::from(
            "# jadegate: where this deployment listens and where its folders are.\n\
             # Paths are relative to this file. What the city decides stands in the policies.\n\n",
        );
        let mut line = |comment: &str, key: &str, value: String| {
            writeln!(out, "# {comment}\n{key} = {value}").ok();
        };
        line("A synthetic city with its own login; never true where real people are.", "demo", self.demo.to_string());
        line(
            "People, staff, pages and everything public: plain HTTP, so loopback, behind what ends TLS.",
            "listen",
            quoted(&self.listen.to_string()),
        );
        line(
            "Relying parties, providers and the registrar: TLS 1.3 with client certificates.",
            "api",
            quoted(&self.api.to_string()),
        );
        line("Figures for the operator (/metrics); port 0 takes a free one.", "admin", quoted(&self.admin.to_string()));
        line(
            "What the addresses outside begin with; signatures cover api_base, whatever a call claims.",
            "web_base",
            quoted(&self.web_base),
        );
        line("", "api_base", quoted(&self.api_base));
        line("The issuer named in attestations.", "issuer", quoted(&self.issuer));
        line(
            "The access log's name. It stands in every checkpoint and never changes.",
            "log_origin",
            quoted(&self.log_origin),
        );
        line(
            "The folders. Keep `checkpoints` on another disk if you can, and back `keys` up apart from `store`.",
            "store",
            match &self.store {
                StorePlace::Folder(place) => match place.strip_prefix(folder) {
                    // A folder of such a name, and no database.
                    Ok(rest) if PostgresAddress::is_one(&rest.to_string_lossy()) => path(&Path::new(".").join(rest)),
                    _ => path(place),
                },
                StorePlace::Database(database) => quoted(database.address.text()),
            },
        );
        if let StorePlace::Database(database) = &self.store {
            let Database { password_file, ca, plain, .. } = &**database;
            password_file.iter().for_each(|file| line("", "store_password_file", path(file)));
            ca.iter().for_each(|file| line("", "store_ca", path(file)));
            if *plain {
                line("", "store_plain", plain.to_string());
            }
        }
        line("", "keys", path(&self.keys));
        line("", "policies", path(&self.policies));
        line("", "checkpoints", path(&self.checkpoints));
        line(
            "Memory for the store's pages, in MiB; about 2,048 for each million people helps.",
            "store_cache_mib",
            self.store_cache_mib.to_string(),
        );
        line("How long calls under way may go on after SIGTERM.", "drain_seconds", self.drain_seconds.to_string());
        let mut out = out.replace("# \n", "");
        writeln!(
            out,
            "\n[tls]\n# The server's certificate and key, and the authority whose client certificates are taken.\ncertificate = {}\nkey = {}\nclient_ca = {}",
            path(&self.tls.certificate),
            path(&self.tls.key),
            path(&self.tls.client_ca),
        )
        .ok();
        for staff in &self.staff {
            writeln!(out, "\n[[staff]]\nlogin = {}\nrole = {}", quoted(&staff.login), quoted(staff.role.as_str())).ok();
        }
        out
    }
}

/// The files of a policy folder by name: `city.toml`, `models/yuxi-2026.toml`.
///
/// Only `*.toml` files are policies; notes beside them are left alone, and so is what begins with a dot.
pub fn read_policies(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, ConfigError> {
    let mut files = BTreeMap::new();
    for (prefix, folder) in [("", folder.to_owned()), ("models/", folder.join("models"))] {
        let entries = std::fs::read_dir(&folder).map_err(|e| ConfigError::policies(&folder, &e))?;
        for entry in entries {
            let entry = entry.map_err(|e| ConfigError::policies(&folder, &e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|n| n.ends_with(".toml") && !n.starts_with('.')) else { continue };
            if files.len() == POLICY_FILES_MAX {
                return Err(ConfigError::file(&folder, format!("it holds more than {POLICY_FILES_MAX} policies")));
            }
            files.insert(format!("{prefix}{name}"), read_limited(&entry.path(), POLICY_BYTES_MAX)?);
        }
    }
    Ok(files)
}

/// A file that may have so many bytes at most.
pub fn read_limited(file: &Path, bytes_max: u64) -> Result<Vec<u8>, ConfigError> {
    use std::io::Read;
    let open = std::fs::File::open(file).map_err(|e| ConfigError::unread(file, &e))?;
    let mut bytes = Vec::new();
    open.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|e| ConfigError::unread(file, &e))?;
    if bytes.len() as u64 > bytes_max {
        return Err(ConfigError::file(
            file,
            format!("it is larger than {bytes_max} bytes; split it or make it shorter"),
        ));
    }
    Ok(bytes)
}

/// A TOML string of any text.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
