//! `jadegate serve`, and the gateway in the process of `demo`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::cli::{Exit, Failure, ServeArgs};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::backup::BackupSocket;
use crate::entropy::Entropy;
use crate::http::admission;
use crate::http::app::App;
use crate::http::figures::Figures;
use crate::http::layers::{Numbers, quiet_panics, surround};
use crate::http::limit::{Limiter, Rate};
use crate::http::listener::{self, ListenerLimits};
use crate::http::signature::BaseAddress;
use crate::http::tls::Tls;
use crate::http::{health, routes};
use crate::policies::PolicySet;
use crate::web::{Example, WebState};

/// How long a call may take once its body has come: the largest feed on a slow disk.
const WORK_MAX: Duration = Duration::from_secs(60);

/// How often a gateway looks whether another one has loaded policies; each call that rests on them looks too.
const FOLLOW: Duration = Duration::from_secs(1);
/// For how many times its own length each step of wrapping people's keys anew lets others work.
const WRAPPING_REST: u32 = 4;
/// The same for each step of the sweep.
const SWEEPING_REST: u32 = 4;

/// A gateway that listens: where, and how it is stopped.
pub struct Running {
    /// People, pages and everything public.
    pub web: SocketAddr,
    /// Relying parties, providers and the registrar.
    pub api: SocketAddr,
    /// Figures for the operator.
    pub admin: SocketAddr,
    /// Told when the gateway shall finish what is under way and end.
    pub stop: oneshot::Sender<()>,
    /// Ends when the gateway has ended.
    pub ended: JoinHandle<Result<(), String>>,
    ready: watch::Sender<bool>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running(web {}, api {}, admin {})", self.web, self.api, self.admin)
    }
}

impl Running {
    /// Says at `/readyz` that the gateway may be asked.
    pub fn say_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Lets the gateway finish what is under way, and waits for its end.
    pub async fn drain(self) -> Result<(), Failure> {
        // A gateway that ended by itself has nobody to be told; why it ended is what follows.
        self.stop.send(()).ok();
        self.ended.await.map_err(Failure::of)?.map_err(Failure::Failed)
    }
}

/// Everything that goes on serving until it is told to end.
struct Serving {
    config: Config,
    app: Arc<App>,
    ready: watch::Sender<bool>,
    shutdown: watch::Sender<bool>,
    limits: Vec<watch::Sender<ListenerLimits>>,
    listeners: Vec<JoinHandle<()>>,
    backups: Option<JoinHandle<()>>,
    wrapping: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    /// The keyring's file as it was when the gateway opened.
    keyring: Option<(u64, i64, i64)>,
}

/// Opens the deployment and listens; returns when the listeners are bound and the gateway is ready.
pub async fn start_gateway(
    config: &Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Running, Failure> {
    let running = start_quietly(config, Vec::new(), clock, entropy).await?;
    running.say_ready();
    Ok(running)
}

/// As [`start_gateway`], over a store that was restored from a backup: the one act that does so, under a new log.
pub async fn start_restored(
    config: &Config,
    under: &str,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Running, Failure> {
    let running = start(config, Some(under), Vec::new(), clock, entropy).await?;
    running.say_ready();
    tracing::warn!(
        log_origin = under,
        "the store was restored: every earlier consent is lapsed, and consents can be given again from tomorrow on. Put this name into jadegate.toml as log_origin, and copy keyring.json to every host"
    );
    Ok(running)
}

/// As [`start_gateway`], but `/readyz` says no until [`Running::say_ready`]: the demo has a story to tell first. The
/// demo's first page offers the examples for logging in.
pub async fn start_quietly(
    config: &Config,
    examples: Vec<Example>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Running, Failure> {
    start(config, None, examples, clock, entropy).await
}

async fn start(
    config: &Config,
    restored_under: Option<&str>,
    examples: Vec<Example>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Running, Failure> {
    let tls = Arc::new(tls(config, &clock)?);
    // Before anything is opened, so that a port in use changes nothing.
    let (web, api) = (bind("listen", config.listen).await?, bind("api", config.api).await?);
    let admin = bind("admin", config.admin).await?;
    let address = |listener: &TcpListener| listener.local_addr().map_err(Failure::of);
    let (web_at, api_at, admin_at) = (address(&web)?, address(&api)?, address(&admin)?);
    let hangup = signal(SignalKind::hangup()).map_err(Failure::of)?;

    let keyring = config.keyring_stamp();
    let deployment = match restored_under {
        None => config.open(clock.clone(), entropy.clone()).await,
        Some(origin) => config.open_restored(origin, clock.clone(), entropy.clone()).await,
    };
    let deployment = deployment.map_err(Failure::of)?;
    let gateway = Arc::new(deployment.gateway);
    let policies = gateway.policies().map_err(Failure::of)?;
    let (calls, failures) = rates(&policies);
    let limiter = Arc::new(Limiter::new(calls, failures, clock.clone()));
    let numbers = Numbers::new(&*entropy).map_err(Failure::of)?;
    let base = |text: &str| BaseAddress::parse(text).map_err(|e| Failure::Failed(format!("{text}: {e}")));
    let bases = (base(&config.api_base)?, base(&config.web_base)?);
    let app = Arc::new(App::new(gateway, limiter, numbers.clone(), bases, clock, deployment.secrets));
    let figures = Figures::install().map_err(Failure::of)?;

    let (ready, is_ready) = watch::channel(false);
    let (shutdown, is_shut) = watch::channel(false);
    let state = WebState { app: app.clone(), demo: config.demo, examples, entropy: entropy.clone() };
    let pages = crate::web::routes(state).merge(routes::web(app.clone()));
    let pages = pages.layer(from_fn_with_state(app.clone(), admission::bounded));
    let routers = [
        ("web", web, None, pages.merge(health::routes(is_ready.clone()))),
        ("api", api, Some(tls), routes::api(app.clone()).merge(health::routes(is_ready.clone()))),
        ("admin", admin, None, health::admin(is_ready, figures)),
    ];
    let (mut limits, mut listeners) = (Vec::new(), Vec::new());
    for (name, listener, tls, router) in routers {
        let (of_listener, limited) = watch::channel(listener_limits(name, config, &policies));
        let served = listener::serve(listener, tls, surround(router, &numbers), limited, is_shut.clone());
        limits.push(of_listener);
        listeners.push(tokio::spawn(served));
    }
    let (stop, stopped) = oneshot::channel();
    // A store in a database is open to `jadegate store export` by itself.
    let backups = match config.store.folder().map(BackupSocket::bind) {
        None => None,
        Some(Ok(socket)) => Some(tokio::spawn(socket.serve(app.gateway.clone()))),
        Some(Err(error)) => {
            tracing::warn!(%error, "no backups can be made while this gateway runs; stop it for `jadegate store export`");
            None
        }
    };
    let wrapper = app.gateway.clone();
    let wrapping = tokio::spawn(async move { wrapper.keep_wrapped(WRAPPING_REST).await });
    let sweeper = app.gateway.clone();
    let sweeping = tokio::spawn(async move { sweeper.keep_swept(SWEEPING_REST).await });
    let config = config.clone();
    let ready_of = ready.clone();
    let serving =
        Serving { config, keyring, app, ready: ready_of, shutdown, limits, listeners, backups, wrapping, sweeping };
    let ended = tokio::spawn(serving.run(stopped, hangup));
    Ok(Running { web: web_at, api: api_at, admin: admin_at, stop, ended, ready })
}

impl Serving {
    async fn run(self, mut stopped: oneshot::Receiver<()>, mut hangup: Signal) -> Result<(), String> {
        let gateway = self.app.gateway.clone();
        let (mut followed, mut told) = (tokio::time::interval(FOLLOW), String::new());
        let mut keyring = self.keyring;
        followed.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let failed = loop {
            tokio::select! {
                _ = &mut stopped => break None,
                reason = gateway.stopped() => break Some(reason),
                _ = hangup.recv() => {
                    keyring = None;
                    self.reload().await;
                    self.follow_keys(&mut keyring);
                }
                _ = followed.tick() => {
                    self.follow(&mut told).await;
                    self.follow_keys(&mut keyring);
                }
            }
        };
        // A batch of either is whole or not there at all.
        for task in [self.wrapping, self.sweeping] {
            task.abort();
            task.await.ok();
        }
        if let Some(backups) = self.backups {
            backups.abort();
            // It may be in the middle of one, which whoever wanted it learns.
            backups.await.ok();
        }
        // First nobody new is sent here, then what is under way is finished.
        self.ready.send_replace(false);
        self.shutdown.send_replace(true);
        for listener in self.listeners {
            listener.await.map_err(|e| e.to_string())?;
        }
        drop(gateway);
        if let Some(gateway) = Arc::into_inner(self.app).and_then(|app| Arc::into_inner(app.gateway)) {
            gateway.close().await;
        }
        match failed {
            None => Ok(()),
            Some(reason) => Err(format!(
                "the ledger has stopped, and the gateway with it: {reason}. What was answered is kept: remove the cause, then start the gateway again"
            )),
        }
    }

    /// Reads the policies again; a set with a mistake changes nothing.
    async fn reload(&self) {
        let (policies, secrets) = match self.config.open_policies() {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, "the policies were not loaded; the old ones hold");
                return;
            }
        };
        let digest = crate::hex::hex(&policies.digest);
        if let Err(error) = self.app.gateway.load_policies(policies).await {
            tracing::error!(%error, "the policies were not loaded; the old ones hold");
            return;
        }
        self.app.set_secrets(secrets);
        self.apply_limits();
        tracing::info!(digest, "the policies were loaded");
    }

    /// Takes a keyring over that lies in the key folder since the last look.
    fn follow_keys(&self, seen: &mut Option<(u64, i64, i64)>) {
        let stamp = self.config.keyring_stamp();
        if stamp == *seen {
            return;
        }
        *seen = stamp;
        let keys = match self.config.open_keys() {
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(%error, "the keyring was not taken over; the old keys hold");
                return;
            }
        };
        match self.app.gateway.take_keys(keys) {
            Ok(true) => tracing::info!("the new keys were taken over"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the keyring was not taken over; the old keys hold"),
        }
    }

    /// Takes over what another gateway loaded; says a failure once.
    async fn follow(&self, told: &mut String) {
        match self.app.gateway.follow_policies().await {
            Ok(changed) => {
                told.clear();
                if changed {
                    self.apply_limits();
                }
            }
            Err(error) if error.to_string() != *told => {
                *told = error.to_string();
                tracing::error!(%error, "what other gateways load is not followed");
            }
            Err(_) => {}
        }
    }

    fn apply_limits(&self) {
        if let Ok(policies) = self.app.gateway.policies() {
            let (calls, failures) = rates(&policies);
            self.app.limiter.reconfigure(calls, failures);
            for limits in &self.limits {
                limits.send_modify(|held| *held = listener_limits(held.name, &self.config, &policies));
            }
        }
    }
}

/// What one listener bears, by the city's limits.
fn listener_limits(name: &'static str, config: &Config, policies: &PolicySet) -> ListenerLimits {
    let city = &policies.city.limits;
    let (head, body) = (Duration::from_secs(city.header_seconds_max), Duration::from_secs(city.body_seconds_max));
    ListenerLimits {
        connections_max: usize::try_from(city.connections).unwrap_or(usize::MAX),
        handshake: head,
        head,
        head_bytes_max: city.header_bytes_max,
        body,
        call: body.saturating_add(WORK_MAX),
        drain: Duration::from_secs(config.drain_seconds.into()),
        ..ListenerLimits::new(name)
    }
}

fn rates(policies: &PolicySet) -> (Rate, Rate) {
    let limits = &policies.city.limits;
    let calls = Rate { per_second: limits.calls_per_second, burst: limits.calls_burst };
    let failures = Rate { per_second: limits.refused_per_second, burst: limits.refused_per_second };
    (calls, failures)
}

async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|e| {
        Failure::Failed(format!("cannot listen on {address} (`{what}`): {e}; stop what uses the port, or name another"))
    })
}

fn tls(config: &Config, clock: &Arc<dyn Clock>) -> Result<Tls, Failure> {
    let read = |path: &std::path::Path| {
        let why = |e| format!("{e}; [tls] in jadegate.toml names it");
        std::fs::read(path).map_err(|e| Failure::file("read", path, why(e)))
    };
    let (chain, key) = (read(&config.tls.certificate)?, read(&config.tls.key)?);
    let clients = read(&config.tls.client_ca)?;
    Tls::new(&chain, &key, Some(&clients), clock.clone()).map_err(|e| {
        let files = [&config.tls.certificate, &config.tls.key, &config.tls.client_ca].map(|f| f.display().to_string());
        Failure::Failed(format!("{e}; [tls] in jadegate.toml names the files {}", files.join(", ")))
    })
}

/// Runs a deployment until it is told to stop.
pub async fn run(args: ServeArgs, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Exit, Failure> {
    quiet_panics();
    let config = Config::read(&args.config).map_err(Failure::of)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::of)?;
    let mut running = match &args.restored_under {
        None => start_gateway(&config, clock, entropy).await?,
        Some(under) => start_restored(&config, under, clock, entropy).await?,
    };
    tracing::info!(web = %running.web, api = %running.api, admin = %running.admin, "ready");
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
        ended = &mut running.ended => Some(ended),
    };
    match ended {
        None => running.drain().await?,
        Some(ended) => ended.map_err(Failure::of)?.map_err(Failure::Failed)?,
    }
    Ok(Exit::Done)
}
