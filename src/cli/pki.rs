//! The certificates of a new deployment: one authority, one server, one client certificate a party.
//!
//! A city that has an authority of its own replaces these files. The authority's key is used here and
//! then written beside the others, so that a party that joins later can be given a certificate; the
//! running gateway never reads it. Validity begins a day before the given instant, because the
//! clocks of two machines differ.

use jiff::civil::Date;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use sha2::{Digest, Sha256};

use crate::clock;

/// How long an authority's certificate holds.
const AUTHORITY_YEARS: i64 = 10;
/// How long the certificate of a server or a party holds.
const LEAF_DAYS: i64 = 397;

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate could not be made: {0}")]
pub struct PkiError(String);

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

/// A certificate and its private key, as PEM.
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// The private key: whoever holds it is the party.
    pub key_pem: String,
    /// SHA-256 of the certificate's DER, as `parties.toml` names it.
    pub fingerprint: [u8; 32],
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issued(..)")
    }
}

impl Issued {
    fn new(cert: &Certificate, key: &KeyPair) -> Self {
        Self { cert_pem: cert.pem(), key_pem: key.serialize_pem(), fingerprint: Sha256::digest(cert.der()).into() }
    }
}

/// A deployment's own authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: Issued,
    first_day: Date,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl Authority {
    /// A new authority with a new key, called `name`.
    pub fn make(name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let first_day = clock::day_of(now).yesterday().map_err(|e| PkiError(e.to_string()))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        hold(&mut params, first_day, Span::new().years(AUTHORITY_YEARS))?;
        let cert = params.self_signed(&key)?;
        let own = Issued::new(&cert, &key);
        Ok(Self { issuer: Issuer::new(params, key), own, first_day })
    }

    /// The authority's own certificate and key.
    pub fn own(&self) -> &Issued {
        &self.own
    }

    /// A server's certificate for these host names and addresses.
    pub fn server(&self, hosts: &[&str]) -> Result<Issued, PkiError> {
        let params = CertificateParams::new(hosts.iter().map(|&host| host.to_owned()).collect::<Vec<_>>())?;
        self.issue(params, "jadegate", None, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A party's client certificate.
    pub fn client(&self, party: &str, organisation: &str) -> Result<Issued, PkiError> {
        let params = CertificateParams::new(Vec::<String>::new())?;
        self.issue(params, party, Some(organisation), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        name: &str,
        organisation: Option<&str>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Issued, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organisation) = organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        hold(&mut params, self.first_day, Span::new().days(LEAF_DAYS))?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued::new(&cert, &key))
    }
}

fn hold(params: &mut CertificateParams, from: Date, span: Span) -> Result<(), PkiError> {
    let wrong = |e: jiff::Error| PkiError(e.to_string());
    let day = |date: Date| {
        let part = |n: i8| u8::try_from(n).map_err(|e| PkiError(e.to_string()));
        Ok::<_, PkiError>(rcgen::date_time_ymd(date.year().into(), part(date.month())?, part(date.day())?))
    };
    params.not_before = day(from)?;
    params.not_after = day(from.checked_add(span).map_err(wrong)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    fn der(issued: &Issued) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()
    }

    fn roots(authority: &Authority) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(der(authority.own())).unwrap();
        Arc::new(roots)
    }

    fn at(text: &str) -> (Timestamp, UnixTime) {
        let now: Timestamp = text.parse().unwrap();
        (now, UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap())))
    }

    #[test]
    fn a_client_certificate_is_trusted_from_its_authority_alone_and_for_its_time() {
        let (now, unix) = at("2026-11-25T02:00:00Z");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (ours, theirs) = (Authority::make("ours", now).unwrap(), Authority::make("theirs", now).unwrap());
        let client = ours.client("yx-library", "玉溪市图书馆").unwrap();
        let verifier = |a: &Authority| {
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots(a), provider.clone()).build().unwrap()
        };
        assert!(verifier(&ours).verify_client_cert(&der(&client), &[], unix).is_ok());
        assert!(verifier(&theirs).verify_client_cert(&der(&client), &[], unix).is_err());
        for wrong in ["2026-11-23T00:00:00Z", "2028-01-01T00:00:00Z"] {
            assert!(verifier(&ours).verify_client_cert(&der(&client), &[], at(wrong).1).is_err(), "{wrong}");
        }
        let server = ours.server(&["localhost", "127.0.0.1"]).unwrap();
        assert!(
            verifier(&ours).verify_client_cert(&der(&server), &[], unix).is_err(),
            "a server's certificate is no party's"
        );
    }

    #[test]
    fn a_server_certificate_stands_for_its_hosts_alone() {
        let (now, unix) = at("2026-11-25T02:00:00Z");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = Authority::make("ours", now).unwrap();
        let server = authority.server(&["localhost", "127.0.0.1"]).unwrap();
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(roots(&authority), provider).build().unwrap();
        let good = |host: &str| {
            let name = ServerName::try_from(host.to_owned()).unwrap();
            verifier.verify_server_cert(&der(&server), &[], &name, &[], unix).is_ok()
        };
        assert!(good("localhost") && good("127.0.0.1"));
        assert!(!good("example.test") && !good("127.0.0.2"));
    }

    #[test]
    fn the_fingerprint_is_of_the_der() {
        let authority = Authority::make("ours", at("2026-11-25T02:00:00Z").0).unwrap();
        let one = authority.client("a", "A").unwrap();
        assert_eq!(one.fingerprint, <[u8; 32]>::from(Sha256::digest(der(&one))));
        assert_ne!(one.fingerprint, authority.client("a", "A").unwrap().fingerprint);
    }

    /// One TLS 1.3 connection of a server that wants a client certificate; gives the certificate's fingerprint.
    async fn meet(
        authority: &Authority,
        client: &crate::client::Tls,
    ) -> (Result<u16, crate::client::ClientError>, Option<[u8; 32]>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = authority.server(&["127.0.0.1"]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).unwrap();
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots(authority), provider.clone());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![der(&server)], key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut tls = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(tcp).await.ok()?;
            let shown = tls.get_ref().1.peer_certificates()?.first().map(|cert| Sha256::digest(cert).into());
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tls.read_u8().await.ok()?);
            }
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
            shown
        });
        let mut client = crate::client::Client::new(&base, Some(client.clone())).unwrap();
        let status = client.get("/healthz").await.map(|r| r.status.as_u16());
        (status, task.await.unwrap())
    }

    #[tokio::test]
    async fn a_party_and_the_server_prove_themselves_to_each_other() {
        // The client and the verifier take the system's time, so the certificates are of today.
        let now = crate::clock::Clock::now(&crate::clock::SystemClock::new());
        let (ours, theirs) = (Authority::make("ours", now).unwrap(), Authority::make("theirs", now).unwrap());
        let party = ours.client("yx-library", "Library").unwrap();
        let foreign = theirs.client("yx-library", "Library").unwrap();
        let identity = |ca: &Authority, it: &Issued| {
            let ca = ca.own().cert_pem.as_bytes();
            crate::client::Tls::with_identity(ca, it.cert_pem.as_bytes(), it.key_pem.as_bytes()).unwrap()
        };
        let (status, shown) = meet(&ours, &identity(&ours, &party)).await;
        assert_eq!((status.unwrap(), shown), (200, Some(party.fingerprint)));
        let (status, shown) = meet(&ours, &identity(&ours, &foreign)).await;
        assert!(status.is_err() && shown.is_none(), "another authority's certificate");
        let (status, shown) = meet(&ours, &identity(&theirs, &party)).await;
        assert!(status.is_err() && shown.is_none(), "a server of another authority");
    }
}
