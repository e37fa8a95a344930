//! Three gateways over one database and its synchronous standby: one person asked through all of them at once, and
//! primaries killed while everybody asks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jadegate::client::{Client, Tls};
use jadegate::clock::SystemClock;
use jadegate::config::Config;
use serde_json::{Value, json};

use crate::support::deployment::{
    ANSWERS, COURT, Deployment, LIBRARY, NDJSON, OTHER_LIBRARY, SCENARIO, consent, free_addresses, log_size, login,
    make_code, nonce, outcome, revoke, text,
};
use crate::support::nightly::{figure, rounds};
use crate::support::postgres::{Postgres, Server};
use crate::support::process::{Serving, run};

/// The servers are killed, and no power is cut: what a killed process wrote, its system keeps.
const QUICK: [&str; 1] = ["fsync=off"];

/// A gateway on a host of its own: its configuration, log and outside copies.
struct Host {
    config: Config,
    file: PathBuf,
    serving: Option<Serving>,
    restarts: usize,
}

impl Host {
    async fn start(&mut self) {
        let output = self.file.with_extension("out");
        self.serving = Some(Serving::start(&self.file, &output, &[]).await);
    }

    /// As a supervisor does: a gateway that has ended is started again.
    async fn look_after(&mut self) {
        let ended = match &mut self.serving {
            Some(serving) => serving.ended(Duration::ZERO).await.is_some(),
            None => true,
        };
        if ended {
            self.restarts += 1;
            self.start().await;
        }
    }

    fn party(&self, tls: &Tls) -> Client {
        Client::new(&self.config.api_base, Some(tls.clone())).unwrap()
    }
}

struct Cluster {
    city: Deployment,
    postgres: Postgres,
    servers: [Server; 2],
    hosts: Vec<Host>,
}

async fn cluster() -> Cluster {
    let (mut postgres, primary) = Postgres::start(&QUICK).await;
    primary.database("city", "jadegate").await;
    let standby = postgres.standby(&primary).await;
    let servers = [primary, standby];

    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    city.config.store = postgres.place_for(&city.dir(), &[&servers[0], &servers[1]], "city");
    city.choose_ports();
    let mut hosts = Vec::new();
    for n in 1..=3 {
        let (mut config, mut file) = (city.config.clone(), city.config_file());
        if n > 1 {
            config.log_origin = format!("gate.yuxi.example/log-{n}");
            let main = file.display().to_string();
            let (code, _, err) = run(&["log", "add", "--config", &main, &config.log_origin]);
            assert_eq!(code, 0, "{err}");
            config.checkpoints = city.dir().join(format!("checkpoints-{n}"));
            std::fs::create_dir(&config.checkpoints).unwrap();
            let [listen, api] = free_addresses();
            (config.listen, config.web_base) = (listen, format!("http://{listen}"));
            (config.api, config.api_base) = (api, format!("https://{api}"));
            file = city.dir().join(format!("jadegate-{n}.toml"));
            std::fs::write(&file, config.to_toml(&city.dir())).unwrap();
        }
        hosts.push(Host { config, file, serving: None, restarts: 0 });
    }
    for host in &mut hosts {
        host.start().await;
    }
    city.populate(3).await;
    Cluster { city, postgres, servers, hosts }
}

async fn asked(party: &mut Client, consent: &str) -> (u16, String) {
    let body = json!({"scenario": SCENARIO, "consent": consent, "nonce": nonce()});
    outcome(&party.post_json(ANSWERS, &body).await.unwrap())
}

/// What must hold of each log once nobody writes any more.
async fn logs_verify_and_the_audit_holds(cluster: &mut Cluster) {
    let base = cluster.hosts[0].config.web_base.clone();
    let mut public = Client::new(&base, None).unwrap();
    let origins = public.get("/log/origins").await.unwrap().json().unwrap();
    let paths: Vec<String> = origins.as_array().unwrap().iter().map(|log| text(log, "path")).collect();
    assert_eq!(paths.len(), 3);
    for path in paths {
        let url = format!("{base}{path}");
        let (code, out, err) = tokio::task::spawn_blocking(move || run(&["log", "verify", &url])).await.unwrap();
        assert_eq!(code, 0, "{out}{err}");
    }
    let mut folders = Vec::new();
    for host in &mut cluster.hosts {
        let mut serving = host.serving.take().unwrap();
        serving.signal("-TERM");
        assert!(serving.ended(Duration::from_secs(30)).await.unwrap().success());
        folders.push(host.config.checkpoints.display().to_string());
    }
    let file = cluster.hosts[0].file.display().to_string();
    let further = folders.iter().skip(1).flat_map(|folder| ["--checkpoints".to_owned(), folder.clone()]);
    let args: Vec<String> = ["audit".into(), "--config".into(), file].into_iter().chain(further).collect();
    let (code, out, err) =
        tokio::task::spawn_blocking(move || run(&args.iter().map(String::as_str).collect::<Vec<_>>())).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_person_is_asked_through_three_gateways_at_once() {
    let mut cluster = cluster().await;
    let (library, other) = (cluster.city.tls(LIBRARY), cluster.city.tls(OTHER_LIBRARY));
    let webs: Vec<String> = cluster.hosts.iter().map(|host| host.config.web_base.clone()).collect();
    let mut me = login(&webs[0], &cluster.city.people[0]).await;

    // Uses are never overspent, whichever gateway is asked.
    let ten = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 10})).await;
    let token = text(&ten, "token");
    let tasks: Vec<_> = (0..30)
        .map(|n| {
            let (mut party, token) = (cluster.hosts[n % 3].party(&library), token.clone());
            tokio::spawn(async move { asked(&mut party, &token).await })
        })
        .collect();
    let mut said = BTreeMap::new();
    for task in tasks {
        *said.entry(task.await.unwrap()).or_insert(0) += 1;
    }
    let refused: i32 = said.iter().filter(|((status, _), _)| *status != 200).map(|(_, count)| count).sum();
    assert_eq!(said.get(&(200, "met".to_owned())), Some(&10), "{said:?}");
    assert_eq!(refused, 0, "{said:?}");

    // One code is met once.
    let more = consent(&mut me, SCENARIO, OTHER_LIBRARY, json!({"uses": 50})).await;
    let code = make_code(&mut me, &more).await;
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let (mut party, code) = (cluster.hosts[n % 3].party(&other), code.clone());
            tokio::spawn(async move { asked(&mut party, &code).await })
        })
        .collect();
    let mut met = 0;
    for task in tasks {
        let (status, said) = task.await.unwrap();
        assert_eq!(status, 200);
        met += usize::from(said == "met");
    }
    assert_eq!(met, 1);

    // One cell a day: the score falls, and all gateways go on answering from the day's cell.
    let number = &cluster.city.people[0];
    let cast = jadegate::cli::demo::city::City::make(
        1,
        &cluster.city.set,
        jadegate::clock::day_of(jadegate::clock::Clock::now(&SystemClock::new())),
    )
    .unwrap();
    let person = cast.residents[0].person.to_json();
    let line = json!({"id": "fall", "provider": COURT, "indicator": "civil-judgment-unperformed",
        "person": {"id_number": number, "name": person["name"]}, "occurred_on": "2026-11-01"});
    let reported = cluster.hosts[1]
        .party(&cluster.city.tls(COURT))
        .post("/v1/records", NDJSON, line.to_string(), vec![])
        .await
        .unwrap();
    let reported = reported.json().unwrap();
    assert_eq!(reported["accepted"], 1, "{reported}");
    for host in &cluster.hosts {
        let token = text(&more, "token");
        assert_eq!(asked(&mut host.party(&other), &token).await, (200, "met".to_owned()));
    }

    // A revocation holds everywhere at once.
    revoke(&mut me, &more).await;
    for host in &cluster.hosts {
        let token = text(&more, "token");
        assert_eq!(asked(&mut host.party(&other), &token).await, (200, "withheld".to_owned()));
    }

    // Each log has grown, and an officer sees all of them at every gateway.
    let mut lists = Vec::new();
    for web in &webs {
        let mut officer = login(web, "officer-one").await;
        let listed = officer.get("/v1/access-log?action=ask&limit=1000").await.unwrap();
        assert_eq!(listed.status, 200);
        let ids: Vec<Value> = listed.json().unwrap().as_array().unwrap().iter().map(|e| e["id"].clone()).collect();
        lists.push(ids);
    }
    // Thirty by token, twelve by code, three and three after.
    assert!(lists.iter().all(|list| list.len() == 48 && *list == lists[0]), "{:?}", lists.iter().map(Vec::len));
    let mut sizes = Vec::new();
    let mut public = Client::new(&webs[0], None).unwrap();
    for log in public.get("/log/origins").await.unwrap().json().unwrap().as_array().unwrap() {
        let checkpoint = public.get(&format!("{}/checkpoint", text(log, "path"))).await.unwrap();
        let size = String::from_utf8(checkpoint.body.to_vec()).unwrap().lines().nth(1).unwrap().parse::<u64>().unwrap();
        sizes.push(size);
    }
    assert!(sizes.iter().all(|size| *size >= 10), "{sizes:?}");
    assert!(log_size(&mut public).await > 0);
    logs_verify_and_the_audit_holds(&mut cluster).await;
}

/// Asks through one gateway until told to stop; keeps each answer that it got.
async fn ask_on(
    web: String,
    person: String,
    (mut party, over): (Client, Arc<AtomicBool>),
    count: Arc<AtomicUsize>,
) -> Vec<(Value, Vec<u8>)> {
    let mut me = login(&web, &person).await;
    let mut kept = Vec::new();
    let mut token = String::new();
    for turn in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        if turn % 150 == 0 {
            let wish = json!({"scenario": SCENARIO, "party": LIBRARY, "uses": 200});
            match me.post_json("/v1/me/consents", &wish).await {
                Ok(made) if made.status == 201 => token = text(&made.json().unwrap(), "token"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        let body = json!({"scenario": SCENARIO, "consent": token, "nonce": nonce()});
        match party.post_json(ANSWERS, &body).await {
            Ok(answer) if answer.status == 200 => {
                kept.push((body, answer.body.to_vec()));
                count.fetch_add(1, Ordering::SeqCst);
            }
            // Faults and lost connections while the database changes hands; not an answer, so nothing to keep.
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed_takes_nothing_along() {
    let mut cluster = cluster().await;
    let library = cluster.city.tls(LIBRARY);
    let promotions = rounds(2, 50);
    let (mut held, mut revoked_total) = (0, 0);
    for turn in 0..promotions {
        let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut me = login(&cluster.hosts[turn % 3].config.web_base, &cluster.city.people[0]).await;
        let revoked = consent(&mut me, SCENARIO, LIBRARY, json!({"uses": 10})).await;
        revoke(&mut me, &revoked).await;
        let askers: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| {
                let party = host.party(&library).patience(Duration::from_secs(20));
                let (web, person) = (host.config.web_base.clone(), cluster.city.people[0].clone());
                tokio::spawn(ask_on(web, person, (party, over.clone()), count.clone()))
            })
            .collect();
        reaches(&count, 30).await;
        let [primary, standby] = &mut cluster.servers;
        // Every other time the standby hears nothing for a moment before: what is acknowledged then would be lost.
        let held_back = if turn % 2 == 0 { Some(standby.hold_back().await) } else { None };
        if held_back.is_some() {
            primary.is_waited_on(Duration::from_secs(2)).await;
        }
        primary.kill();
        held_back.into_iter().for_each(|receiver| standby.let_go(receiver));
        standby.promote().await;
        primary.follow(standby).await;
        cluster.servers.swap(0, 1);
        cluster.servers[0].waits_for_its_standby().await;
        let before = count.load(Ordering::SeqCst);
        for host in &mut cluster.hosts {
            host.look_after().await;
        }
        reaches(&count, before + 30).await;
        over.store(true, Ordering::SeqCst);
        let mut kept = Vec::new();
        for asker in askers {
            kept.extend(asker.await.unwrap());
        }
        // Every acknowledged answer is there, to the byte, at any gateway: with its proof, and spending nothing.
        for (n, (body, answer)) in kept.iter().enumerate() {
            let again = cluster.hosts[n % 3].party(&library).post_json(ANSWERS, body).await.unwrap();
            assert_eq!((again.status.as_u16(), &again.body[..]), (200, &answer[..]));
            held += 1;
        }
        for host in &cluster.hosts {
            let said = asked(&mut host.party(&library), &text(&revoked, "token")).await;
            assert_eq!(said, (200, "withheld".to_owned()), "a revocation was lost");
            revoked_total += 1;
        }
    }
    let restarts: usize = cluster.hosts.iter().map(|host| host.restarts).sum();
    figure(
        "primary killed and standby promoted under three gateways",
        format_args!(
            "{promotions} times, {held} answers and {revoked_total} revocations looked up, none lost; {restarts} gateways restarted"
        ),
    );
    logs_verify_and_the_audit_holds(&mut cluster).await;
    drop(cluster.postgres);
}

async fn reaches(count: &AtomicUsize, wanted: usize) {
    for _ in 0..2400 {
        if count.load(Ordering::SeqCst) >= wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{} of {wanted} answers", count.load(Ordering::SeqCst));
}
