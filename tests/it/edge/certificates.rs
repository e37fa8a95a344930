//! Certificates that no client in good faith would show: each is refused in the handshake or by its code, and nobody else
//! notices.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
    SignatureAlgorithm,
};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::deployment::{ANSWERS, Deployment, LIBRARY, SCENARIO, outcome, question, token};
use crate::support::process::Serving;
use crate::support::raw;

/// What somebody shows, without the client's own side looking at it first.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn issuer(name: &str, key: KeyPair) -> Issuer<'static, KeyPair> {
    Issuer::new(authority(name), key)
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn client(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn key(of: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(of).unwrap()
}

/// Those that the city's authority signed, which is not enough.
const THE_CITYS: [&str; 4] =
    ["3,000 names", "a key on P-384", "a key on curve 25519", "another of the city's before the party's"];

/// Name, chain and key of each.
fn hostile(city: &Deployment) -> Vec<(&'static str, Vec<CertificateDer<'static>>, KeyPair)> {
    const NAME: &str = "jadegate deployment authority";
    let theirs = || KeyPair::from_pem(std::str::from_utf8(&city.read("pki/ca.key")).unwrap()).unwrap();
    let by_the_city = |params: CertificateParams, key: &KeyPair| {
        params.signed_by(key, &issuer(NAME, theirs())).unwrap().der().clone()
    };
    let mut all = Vec::new();

    // The party's own certificate, and behind it 200 that nobody needs.
    let party = CertificateDer::from_pem_slice(&city.read(&format!("parties/{LIBRARY}.pem"))).unwrap();
    let same =
        || KeyPair::from_pem(std::str::from_utf8(&city.read(&format!("parties/{LIBRARY}.key"))).unwrap()).unwrap();
    all.push(("the party's own before 5,000 others", vec![party.clone(); 5_001], same()));

    // A chain of 40 links from the city's root, each the issuer of the next.
    let (mut chain, mut above) = (Vec::new(), issuer(NAME, theirs()));
    for link in 0..40 {
        let (name, key) = (format!("link {link}"), key(&PKCS_ECDSA_P256_SHA256));
        chain.insert(0, authority(&name).signed_by(&key, &above).unwrap().der().clone());
        above = issuer(&name, key);
    }
    let own = key(&PKCS_ECDSA_P256_SHA256);
    chain.insert(0, client(LIBRARY).signed_by(&own, &above).unwrap().der().clone());
    all.push(("a chain of 41", chain, own));

    let (own, mut many) = (key(&PKCS_ECDSA_P256_SHA256), client(LIBRARY));
    many.subject_alt_names =
        (0..3_000).map(|n| SanType::DnsName(format!("n{n}.example").try_into().unwrap())).collect();
    all.push(("3,000 names", vec![by_the_city(many, &own)], own));

    let own = key(&PKCS_ECDSA_P384_SHA384);
    all.push(("a key on P-384", vec![by_the_city(client(LIBRARY), &own)], own));
    let own = key(&PKCS_ED25519);
    all.push(("a key on curve 25519", vec![by_the_city(client(LIBRARY), &own)], own));

    let own = key(&PKCS_ECDSA_P256_SHA256);
    all.push((
        "another of the city's before the party's",
        vec![by_the_city(client(LIBRARY), &own), party.clone()],
        own,
    ));

    all.push(("no DER", vec![CertificateDer::from(vec![0xff; 700])], same()));
    all.push(("nothing", vec![CertificateDer::from(vec![])], same()));
    all.push(("the party's, cut", vec![CertificateDer::from(party[..party.len() - 40].to_vec())], same()));
    let mut longer = party.to_vec();
    longer.extend([0; 8]);
    all.push(("the party's and more", vec![CertificateDer::from(longer)], same()));
    let own = key(&PKCS_ECDSA_P256_SHA256);
    all.push(("the party's with another key", vec![party.clone()], own));

    let own = key(&PKCS_ECDSA_P256_SHA256);
    let mut alone = client(LIBRARY);
    alone.distinguished_name = authority(NAME).distinguished_name;
    all.push((
        "signed by itself, under the authority's name",
        vec![alone.self_signed(&own).unwrap().der().clone()],
        own,
    ));
    let own = key(&PKCS_ECDSA_P256_SHA256);
    all.push(("signed by itself", vec![client(LIBRARY).self_signed(&own).unwrap().der().clone()], own));

    // A link of the city's that may only speak for other names than the leaf has.
    let (link, own) = (key(&PKCS_ECDSA_P256_SHA256), key(&PKCS_ECDSA_P256_SHA256));
    let mut bound = authority("bound");
    bound.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("elsewhere.example".into()),
            GeneralSubtree::IpAddress(CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0])),
        ],
        excluded_subtrees: vec![],
    });
    let bound = by_the_city(bound, &link);
    let mut named = client(LIBRARY);
    named.subject_alt_names = vec![SanType::DnsName("library.example".try_into().unwrap())];
    let leaf = named.signed_by(&own, &issuer("bound", link)).unwrap().der().clone();
    all.push(("names that its issuer may not give", vec![leaf, bound], own));

    // A leaf that plays the authority.
    let own = key(&PKCS_ECDSA_P256_SHA256);
    let leaf = client("somebody").signed_by(&own, &issuer(LIBRARY, same())).unwrap().der().clone();
    all.push(("signed by a party", vec![leaf, party], own));
    all
}

/// What came back of a question: nothing where the handshake or the connection broke.
async fn shown(city: &Deployment, chain: Vec<CertificateDer<'static>>, key: &KeyPair, token: &str) -> Option<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&city.read("pki/ca.pem")).unwrap()).unwrap();
    let signs = any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Shown(Arc::new(CertifiedKey::new(chain, signs)))));
    let tcp = TcpStream::connect(city.config.api).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
    let body = question(SCENARIO, token).to_string();
    let head = format!(
        "POST {ANSWERS} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        city.config.api,
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
    let heard = raw::to_the_end(&mut stream, Duration::from_secs(20)).await.expect("the connection ends");
    (!heard.is_empty()).then(|| String::from_utf8_lossy(&heard).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_certificate_is_refused_and_nobody_else_notices() {
    let mut city = Deployment::provisioned(Arc::new(jadegate::clock::SystemClock::new()));
    let output = city.dir().join("output");
    let serving = Serving::start(&city.config_file(), &output, &[]).await;
    city.populate(1).await;
    let token = token(&mut city.person(0).await, LIBRARY).await;
    let mut good = city.party(LIBRARY);
    let mut refused = Vec::new();
    for (name, chain, key) in hostile(&city) {
        let heard = shown(&city, chain, &key, &token).await;
        if let Some(heard) = &heard {
            assert!(heard.starts_with("HTTP/1.1 401 "), "{name}: {heard}");
            // Of the city's authority, and of no party; or not even that.
            let code = if THE_CITYS.contains(&name) { "certificate-unknown" } else { "certificate-foreign" };
            assert!(heard.contains(&format!("\"{code}\"")), "{name}: {heard}");
            assert!(!heard.contains(&token) && !heard.contains("\"answer\""), "{name}: {heard}");
        }
        refused.push((name, heard.is_some()));
        // On the connection that has been open since before, and on a new one.
        assert_eq!(outcome(&super::answers::ask(&mut good, &token).await), (200, "met".to_owned()), "after {name}");
    }
    assert_eq!(outcome(&super::answers::ask(&mut city.party(LIBRARY), &token).await), (200, "met".to_owned()));
    let broken: Vec<_> = refused.iter().filter(|(_, answered)| !answered).map(|(name, _)| *name).collect();
    crate::support::nightly::figure(
        "hostile certificates",
        format_args!("{} refused, {} of them in the handshake: {}", refused.len(), broken.len(), broken.join("; ")),
    );
    let wrote = serving.wrote();
    assert!(!wrote.contains("panic"), "{wrote}");
    for secret in [token.as_str(), city.people[0].as_str(), "n17.example", "library.example", "somebody"] {
        assert!(!wrote.contains(secret), "{secret:?} is logged");
    }
}
