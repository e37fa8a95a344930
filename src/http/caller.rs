//! Who calls: by client certificate, by message signature, or by both for the same party.
//!
//! The certificate counts only from the handshake; no header is believed. Nobody unknown makes the
//! gateway read a body. A failed authentication is counted against the socket's own address.

use std::collections::HashMap;
use std::sync::Arc;

use http::request::Parts;
use zeroize::Zeroizing;

use super::app::{App, Secrets};
use super::listener::Peer;
use super::problem::{Problem, code};
use super::signature::{self, KeyDirectory, SignedHead, VerifiedHead, VerifyingKey};
use crate::code::PartyId;
use crate::gateway::{Caller, Loaded, SignatureNonce};
use crate::party::KeyAlgorithm;

/// Whom each certificate and key belongs to, made anew whenever policies change.
pub(super) struct Directory {
    certificates: HashMap<[u8; 32], PartyId>,
    keys: HashMap<String, (PartyId, Key)>,
}

enum Key {
    HmacSha256(Zeroizing<Vec<u8>>),
    Ed25519([u8; 32]),
}

impl Directory {
    pub(super) fn new(policies: &Loaded, secrets: &Secrets) -> Self {
        let (mut certificates, mut keys) = (HashMap::new(), HashMap::new());
        for party in policies.parties.values() {
            certificates.extend(party.certificates.iter().map(|certificate| (*certificate, party.id.clone())));
            for key in &party.keys {
                let usable = match &key.algorithm {
                    // A key whose secret is not in the key folder is no key.
                    KeyAlgorithm::HmacSha256 { file } => secrets.get(file).cloned().map(Key::HmacSha256),
                    KeyAlgorithm::Ed25519 { public } => Some(Key::Ed25519(*public)),
                };
                keys.extend(usable.map(|usable| (key.id.clone(), (party.id.clone(), usable))));
            }
        }
        Self { certificates, keys }
    }
}

impl KeyDirectory for Directory {
    fn key(&self, key_id: &str) -> Option<VerifyingKey<'_>> {
        self.keys.get(key_id).map(|(_, key)| match key {
            Key::HmacSha256(secret) => VerifyingKey::HmacSha256(secret),
            Key::Ed25519(public) => VerifyingKey::Ed25519(*public),
        })
    }
}

/// A caller who is known, before the body is read.
pub(super) struct Identified {
    party: PartyId,
    signed: Option<VerifiedHead>,
}

impl Identified {
    pub(super) fn party(&self) -> &PartyId {
        &self.party
    }
}

impl App {
    /// Tells who calls from the handshake and the head of the call.
    pub(super) fn identify(&self, policies: &Arc<Loaded>, peer: &Peer, parts: &Parts) -> Result<Identified, Problem> {
        let identified = self.identify_head(policies, peer, parts);
        identified.map_err(|problem| self.limiter.refuse(peer.address.ip(), problem))
    }

    fn identify_head(&self, policies: &Arc<Loaded>, peer: &Peer, parts: &Parts) -> Result<Identified, Problem> {
        let directory = self.directory(policies);
        let by_certificate = match &peer.certificate {
            None => None,
            Some(certificate) => match directory.certificates.get(&certificate.sha256) {
                Some(party) => Some(party.clone()),
                None => return Err(Problem::plain(code::CERTIFICATE_UNKNOWN)),
            },
        };
        let signed = if signature::is_signed(&parts.headers) {
            let head = SignedHead {
                method: parts.method.as_str(),
                base: &self.api_base,
                target: &parts.uri,
                headers: &parts.headers,
            };
            Some(signature::verify_head(&head, &*directory, self.clock.now()).map_err(Problem::from)?)
        } else {
            None
        };
        let by_signature =
            signed.as_ref().and_then(|head| directory.keys.get(head.key_id())).map(|(party, _)| party.clone());
        match (by_certificate, by_signature) {
            (Some(one), Some(other)) if one != other => Err(Problem::plain(code::TWO_PARTIES)),
            (Some(party), _) | (None, Some(party)) => Ok(Identified { party, signed }),
            (None, None) => Err(Problem::plain(code::UNAUTHENTICATED)),
        }
    }

    /// The caller of a call whose body has come: the body must have the digest that was signed.
    pub(super) fn with_body(&self, peer: &Peer, identified: Identified, bytes: &[u8]) -> Result<Caller, Problem> {
        let signature = match identified.signed {
            None => None,
            Some(head) => {
                let verified = head.with_body(bytes);
                let verified = verified.map_err(|e| self.limiter.refuse(peer.address.ip(), Problem::from(e)))?;
                let signature::Verified { key_id, nonce, created, .. } = verified;
                Some(SignatureNonce { key_id, nonce, created })
            }
        };
        Ok(Caller { party: identified.party, signature })
    }
}
