//! Where lines go: a gateway in this process over a stopped deployment, or the one that runs, over its API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::cli::Failure;
use crate::cli::receipts::Receipt;
use crate::client::signing::Signer;
use crate::client::{Client, ClientError, Response, Tls};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::deployment::PartySecrets;
use crate::entropy::{self, Entropy};
use crate::feed::Kind;
use crate::gateway::{BatchView, Caller, Gateway, Intake};
use crate::party::{KeyAlgorithm, Party, PartyRole};
use crate::policies::PolicySet;

/// How long is waited for a gateway's listener.
const KNOCK: Duration = Duration::from_secs(2);
/// How often a call is tried that was put off, or whose connection broke, and how long is waited before each further try.
const PUT_OFF_MAX: u32 = 240;
const BROKEN_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
const NDJSON: &str = "application/x-ndjson";

/// A line that was refused.
#[derive(Clone)]
pub struct Rejected {
    /// Its number in the file.
    pub line: u64,
    /// Why, as the contract names it.
    pub code: String,
    /// And as a sentence.
    pub message: String,
}

/// What became of lines.
#[derive(Clone, Default)]
pub struct Counts {
    /// New ones.
    pub accepted: u64,
    /// Sent before, the same.
    pub unchanged: u64,
    /// Sent before with other content.
    pub replaced: u64,
    /// Refused ones.
    pub rejected: Vec<Rejected>,
    /// The receipts of the batches that they were taken in.
    pub receipts: Vec<Receipt>,
}

impl Counts {
    /// How many were taken.
    pub fn taken(&self) -> u64 {
        self.accepted + self.unchanged + self.replaced
    }

    /// How many there were.
    pub(super) fn lines(&self) -> u64 {
        self.taken() + self.rejected.len() as u64
    }

    /// Adds the counts of taken lines; refused ones and receipts are kept in their files and not here.
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.unchanged += other.unchanged;
        self.replaced += other.replaced;
    }

    fn of(intake: Intake) -> Result<Self, String> {
        let rejected = intake.rejected.into_iter().map(|line| Rejected {
            line: line.line,
            code: line.error.code.as_str().to_owned(),
            message: line.error.message,
        });
        let given = |batch: BatchView| Receipt::given(batch.id.to_text(), batch.receipt, batch.proof.to_text());
        Ok(Self {
            accepted: intake.accepted,
            unchanged: intake.unchanged,
            replaced: intake.replaced,
            rejected: rejected.collect(),
            receipts: intake.batches.into_iter().map(given).collect::<Result<_, _>>()?,
        })
    }

    fn read(answer: &Value) -> Option<Self> {
        let count = |name: &str| answer.get(name).and_then(Value::as_u64);
        let rejected = answer.get("rejected")?.as_array()?.iter().map(|line| {
            let text = |name: &str| line.get(name).and_then(Value::as_str).map(str::to_owned);
            Some(Rejected { line: line.get("line")?.as_u64()?, code: text("code")?, message: text("message")? })
        });
        // A gateway of an earlier version gives none.
        let receipts = answer.get("receipts").and_then(Value::as_array).into_iter().flatten().map(|given| {
            let text = |name: &str| given.get(name).and_then(Value::as_str).map(str::to_owned);
            Receipt::given(text("id")?, text("receipt")?, text("proof")?).ok()
        });
        Some(Self {
            accepted: count("accepted")?,
            unchanged: count("unchanged")?,
            replaced: count("replaced")?,
            rejected: rejected.collect::<Option<_>>()?,
            receipts: receipts.collect::<Option<_>>()?,
        })
    }
}

/// How the party shows a running gateway who it is, as far as that was said.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// A client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// A shared key.
    pub hmac_key: Option<PathBuf>,
    /// The authority of the gateway's certificate.
    pub ca: Option<PathBuf>,
}

/// The party whose lines these are.
pub fn party<'s>(set: &'s PolicySet, kind: Kind, id: Option<&str>) -> Result<&'s Party, Failure> {
    let role = if kind == Kind::Register { PartyRole::Registrar } else { PartyRole::Provider };
    let mut all = set.parties.values().filter(|party| party.roles.contains(&role));
    let named = || {
        let ids = set.parties.values().filter(|party| party.roles.contains(&role)).map(|party| party.id.as_str());
        ids.collect::<Vec<_>>().join(", ")
    };
    match id {
        Some(id) => all.find(|party| party.id.as_str() == id).ok_or_else(|| {
            Failure::Usage(format!("parties.toml has no {} of this id; it has {}", role.as_str(), named()))
        }),
        None => match (all.next(), all.next()) {
            (Some(party), None) => Ok(party),
            (None, _) => Err(Failure::Failed(format!("parties.toml names no party with the role {}", role.as_str()))),
            _ => Err(Failure::Usage(format!("say which {} sends these with --provider: {}", role.as_str(), named()))),
        },
    }
}

/// Where lines go.
pub struct Target {
    way: Way,
    kind: Kind,
    dry: bool,
}

enum Way {
    Stopped { gateway: Box<Gateway>, caller: Caller },
    Running(Box<Api>),
}

/// A running gateway's API, as one party.
struct Api {
    base: String,
    connect_to: SocketAddr,
    tls: Tls,
    signer: Option<Signer>,
    /// Connections that nobody uses now.
    idle: Mutex<Vec<Client>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Target {
    /// The running gateway if somebody listens, else one over the stopped deployment.
    pub async fn find(
        config: &Config,
        party: &Party,
        secrets: &PartySecrets,
        proof: &Proof,
        kind: Kind,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Self, Failure> {
        let mut address = config.api;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            } else {
                IpAddr::V6(Ipv6Addr::LOCALHOST)
            });
        }
        // A database lets a second process in, and two must never write one log: so whoever listens is asked first.
        let way = if TcpStream::connect_timeout(&address, KNOCK).is_ok() {
            Way::Running(Box::new(Api::new(config, address, party, secrets, proof, (clock, entropy))?))
        } else {
            let gateway = config.open(clock, entropy).await.map_err(Failure::of)?.gateway;
            return Ok(Self::stopped(gateway, party, kind));
        };
        Ok(Self { way, kind, dry: false })
    }

    /// A gateway of this process.
    pub fn stopped(gateway: Gateway, party: &Party, kind: Kind) -> Self {
        let caller = Caller { party: party.id.clone(), signature: None };
        Self { way: Way::Stopped { gateway: Box::new(gateway), caller }, kind, dry: false }
    }

    /// Whether nothing is to be changed.
    pub fn dry(self, dry: bool) -> Self {
        Self { dry, ..self }
    }

    pub(super) fn is_dry(&self) -> bool {
        self.dry
    }

    /// Where the lines go, for whoever watches.
    pub(super) fn told(&self) -> String {
        match &self.way {
            Way::Stopped { .. } => {
                "网关未运行，直接写入 / no gateway runs: writing to the stopped deployment".to_owned()
            }
            Way::Running(api) => format!("经运行中的网关接口 / over the running gateway's API: {}", api.base),
        }
    }

    /// Sends lines, each with its end.
    pub(super) async fn upload(&self, body: Bytes) -> Result<Counts, Failure> {
        match &self.way {
            Way::Running(api) => api.upload(self.kind, self.dry, body).await,
            Way::Stopped { gateway, caller } => {
                let taken = match (self.kind, self.dry) {
                    (Kind::Records, false) => gateway.report(caller, &body).await,
                    (Kind::Register, false) => gateway.enrol(caller, &body).await,
                    (Kind::Records, true) => gateway.try_report(caller, &body).await,
                    (Kind::Register, true) => gateway.try_enrol(caller, &body).await,
                };
                taken.map_err(Failure::of).and_then(|taken| Counts::of(taken).map_err(Failure::Failed))
            }
        }
    }

    /// Lets go of the deployment.
    pub async fn close(self) {
        if let Way::Stopped { gateway, .. } = self.way {
            gateway.close().await;
        }
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::file("read", path, e))
}

/// What signs as the party: the key that was named, or the deployment's own copy.
fn signer(party: &Party, secrets: &PartySecrets, named: Option<&PathBuf>) -> Result<Signer, Failure> {
    let found = party.keys.iter().find_map(|key| match &key.algorithm {
        KeyAlgorithm::HmacSha256 { file } => Some((&key.id, file)),
        KeyAlgorithm::Ed25519 { .. } => None,
    });
    let Some((id, file)) = found else {
        return Err(Failure::Usage(format!(
            "{} has no shared key: send its certificate with --cert and --key",
            party.id
        )));
    };
    let secret = match named {
        Some(path) => {
            let text = zeroize::Zeroizing::new(read(path)?);
            STANDARD.decode(text.trim_ascii()).map_err(|_| Failure::file("read", path, "it is no base64"))?
        }
        None => secrets.get(file).map(|secret| secret.to_vec()).unwrap_or_default(),
    };
    Ok(Signer::new(id, secret))
}

impl Api {
    fn new(
        config: &Config,
        connect_to: SocketAddr,
        party: &Party,
        secrets: &PartySecrets,
        proof: &Proof,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Self, Failure> {
        let ca = read(proof.ca.as_ref().unwrap_or(&config.tls.client_ca))?;
        let (tls, signer) = match (&proof.cert, &proof.key) {
            (Some(cert), Some(key)) => (Tls::with_identity(&ca, &read(cert)?, &read(key)?).map_err(Failure::of)?, None),
            _ => (Tls::trusting(&ca).map_err(Failure::of)?, Some(signer(party, secrets, proof.hmac_key.as_ref())?)),
        };
        let idle = Mutex::default();
        Ok(Self { base: config.api_base.clone(), connect_to, tls, signer, idle, clock, entropy })
    }

    async fn upload(&self, kind: Kind, dry: bool, body: Bytes) -> Result<Counts, Failure> {
        let path = match kind {
            Kind::Records => "/v1/records",
            Kind::Register => "/v1/register",
        };
        let path = if dry { format!("{path}?dry_run=true") } else { path.to_owned() };
        let (mut put_off, mut broken) = (0, 0);
        loop {
            let kept = self.idle.lock().await.pop();
            let mut client = match kept {
                Some(client) => client,
                None => {
                    Client::new(&self.base, Some(self.tls.clone())).map_err(Failure::of)?.connecting_to(self.connect_to)
                }
            };
            let wait = match client.post(&path, NDJSON, body.clone(), self.signed(&path, &body)?).await {
                Ok(response) => {
                    self.idle.lock().await.push(client);
                    match response.status {
                        StatusCode::OK => {
                            return response.json().ok().as_ref().and_then(Counts::read).ok_or_else(|| strange(&path));
                        }
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE if put_off < PUT_OFF_MAX => {
                            put_off += 1;
                            retry_after(&response)
                        }
                        _ => return Err(refused(&response)),
                    }
                }
                // Whether it was taken is not known; the same lines again count nothing twice.
                Err(error)
                    if broken < BROKEN_MAX && !matches!(error, ClientError::Pem { .. } | ClientError::Request(_)) =>
                {
                    broken += 1;
                    PAUSE * 2u32.pow(broken)
                }
                Err(error) => return Err(Failure::of(error)),
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn signed(&self, path: &str, body: &[u8]) -> Result<Vec<(http::HeaderName, http::HeaderValue)>, Failure> {
        let Some(signer) = &self.signer else { return Ok(Vec::new()) };
        let nonce = URL_SAFE_NO_PAD.encode(entropy::bytes::<18>(&*self.entropy).map_err(Failure::of)?);
        let target = format!("{}{path}", self.base);
        signer.post(&target, NDJSON, body, self.clock.now(), &nonce).map_err(Failure::of)
    }
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0)).clamp(PAUSE, Duration::from_secs(5))
}

fn strange(path: &str) -> Failure {
    Failure::Failed(format!("the gateway answered {path} in a way that this version does not know"))
}

/// A refusal's code and sentence, which are about the call and never about a person.
fn refused(response: &Response) -> Failure {
    let problem = response.json().unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
    let (status, code, detail) = (response.status.as_u16(), text("code"), text("detail"));
    Failure::Failed(format!("网关拒绝 / the gateway refused the lines: {status} {code}: {detail}"))
}
