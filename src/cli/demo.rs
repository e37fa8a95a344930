//! `jadegate demo`: a synthetic city, the whole story once, and then a gateway to play with.
//!
//! The demo is a deployment like any other, made by `init`'s provisioning, and everything in the story is a real call
//! over the real listeners: nothing here reaches into the gateway it started. A folder that holds a city is
//! continued: its keys, people, records and log stay, and nothing is sent a second time. `demo.json`, the way
//! in for scripts, appears when the story has been told.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::init::{self, Plan};
use crate::cli::serve::{Running, start_quietly};
use crate::cli::{DemoArgs, Exit, Failure, say, tell};
use crate::clock::{self, Clock};
use crate::config::{self, Config, Staff, StaffRole};
use crate::entropy::{self, Entropy};
use crate::hex::hex;
use crate::http::layers::quiet_panics;
use crate::policies::PolicySet;
use crate::web::{Example, ExampleRole};

mod bulk;
mod calls;
pub mod city;
mod dice;
mod feeds;
mod story;

use city::City;

/// Somebody with an 18-digit number, as `demo.json` lists them.
struct Listed {
    id_number: String,
    name: String,
}

/// A city on disk, ready to be served.
struct Stage {
    dir: PathBuf,
    config: Config,
    set: PolicySet,
    people: Vec<Listed>,
    /// All of the register and the records was sent in an earlier run.
    sent: bool,
    /// The day on which the demo was started.
    today: jiff::civil::Date,
}

/// Runs `jadegate demo` until Ctrl-C.
pub async fn run(args: DemoArgs, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Exit, Failure> {
    quiet_panics();
    let began = clock.monotonic();
    let stage = Stage::set(&args, clock.as_ref(), entropy.as_ref())?;
    let mut running = start_quietly(&stage.config, stage.examples(), Arc::clone(&clock), Arc::clone(&entropy)).await?;
    // One listener for the signals from here to the end: between two, a signal would be lost.
    let mut stop = std::pin::pin!(told_to_stop());
    let told = tokio::select! {
        told = stage.tell_story(&running, &clock, &entropy, began) => Some(told),
        () = &mut stop => None,
    };
    let crashed = match told {
        Some(Ok(())) => tokio::select! {
            () = &mut stop => None,
            ended = &mut running.ended => Some(ended),
        },
        _ => None,
    };
    // From here on the file would lead scripts to a gateway that is gone.
    remove(&stage.dir.join("demo.json"))?;
    if let Some(ended) = crashed {
        ended.map_err(Failure::of)?.map_err(Failure::Failed)?;
        return Err(Failure::Failed("the gateway ended by itself".into()));
    }
    let drained = running.drain().await;
    told.unwrap_or(Ok(()))?;
    drained?;
    tell(&format!("已停止，接着来 / stopped; to go on: jadegate demo --data {}", stage.dir.display()));
    Ok(Exit::Done)
}

/// Waits for Ctrl-C, or for SIGTERM.
async fn told_to_stop() {
    let interrupt = tokio::signal::ctrl_c();
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
        }
        // Without that signal Ctrl-C is still there.
        Err(_) => {
            interrupt.await.ok();
        }
    }
}

impl Stage {
    /// Makes the folder, or takes up what is in it.
    fn set(args: &DemoArgs, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Self, Failure> {
        let dir = match &args.data {
            Some(dir) => dir.clone(),
            None => {
                let name = hex(&entropy::bytes::<6>(entropy).map_err(Failure::of)?);
                std::env::temp_dir().join(format!("jadegate-demo-{name}"))
            }
        };
        remove(&dir.join("demo.json"))?;
        let (config, set) = if dir.join("jadegate.toml").exists() {
            continued(&dir, args)?
        } else {
            init::provision(&dir, &plan(args), clock.now(), entropy)?
        };
        let register = dir.join("city/register.ndjson");
        if !register.exists() {
            tell("造一座合成的城市 / making a synthetic city …");
            make_city(&dir, args.people, &set, clock)?;
        }
        let people = listed(&register)?;
        let sent = dir.join("city/sent").exists();
        Ok(Self { dir, config, set, people, sent, today: clock::day_of(clock.now()) })
    }

    async fn tell_story(
        &self,
        running: &Running,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
        began: std::time::Duration,
    ) -> Result<(), Failure> {
        story::tell_all(self, clock, entropy, began).await?;
        self.write_demo_json(running)?;
        // From here on nothing is printed that is about anybody.
        running.say_ready();
        let web = &self.config.web_base;
        say(&format!("网页 / pages: {web}/    停止 / stop: Ctrl-C"));
        Ok(())
    }

    /// Whom a visitor may be on the first page.
    fn examples(&self) -> Vec<Example> {
        let example = |role| move |login: &str| Example { login: login.to_owned(), role };
        let residents =
            self.people.iter().skip(2).take(3).map(|p| p.id_number.as_str()).map(example(ExampleRole::Resident));
        let staff = self.config.staff.iter().map(|staff| {
            let role = match staff.role {
                StaffRole::Officer => ExampleRole::Officer,
                StaffRole::Operator => ExampleRole::Operator,
            };
            example(role)(&staff.login)
        });
        let asking = self.set.scenarios.values().flat_map(|scenario| &scenario.parties).map(|party| party.as_str());
        residents.chain(staff).chain(asking.take(1).map(example(ExampleRole::Party))).collect()
    }

    /// The way in for scripts and people with curl. It appears whole or not at all.
    fn write_demo_json(&self, running: &Running) -> Result<(), Failure> {
        replace(&self.dir.join("demo.json"), format!("{:#}\n", self.way_in(running.admin)?).as_bytes())
    }

    fn way_in(&self, admin: SocketAddr) -> Result<Value, Failure> {
        let mut parties = Vec::new();
        for party in self.set.parties.values() {
            let id = party.id.as_str();
            let scenarios: Vec<&str> =
                self.set.scenarios.values().filter(|s| s.parties.contains(&party.id)).map(|s| s.id.as_str()).collect();
            parties.push(json!({
                "id": id,
                "roles": party.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(),
                "cert": format!("parties/{id}.pem"),
                "key": format!("parties/{id}.key"),
                "hmac_key_id": party.keys.first().map(|key| key.id.as_str()),
                "hmac_key": self.shared_key(id)?,
                "scenarios": scenarios,
            }));
        }
        let staff = |s: &Staff| json!({"login": s.login, "role": s.role.as_str()});
        let person = |p: &Listed| json!({"id_number": p.id_number, "name": p.name});
        Ok(json!({
            "web": self.config.web_base,
            "api": self.config.api_base,
            "admin": format!("http://{admin}"),
            "ca": "pki/ca.pem",
            "people": self.people.iter().map(person).collect::<Vec<_>>(),
            "parties": parties,
            "staff": self.config.staff.iter().map(staff).collect::<Vec<_>>(),
        }))
    }

    fn shared_key(&self, party: &str) -> Result<String, Failure> {
        let file = init::shared_key_file(&self.dir, party);
        let text = fs::read_to_string(&file).map_err(|e| Failure::file("read", &file, e))?;
        Ok(text.trim().to_owned())
    }
}

fn plan(args: &DemoArgs) -> Plan {
    let usual = Plan::usual();
    let staff = |login: &str, role| Staff { login: login.to_owned(), role };
    Plan {
        demo: true,
        listen: args.listen.unwrap_or(usual.listen),
        api: args.api.unwrap_or(usual.api),
        staff: vec![
            staff("officer-one", StaffRole::Officer),
            staff("officer-two", StaffRole::Officer),
            staff("operator-one", StaffRole::Operator),
        ],
    }
}

/// A city that is there already, on the addresses of this run.
fn continued(dir: &Path, args: &DemoArgs) -> Result<(Config, PolicySet), Failure> {
    let file = dir.join("jadegate.toml");
    let mut config = Config::read(&file).map_err(Failure::of)?;
    if !config.demo {
        let at = file.display();
        return Err(Failure::Failed(format!(
            "{at} is a deployment and no demo; run it with: jadegate serve --config {at}, or choose another --data"
        )));
    }
    let before = config.clone();
    if let Some(listen) = args.listen.filter(|listen| *listen != config.listen) {
        (config.listen, config.web_base) = (listen, format!("http://{listen}"));
    }
    if let Some(api) = args.api.filter(|api| *api != config.api) {
        (config.api, config.api_base) = (api, format!("https://{api}"));
    }
    if config != before {
        replace(&file, config.to_toml(dir).as_bytes())?;
    }
    let files = config::read_policies(&config.policies).map_err(Failure::of)?;
    Ok((config, PolicySet::parse(files).map_err(Failure::of)?))
}

/// Writes the city into the folder `city`: the register, and each provider's records, as they will be sent.
fn make_city(dir: &Path, people: u32, set: &PolicySet, clock: &dyn Clock) -> Result<(), Failure> {
    let people = usize::try_from(people).map_err(Failure::of)?;
    let city = City::make(people, set, clock::day_of(clock.now())).map_err(Failure::of)?;
    let (new, place) = (dir.join("city.new"), dir.join("city"));
    if new.exists() {
        fs::remove_dir_all(&new).map_err(|e| Failure::file("remove", &new, e))?;
    }
    init::folder(&new.join("records"), 0o700)?;
    let text = |lines: Vec<String>| lines.into_iter().map(|line| line + "\n").collect::<String>();
    init::write_new(&new.join("register.ndjson"), text(city.register()).as_bytes(), 0o600)?;
    for (provider, lines) in city.records() {
        init::write_new(&new.join(format!("records/{provider}.ndjson")), text(lines).as_bytes(), 0o600)?;
    }
    fs::rename(&new, &place).map_err(|e| Failure::file("move the city to", &place, e))
}

/// The people of a register with an 18-digit number, in its order.
fn listed(register: &Path) -> Result<Vec<Listed>, Failure> {
    let text = fs::read_to_string(register).map_err(|e| Failure::file("read", register, e))?;
    let mut people = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = || {
            Failure::Failed(format!(
                "{}:{}: no line of a register; remove the folder and begin anew",
                register.display(),
                at + 1
            ))
        };
        let line: Value = serde_json::from_str(line).map_err(|_| wrong())?;
        let field = |name: &str| line.get(name).and_then(Value::as_str).map(str::to_owned);
        if line.get("id_type").is_none() {
            people.push(Listed {
                id_number: field("id_number").ok_or_else(wrong)?,
                name: field("name").ok_or_else(wrong)?,
            });
        }
    }
    Ok(people)
}

/// Writes a file whole, over what was there.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let new = path.with_extension("new");
    remove(&new)?;
    init::write_new(&new, bytes, 0o600)?;
    fs::rename(&new, path).map_err(|e| Failure::file("write", path, e))
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::file("remove", path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::tests::Folder;
    use crate::clock::ManualClock;
    use crate::entropy::SystemEntropy;

    fn args(dir: &Path, people: u32, listen: Option<&str>) -> DemoArgs {
        DemoArgs { data: Some(dir.to_owned()), people, listen: listen.map(|a| a.parse().unwrap()), api: None }
    }

    fn set(args: &DemoArgs, day: &str) -> Result<Stage, Failure> {
        let clock = ManualClock::new(format!("{day}T02:00:00Z").parse().unwrap());
        Stage::set(args, &clock, &SystemEntropy::new())
    }

    #[test]
    fn a_city_is_continued_and_no_second_one_is_made() {
        let dir = Folder::new();
        let one = set(&args(&dir.0, 30, None), "2026-11-25").unwrap();
        let files = |name: &str| fs::read(dir.0.join(name)).unwrap();
        let before = (files("city/register.ndjson"), files("jadegate.toml"), files("pki/ca.key"));
        assert_eq!((one.people.len(), one.sent, one.config.demo), (30, false, true));
        fs::write(dir.0.join("demo.json"), "{}").unwrap();

        let two = set(&args(&dir.0, 500, None), "2027-01-31").unwrap();
        assert_eq!(before, (files("city/register.ndjson"), files("jadegate.toml"), files("pki/ca.key")));
        assert_eq!((two.people.len(), two.set.digest), (30, one.set.digest));
        assert!(!dir.0.join("demo.json").exists(), "scripts would find a gateway that is not there yet");

        let three = set(&args(&dir.0, 30, Some("127.0.0.1:18080")), "2027-01-31").unwrap();
        assert_eq!(three.config.web_base, "http://127.0.0.1:18080");
        assert_eq!(Config::read(&dir.0.join("jadegate.toml")).unwrap(), three.config, "serve finds it where it is");
        assert_eq!(three.config.log_origin, one.config.log_origin);
    }

    #[test]
    fn a_real_deployment_is_no_demo() {
        let dir = Folder::new();
        init::provision(&dir.0, &Plan::usual(), "2026-11-25T02:00:00Z".parse().unwrap(), &SystemEntropy::new())
            .unwrap();
        let said = set(&args(&dir.0, 30, None), "2026-11-25").err().unwrap().to_string();
        assert!(said.contains("no demo") && !dir.0.join("city").exists(), "{said}");
    }

    #[test]
    fn the_way_in_lists_what_the_contract_says() {
        let dir = Folder::new();
        let stage = set(&args(&dir.0, 30, None), "2026-11-25").unwrap();
        let json = stage.way_in("127.0.0.1:9".parse().unwrap()).unwrap();
        assert_eq!(json["people"].as_array().unwrap().len(), 30);
        assert!(json["people"][0]["id_number"].as_str().unwrap().starts_with("530499"));
        assert_eq!(json["admin"], "http://127.0.0.1:9");
        let roles = |role: &str| json["staff"].as_array().unwrap().iter().filter(|s| s["role"] == role).count();
        assert_eq!((roles("officer"), roles("operator")), (2, 1));
        for party in json["parties"].as_array().unwrap() {
            for file in [&party["cert"], &party["key"], &json["ca"]] {
                assert!(dir.0.join(file.as_str().unwrap()).exists(), "{file}");
            }
            assert_eq!(party["hmac_key"].as_str().unwrap().len(), 44);
            assert!(party["hmac_key_id"].is_string() && party["scenarios"].is_array());
        }
        let has = |test: &dyn Fn(&Value) -> bool| json["parties"].as_array().unwrap().iter().any(test);
        let role = |p: &Value, role: &str| p["roles"].as_array().unwrap().iter().any(|r| r == role);
        assert!(has(&|p| role(p, "registrar")));
        assert!(has(&|p| role(p, "provider") && !role(p, "registrar")));
        assert!(has(&|p| p["scenarios"].as_array().unwrap().len() > 1
            && !role(p, "registrar")
            && !role(p, "provider")));
        let shared = |s: &crate::scenario::Scenario| s.parties.len() > 1 && s.uses_max >= 200;
        assert!(stage.set.scenarios.values().any(shared), "a scenario that two parties share and that allows 200 uses");
        let one_a_person = |p: &crate::party::Party| {
            stage.set.scenarios.values().filter(|s| s.one_a_person && s.parties.contains(&p.id)).count() > 1
        };
        assert!(stage.set.parties.values().any(one_a_person), "a party with two scenarios that are one a person");
        assert!(stage.set.city.limits.calls_per_second >= 200 && stage.set.city.limits.calls_burst >= 200);
    }
}
