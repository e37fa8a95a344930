//! What every handler works with: the gateway, who may call, how often, and numbers for incidents.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use zeroize::Zeroizing;

use super::admission::Places;
use super::body::Room;
use super::caller::Directory;
use super::layers::Numbers;
use super::limit::Limiter;
use super::problem::Problem;
use super::signature::BaseAddress;
use crate::clock::Clock;
use crate::code::PartyId;
use crate::gateway::{Gateway, GatewayError, Loaded, Refusal};

/// How many bytes of feeds are held in memory at a time, over all connections.
const FEED_BYTES_AT_ONCE: usize = 512 * 1024 * 1024;
/// How many of them one party may take up: two of the largest feeds.
const FEED_BYTES_OF_A_PARTY: usize = 128 * 1024 * 1024;

/// The secrets of parties that sign with `hmac-sha256`, by the name of their file.
pub type Secrets = HashMap<String, Zeroizing<Vec<u8>>>;

/// What handlers share.
pub struct App {
    /// The use cases.
    pub gateway: Arc<Gateway>,
    /// How much is too much.
    pub limiter: Arc<Limiter>,
    /// Numbers of calls and incidents.
    pub numbers: Numbers,
    /// What relying parties call the gateway.
    pub api_base: BaseAddress,
    /// What people's browsers call it.
    pub web_base: BaseAddress,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Places for answers that are worked on.
    pub(super) places: Places,
    /// Places for what departments send and read.
    pub(super) sent_places: Places,
    /// Places for calls of people.
    pub(super) web_places: Places,
    /// Memory for feeds under way, all together.
    pub(super) room: Room,
    shares: Mutex<HashMap<PartyId, Room>>,
    secrets: RwLock<Arc<Secrets>>,
    directory: Mutex<Option<(Arc<Loaded>, Arc<Directory>)>>,
}

impl App {
    /// An app over an open gateway.
    pub fn new(
        gateway: Arc<Gateway>,
        limiter: Arc<Limiter>,
        numbers: Numbers,
        (api_base, web_base): (BaseAddress, BaseAddress),
        clock: Arc<dyn Clock>,
        secrets: Secrets,
    ) -> Self {
        let secrets = RwLock::new(Arc::new(secrets));
        let room = Room::new(FEED_BYTES_AT_ONCE);
        Self {
            gateway,
            limiter,
            numbers,
            api_base,
            web_base,
            clock,
            places: Places::default(),
            sent_places: Places::default(),
            web_places: Places::default(),
            room,
            shares: Mutex::default(),
            secrets,
            directory: Mutex::new(None),
        }
    }

    /// Takes over the secrets read with a new policy set.
    pub fn set_secrets(&self, secrets: Secrets) {
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(secrets);
        *self.directory.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Who may call by which certificate and key, under the policies of this moment.
    pub(super) fn directory(&self, policies: &Arc<Loaded>) -> Arc<Directory> {
        let mut held = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some((of, directory)) if Arc::ptr_eq(of, policies) => directory.clone(),
            _ => {
                let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner).clone();
                let directory = Arc::new(Directory::new(policies, &secrets));
                *held = Some((policies.clone(), directory.clone()));
                directory
            }
        }
    }

    /// A party's own part of the room for feeds.
    pub(super) fn share(&self, party: &PartyId) -> Room {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.entry(party.clone()).or_insert_with(|| Room::new(FEED_BYTES_OF_A_PARTY)).clone()
    }

    /// The fixed time of answers.
    pub(super) fn floor(policies: &Loaded) -> Duration {
        Duration::from_millis(policies.city.answer_floor_ms)
    }

    /// What the caller gets for an error: a fault becomes an incident number, and stays in the log.
    pub fn problem(&self, error: GatewayError) -> Problem {
        match error {
            GatewayError::Refused(refusal) => refused(&refusal),
            GatewayError::Fault(reason) => {
                let incident = self.numbers.next();
                tracing::error!(incident, reason, "a call failed");
                Problem::internal(incident)
            }
        }
    }
}

/// A refusal as problem details.
fn refused(refusal: &Refusal) -> Problem {
    let problem = Problem::new(refusal.code(), refusal.to_string());
    match refusal {
        Refusal::OutOfRange { field, .. } => problem.with("field", *field),
        Refusal::BeyondLimits { field, max, .. } => problem.with("field", *field).with("limit", *max),
        Refusal::Busy | Refusal::ClockStepped(_) => problem.retry_after(Duration::from_secs(1)),
        _ => problem,
    }
}
