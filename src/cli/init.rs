//! `jadegate init`: a deployment in an empty folder, and the same provisioning for the demo.
//!
//! Everything is made in a folder of its own inside the target and moved into place at the end, `jadegate.toml` last:
//! where that file lies, the deployment is whole. Nothing that is there already is ever overwritten. Private
//! keys and shared keys are files of mode 0600. A shared key lies twice: in `keys/parties/`, from which the gateway reads
//! it, and in `parties/`, which is what the city hands out and then deletes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::cli::pki::{Authority, Issued};
use crate::cli::{Exit, Failure, InitArgs, say};
use crate::clock::Clock;
use crate::config::deployment::{KEYRING_FILE, ROOT_KEY_FILE};
use crate::config::{Config, Staff, StorePlace, TlsFiles};
use crate::entropy::{self, Entropy};
use crate::hex::hex;
use crate::keys::NewKeyring;
use crate::party::PartyRole;
use crate::policies::{self, PolicySet};

mod parties;

/// What a deployment consists of, `jadegate.toml` last.
const PARTS: [&str; 7] = ["policies", "keys", "parties", "pki", "checkpoints", "store", "jadegate.toml"];

/// What is chosen when a deployment is made; everything else is fresh.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A synthetic city.
    pub demo: bool,
    /// People, staff and the public.
    pub listen: SocketAddr,
    /// Parties.
    pub api: SocketAddr,
    /// Who logs in at the office; the demo's.
    pub staff: Vec<Staff>,
}

impl Plan {
    /// A deployment on the usual ports of this machine.
    pub fn usual() -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { demo: false, listen: at(8080), api: at(8443), staff: Vec::new() }
    }
}

/// Runs `jadegate init DIR`.
pub fn run(args: &InitArgs, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Exit, Failure> {
    let plan = Plan { ..Plan::usual() };
    let dir = &args.dir;
    let (_, set) = provision(dir, &plan, clock.now(), entropy)?;
    let at = dir.display();
    let asking = set.parties.values().filter(|p| !p.roles.contains(&PartyRole::Provider)).count();
    say(&format!("Made a deployment in {at}:"));
    say("  jadegate.toml   where it listens and where its folders are");
    say(&format!(
        "  policies/       {} indicators, {} scenarios, {} parties ({asking} that only ask)",
        set.catalogue.len(),
        set.scenarios.len(),
        set.parties.len(),
    ));
    say("  keys/           root, working and signing keys (0600): back this up, apart from store/");
    say("  pki/            the authority, and the server's certificate");
    say("  parties/        for each party its certificate, key and shared key: hand them over, then delete them here");
    say("  store/ checkpoints/   empty; keep checkpoints/ on another disk if you can");
    say("");
    say("Before the first start, read jadegate.toml: web_base, api_base and issuer are what the world calls");
    say("this gateway, and log_origin stands in its log for ever. Then:");
    say(&format!("  jadegate policy check {at}/policies"));
    say(&format!("  jadegate serve --config {at}/jadegate.toml"));
    Ok(Exit::Done)
}

/// Makes a deployment in `dir` and gives its configuration and policies.
///
/// `dir` may exist, but none of what is to be made.
pub fn provision(
    dir: &Path,
    plan: &Plan,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<(Config, PolicySet), Failure> {
    let there: Vec<String> = PARTS
        .iter()
        .map(|part| dir.join(part))
        .filter(|p| p.symlink_metadata().is_ok())
        .map(|p| p.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(Failure::Failed(format!(
            "nothing was made, because this is there already: {}; choose an empty folder, or remove it if nobody needs it",
            there.join(", ")
        )));
    }
    let new = dir.symlink_metadata().is_err();
    if new {
        folder(dir, 0o700)?;
    }
    let workshop = dir.join(format!(".new-{}", hex(&entropy::bytes::<8>(entropy).map_err(Failure::of)?)));
    let made = folder(&workshop, 0o700).and_then(|()| {
        let made = Workshop { at: &workshop, dir, now, entropy }.make(plan)?;
        for part in PARTS {
            let (from, to) = (workshop.join(part), dir.join(part));
            fs::rename(&from, &to).map_err(|e| Failure::file("move a new deployment to", &to, e))?;
        }
        Ok(made)
    });
    // What is left of a failed attempt is of no use to anybody; that it could not be removed would hide why it failed.
    fs::remove_dir_all(&workshop).ok();
    if made.is_err() && new {
        fs::remove_dir(dir).ok();
    }
    made
}

/// Makes the keys that the gateway itself holds, in the folder `keys`, which exists and is empty but for `parties`.
fn make_keys(keys: &Path, origin: &str, now: Timestamp, entropy: &dyn Entropy) -> Result<(), Failure> {
    let new = NewKeyring::generate(origin, now, entropy).map_err(Failure::of)?;
    write_new(&keys.join(ROOT_KEY_FILE), new.root.as_bytes(), 0o600)?;
    write_new(&keys.join(KEYRING_FILE), new.keyring.as_bytes(), 0o600)
}

/// The folder in which a deployment is made.
struct Workshop<'a> {
    at: &'a Path,
    /// Where it will lie.
    dir: &'a Path,
    now: Timestamp,
    entropy: &'a dyn Entropy,
}

impl Workshop<'_> {
    fn make(&self, plan: &Plan) -> Result<(Config, PolicySet), Failure> {
        for (name, mode) in [
            ("policies", 0o755),
            ("policies/models", 0o755),
            ("keys", 0o700),
            ("keys/parties", 0o700),
            ("parties", 0o700),
            ("pki", 0o755),
            ("checkpoints", 0o700),
            ("store", 0o700),
        ] {
            folder(&self.at.join(name), mode)?;
        }
        let authority = Authority::make("jadegate deployment authority", self.now).map_err(Failure::of)?;
        self.issued("pki/ca", authority.own())?;
        let hosts = ["localhost", "127.0.0.1", "::1"];
        self.issued("pki/server", &authority.server(&hosts).map_err(Failure::of)?)?;
        let set = self.policies(plan, &authority)?;
        let config = self.config(plan)?;
        make_keys(&self.at.join("keys"), &config.log_origin, self.now, self.entropy)?;
        self.file("jadegate.toml", config.to_toml(self.dir).as_bytes(), 0o644)?;
        Ok((config, set))
    }

    /// The policies that ship, with a certificate and a shared key for each party.
    fn policies(&self, plan: &Plan, authority: &Authority) -> Result<PolicySet, Failure> {
        let mut files = policies::shipped();
        let shipped = PolicySet::parse(files.clone()).map_err(Failure::of)?;
        let mut proofs = BTreeMap::new();
        for party in shipped.parties.values() {
            let id = party.id.as_str();
            let issued = authority.client(id, &party.name.en).map_err(Failure::of)?;
            self.issued(&format!("parties/{id}"), &issued)?;
            let key_id = format!("{id}-1");
            let secret = entropy::bytes::<32>(self.entropy).map_err(Failure::of)?;
            let text = format!("{}\n", STANDARD.encode(secret));
            self.file(&format!("keys/parties/{key_id}.hmac"), text.as_bytes(), 0o600)?;
            self.file(&format!("parties/{id}.hmac"), text.as_bytes(), 0o600)?;
            proofs.insert(id.to_owned(), parties::Proof { fingerprint: hex(&issued.fingerprint), key_id });
        }
        let mut bend = |name: &str, change: &dyn Fn(&str) -> String| {
            if let Some(file) = files.get_mut(name) {
                *file = change(&String::from_utf8_lossy(file)).into_bytes();
            }
        };
        bend("parties.toml", &|text| parties::with_proofs(text, &proofs));
        if plan.demo {
            bend("city.toml", &|text| parties::with_demo_limits(text));
        }
        for (name, bytes) in &files {
            self.file(&format!("policies/{name}"), bytes, 0o644)?;
        }
        PolicySet::parse(files).map_err(Failure::of)
    }

    fn config(&self, plan: &Plan) -> Result<Config, Failure> {
        let name = hex(&entropy::bytes::<4>(self.entropy).map_err(Failure::of)?);
        let at = |part: &str| self.dir.join(part);
        let api_base = format!("https://{}", plan.api);
        Ok(Config {
            demo: plan.demo,
            listen: plan.listen,
            api: plan.api,
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, if plan.demo { 0 } else { 9090 })),
            web_base: format!("http://{}", plan.listen),
            issuer: api_base.clone(),
            api_base,
            log_origin: format!("jadegate.example/{name}"),
            store: StorePlace::Folder(at("store")),
            keys: at("keys"),
            policies: at("policies"),
            checkpoints: at("checkpoints"),
            tls: TlsFiles { certificate: at("pki/server.pem"), key: at("pki/server.key"), client_ca: at("pki/ca.pem") },
            store_cache_mib: 256,
            drain_seconds: 10,
            staff: plan.staff.clone(),
        })
    }

    fn issued(&self, name: &str, issued: &Issued) -> Result<(), Failure> {
        self.file(&format!("{name}.pem"), issued.cert_pem.as_bytes(), 0o644)?;
        self.file(&format!("{name}.key"), issued.key_pem.as_bytes(), 0o600)
    }

    fn file(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), Failure> {
        write_new(&self.at.join(name), bytes, mode)
    }
}

/// The party's shared key, as `init` wrote it for handing over.
pub fn shared_key_file(dir: &Path, party: &str) -> PathBuf {
    dir.join("parties").join(format!("{party}.hmac"))
}

/// Writes a file that is not there yet.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_data()
    };
    write().map_err(|e: std::io::Error| Failure::file("write", path, e))
}

/// Makes a folder, and those above it.
pub fn folder(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|e| Failure::file("make the folder", path, e))
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config;
    use crate::entropy::SystemEntropy;
    use crate::party::KeyAlgorithm;

    /// A folder of this test's own, removed at its end.
    pub(in crate::cli) struct Folder(pub(in crate::cli) PathBuf);

    impl Folder {
        pub(in crate::cli) fn new() -> Self {
            let name = hex(&entropy::bytes::<8>(&SystemEntropy::new()).unwrap());
            let path = std::env::temp_dir().join(format!("jadegate-test-{name}"));
            folder(&path, 0o700).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn make(dir: &Path) -> Result<(Config, PolicySet), Failure> {
        provision(dir, &Plan::usual(), "2026-11-25T02:00:00Z".parse().unwrap(), &SystemEntropy::new())
    }

    #[test]
    fn a_deployment_is_whole_and_its_secrets_are_the_owners_alone() {
        let dir = Folder::new();
        let (config, set) = make(&dir.0.join("new")).unwrap();
        let dir = dir.0.join("new");
        assert_eq!(Config::read(&dir.join("jadegate.toml")).unwrap(), config);
        let read = PolicySet::parse(config::read_policies(&config.policies).unwrap()).unwrap();
        assert_eq!(read.digest, set.digest);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(dir.clone()), 0o700);
        assert_eq!((mode(dir.join("pki/ca.key")), mode(dir.join("pki/server.key"))), (0o600, 0o600));
        for party in read.parties.values() {
            let pem = fs::read(dir.join(format!("parties/{}.pem", party.id))).unwrap();
            let der = <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(&pem)
                .unwrap();
            assert_eq!(party.certificates, [<[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&der))]);
            assert_eq!(mode(dir.join(format!("parties/{}.key", party.id))), 0o600);
            let KeyAlgorithm::HmacSha256 { file } = &party.keys[0].algorithm else { panic!("no shared key") };
            let held = dir.join("keys/parties").join(file);
            assert_eq!(fs::read(&held).unwrap(), fs::read(shared_key_file(&dir, party.id.as_str())).unwrap());
            assert_eq!(mode(held), 0o600);
        }
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), PARTS.len(), "{left:?}");
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_touched() {
        for part in PARTS {
            let dir = Folder::new();
            fs::write(dir.0.join(part), "mine").unwrap();
            let said = make(&dir.0).unwrap_err().to_string();
            assert!(said.contains(&dir.0.join(part).display().to_string()), "{said}");
            assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1, "{part}");
            assert_eq!(fs::read_to_string(dir.0.join(part)).unwrap(), "mine");
        }
    }

    #[test]
    fn what_else_lies_in_the_folder_stays() {
        let dir = Folder::new();
        fs::write(dir.0.join("notes"), "mine").unwrap();
        make(&dir.0).unwrap();
        assert_eq!(fs::read_to_string(dir.0.join("notes")).unwrap(), "mine");
        assert!(make(&dir.0).is_err(), "a second deployment in the same folder");
    }

    #[test]
    fn a_policy_folder_is_read_by_name_and_within_limits() {
        let dir = Folder::new();
        assert!(config::read_policies(&dir.0).unwrap_err().to_string().contains("models"));
        folder(&dir.0.join("models"), 0o700).unwrap();
        for name in ["city.toml", "models/one.toml", "notes.md", ".city.toml.swp", ".hidden.toml"] {
            fs::write(dir.0.join(name), "x").unwrap();
        }
        let read = config::read_policies(&dir.0).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["city.toml", "models/one.toml"]);
        let large = fs::File::create(dir.0.join("models/one.toml")).unwrap();
        large.set_len(config::POLICY_BYTES_MAX + 1).unwrap();
        let said = config::read_policies(&dir.0).unwrap_err().to_string();
        assert!(said.contains("one.toml") && said.contains("larger"), "{said}");
    }
}
