//! Debian's PostgreSQL, started by the test that needs it: a server of its own in a folder of its own, over TLS, on a
//! port of its own, ended when the test ends. Two of them make a primary and its standby.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jadegate::cli::pki::Authority;
use jadegate::clock::{Clock as _, SystemClock};
use jadegate::config::{Database, StorePlace};
use jadegate::store::postgres::{PostgresAddress, PostgresOptions};
use zeroize::Zeroizing;

use super::Folder;
use super::deployment::free_addresses;

/// The password of the user `jadegate`.
pub const PASSWORD: &str = "the-password-of-the-store-7391";

/// A program of PostgreSQL's: in PATH, or where Debian puts it.
fn program(name: &str) -> PathBuf {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&in_path).collect();
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|found| found.filter_map(|entry| entry.ok().map(|entry| entry.path().join("bin"))).collect())
        .unwrap_or_default();
    debian.sort();
    folders.extend(debian.into_iter().rev());
    let found = folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("no {name}: install Debian's postgresql, as scripts/test does"))
}

/// Whom the server runs as: it refuses to be root.
fn user() -> Option<(u32, u32)> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let own: Vec<&str> = status.lines().find(|line| line.starts_with("Uid:")).unwrap().split_whitespace().collect();
    if own[2] != "0" {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().unwrap(), fields.next()?.parse().unwrap()))
    };
    Some(of("postgres").or_else(|| of("nobody")).unwrap())
}

/// A command as that user, ended by the kernel if this test is.
fn command(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some((uid, gid)) = user() {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
    }
    command.arg("--").arg(program(name)).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn run(mut command: Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn give(path: &Path) {
    if let Some((uid, gid)) = user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// What several servers share: where they lie, and who signs for them.
pub struct Postgres {
    folder: Folder,
    authority: Authority,
    /// What every server is told beside the usual: `fsync=off`.
    settings: Vec<String>,
    next: u32,
}

/// One server.
pub struct Server {
    name: String,
    data: PathBuf,
    sockets: PathBuf,
    pub at: SocketAddr,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Postgres {
    /// `fsync=off` is quick, and right only where no power is cut.
    pub fn new(settings: &[&str]) -> Self {
        let folder = Folder::new();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give(folder.path());
        let authority = Authority::make("a database's authority", SystemClock::new().now()).unwrap();
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        fs::write(folder.path().join("ca.pem"), &authority.own().cert_pem).unwrap();
        Self { folder, authority, settings, next: 0 }
    }

    /// A server with no database of ours, and the two users: `jadegate` over TLS, `plain` without.
    pub async fn start(settings: &[&str]) -> (Self, Server) {
        let mut postgres = Self::new(settings);
        let server = postgres.server().await;
        (postgres, server)
    }

    /// The authority of the servers' certificates.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn place(&mut self) -> Server {
        self.next += 1;
        let name = format!("s{}", self.next);
        let [at] = free_addresses();
        let folder = self.folder.path().join(&name);
        fs::create_dir(&folder).unwrap();
        give(&folder);
        let settings = self.settings.clone();
        Server { name, data: folder.join("data"), sockets: folder, at, settings, child: None }
    }

    pub async fn server(&mut self) -> Server {
        let mut server = self.place();
        let mut initdb = command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]);
        initdb.arg("-D").arg(&server.data);
        run(initdb);
        self.secure(&server);
        server.run().await;
        let admin = server.admin("postgres").await;
        let users = format!(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE jadegate LOGIN PASSWORD '{PASSWORD}'; \
             CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'"
        );
        admin.batch_execute(&users).await.unwrap();
        server
    }

    /// Certificate, key, and who may come in.
    fn secure(&self, server: &Server) {
        let issued = self.authority.server(&["127.0.0.1", "localhost"]).unwrap();
        for (name, text) in [
            ("server.crt", issued.cert_pem.as_str()),
            ("server.key", issued.key_pem.as_str()),
            (
                "pg_hba.conf",
                "local all all trust\nlocal replication all trust\nhostnossl all plain 127.0.0.1/32 scram-sha-256\n\
                 hostssl all all 127.0.0.1/32 scram-sha-256\n",
            ),
        ] {
            let path = server.data.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            give(&path);
        }
    }

    /// A standby of this primary, a copy of it as it is now; from now on the primary's commits wait for one.
    pub async fn standby(&mut self, primary: &Server) -> Server {
        let mut standby = self.place();
        standby.follow(primary).await;
        primary.waits_for_its_standby().await;
        standby
    }

    /// The address of a database on these servers, as `store` in jadegate.toml has it.
    pub fn url(servers: &[&Server], database: &str) -> String {
        let hosts: Vec<String> = servers.iter().map(|server| server.at.to_string()).collect();
        format!("postgresql://jadegate@{}/{database}", hosts.join(","))
    }

    /// A database on these servers as a deployment in this folder names it, its password in a file beside.
    pub fn place_for(&self, dir: &Path, servers: &[&Server], database: &str) -> StorePlace {
        let password = dir.join("database.password");
        fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let address = PostgresAddress::parse(&Self::url(servers, database)).unwrap();
        let (password_file, ca) = (Some(password), Some(self.ca()));
        StorePlace::Database(Box::new(Database { address, password_file, ca, plain: false }))
    }

    /// Options for the user `jadegate` over TLS.
    pub fn options(&self, url: &str) -> PostgresOptions {
        let mut options = PostgresOptions::new(PostgresAddress::parse(url).unwrap());
        options.password = Some(Zeroizing::new(PASSWORD.to_owned()));
        options.authorities = Some(fs::read(self.ca()).unwrap());
        options
    }
}

impl Server {
    async fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.sockets.join("log")).unwrap();
        let mut postgres = command("postgres");
        postgres.arg("-D").arg(&self.data).arg("-k").arg(&self.sockets);
        let own = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.at.port()),
            "ssl=on".to_owned(),
            "max_connections=200".to_owned(),
            "shared_buffers=64MB".to_owned(),
            "logging_collector=off".to_owned(),
            "wal_keep_size=64MB".to_owned(),
            format!("cluster_name={}", self.name),
        ];
        for setting in own.iter().chain(&self.settings) {
            postgres.arg("-c").arg(setting);
        }
        self.child = Some(postgres.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        for _ in 0..1200 {
            if self.try_admin("postgres").await.is_some() {
                return;
            }
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "postgres ended: {}", self.log());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("postgres does not answer: {}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.sockets.join("log")).unwrap()
    }

    async fn try_admin(&self, database: &str) -> Option<tokio_postgres::Client> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.sockets).port(self.at.port()).user("postgres").dbname(database);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// The superuser, over the socket.
    pub async fn admin(&self, database: &str) -> tokio_postgres::Client {
        self.try_admin(database).await.unwrap()
    }

    /// A new, empty database of this user's.
    pub async fn database(&self, name: &str, owner: &str) {
        self.admin("postgres").await.batch_execute(&format!("CREATE DATABASE {name} OWNER {owner}")).await.unwrap();
    }

    /// Becomes a standby of this primary, with a fresh copy of it.
    pub async fn follow(&mut self, primary: &Server) {
        assert!(self.child.is_none());
        if self.data.exists() {
            fs::remove_dir_all(&self.data).unwrap();
        }
        let mut copy = command("pg_basebackup");
        copy.arg("-h").arg(&primary.sockets).args(["-p", &primary.at.port().to_string(), "-U", "postgres"]);
        copy.args(["-c", "fast", "-X", "stream", "-R", "--no-sync", "-D"]).arg(&self.data);
        // In a thread of the runtime's own: the copy waits for the primary, whose clients are here.
        let done = tokio::task::spawn_blocking(move || copy.output().unwrap()).await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.run().await;
    }

    /// From now on each commit of this primary waits for its standby, which must be there.
    pub async fn waits_for_its_standby(&self) {
        let admin = self.admin("postgres").await;
        admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
        admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        for _ in 0..1200 {
            let sync = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'";
            let (names, count): (String, i64) = (
                admin.query_one("SHOW synchronous_standby_names", &[]).await.unwrap().get(0),
                admin.query_one(sync, &[]).await.unwrap().get(0),
            );
            if names == "*" && count == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no standby: {}", self.log());
    }

    /// Stops this standby from receiving, until [`Self::let_go`]: what its primary acknowledges now is on one machine alone.
    pub async fn hold_back(&self) -> i32 {
        let row = self.admin("postgres").await.query_one("SELECT pid FROM pg_stat_wal_receiver", &[]).await.unwrap();
        let receiver = row.get(0);
        signal(receiver, "-STOP");
        receiver
    }

    /// What came meanwhile is not read any more.
    pub fn let_go(&self, receiver: i32) {
        signal(receiver, "-TERM");
        signal(receiver, "-CONT");
    }

    /// Waits until a commit of this primary waits for its standby, or for so long.
    pub async fn is_waited_on(&self, within: Duration) {
        let until = tokio::time::Instant::now() + within;
        let admin = self.admin("postgres").await;
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        while admin.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A standby becomes the primary.
    pub async fn promote(&self) {
        let row = self.admin("postgres").await.query_one("SELECT pg_promote(true, 60)", &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "{}", self.log());
    }

    /// Power off: every process of it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Its children see the end of the postmaster and end too, at the latest when they next wait.
            let _it_may_have_ended = child.kill();
            let _likewise = child.wait();
        }
    }

    /// Goes away with every connection, and comes back.
    pub async fn again(&mut self) {
        self.stop();
        self.run().await;
    }

    /// Ends it at once, without the children going on meanwhile.
    pub fn stop(&mut self) {
        if let Some(child) = &self.child {
            let _immediate = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
        }
        if let Some(mut child) = self.child.take() {
            for _ in 0..400 {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _it_may_have_ended = child.kill();
            let _likewise = child.wait();
        }
    }
}

fn signal(process: i32, name: &str) {
    let sent = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    assert!(sent.success());
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
