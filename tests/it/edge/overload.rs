//! More than the gateway bears: connections that lead nowhere, and ten times the calls that it works on at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::deployment::{Deployment, LIBRARY, free_addresses, outcome, problem, rewrite, token};
use crate::support::nightly::figure;
use crate::support::process::Serving;
use crate::support::raw;

/// 1,000 sockets to each of these, a third silent, a third stuck in the handshake, a third half a head.
async fn clog(api: SocketAddr, all: [SocketAddr; 3]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for at in all {
        for n in 0..1_000 {
            let mut socket = TcpStream::connect(at).await.unwrap();
            let begun: &[u8] = match n % 3 {
                0 => b"",
                1 => &[22, 3, 1, 2, 0, 1],
                _ if at == api => &[22, 3, 1, 0],
                _ => b"GET /healthz HTTP/1.1\r\nhost: ",
            };
            socket.write_all(begun).await.unwrap();
            held.push(socket);
        }
    }
    held
}

/// Under the limits as they are shipped: others are served at once, all that is stuck is closed in half a minute, and
/// what is stuck when the gateway is told to end does not hold it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_stuck_connections_to_each_listener_hold_up_nobody_and_no_end() {
    let mut city = Deployment::provisioned(Arc::new(jadegate::clock::SystemClock::new()));
    let [admin] = free_addresses();
    city.config.admin = admin;
    std::fs::write(city.config_file(), city.config.to_toml(&city.dir())).unwrap();
    let mut serving = Serving::start(&city.config_file(), &city.dir().join("output"), &[]).await;
    let all = [city.config.listen, city.config.api, admin];
    let mut held = clog(city.config.api, all).await;
    let stuck = Instant::now();
    let [mut web, mut api] = [city.public(), city.nobody()];
    let mut operator = jadegate::client::Client::new(&format!("http://{admin}"), None).unwrap();
    for (name, client) in [("web", &mut web), ("api", &mut api), ("admin", &mut operator)] {
        let asked = Instant::now();
        assert_eq!(client.get("/healthz").await.unwrap().status, 200, "{name}");
        assert!(asked.elapsed() < Duration::from_secs(1), "{name}: {:?}", asked.elapsed());
    }
    let overdue = stuck + Duration::from_secs(30);
    for socket in &mut held {
        let left = overdue.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        assert!(raw::to_the_end(socket, left).await.is_some(), "still open after half a minute");
    }
    let closed_after = stuck.elapsed();

    held = clog(city.config.api, all).await;
    serving.signal("-TERM");
    let drain = Duration::from_secs(city.config.drain_seconds.into());
    let status = serving.ended(drain / 2).await.expect("only calls under way are waited for");
    assert_eq!(status.code(), Some(0), "{}", serving.wrote());
    figure(
        "stuck connections",
        format_args!("{} closed after {closed_after:.1?}, as many again held through SIGTERM, exit 0", held.len()),
    );
    for socket in &mut held {
        assert!(raw::to_the_end(socket, Duration::from_secs(5)).await.is_some(), "left open");
    }
}

const AT_ONCE: usize = 16;
const CALLS_EACH: usize = 60;

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "nightly: it judges times and memory, which a busy machine spoils"]
async fn ten_times_the_limit_keeps_what_is_taken_quick_and_memory_flat() {
    let mut city = Deployment::provisioned(Arc::new(jadegate::clock::SystemClock::new()));
    rewrite(&city.dir().join("policies/city.toml"), |text| {
        let lines = text.lines().map(|line| match line.split_once(" = ") {
            Some(("calls_at_once", _)) => format!("calls_at_once = {AT_ONCE}"),
            // So that the limit that is tried is the one that refuses.
            Some((name @ ("calls_per_second" | "calls_burst"), _)) => format!("{name} = 100000"),
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    let serving = Serving::start(&city.config_file(), &city.dir().join("output"), &[]).await;
    city.populate(1).await;
    let mut me = city.person(0).await;

    let (mut alone, mut times) = (city.party(LIBRARY), Vec::new());
    let one = token(&mut me, LIBRARY).await;
    for _ in 0..200 {
        let began = Instant::now();
        let answer = super::answers::ask(&mut alone, &one).await;
        times.push(began.elapsed());
        assert_eq!(outcome(&answer), (200, "met".to_owned()));
    }
    let unloaded = p99(&mut times);

    // Everything that grows once has grown after the first wave.
    let (mut memory, mut taken, mut refused) = (Vec::new(), Vec::new(), 0);
    for _ in 0..4 {
        let mut askers = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE * 10 {
            let (mut party, token) = (city.party(LIBRARY), token(&mut me, LIBRARY).await);
            askers.spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..CALLS_EACH {
                    let began = Instant::now();
                    let answer = super::answers::ask(&mut party, &token).await;
                    answers.push((began.elapsed(), answer));
                }
                answers
            });
        }
        for (took, answer) in askers.join_all().await.into_iter().flatten() {
            if answer.status == 200 {
                assert_eq!(outcome(&answer), (200, "met".to_owned()));
                taken.push(took);
            } else {
                let (status, code) = problem(&answer, &[]);
                assert!(matches!((status, code.as_str()), (503, "overloaded") | (429, "too-many-requests")), "{code}");
                assert!(answer.headers.contains_key("retry-after"), "{code}");
                refused += 1;
            }
        }
        memory.push(serving.resident_kib());
    }
    let loaded = p99(&mut taken);
    figure(
        "overload, 10 times the limit",
        format_args!(
            "{} met and {refused} refused by {} callers; 99 of 100 met within {loaded:.1?}, alone {unloaded:.1?}; KiB after \
             each wave {memory:?}",
            taken.len(),
            AT_ONCE * 10
        ),
    );
    assert!(refused > 0, "no overload");
    assert!(loaded <= unloaded * 3, "{loaded:?} where it is {unloaded:?} alone");
    assert!(memory[3] <= memory[0] + 32 * 1024, "memory grows from wave to wave: {memory:?} KiB");
}
