//! The attacker's socket: the real router behind the real listener, over a world in memory, called with signatures.

use std::collections::HashMap;
use std::sync::Arc;

use jadegate::client::signing::Signer;
use jadegate::clock::Clock;
use jadegate::entropy::SystemEntropy;
use jadegate::http::app::App;
use jadegate::http::layers::{Numbers, surround};
use jadegate::http::limit::{Limiter, Rate};
use jadegate::http::listener::{self, ListenerLimits};
use jadegate::http::routes;
use jadegate::http::signature::BaseAddress;
use jadegate::policies::{PolicySet, shipped};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::support::world::World;

const BASE: &str = "https://gateway.example";
const SECRET: [u8; 32] = [b'k'; 32];

pub struct Wire {
    stream: TcpStream,
    _stop: (watch::Sender<bool>, watch::Sender<ListenerLimits>),
}

/// The shipped policies with a signature's key for each of these parties, and the shortest fixed time.
pub fn policies(parties: &[&str]) -> PolicySet {
    let mut files = shipped();
    let text = String::from_utf8(files["parties.toml"].clone()).unwrap();
    let blocks = text.split("[[party]]").map(|block| {
        let party = parties.iter().find(|party| block.contains(&format!("\nid = \"{party}\"\n")));
        let key = party.map_or(String::new(), |party| {
            format!("\n[[party.key]]\nid = \"{party}-1\"\nalg = \"hmac-sha256\"\nfile = \"{party}.hmac\"\n\n")
        });
        format!("{}{key}", if key.is_empty() { block } else { block.split("\n\n").next().unwrap() })
    });
    let text = blocks.collect::<Vec<_>>().join("[[party]]");
    files.insert("parties.toml".to_owned(), text.into_bytes());
    crate::support::world::change(&mut files, "city.toml", &[("answer_floor_ms = 50", "answer_floor_ms = 10")]);
    PolicySet::parse(files).unwrap()
}

impl Wire {
    pub async fn open(world: &World, parties: &[&str]) -> Self {
        let clock: Arc<dyn Clock> = world.clock.clone();
        let often = Rate { per_second: 100_000, burst: 100_000 };
        let limiter = Arc::new(Limiter::new(often, often, clock.clone()));
        let numbers = Numbers::new(&SystemEntropy::new()).unwrap();
        let base = || BaseAddress::parse(BASE).unwrap();
        let secrets: HashMap<_, _> =
            parties.iter().map(|party| (format!("{party}.hmac"), Zeroizing::new(SECRET.to_vec()))).collect();
        let app = Arc::new(App::new(world.gateway.clone(), limiter, numbers.clone(), (base(), base()), clock, secrets));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let (limits, limited) = watch::channel(ListenerLimits::new("api"));
        tokio::spawn(listener::serve(listener, None, surround(routes::api(app), &numbers), limited, stopped));
        Self { stream: TcpStream::connect(address).await.unwrap(), _stop: (stop, limits) }
    }

    /// Status line and headers as they came, the date aside, and the body.
    pub async fn ask(&mut self, party: &str, body: &str, at: jiff::Timestamp, nonce: &str) -> (String, Vec<u8>) {
        let signer = Signer::new(format!("{party}-1"), SECRET);
        let headers = signer.post_json(&format!("{BASE}/v1/answers"), body.as_bytes(), at, nonce).unwrap();
        let mut call = format!(
            "POST /v1/answers HTTP/1.1\r\nhost: gateway.example\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            call.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        call.push_str(&format!("\r\n{body}"));
        self.stream.write_all(call.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        let kept: Vec<&str> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
        (kept.join("\n"), body)
    }
}
