//! Sockets: who counts as the caller, smuggled requests, stuck connections, and too many bad calls.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::deployment::{
    ANSWERS, COURT, Deployment, JSON, LIBRARY, OTHER_LIBRARY, SCENARIO, outcome, problem, question, rewrite, token,
};
use crate::support::process::Serving;
use crate::support::raw;

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_only_from_the_handshake() {
    let city = Deployment::city().await;
    let token = token(&mut city.person(0).await, LIBRARY).await;
    let pem = String::from_utf8(city.read(&format!("parties/{LIBRARY}.pem"))).unwrap();
    let one_line: String = pem.lines().filter(|l| !l.starts_with('-')).collect();
    for (name, value) in [
        ("x-ssl-client-cert", pem.replace('\n', "%0A")),
        ("x-forwarded-client-cert", format!("Cert=\"{}\"", pem.replace('\n', "%0A"))),
        ("x-forwarded-tls-client-cert", one_line.clone()),
        ("client-cert", format!(":{one_line}:")),
        ("x-client-verify", "SUCCESS".to_owned()),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
        headers.insert("content-type", HeaderValue::from_static(JSON));
        let body = question(SCENARIO, &token).to_string();
        let response = city.nobody().send(Method::POST, ANSWERS, headers, body.into()).await.unwrap();
        assert_eq!(problem(&response, &[&token]), (401, "unauthenticated".to_owned()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_behind_a_doubtful_length_gets_no_answer() {
    let city = Deployment::empty().await;
    let framings = [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "transfer-encoding: gzip, chunked",
        "content-length: 4\r\ncontent-length: 5",
        "content-length: +4",
        "content-length: 0x4",
        "content-length: 4, 5",
        "content-length: 4\0",
        "content-length : 4",
        "content-length: 4\r\n transfer-encoding: chunked",
        "transfer-encoding : chunked",
        "transfer-encoding:\r\n chunked",
        "transfer-encoding: xchunked",
        "transfer-encoding: identity",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "x: y\ntransfer-encoding: chunked\ncontent-length: 4",
    ];
    for framing in framings {
        for side in ["web", "api"] {
            let at = if side == "web" { city.config.listen } else { city.config.api };
            let request = format!(
                "POST /v1/cases HTTP/1.1\r\nhost: {at}\r\ncontent-type: application/json\r\n{framing}\r\n\r\n\
                 2\r\n{{}}\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: {at}\r\n\r\n"
            );
            let got = if side == "web" {
                let mut socket = TcpStream::connect(at).await.unwrap();
                socket.write_all(request.as_bytes()).await.unwrap();
                raw::to_the_end(&mut socket, Duration::from_secs(5)).await
            } else {
                let mut socket = raw::tls(&city, Some(LIBRARY)).await;
                socket.write_all(request.as_bytes()).await.unwrap();
                raw::to_the_end(&mut socket, Duration::from_secs(5)).await
            };
            let got = String::from_utf8(got.unwrap_or_else(|| panic!("{framing}: {side} stays open"))).unwrap();
            assert!(!got.contains("\r\n\r\nok\n"), "{framing}: the second request was answered: {got}");
            assert!(got.matches("HTTP/1.1 ").count() <= 1, "{framing}: {got}");
        }
    }
}

/// A third silent, a third stuck in the handshake or behind one byte, a third in the middle of a head.
async fn clog(city: &Deployment, each: usize) -> (Vec<TcpStream>, Vec<tokio_rustls::client::TlsStream<TcpStream>>) {
    let (mut plain, mut inside) = (Vec::new(), Vec::new());
    for at in [city.config.listen, city.config.api] {
        for n in 0..each * 2 {
            let mut socket = TcpStream::connect(at).await.unwrap();
            if n % 2 == 1 {
                // The beginning of a TLS record, and of nothing in HTTP.
                socket.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
            }
            plain.push(socket);
        }
    }
    for _ in 0..each {
        let mut socket = TcpStream::connect(city.config.listen).await.unwrap();
        socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await.unwrap();
        plain.push(socket);
        let mut socket = raw::tls(city, None).await;
        socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await.unwrap();
        inside.push(socket);
    }
    (plain, inside)
}

#[tokio::test(flavor = "multi_thread")]
async fn stuck_connections_hold_up_nobody_and_no_end() {
    let mut city = Deployment::provisioned(std::sync::Arc::new(jadegate::clock::SystemClock::new()));
    // As short as the policies allow, so that the test is too.
    rewrite(&city.dir().join("policies/city.toml"), |text| {
        text.replace("header_seconds_max = 10", "header_seconds_max = 2")
    });
    let mut serving = serve(&mut city).await;
    let (mut plain, mut inside) = clog(&city, 20).await;
    let began = Instant::now();
    for mut client in [city.public(), city.nobody()] {
        assert_eq!(client.get("/healthz").await.unwrap().status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let (mut closed, overdue) = (0, Instant::now() + Duration::from_secs(10));
    let left = || overdue.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    for socket in &mut plain {
        closed += usize::from(raw::to_the_end(socket, left()).await.is_some());
    }
    for socket in &mut inside {
        closed += usize::from(raw::to_the_end(socket, left()).await.is_some());
    }
    assert_eq!(closed, plain.len() + inside.len(), "all are closed once their head is overdue");

    // And an end is not held up until their time is over.
    serving.kill();
    rewrite(&city.dir().join("policies/city.toml"), |text| {
        text.replace("header_seconds_max = 2", "header_seconds_max = 60")
    });
    serving = serve(&mut city).await;
    let held = clog(&city, 20).await;
    serving.signal("-TERM");
    let drain = Duration::from_secs(city.config.drain_seconds.into());
    let status = serving.ended(drain / 2).await.expect("only calls under way are waited for");
    assert_eq!(status.code(), Some(0), "{}", serving.wrote());
    drop(held);
}

/// Runs the binary on free ports.
async fn serve(city: &mut Deployment) -> Serving {
    Serving::start(&city.config_file(), &city.dir().join("output"), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_is_answered_before_the_end_and_an_idle_connection_is_closed() {
    let mut city = Deployment::city().await;
    let token = token(&mut city.person(0).await, LIBRARY).await;
    let body = question(SCENARIO, &token).to_string();
    let mut api = raw::tls(&city, Some(LIBRARY)).await;
    let (begin, end) = body.split_at(10);
    let head = format!(
        "POST {ANSWERS} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{begin}",
        city.config.api,
        body.len()
    );
    api.write_all(head.as_bytes()).await.unwrap();
    api.flush().await.unwrap();
    let mut idle = raw::tls(&city, Some(COURT)).await;
    idle.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", city.config.api).as_bytes()).await.unwrap();
    let mut first = [0];
    idle.read_exact(&mut first).await.unwrap();
    // The idle one was answered, so the gateway has long read the other's head.
    let (stopped, answer) = tokio::join!(city.stop(), async {
        assert!(raw::to_the_end(&mut idle, Duration::from_secs(5)).await.is_some(), "idle connections end at once");
        api.write_all(end.as_bytes()).await.unwrap();
        api.flush().await.unwrap();
        raw::to_the_end(&mut api, Duration::from_secs(5)).await.unwrap()
    });
    stopped.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""answer":"met""#), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_calls_are_limited_by_the_socket_and_hold_up_nobody_else() {
    let mut city = Deployment::bent(|dir| {
        rewrite(&dir.join("policies/city.toml"), |text| {
            let lines = text.lines().map(|line| match line.split_once(" = ") {
                Some(("refused_per_second", _)) => "refused_per_second = 20".to_owned(),
                _ => line.to_owned(),
            });
            lines.collect::<Vec<_>>().join("\n")
        });
    })
    .await;
    city.populate(1).await;
    let token = token(&mut city.person(0).await, LIBRARY).await;
    let mut codes = Vec::new();
    let (mut bad, mut good) = (city.nobody(), city.party(LIBRARY));
    for n in 0..2_000 {
        let body = question(SCENARIO, &token).to_string();
        let mut headers = city.signed(OTHER_LIBRARY, body.as_bytes());
        let signature = headers.iter_mut().find(|(name, _)| name == "signature").unwrap();
        signature.1 = HeaderValue::from_static("sig1=:AAAA:");
        let address = format!("203.0.{}.{}", n / 250, n % 250);
        for name in ["x-forwarded-for", "x-real-ip", "forwarded"] {
            headers.push((HeaderName::from_static(name), HeaderValue::from_str(&address).unwrap()));
        }
        let response = bad.post(ANSWERS, JSON, body, headers).await.unwrap();
        let (status, code) = problem(&response, &[&token]);
        if status == 429 {
            assert!(response.headers.contains_key("retry-after"));
        }
        codes.push(code);
        if n % 100 == 99 {
            assert_eq!(outcome(&super::answers::ask(&mut good, &token).await), (200, "met".to_owned()));
        }
    }
    let limited = codes.iter().filter(|code| *code == "too-many-requests").count();
    assert_eq!(codes[0], "signature-wrong");
    crate::support::nightly::figure(
        "badly signed calls, each from another made-up address",
        format_args!("{limited} of 2,000 limited"),
    );
    // At 20 a second the rest would have taken longer than this test is given.
    assert!(limited > 1_000, "only {limited} of 2,000 were limited");
    assert!(codes.iter().all(|code| code == "too-many-requests" || code == "signature-wrong"));
}

/// The surplus is refused at once and says when to come again; what is taken is answered, and afterwards all is as before.
#[tokio::test(flavor = "multi_thread")]
async fn the_surplus_of_an_overload_is_refused_and_the_rest_is_answered() {
    let mut city = Deployment::bent(|dir| {
        rewrite(&dir.join("policies/city.toml"), |text| text.replace("calls_at_once = 256", "calls_at_once = 2"));
    })
    .await;
    city.populate(1).await;
    let mut me = city.person(0).await;
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (mut party, token) = (city.party(LIBRARY), token(&mut me, LIBRARY).await);
        askers.spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..5 {
                answers.push(super::answers::ask(&mut party, &token).await);
            }
            answers
        });
    }
    let (mut taken, mut refused) = (0, 0);
    for answer in askers.join_all().await.iter().flatten() {
        if outcome(answer) == (200, "met".to_owned()) {
            taken += 1;
        } else {
            assert_eq!(problem(answer, &[]), (503, "overloaded".to_owned()));
            assert_eq!(answer.headers["retry-after"], "1");
            assert!(!answer.headers.contains_key("connection"), "a new handshake would cost more than the answer");
            refused += 1;
        }
    }
    crate::support::nightly::figure(
        "overload, 2 at once, 200 calls by 40",
        format_args!("{taken} met, {refused} refused"),
    );
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    let token = token(&mut me, LIBRARY).await;
    assert_eq!(outcome(&super::answers::ask(&mut city.party(LIBRARY), &token).await), (200, "met".to_owned()));
}
