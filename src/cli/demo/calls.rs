//! The calls of the story, each as the one who makes it would: over the real listeners, with real proofs of who calls.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::access_log::checkpoint::VerifierKey;
use crate::access_log::proof::Proof;
use crate::access_log::tile::{TILE_WIDTH, TileRequest, width_at};
use crate::cli::Failure;
use crate::cli::demo::Stage;
use crate::cli::init::shared_key_file;
use crate::client::signing::Signer;
use crate::client::{Client, Response, Tls};
use crate::clock::Clock;
use crate::code::{PartyId, ScenarioId};
use crate::entropy::{self, Entropy};

/// How a party shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Certificate,
    Signature,
}

/// What a party holds after it asked.
pub(super) struct Held {
    /// The attestation and its log proof, where the answer is positive.
    pub(super) met: Option<(String, String)>,
    pub(super) nonce: String,
    /// How long the answer was on the line.
    pub(super) bytes: usize,
}

impl Stage {
    fn file(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let path = self.dir.join(name);
        fs::read(&path).map_err(|e| Failure::file("read", &path, e))
    }

    /// A party's connection, with its client certificate.
    pub(super) fn api(&self, party: &str) -> Result<Client, Failure> {
        let (cert, key) = (self.file(&format!("parties/{party}.pem"))?, self.file(&format!("parties/{party}.key"))?);
        let tls = Tls::with_identity(&self.file("pki/ca.pem")?, &cert, &key).map_err(Failure::of)?;
        Client::new(&self.config.api_base, Some(tls)).map_err(Failure::of)
    }

    /// A connection to the public side, of nobody in particular.
    pub(super) fn web(&self) -> Result<Client, Failure> {
        Client::new(&self.config.web_base, None).map_err(Failure::of)
    }

    /// The public side, logged in as somebody.
    pub(super) async fn login(&self, who: &str) -> Result<Client, Failure> {
        let mut web = self.web()?;
        let form = "application/x-www-form-urlencoded";
        let response = web.post("/demo/login", form, format!("as={who}"), Vec::new()).await.map_err(Failure::of)?;
        if response.status.is_success() || response.status.is_redirection() {
            return Ok(web);
        }
        body(&response, "/demo/login").map(|_| web)
    }

    /// The resident lets a party ask; the token is theirs to hand over.
    pub(super) async fn consent(
        &self,
        me: &mut Client,
        scenario: &ScenarioId,
        party: &PartyId,
        more: Value,
    ) -> Result<String, Failure> {
        let mut wish = json!({"scenario": scenario.as_str(), "party": party.as_str()});
        if let (Some(wish), Value::Object(more)) = (wish.as_object_mut(), more) {
            wish.extend(more);
        }
        let given = body(&me.post_json("/v1/me/consents", &wish).await.map_err(Failure::of)?, "/v1/me/consents")?;
        text(&given, "token", "/v1/me/consents")
    }

    /// A party asks.
    pub(super) async fn ask(
        &self,
        party: &PartyId,
        scenario: &ScenarioId,
        consent: &str,
        by: By,
        (clock, entropy): (&dyn Clock, &dyn Entropy),
    ) -> Result<Held, Failure> {
        const PATH: &str = "/v1/answers";
        let nonce = nonce(entropy)?;
        let call = json!({"scenario": scenario.as_str(), "consent": consent, "nonce": nonce}).to_string();
        let response = match by {
            By::Certificate => self.api(party.as_str())?.post(PATH, "application/json", call, Vec::new()).await,
            By::Signature => {
                let tls = Tls::trusting(&self.file("pki/ca.pem")?).map_err(Failure::of)?;
                let mut api = Client::new(&self.config.api_base, Some(tls)).map_err(Failure::of)?;
                let target = format!("{}{PATH}", self.config.api_base);
                let signer = self.signer(party)?;
                let headers = signer
                    .post_json(&target, call.as_bytes(), clock.now(), &self::nonce(entropy)?)
                    .map_err(Failure::of)?;
                api.post(PATH, "application/json", call, headers).await
            }
        };
        let response = response.map_err(Failure::of)?;
        let answer = body(&response, PATH)?;
        let met = match answer.get("answer").and_then(Value::as_str) {
            Some("met") => Some((text(&answer, "attestation", PATH)?, text(&answer, "proof", PATH)?)),
            Some("withheld") => None,
            _ => return Err(strange(PATH, "answer")),
        };
        Ok(Held { met, nonce, bytes: response.body.len() })
    }

    fn signer(&self, party: &PartyId) -> Result<Signer, Failure> {
        let file = shared_key_file(&self.dir, party.as_str());
        let secret = self.file(&format!("parties/{party}.hmac"))?;
        let secret = STANDARD.decode(secret.trim_ascii()).map_err(|e| Failure::file("read", &file, e))?;
        let key = self.set.parties.get(party).and_then(|p| p.keys.first());
        let key = key.ok_or_else(|| Failure::Failed(format!("parties.toml names no key of {party}")))?;
        Ok(Signer::new(key.id.as_str(), secret))
    }
}

/// A file of the public side, as text.
pub(super) async fn public(web: &mut Client, path: &str) -> Result<String, Failure> {
    let response = web.get(path).await.map_err(Failure::of)?;
    if !response.status.is_success() {
        body(&response, path)?;
    }
    String::from_utf8(response.body.to_vec()).map_err(|_| strange(path, "text"))
}

/// A JSON answer of the public side, or of whoever is logged in.
pub(super) async fn read(web: &mut Client, path: &str) -> Result<Value, Failure> {
    body(&web.get(path).await.map_err(Failure::of)?, path)
}

/// Looks the entry of a proof up in the log itself, and gives the log's size.
pub(super) async fn find_in_log(web: &mut Client, key: &VerifierKey, proof: &Proof) -> Result<u64, Failure> {
    let size = key.open(&public(web, "/log/checkpoint").await?).map_err(Failure::of)?.size;
    let index = proof.index / TILE_WIDTH;
    let path = format!("/log/tile/{}", TileRequest::Entries { index, width: width_at(0, index, size) }.path());
    let bundle = web.get(&path).await.map_err(Failure::of)?;
    let mut rest: &[u8] = &bundle.body;
    for _ in 0..proof.index % TILE_WIDTH {
        rest = entry(rest).ok_or_else(|| strange(&path, "entries"))?.1;
    }
    let (found, _) = entry(rest).ok_or_else(|| strange(&path, "entries"))?;
    if found == proof.extra.as_slice() { Ok(size) } else { Err(strange(&path, "entry of the proof")) }
}

/// The first entry of a bundle, and what follows it.
fn entry(bundle: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bundle.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// Bytes that nobody can guess, as a nonce is written.
pub(super) fn nonce(entropy: &dyn Entropy) -> Result<String, Failure> {
    Ok(URL_SAFE_NO_PAD.encode(entropy::bytes::<18>(entropy).map_err(Failure::of)?))
}

/// The body of a call that went well; of another only the status and the code, which hold nothing personal.
pub(super) fn body(response: &Response, path: &str) -> Result<Value, Failure> {
    let json = response.json();
    if response.status.is_success() {
        return json.map_err(|_| strange(path, "JSON"));
    }
    let code = json.ok().and_then(|j| j.get("code").and_then(Value::as_str).map(str::to_owned)).unwrap_or_default();
    Err(Failure::Failed(format!("the demo's own call to {path} was answered {} {code}", response.status.as_u16())))
}

pub(super) fn text(answer: &Value, field: &str, path: &str) -> Result<String, Failure> {
    answer.get(field).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| strange(path, field))
}

fn strange(path: &str, what: &str) -> Failure {
    Failure::Failed(format!("the answer of {path} has no {what} as the contract says"))
}
