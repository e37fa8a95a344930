//! Over real sockets. Where a limit is a time, tokio's clock is paused and moves by itself.

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::http::{body, floor, problem::Problem};
use axum::{Extension, extract::Request, routing::get, routing::post};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};
use tokio_rustls::{TlsConnector, client::TlsStream};

const NOW: &str = "2026-11-25T00:00:00Z";

/// A listener and what a test needs to stop it.
struct Served {
    address: SocketAddr,
    limits: watch::Sender<ListenerLimits>,
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
    /// One message for each call that `/slow` holds, and the way to let them go.
    held: mpsc::UnboundedReceiver<()>,
    go: watch::Sender<bool>,
}

async fn who(Extension(peer): Extension<Peer>) -> String {
    let certificate = peer.certificate.map_or("none".to_owned(), |c| format!("{:02x?}", c.sha256));
    format!("{} {certificate}", peer.address)
}

async fn echo(Extension(peer): Extension<Peer>, request: Request) -> Result<Vec<u8>, Problem> {
    let (head, body) = request.into_parts();
    let body = body::read(&head.headers, body, 1000).await?;
    floor::leave(peer.arrival.last_byte(), Duration::from_millis(50)).await;
    Ok(body)
}

async fn start(tls: Option<Tls>, change: impl FnOnce(&mut ListenerLimits)) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let (holding, held) = mpsc::unbounded_channel();
    let (go, going) = watch::channel(false);
    let slow = async move || {
        holding.send(()).unwrap();
        let _ = going.clone().wait_for(|go| *go).await;
        "slow"
    };
    let router = axum::Router::new()
        .route("/who", get(who))
        .route("/echo", post(echo))
        .route("/refuse", post(async || Problem::plain(crate::http::problem::code::UNAUTHENTICATED)))
        .route("/slow", get(slow));
    let mut limits = ListenerLimits::new("test");
    change(&mut limits);
    let (limits, limited) = watch::channel(limits);
    let ended = tokio::spawn(serve(listener, tls.map(Arc::new), router, limited, stopping));
    Served { address, limits, stop, ended, held, go }
}

/// Sends text and reads until the other end closes.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    rest(stream).await
}

async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}

/// Reads one answer with a Content-Length, and leaves the connection open.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut heard = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return text;
            }
        }
        heard.push(stream.read_u8().await.unwrap());
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

const WHO: &str = "GET /who HTTP/1.1\r\nHost: a\r\n\r\n";
const WHO_CLOSE: &str = "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

// ---- certificates

struct City {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
}

#[derive(Clone)]
struct Card {
    chain: Vec<CertificateDer<'static>>,
    pem: String,
    key: String,
}

fn city() -> City {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    City { root: root.der().clone(), root_pem: root.pem(), issuer: Issuer::new(params, key) }
}

fn card(by: Option<&City>, usage: ExtendedKeyUsagePurpose, ends_year: i32) -> Card {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(ends_year, 1, 1));
    let key = KeyPair::generate().unwrap();
    let made = match by {
        Some(city) => params.signed_by(&key, &city.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Card { chain: vec![made.der().clone()], pem: made.pem(), key: key.serialize_pem() }
}

fn client_card(by: Option<&City>, ends_year: i32) -> Card {
    card(by, ExtendedKeyUsagePurpose::ClientAuth, ends_year)
}

fn server_tls(city: &City, clock: &Arc<ManualClock>) -> Tls {
    let server = card(Some(city), ExtendedKeyUsagePurpose::ServerAuth, 4000);
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
    Tls::new(server.pem.as_bytes(), server.key.as_bytes(), Some(city.root_pem.as_bytes()), clock).unwrap()
}

async fn connect(served: &Served, city: &City, client: Option<&Card>, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    roots.add(city.root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        Some(card) => {
            let key = PrivateKeyDer::from_pem_slice(card.key.as_bytes()).unwrap();
            config.with_client_auth_cert(card.chain.clone(), key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let socket = TcpStream::connect(served.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW.parse().unwrap()))
}

// ---- who calls

#[tokio::test]
async fn the_certificate_of_the_handshake_reaches_the_handler() {
    let (city, clock) = (city(), clock());
    let served = start(Some(server_tls(&city, &clock)), |_| {}).await;
    let merchant = client_card(Some(&city), 4000);
    let mut stream = connect(&served, &city, Some(&merchant), &[]).await;
    let print = ring::digest::digest(&ring::digest::SHA256, &merchant.chain[0]);
    let heard = exchange(&mut stream, WHO_CLOSE).await;
    assert!(heard.ends_with(&format!("{:02x?}", print.as_ref())), "{heard}");

    let mut stream = connect(&served, &city, None, &[]).await;
    let pem = merchant.pem.replace('\n', " ");
    let claims = format!(
        "X-SSL-Client-Cert: {pem}\r\nX-Forwarded-Client-Cert: {pem}\r\nClient-Cert: :AA==:\r\nX-Forwarded-For: 192.0.2.1\r\n"
    );
    let heard = exchange(&mut stream, &WHO_CLOSE.replace("Connection", &format!("{claims}Connection"))).await;
    assert!(heard.contains("\r\n\r\n127.0.0.1:") && heard.ends_with("none"), "{heard}");
}

#[tokio::test]
async fn a_certificate_that_does_not_count_is_refused_with_its_code() {
    let (city, clock) = (city(), clock());
    let served = start(Some(server_tls(&city, &clock)), |_| {}).await;
    let strangers = self::city();
    for (client, code) in [
        (client_card(None, 4000), "certificate-foreign"),
        (client_card(Some(&strangers), 4000), "certificate-foreign"),
        (card(Some(&city), ExtendedKeyUsagePurpose::ServerAuth, 4000), "certificate-foreign"),
        (client_card(Some(&city), 2026), "certificate-expired"),
    ] {
        let mut stream = connect(&served, &city, Some(&client), &[]).await;
        let heard = exchange(&mut stream, WHO).await;
        assert!(status(&heard) == "401" && heard.contains(code), "{code}: {heard}");
    }
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_certificate() {
    let (city, clock) = (city(), clock());
    let served = start(Some(server_tls(&city, &clock)), |_| {}).await;
    let mut stream = connect(&served, &city, Some(&client_card(Some(&city), 2027)), &[]).await;
    stream.write_all(WHO.as_bytes()).await.unwrap();
    assert_eq!(status(&answer(&mut stream).await), "200");
    clock.advance(Duration::from_secs(60 * 86_400));
    let heard = exchange(&mut stream, WHO).await;
    assert!(heard.contains("certificate-expired"), "{heard}");
}

#[tokio::test]
async fn http_2_is_not_offered() {
    let (city, clock) = (city(), clock());
    let served = start(Some(server_tls(&city, &clock)), |_| {}).await;
    let stream = connect(&served, &city, None, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (city, clock) = (city(), clock());
    let served = start(Some(server_tls(&city, &clock)), |_| {}).await;
    // A ClientHello without supported_versions: groups, signature algorithms and one suite of TLS 1.2.
    let mut hello = vec![0x03, 0x03];
    hello.extend([0x5a; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2f, 1, 0, 0, 16]);
    hello.extend([0, 10, 0, 4, 0, 2, 0, 29]);
    hello.extend([0, 13, 0, 4, 0, 2, 4, 3]);
    let mut record = vec![0x16, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    let mut socket = TcpStream::connect(served.address).await.unwrap();
    socket.write_all(&record).await.unwrap();
    let mut heard = Vec::new();
    let _ = socket.read_to_end(&mut heard).await;
    assert_eq!(heard, [0x15, 3, 3, 0, 2, 2, 70], "a fatal alert, protocol_version");
}

// ---- the form of a call

#[tokio::test]
async fn a_call_with_transfer_encoding_is_the_last_of_its_connection() {
    let served = start(None, |_| {}).await;
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        let text = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n{WHO}");
        let heard = exchange(&mut socket, &text).await;
        assert!(status(&heard) == "200" && heard.ends_with("hello"), "{fields}{heard}");
        assert_eq!(heard.matches("HTTP/1.1").count(), 1, "{fields}{heard}");
    }
}

#[tokio::test]
async fn heads_are_limited_and_have_one_host() {
    let served = start(None, |_| {}).await;
    let fields = |n: usize| (0..n).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let get =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    for (text, want, code) in [
        (get("/who", &fields(62)), "200", ""),
        (get("/who", &fields(63)), "431", "header-too-large"),
        (get("/who", &fields(300)), "431", ""),
        (get("/who", &format!("X: {}\r\n", "x".repeat(16_000))), "200", ""),
        (get("/who", &format!("X: {}\r\n", "x".repeat(17_000))), "431", "header-too-large"),
        (get("/who", &format!("X: {}\r\n", "x".repeat(60_000))), "431", ""),
        (get(&format!("/who?{}", "x".repeat(17_000)), ""), "431", "header-too-large"),
        (WHO_CLOSE.replace("Host: a\r\n", ""), "400", "bad-host"),
        (WHO_CLOSE.replace("Host: a\r\n", "Host: a\r\nHost: b\r\n"), "400", "bad-host"),
        (WHO_CLOSE.replace("GET /who", "OPTIONS *"), "400", "bad-request"),
        (WHO_CLOSE.replace("GET /who", "CONNECT a:80"), "400", "bad-request"),
        (WHO_CLOSE.replace("HTTP/1.1", "HTTP/9"), "400", ""),
    ] {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        let heard = exchange(&mut socket, &text).await;
        assert!(status(&heard) == want && heard.contains(code), "{code}: {}", heard.get(..300).unwrap_or(&heard));
    }
}

#[tokio::test]
async fn a_refusal_arrives_although_the_body_is_still_being_sent() {
    let served = start(None, |_| {}).await;
    for path in ["/refuse", "/echo"] {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 32000000\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let (mut read, mut write) = socket.into_split();
        let sending = tokio::spawn(async move { write.write_all(&vec![b'x'; 32_000_000]).await });
        let heard = rest(&mut read).await;
        assert!(heard.starts_with("HTTP/1.1 4") && heard.contains("\"code\""), "{path}: {heard}");
        sending.await.unwrap().expect("what still came was read, so the connection was not reset");
    }
}

// ---- limits

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let served = start(None, |limits| limits.connections_max = 2).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        socket.write_all(WHO.as_bytes()).await.unwrap();
        assert_eq!(status(&answer(&mut socket).await), "200");
        open.push(socket);
    }
    let mut third = TcpStream::connect(served.address).await.unwrap();
    assert_eq!(rest(&mut third).await, "");
    open[0].write_all(WHO.as_bytes()).await.unwrap();
    assert_eq!(status(&answer(&mut open[0]).await), "200");
}

#[tokio::test]
async fn new_connections_come_under_new_limits_and_open_ones_keep_theirs() {
    let served = start(None, |limits| limits.connections_max = 1).await;
    let long = format!("GET /who HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(9_000));
    let mut early = TcpStream::connect(served.address).await.unwrap();
    early.write_all(long.as_bytes()).await.unwrap();
    assert_eq!(status(&answer(&mut early).await), "200");
    served.limits.send_modify(|limits| (limits.connections_max, limits.head_bytes_max) = (2, 8_192));
    let mut late = TcpStream::connect(served.address).await.unwrap();
    late.write_all(long.as_bytes()).await.unwrap();
    assert_eq!(status(&answer(&mut late).await), "431");
    early.write_all(long.as_bytes()).await.unwrap();
    assert_eq!(status(&answer(&mut early).await), "200");
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_talking_is_closed() {
    let served = start(None, |_| {}).await;
    for (said, seconds, want) in [
        ("", 20, "closed"),
        ("GET /who HTTP/1.1\r\nHo", 20, "closed"),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal", 15, "408"),
        ("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", 180, "408"),
    ] {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        let began = Instant::now();
        let heard = exchange(&mut socket, said).await;
        let took = began.elapsed().as_secs();
        assert_eq!((status(&heard), took), (want, seconds), "{said}");
    }
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(WHO.as_bytes()).await.unwrap();
    assert_eq!(status(&answer(&mut idle).await), "200");
    let began = Instant::now();
    assert_eq!((rest(&mut idle).await.as_str(), began.elapsed().as_secs()), ("", 20));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_creeps_is_cut_off() {
    let served = start(None, |limits| limits.body = Duration::from_secs(60)).await;
    let mut socket = TcpStream::connect(served.address).await.unwrap();
    let began = Instant::now();
    socket.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n").await.unwrap();
    let (mut read, mut write) = socket.split();
    // A byte each ten seconds is never a pause that is too long.
    let creep = async {
        loop {
            write.write_all(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    };
    let heard = tokio::select! {
        heard = answer(&mut read) => heard,
        () = creep => unreachable!(),
    };
    assert_eq!((status(&heard), began.elapsed().as_secs()), ("408", 60));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stops_is_closed() {
    let (city, clock) = (city(), clock());
    let served = start(Some(server_tls(&city, &clock)), |_| {}).await;
    for said in ["", "\x16\x03\x01"] {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        let began = Instant::now();
        assert_eq!((exchange(&mut socket, said).await.as_str(), began.elapsed().as_secs()), ("", 5));
    }
}

#[tokio::test]
async fn a_thousand_half_open_sockets_hold_nobody_up() {
    let served = start(None, |_| {}).await;
    let mut half = Vec::new();
    for n in 0..1000 {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        if n % 2 == 0 {
            socket.write_all(b"GET /who HTTP/1.1\r\nHo").await.unwrap();
        }
        half.push(socket);
    }
    let mut socket = TcpStream::connect(served.address).await.unwrap();
    assert_eq!(status(&exchange(&mut socket, WHO_CLOSE).await), "200");
    served.stop.send_replace(true);
    timeout(Duration::from_secs(5), served.ended).await.unwrap().unwrap();
}

// ---- time and stopping

#[tokio::test(start_paused = true)]
async fn the_fixed_time_starts_at_the_last_byte() {
    let served = start(None, |_| {}).await;
    let mut socket = TcpStream::connect(served.address).await.unwrap();
    socket.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab").await.unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    advance(Duration::from_millis(30)).await;
    let last = Instant::now();
    socket.write_all(b"c").await.unwrap();
    assert!(answer(&mut socket).await.ends_with("abc"));
    assert_eq!(last.elapsed().as_millis(), 50);
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_lets_calls_finish() {
    let mut served = start(None, |_| {}).await;
    let connect = async || TcpStream::connect(served.address).await.unwrap();
    let (mut silent, mut half, mut idle, mut slow) =
        (connect().await, connect().await, connect().await, connect().await);
    half.write_all(b"GET /who HTTP/1.1\r\nHo").await.unwrap();
    idle.write_all(WHO.as_bytes()).await.unwrap();
    assert_eq!(status(&answer(&mut idle).await), "200");
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    served.held.recv().await.unwrap();

    served.stop.send_replace(true);
    for socket in [&mut silent, &mut half, &mut idle] {
        assert_eq!(
            timeout(Duration::from_secs(5), rest(socket)).await.unwrap(),
            "",
            "at once, not at the end of the drain"
        );
    }
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody new is let in");
    assert!(!served.ended.is_finished());
    served.go.send_replace(true);
    let heard = rest(&mut slow).await;
    assert!(status(&heard) == "200" && heard.ends_with("slow"), "{heard}");
    drop(slow);
    served.ended.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_end_is_cut_at_the_end_of_the_drain() {
    let mut served = start(None, |_| {}).await;
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    served.held.recv().await.unwrap();
    let began = Instant::now();
    served.stop.send_replace(true);
    served.ended.await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 10);
}
