//! TLS 1.3 with client certificates that are asked for and not required.
//!
//! The handshake proves that the caller holds its certificate's key; whether the certificate counts
//! is judged right after it, so that a foreign or expired one is refused in HTTP with a code and a
//! sentence instead of a broken connection. A certificate that does not count never reaches a
//! handler: the listener answers every call of such a connection itself.
//!
//! A certificate is known only from a full handshake: nothing is resumed, and nothing is early data.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring as provider},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, UnixTime,
    pem::{self, PemObject},
};

use super::problem::{Problem, code};
use crate::clock::Clock;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is no PEM, or holds nothing of the kind.
    #[error("the {what} cannot be read: {why}")]
    Unreadable {
        /// Which file.
        what: &'static str,
        /// What the reader says.
        why: String,
    },
    /// Certificate and key do not fit, or a certificate breaks its form.
    #[error("the {what} cannot be used: {why}")]
    Unusable {
        /// Which file.
        what: &'static str,
        /// What rustls says.
        why: String,
    },
}

/// A client certificate from the city's authority, proved in this connection's handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate's DER, as `parties.toml` has it.
    pub sha256: [u8; 32],
    /// The last second at which it counts.
    pub ends: Timestamp,
}

/// A client certificate that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFault {
    /// Its time has not begun or has ended.
    Expired,
    /// Nobody that this listener trusts signed it for clients.
    Foreign,
}

impl From<CertificateFault> for Problem {
    fn from(fault: CertificateFault) -> Self {
        Problem::plain(match fault {
            CertificateFault::Expired => code::CERTIFICATE_EXPIRED,
            CertificateFault::Foreign => code::CERTIFICATE_FOREIGN,
        })
        .closing()
    }
}

/// How one listener speaks TLS and whom it trusts.
pub struct Tls {
    config: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("clients", &self.clients.is_some()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the server's chain and key, and the authorities of clients where clients may have certificates; all PEM.
    pub fn new(
        chain: &[u8],
        key: &[u8],
        client_authorities: Option<&[u8]>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(provider::default_provider());
        let chain = certificates("server's certificate chain", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsError::Unreadable { what: "server's private key", why: said(&error) })?;
        let clients = client_authorities.map(|pem| judge(pem, &provider)).transpose()?;
        let unusable =
            |error: rustls::Error| TlsError::Unusable { what: "server's certificate", why: error.to_string() };
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?;
        let mut config = match &clients {
            Some(judge) => config.with_client_cert_verifier(Arc::new(ProvesPossession(Arc::clone(judge)))),
            None => config.with_no_client_auth(),
        }
        .with_single_cert(chain, key)
        .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), clients, clock })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// What the handshake says about the caller: no certificate, one that counts, or one that does not.
    pub(super) fn certificate(
        &self,
        connection: &ServerConnection,
    ) -> Result<Option<ClientCertificate>, CertificateFault> {
        let (Some(judge), Some([leaf, between @ ..])) = (&self.clients, connection.peer_certificates()) else {
            return Ok(None);
        };
        let now = u64::try_from(self.clock.now().as_second()).map_err(|_| CertificateFault::Expired)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        judge.verify_client_cert(leaf, between, now).map_err(|error| match error {
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => CertificateFault::Expired,
            _ => CertificateFault::Foreign,
        })?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| CertificateFault::Foreign)?;
        let ends = Timestamp::from_second(parsed.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, leaf).as_ref());
        Ok(Some(ClientCertificate { sha256, ends }))
    }

    /// A connection may outlive its certificate.
    pub(super) fn still_counts(&self, certificate: &ClientCertificate) -> Result<(), CertificateFault> {
        if self.clock.now() > certificate.ends { Err(CertificateFault::Expired) } else { Ok(()) }
    }
}

fn said(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "it holds nothing of the kind; a PEM file is expected".to_owned(),
        error => error.to_string(),
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| TlsError::Unreadable { what, why: said(&error) })?;
    if read.is_empty() {
        return Err(TlsError::Unreadable { what, why: said(&pem::Error::NoItemsFound) });
    }
    Ok(read)
}

fn judge(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let what = "authorities of clients";
    let mut roots = RootCertStore::empty();
    for root in certificates(what, pem)? {
        roots.add(root).map_err(|error| TlsError::Unusable { what, why: error.to_string() })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Unusable { what, why: error.to_string() })
}

/// Lets any certificate through whose key the caller holds; [`Tls::certificate`] judges it next.
#[derive(Debug)]
struct ProvesPossession(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ProvesPossession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
