//! Where the database is, who asks, and how the way to it is protected.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use super::PostgresError;

/// A database's address: `postgresql://user@host1:5432,host2:5432/name`.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    config: tokio_postgres::Config,
    text: String,
}

impl PostgresAddress {
    /// Whether a text means a database and not a folder.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("postgresql://") || text.starts_with("postgres://")
    }

    /// Reads an address. What it says wrong is told without repeating it: a password may be in it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "it is no address of the form postgresql://user@host:5432,host:5432/database";
        let config: tokio_postgres::Config = text.parse().map_err(|_| FORM)?;
        if config.get_password().is_some() {
            return Err("it holds a password");
        }
        if !Self::is_one(text) || config.get_hosts().is_empty() || config.get_dbname().is_none_or(str::is_empty) {
            return Err(FORM);
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err("it names no user");
        }
        Ok(Self { config, text: text.to_owned() })
    }

    /// The address as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether every host is a Unix socket.
    pub fn is_socket(&self) -> bool {
        self.config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)))
    }

    /// Whether no host is another machine.
    pub fn is_local(&self) -> bool {
        self.config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        })
    }

    /// The hosts and the name, without the user.
    fn place(&self) -> String {
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| {
            let ports = self.config.get_ports();
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => path.display().to_string(),
            }
        });
        format!(
            "the database {} at {}",
            self.config.get_dbname().unwrap_or_default(),
            hosts.collect::<Vec<_>>().join(", ")
        )
    }
}

/// How a store in PostgreSQL is opened.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Where it is.
    pub address: PostgresAddress,
    /// The user's password, where the server asks for one.
    pub password: Option<Zeroizing<String>>,
    /// The authorities that the server's certificate must come from, as PEM. Without them the way
    /// is plain, which [`PostgresOptions::plain`] must allow unless it is a Unix socket.
    pub authorities: Option<Vec<u8>>,
    /// Plain TCP on loopback is meant.
    pub plain: bool,
    /// The most connections that this store holds.
    pub connections: usize,
    /// For how long a read, or a commit that has changed nothing yet, looks for a server that takes
    /// writes: a failover that is quicker is not noticed.
    pub patience: Duration,
    /// How long the commit itself may take before its outcome counts as unknown.
    pub commit_wait: Duration,
    /// Make the tables where there are none.
    pub create: bool,
}

impl PostgresOptions {
    /// The usual options for this address.
    pub fn new(address: PostgresAddress) -> Self {
        Self {
            address,
            password: None,
            authorities: None,
            plain: false,
            connections: 8,
            patience: Duration::from_secs(10),
            commit_wait: Duration::from_secs(30),
            create: true,
        }
    }

    pub(super) fn place(&self) -> String {
        self.address.place()
    }

    pub(super) fn user(&self) -> String {
        self.address.config.get_user().unwrap_or_default().to_owned()
    }

    /// What the driver is given.
    pub(super) fn config(&self) -> tokio_postgres::Config {
        let mut config = self.address.config.clone();
        config
            .application_name("jadegate")
            .ssl_mode(if self.authorities.is_some() { SslMode::Require } else { SslMode::Disable })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(Duration::from_secs(3))
            .tcp_user_timeout(Duration::from_secs(10))
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        if let Some(password) = &self.password {
            config.password(password.as_bytes());
        }
        config
    }

    /// TLS 1.3 to a server of the given authorities; with none, only where plain is allowed.
    pub(super) fn tls(&self) -> Result<MakeRustlsConnect, PostgresError> {
        let mut roots = rustls::RootCertStore::empty();
        match &self.authorities {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|e| PostgresError::Authorities(e.to_string()))?;
                    roots.add(certificate).map_err(|e| PostgresError::Authorities(e.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(PostgresError::Authorities("it holds no certificate".to_owned()));
                }
            }
            None if self.address.is_socket() || (self.plain && self.address.is_local()) => {}
            None => return Err(PostgresError::Plain { place: self.place() }),
        }
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresOptions({})", self.place())
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}
