//! Reads `jadegate.toml`: every mistake at once, each with its place and what to do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::{Config, Database, Staff, StaffRole, StorePlace, TlsFiles};
use crate::keys::is_origin;
use crate::policy::{Document, Mistake, Mistakes, Once, Source, Table, Value};
use crate::store::postgres::PostgresAddress;

/// Why a configuration or a policy folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file or folder cannot be read.
    #[error("{path}: {why}")]
    File {
        /// The file or folder.
        path: String,
        /// What the system said, or which limit it breaks.
        why: String,
    },
    /// It can be read, and holds mistakes.
    #[error("{}", lines(.0))]
    Mistakes(Mistakes),
}

impl ConfigError {
    /// What the system did not let us read.
    pub(super) fn unread(path: &Path, error: &std::io::Error) -> Self {
        Self::file(path, format!("cannot be read: {error}; check the path and the file's rights"))
    }

    /// A folder of policies that is none.
    pub(super) fn policies(path: &Path, error: &std::io::Error) -> Self {
        let what =
            "a folder of policies has city.toml, catalogue.toml, models/ and others, as `jadegate init` makes them";
        Self::file(path, format!("cannot be read: {error}; {what}"))
    }

    pub(super) fn file(path: &Path, why: impl ToString) -> Self {
        Self::File { path: path.display().to_string(), why: why.to_string() }
    }
}

fn lines(mistakes: &Mistakes) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads the bytes of a configuration file called `name`, whose paths are relative to `folder`.
pub(super) fn parse(name: &str, bytes: Vec<u8>, folder: &Path) -> Result<Config, ConfigError> {
    let mut mistakes = Mistakes::new();
    let source = Source::from_bytes(name, &bytes, &mut mistakes);
    let document = Document::parse(&source, &mut mistakes);
    let config = read(document.root(), folder, &mut mistakes);
    mistakes.or(config).map_err(ConfigError::Mistakes)
}

fn read(mut file: Table<'_>, folder: &Path, mistakes: &mut Mistakes) -> Option<Config> {
    let m = mistakes;
    let demo = file.need("demo", m).and_then(|v| v.flag(m));
    let listen = file.need("listen", m).and_then(|v| address(&v, true, m));
    let api = file.need("api", m).and_then(|v| address(&v, demo == Some(true), m));
    let admin = file.need("admin", m).and_then(|v| address(&v, demo == Some(true), m));
    let web_base = file.need("web_base", m).and_then(|v| base(&v, &["http", "https"], m));
    let api_base = file.need("api_base", m).and_then(|v| base(&v, &["https"], m));
    let issuer = file.need("issuer", m).and_then(|v| base(&v, &["http", "https"], m));
    let log_origin = file.need("log_origin", m).and_then(|v| origin(&v, m));
    let mut path = |name| file.need(name, m).and_then(|v| v.text(m)).map(|text| folder.join(text));
    let (keys, policies, checkpoints) = (path("keys"), path("policies"), path("checkpoints"));
    let store = store(&mut file, folder, m);
    let store_cache_mib = number(file.need("store_cache_mib", m), 16..=1_048_576, m);
    let drain_seconds = number(file.need("drain_seconds", m), 0..=600, m);
    let tls = file.need("tls", m).and_then(|v| v.table("[tls]", m)).and_then(|t| tls(t, folder, m));
    let staff = staff(&mut file, demo == Some(true), m);
    file.finish(m);
    Some(Config {
        demo: demo?,
        listen: listen?,
        api: api?,
        admin: admin?,
        web_base: web_base?,
        api_base: api_base?,
        issuer: issuer?,
        log_origin: log_origin?,
        store: store?,
        keys: keys?,
        policies: policies?,
        checkpoints: checkpoints?,
        tls: tls?,
        store_cache_mib: store_cache_mib?,
        drain_seconds: drain_seconds?,
        staff,
    })
}

fn number(value: Option<Value<'_>>, range: std::ops::RangeInclusive<i64>, m: &mut Mistakes) -> Option<u32> {
    value.and_then(|v| v.whole(range, m)).and_then(|n| u32::try_from(n).ok())
}

fn address(value: &Value<'_>, loopback: bool, m: &mut Mistakes) -> Option<SocketAddr> {
    let text = value.text(m)?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        value.wrong(
            m,
            format!("\"{text}\" is no address"),
            "HOST:PORT with a numeric host",
            "write one as \"127.0.0.1:8443\"",
        );
        return None;
    };
    if loopback && !address.ip().is_loopback() {
        let help = "listen on 127.0.0.1 or [::1], and let a server in front of it end TLS and pass calls on";
        value.wrong(
            m,
            format!("\"{text}\" is open to other machines, without TLS or as a demo"),
            "a loopback address",
            help,
        );
        return None;
    }
    Some(address)
}

fn base(value: &Value<'_>, schemes: &[&str], m: &mut Mistakes) -> Option<String> {
    let text = value.text(m)?;
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'@' | b'?' | b'#'));
    let uri = text.parse::<http::Uri>().ok().filter(|_| plain && !text.ends_with('/'));
    let right = uri.is_some_and(|uri| {
        uri.scheme_str().is_some_and(|s| schemes.contains(&s))
            && uri.host().is_some_and(|h| !h.is_empty())
            && uri.path() == "/"
    });
    if !right {
        let expected = format!(
            "{} and a host, with no path",
            schemes.iter().map(|s| format!("{s}://")).collect::<Vec<_>>().join(" or ")
        );
        value.wrong(
            m,
            format!("\"{text}\" is no base address"),
            expected,
            format!("write one as \"{}://gate.example.cn\"", schemes.last().unwrap_or(&"https")),
        );
        return None;
    }
    Some(text.to_owned())
}

fn origin(value: &Value<'_>, m: &mut Mistakes) -> Option<String> {
    let text = value.text(m)?;
    if !is_origin(text) {
        value.wrong(
            m,
            format!("\"{text}\" cannot name a log"),
            "1 to 128 ASCII characters, no blank and no +",
            "write one as \"gate.example.cn/log\"",
        );
        return None;
    }
    Some(text.to_owned())
}

/// A folder, or a database with what leads there.
fn store(file: &mut Table<'_>, folder: &Path, m: &mut Mistakes) -> Option<StorePlace> {
    let of_a_database = ["store_password_file", "store_ca", "store_plain"].map(|name| file.take(name));
    let value = file.need("store", m)?;
    let text = value.text(m)?;
    if !PostgresAddress::is_one(text) {
        for given in of_a_database.iter().flatten() {
            given.wrong(m, "it leads to a database, and `store` is a folder", "a database as `store`", "take it out");
        }
        return Some(StorePlace::Folder(folder.join(text)));
    }
    let [password_file, ca, plain] = of_a_database;
    let mut path = |value: Option<Value<'_>>| value.and_then(|v| v.text(m).map(|text| folder.join(text)));
    let (password_file, ca) = (path(password_file), path(ca));
    let plain = plain.and_then(|v| v.flag(m));
    match PostgresAddress::parse(text) {
        Ok(address) => {
            let plain = plain.unwrap_or_default();
            Some(StorePlace::Database(Box::new(Database { address, password_file, ca, plain })))
        }
        Err(wrong) => {
            // The text is not repeated: a password may be in it.
            let help = "write it as \"postgresql://jadegate@db.example.cn:5432/jadegate\", and the password into the file that `store_password_file` names";
            value.wrong(m, wrong, "a database without a password", help);
            None
        }
    }
}

fn tls(mut table: Table<'_>, folder: &Path, m: &mut Mistakes) -> Option<TlsFiles> {
    let mut path =
        |name| -> Option<PathBuf> { table.need(name, m).and_then(|v| v.text(m)).map(|text| folder.join(text)) };
    let (certificate, key, client_ca) = (path("certificate"), path("key"), path("client_ca"));
    table.finish(m);
    Some(TlsFiles { certificate: certificate?, key: key?, client_ca: client_ca? })
}

fn staff(file: &mut Table<'_>, demo: bool, m: &mut Mistakes) -> Vec<Staff> {
    let (mut once, mut staff) = (Once::default(), Vec::new());
    for mut table in file.tables("staff", false, m) {
        if !demo {
            table.wrong(m, "a login without a password", "[[staff]] only where demo = true", "take it out");
        }
        let login = table.need("login", m).and_then(|v| {
            let text = v.text(m)?;
            once.is_new(text, &v, m).then(|| text.to_owned())
        });
        let roles = [("officer", StaffRole::Officer), ("operator", StaffRole::Operator)];
        let role = table.need("role", m).and_then(|v| v.choice(&roles, m));
        table.finish(m);
        staff.extend(login.zip(role).map(|(login, role)| Staff { login, role }));
    }
    staff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Config {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let path = |name: &str| Path::new("/d").join(name);
        Config {
            demo: true,
            listen: at(8080),
            api: at(8443),
            admin: at(0),
            web_base: "http://127.0.0.1:8080".into(),
            api_base: "https://127.0.0.1:8443".into(),
            issuer: "https://127.0.0.1:8443".into(),
            log_origin: "gate.example.cn/log".into(),
            store: StorePlace::Folder(path("store")),
            keys: path("keys"),
            policies: path("policies"),
            checkpoints: path("checkpoints"),
            tls: TlsFiles {
                certificate: path("pki/server.pem"),
                key: path("pki/server.key"),
                client_ca: path("pki/ca.pem"),
            },
            store_cache_mib: 256,
            drain_seconds: 10,
            staff: vec![Staff { login: "officer-one".into(), role: StaffRole::Officer }],
        }
    }

    fn text() -> String {
        sample().to_toml(Path::new("/d"))
    }

    fn mistakes(text: &str) -> Vec<String> {
        match parse("jadegate.toml", text.as_bytes().to_vec(), Path::new("/d")) {
            Err(ConfigError::Mistakes(m)) => m.iter().map(Mistake::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(parse("jadegate.toml", text().into_bytes(), Path::new("/d")).unwrap(), sample());
        assert!(text().contains("\nstore = \"store\"\n"), "paths are relative to the file");
    }

    #[test]
    fn a_folder_that_is_called_like_a_database_stays_a_folder() {
        let text = text().replace("store = \"store\"", "store = \"./postgresql://x\"");
        let read = parse("jadegate.toml", text.into_bytes(), Path::new("/d")).unwrap();
        assert_eq!(read.store.folder(), Some(Path::new("/d/postgresql://x")));
        let again = read.to_toml(Path::new("/d")).into_bytes();
        assert_eq!(parse("jadegate.toml", again, Path::new("/d")).unwrap(), read);
    }

    #[test]
    fn each_setting_is_needed_and_no_other_is_taken() {
        let whole = text();
        for line in whole.lines().filter(|l| l.contains(" = ")) {
            let key = line.split(" = ").next().unwrap();
            let found = mistakes(&whole.replace(&format!("\n{line}"), "\n"));
            assert!(found.iter().any(|m| m.contains(&format!("`{key}`"))), "{key}: {found:?}");
        }
        let found = mistakes(&format!("adminn = 1\n{whole}"));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("jadegate.toml:1:1: unknown field `adminn`")
                && found[0].contains("did you mean `admin`?"),
            "{found:?}"
        );
    }

    #[test]
    fn a_database_is_a_store_and_its_password_never_stands_here() {
        let whole = text();
        let with = |address: &str, more: &str| {
            let text = whole.replace("store = \"store\"", &format!("store = \"{address}\"\n{more}"));
            parse("jadegate.toml", text.into_bytes(), Path::new("/d")).map_err(|e| e.to_string())
        };
        let good = "postgresql://gate@10.1.0.1:5432,10.1.0.2:5432/city";
        let read = with(good, "store_password_file = \"keys/p\"\nstore_ca = \"pki/db.pem\"").unwrap();
        let StorePlace::Database(database) = &read.store else { panic!("{read:?}") };
        assert_eq!(database.password_file.as_deref(), Some(Path::new("/d/keys/p")));
        assert_eq!(database.ca.as_deref(), Some(Path::new("/d/pki/db.pem")));
        assert!(!database.plain && database.address.text() == good);
        let again = read.to_toml(Path::new("/d")).into_bytes();
        assert_eq!(parse("jadegate.toml", again, Path::new("/d")).unwrap(), read);
        for (address, said) in [
            ("postgresql://gate:hunter2hunter2@10.1.0.1/city", "it holds a password"),
            ("postgresql://gate@10.1.0.1/city?password=hunter2hunter2", "it holds a password"),
            ("postgresql://10.1.0.1/city", "it names no user"),
            ("postgresql://gate@10.1.0.1", "no address of the form"),
        ] {
            let found = with(address, "").unwrap_err();
            assert!(found.contains(said) && found.contains("jadegate.toml:"), "{said}: {found}");
            assert!(found.contains("store_password_file") && !found.contains("hunter2"), "{found}");
        }
        let found = with("store", "store_ca = \"x\"").unwrap_err();
        assert!(found.contains("`store` is a folder"), "{found}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line_and_what_to_do() {
        for (old, new, said) in [
            ("listen = \"127.0.0.1:8080\"", "listen = \"0.0.0.0:8080\"", "loopback"),
            ("api = \"127.0.0.1:8443\"", "api = \"10.0.0.1:8443\"", "loopback"),
            ("admin = \"127.0.0.1:0\"", "admin = \"localhost\"", "HOST:PORT"),
            ("web_base = \"http://127.0.0.1:8080\"", "web_base = \"ftp://x\"", "http:// or https://"),
            ("api_base = \"https://127.0.0.1:8443\"", "api_base = \"http://127.0.0.1:8443\"", "https://"),
            ("api_base = \"https://127.0.0.1:8443\"", "api_base = \"https://127.0.0.1:8443/v1\"", "no path"),
            ("log_origin = \"gate.example.cn/log\"", "log_origin = \"a b\"", "no blank"),
            ("store_cache_mib = 256", "store_cache_mib = 0", "16"),
            ("drain_seconds = 10", "drain_seconds = \"10\"", "whole number"),
            ("demo = true", "demo = 1", "true or false"),
            ("demo = true", "demo = false", "take it out"),
            ("role = \"officer\"", "role = \"ofificer\"", "did you mean \"officer\"?"),
            ("keys = \"keys\"", "keys = \"keys\"\nkeys = \"keys\"", "said twice"),
        ] {
            let bent = text().replace(old, new);
            assert_ne!(bent, text(), "{old}");
            let found = mistakes(&bent);
            assert!(found.iter().any(|m| m.contains(said) && m.starts_with("jadegate.toml:")), "{new}: {found:?}");
        }
        let found = mistakes("demo = true\nlisten =");
        assert!(
            !found.iter().any(|m| m.contains("without")),
            "what a broken file does not say may stand in its broken line: {found:?}"
        );
    }

    #[test]
    fn a_file_that_is_not_there_or_too_large_is_named() {
        let error = Config::read(Path::new("/nowhere/jadegate.toml")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/jadegate.toml"), "{error}");
    }
}
