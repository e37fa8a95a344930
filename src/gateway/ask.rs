//! A relying party asks: the hot path.
//!
//! INVARIANT (one withheld): whatever the reason, an answer that is not positive reads, opens,
//! signs, writes and proves as a positive one does. There is no early way out after the consent is
//! presented; [`Verdict`] decides only what is opened, which bytes are kept, and what is said.

use jiff::{Timestamp, civil::Date};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::publish::Loaded;
use super::{Caller, Gateway, GatewayError, Refusal, TRIES_MAX, at, next_version, unchanged};
use crate::access::{Action, Condition};
use crate::access_log::Hash;
use crate::access_log::entry::{Body, LogAction, Subject};
use crate::access_log::proof::Proof;
use crate::attestation::{self, Claims};
use crate::code::{RuleId, ScenarioId};
use crate::consent::{self, Grant, Lapsed, OneTimeCode, Presented, Shown, Token, Verdict};
use crate::disclosure::{DayCell, Decision, decide};
use crate::entropy;
use crate::ledger::{Change, EntryId, LeafPlace, PlacedWrite, Receipt};
use crate::model::Model;
use crate::person::PersonId;
use crate::scenario::Scenario;
use crate::store::{Cell, Place, Write};
use crate::tables;

/// The size of every answer, padded with blanks.
pub const ANSWER_BYTES: usize = 4096;
/// How many leaf places one access page holds.
pub(super) const PAGE_PLACES: u32 = 50;
/// The place of an entry that is not written yet.
const NOWHERE: LeafPlace = LeafPlace { log: 0, index: 0, size: 0 };
/// For how long a code's row is known as a code at all.
const CODE_KNOWN_SECONDS: i64 = 86_400;

/// What a relying party asks with.
#[derive(Clone)]
pub struct AskRequest {
    /// The scenario's id.
    pub scenario: String,
    /// A token or a one-time code.
    pub consent: String,
    /// The party's own nonce: 16 to 128 of `A-Z a-z 0-9 _ -`.
    pub nonce: String,
}

impl std::fmt::Debug for AskRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AskRequest(..)")
    }
}

/// An answer of 4,096 bytes. INVARIANT (no receipt, no answer): it is made from a [`Receipt`] only.
pub struct Answer {
    body: Vec<u8>,
}

impl Answer {
    /// Puts the answer together. Both bodies are made whatever is said.
    fn new(statement: &Statement, proof: &Proof, _receipt: &Receipt) -> Result<Self, GatewayError> {
        let attestation = String::from_utf8_lossy(&statement.compact);
        let met = json!({ "answer": "met", "attestation": attestation, "proof": proof.to_text() }).to_string();
        let withheld = json!({ "answer": "withheld" }).to_string();
        let mut body = if statement.met { met } else { withheld }.into_bytes();
        if body.len() > ANSWER_BYTES {
            return Err(GatewayError::Fault("an answer does not fit its size".into()));
        }
        body.resize(ANSWER_BYTES, b' ');
        Ok(Self { body })
    }

    /// The JSON body.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }
}

/// An attestation, or bytes of its length that are thrown away.
struct Statement {
    met: bool,
    compact: Vec<u8>,
}

/// What gives a call's first answer again.
struct Reply {
    at: Timestamp,
    first: LeafPlace,
    statement: Statement,
}

impl Reply {
    fn encode(&self, first: LeafPlace) -> Vec<u8> {
        let head = [self.at.as_millisecond().to_be_bytes(), first.size.to_be_bytes()];
        [head.concat().as_slice(), &first.id().to_bytes(), &[u8::from(self.statement.met)], &self.statement.compact]
            .concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (at, rest) = bytes.split_first_chunk::<8>()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let (id, rest) = rest.split_first_chunk::<{ EntryId::BYTES }>()?;
        let EntryId { log, index } = EntryId::from_bytes(id);
        let (met, compact) = rest.split_first()?;
        Some(Self {
            at: Timestamp::from_millisecond(i64::from_be_bytes(*at)).ok()?,
            first: LeafPlace { log, index, size: u64::from_be_bytes(*size) },
            statement: Statement { met: *met == 1, compact: compact.to_vec() },
        })
    }
}

/// One call's surroundings.
struct Asking<'a> {
    caller: &'a Caller,
    nonce: &'a str,
    scenario: &'a Scenario,
    rule: RuleId,
    policies: &'a Loaded,
    model: &'a Model,
    now: Timestamp,
    day: Date,
}

impl Gateway {
    /// Answers whether the person behind a consent meets a scenario's question.
    pub async fn ask(&self, caller: &Caller, request: &AskRequest) -> Result<Answer, GatewayError> {
        let (now, day, policies) = self.moment().await?;
        match self.ask_permitted(caller, request, &policies, now, day).await {
            Err(GatewayError::Refused(refusal)) if refusal != Refusal::ReplayedSignature => {
                Err(self.refuse(caller, refusal).await)
            }
            answered => answered,
        }
    }

    async fn ask_permitted(
        &self,
        caller: &Caller,
        request: &AskRequest,
        policies: &Loaded,
        now: Timestamp,
        day: Date,
    ) -> Result<Answer, GatewayError> {
        let scenario = ScenarioId::parse(&request.scenario).ok();
        let scenario = scenario.and_then(|id| policies.scenarios.get(&id)).ok_or(Refusal::UnknownScenario)?;
        let names = if scenario.parties.contains(&caller.party) { vec![Condition::ScenarioNamesParty] } else { vec![] };
        let roles = super::roles(policies, &caller.party);
        let rule = Self::permit(policies, &roles, Action::Ask, &names).map_err(|_| Refusal::UnknownScenario)?;
        check_nonce(&request.nonce)?;
        let model = policies.model_in_force();
        let asking = Asking { caller, nonce: &request.nonce, scenario, rule, policies, model, now, day };
        let presented = self.present(&asking, &request.consent).await?;
        if let Some(answer) = self.ask_once(&asking, &presented).await? {
            return Ok(answer);
        }
        // Whoever met somebody else at the same consent queues from here on, so that each commit of
        // that consent answers one of them and none tries in vain.
        let _turn = self.consent_lanes.enter([presented.id().as_bytes().as_slice()].into_iter()).await;
        for _ in 0..TRIES_MAX {
            if let Some(answer) = self.ask_once(&asking, &presented).await? {
                return Ok(answer);
            }
        }
        Err(Refusal::Busy.into())
    }

    /// A token is checked by its MAC before any look-up; a code is looked up by its own.
    async fn present(&self, asking: &Asking<'_>, shown: &str) -> Result<Presented, GatewayError> {
        let (party, scenario) = (&asking.caller.party, &asking.scenario.id);
        let not_recognised = |_| GatewayError::from(Refusal::ConsentNotRecognised);
        if let Some(token) = Token::parse(shown) {
            return consent::verify(&token, &*self.vault, party, scenario).map_err(not_recognised);
        }
        let code = OneTimeCode::parse(shown).ok_or(Refusal::ConsentNotRecognised)?;
        let mac = self.vault.code_mac(&code);
        let row = self.code_row(&mac).await?.ok_or(Refusal::ConsentNotRecognised)?;
        if asking.now.duration_since(row.ends).as_secs() > CODE_KNOWN_SECONDS {
            return Err(Refusal::ConsentNotRecognised.into());
        }
        consent::verify_code(&row, mac, party, scenario).map_err(not_recognised)
    }

    /// Reads, decides, signs, commits; `None` when a cell changed in between and all is to be read anew.
    async fn ask_once(&self, asking: &Asking<'_>, presented: &Presented) -> Result<Option<Answer>, GatewayError> {
        let consent_place = Place::new(tables::CONSENT, presented.id().as_bytes());
        let missing = || GatewayError::Fault("a consent's cell is missing".into());
        let consent_cell = self.get(&consent_place).await?;
        let (key, consent) = match &consent_cell {
            Some(cell) => self.vault.open_consent(presented, cell.version, &cell.value)?,
            None => self.lost_consent(presented).ok_or_else(missing)?,
        };

        let reply_place = self.reply_place(presented, asking.nonce);
        let page_place = self.page_place(presented.id(), consent.asked);
        let today_place = self.today_place(&consent.person, asking.day);
        let of_the_person = [tables::PERSON, tables::STANDING].map(|table| Place::new(table, consent.person.0));
        let [person_place, standing_place] = of_the_person;
        // One round trip, where the store is another machine.
        let places = [reply_place.clone(), page_place.clone(), today_place.clone(), person_place, standing_place];
        let [reply_cell, page_cell, today_cell, person_cell, standing_cell] = self.get_all(places).await?;

        let reply = match &reply_cell {
            Some(cell) => self.open_reply(&reply_place, cell)?,
            None => None,
        };
        let verdict = match (&person_cell, &standing_cell) {
            // Both at once: one that is missing alone is damage, and says so.
            (None, None) => Verdict::Lapsed(Lapsed::Erased),
            _ => presented.with(&consent, reply.as_ref().map(|reply| reply.at), asking.now, self.consents_from),
        };
        let cells = (person_cell, standing_cell, today_cell.as_ref());
        let cell = self.day_cell(asking, &verdict, &consent.person, &today_place, cells).await?;
        let decision = decide(cell, &asking.scenario.question, &asking.policies.city.cuts, asking.model);
        let fresh = self.state(asking, &verdict, decision)?;
        let commitment = self.commitment(&fresh)?;

        // A repeat keeps the first answer; anything else becomes the answer that a repeat will get. A
        // call of a revoked consent that is sent again walks the same way, and gets none of it.
        let first = reply.filter(|reply| consent::repeats(reply.at, asking.now));
        let repeat = first.as_ref().map(|first| first.first);
        let reply = match (first, &verdict) {
            (Some(first), Verdict::Repeat) => first,
            (Some(first), _) => Reply { statement: fresh, ..first },
            (None, _) => Reply { at: asking.now, first: NOWHERE, statement: fresh },
        };
        let body = Body {
            at: asking.now,
            party: Some(asking.caller.party.clone()),
            scenario: Some(asking.scenario.id.clone()),
            action: LogAction::Ask,
            rule: Some(asking.rule.clone()),
            subject: Subject::Consent(presented.id()),
        };
        let mut change = Change::entry(commitment, body);
        let nonce = self.spend_nonce(asking.caller, &mut change);
        let after = presented.spend(&consent, &verdict);
        let version = next_version(consent_cell.as_ref());
        let value = self.vault.seal_consent(presented.id(), key, version, &after)?;
        change.checks.push(unchanged(&consent_place, consent_cell.as_ref()));
        change.writes.push(Write::Put(consent_place, Cell { version, value }));
        self.add_today(&mut change, &verdict, cell, today_place, today_cell.is_some(), asking.day)?;

        let statement = Statement { met: reply.statement.met, compact: reply.statement.compact.clone() };
        change.checks.push(unchanged(&reply_place, reply_cell.as_ref()));
        change.placed.push(self.placed(key, reply_place, next_version(reply_cell.as_ref()), 1024, move |own| {
            reply.encode(repeat.unwrap_or(own))
        }));
        change.checks.push(unchanged(&page_place, page_cell.as_ref()));
        let page = match &page_cell {
            Some(cell) => self.vault.open_by_consent(at(&page_place, cell.version), &cell.value)?.1.to_vec(),
            None => Vec::new(),
        };
        change.placed.push(self.placed(key, page_place, next_version(page_cell.as_ref()), 512, move |own| {
            [page.as_slice(), &own.id().to_bytes()].concat()
        }));

        let Some(receipt) = self.record(change, nonce.as_ref()).await? else { return Ok(None) };
        let own = receipt.proof()?;
        let proof = match repeat {
            // Whichever gateway gave the first answer: its entry stands in that one's log.
            Some(first) => self.logs().log(first.log).await?.proof(first).await?,
            None => own,
        };
        Answer::new(&statement, &proof, &receipt).map(Some)
    }

    /// The cell to answer from: the day's, where it is fixed; else the standing's. A lapsed consent
    /// and a repeat get a decoy's, opened with the same work.
    async fn day_cell(
        &self,
        asking: &Asking<'_>,
        verdict: &Verdict,
        person: &PersonId,
        today_place: &Place,
        (person_cell, standing_cell, today_cell): (Option<Cell>, Option<Cell>, Option<&Cell>),
    ) -> Result<DayCell, GatewayError> {
        let cuts = &asking.policies.city.cuts;
        let Verdict::Grant(grant) = verdict else {
            let decoy = self.vault.open_decoy()?;
            return Ok(DayCell::of(decoy.outcome.score, cuts));
        };
        let missing = || GatewayError::Fault("a person's cell is missing".into());
        let (person_cell, standing_cell) = (person_cell.ok_or_else(missing)?, standing_cell.ok_or_else(missing)?);
        let (keys, _) = self.vault.open_person(grant, *person, person_cell.version, &person_cell.value)?;
        let standing = self.vault.open_standing(&keys, standing_cell.version, &standing_cell.value)?;
        if let Some(cell) = today_cell {
            return Ok(self.vault.open_today(grant, person, at(today_place, cell.version), &cell.value)?);
        }
        let score = match standing {
            Some(standing) if !standing.due(asking.day, asking.policies.rules()) => standing.outcome.score,
            // Rare: a boundary was passed since the last report. An answer never writes the standing.
            _ => self.score_now(grant, person, asking.policies, asking.day).await?,
        };
        Ok(DayCell::of(score, cuts))
    }

    async fn score_now(
        &self,
        grant: &Grant,
        person: &PersonId,
        policies: &Loaded,
        day: Date,
    ) -> Result<Option<u16>, GatewayError> {
        let dossier = self.dossier(grant, *person).await?;
        let model = policies.model_in_force();
        Ok(dossier.and_then(|dossier| dossier.evaluate(policies, model, day)).and_then(|outcome| outcome.score))
    }

    /// Signs the attestation, or random bytes of its length by a key that nobody trusts.
    fn state(&self, asking: &Asking<'_>, verdict: &Verdict, decision: Decision) -> Result<Statement, GatewayError> {
        let met = decision.met && matches!(verdict, Verdict::Grant(_));
        let (party, scenario) = (&asking.caller.party, asking.scenario);
        let pseudonym = match verdict {
            Verdict::Grant(grant) => self.vault.pseudonym(grant, party.as_str(), scenario.id.as_str()),
            _ => self.vault.pseudonym_decoy(party.as_str(), scenario.id.as_str()),
        };
        let iat = asking.now.as_second();
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: party.clone(),
            iat,
            exp: iat + i64::from(scenario.answer_minutes) * 60,
            jti: crate::hex::hex(&entropy::bytes::<16>(&*self.entropy)?),
            nonce: asking.nonce.to_owned(),
            scenario: scenario.id.clone(),
            as_of: asking.day,
            sub: scenario.one_a_person.then_some(pseudonym),
            met: decision.claim,
            model: asking.model.name(),
        };
        let keys = self.keys();
        let key = keys.signing(asking.now).ok_or_else(|| GatewayError::Fault("no signing key".into()))?;
        let input = attestation::signing_input(key.kid(), &claims);
        if met {
            let compact = attestation::compact(&input, &key.sign(input.as_bytes())?);
            return Ok(Statement { met, compact: compact.into_bytes() });
        }
        let mut random = vec![0; input.len()];
        self.entropy.fill(&mut random)?;
        let signature = keys.decoy().sign(&random)?;
        let mut compact = attestation::compact(&input, &signature).into_bytes();
        self.entropy.fill(&mut compact)?;
        Ok(Statement { met, compact })
    }

    /// What the entry commits to: the attestation, or nothing that anybody could know.
    fn commitment(&self, statement: &Statement) -> Result<Hash, GatewayError> {
        let (random, digest) = (self.random()?, Sha256::digest(&statement.compact).into());
        Ok(if statement.met { digest } else { random })
    }

    /// INVARIANT (one answer a day): the first grant of the day fixes the person's row; every other
    /// call writes a row that only looks like it.
    fn add_today(
        &self,
        change: &mut Change,
        verdict: &Verdict,
        cell: DayCell,
        persons: Place,
        fixed: bool,
        day: Date,
    ) -> Result<(), GatewayError> {
        let fixes = matches!(verdict, Verdict::Grant(_)) && !fixed;
        let decoy = Place::new(tables::TODAY, tables::key(&[&day_key(day), &self.random()?]));
        let place = if fixes { persons } else { decoy };
        self.put_indexed(change, place, None, &[cell.to_byte()], 64)
    }

    /// A write under a consent's key whose content depends on the entry's place.
    fn placed(
        &self,
        key: u32,
        place: Place,
        version: u64,
        room: usize,
        content: impl Fn(LeafPlace) -> Vec<u8> + Send + Sync + 'static,
    ) -> PlacedWrite {
        let (vault, sealed) = (self.vault.clone(), place.clone());
        let seal = Box::new(move |own| {
            vault.seal_by_consent(key, at(&sealed, version), &content(own), room).map_err(|e| e.to_string())
        });
        PlacedWrite { place, version, seal }
    }

    fn open_reply(&self, place: &Place, cell: &Cell) -> Result<Option<Reply>, GatewayError> {
        let (_, bytes) = self.vault.open_by_consent(at(place, cell.version), &cell.value)?;
        Ok(Reply::decode(&bytes))
    }

    fn reply_place(&self, presented: &Presented, nonce: &str) -> Place {
        let shown = match presented.shown() {
            Shown::Token => &[],
            Shown::Code(mac, _) => mac.0.as_slice(),
        };
        let key = self.vault.lookup("reply", &[presented.id().as_bytes(), shown, nonce.as_bytes()]);
        Place::new(tables::REPLY, key)
    }

    /// The access page in which the entry after `asked` others goes.
    pub(super) fn page_place(&self, id: consent::ConsentId, asked: u32) -> Place {
        let key = self.vault.lookup("access", &[id.as_bytes()]);
        Place::new(tables::ACCESS, tables::key(&[&key, &(asked / PAGE_PLACES).to_be_bytes()]))
    }

    /// Where the day's cell of a person lies.
    pub(super) fn today_place(&self, person: &PersonId, day: Date) -> Place {
        let key = self.vault.lookup("today", &[&person.0, &day_key(day)]);
        Place::new(tables::TODAY, tables::key(&[&day_key(day), &key]))
    }
}

/// A day as the first bytes of a key, so that days can be swept.
fn day_key(day: Date) -> [u8; 4] {
    let days = crate::clock::start_of(day).as_second().div_euclid(86_400);
    u32::try_from(days).unwrap_or_default().to_be_bytes()
}

fn check_nonce(nonce: &str) -> Result<(), Refusal> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (16..=128).contains(&nonce.len()) && nonce.bytes().all(allowed) {
        return Ok(());
    }
    Err(Refusal::OutOfRange { field: "nonce", expected: "16 to 128 of the characters A-Z a-z 0-9 _ -".into() })
}
