//! HTTP message signatures as the field gets them wrong.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jadegate::client::Client;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::io::AsyncWriteExt as _;

use crate::support::deployment::{
    ANSWERS, Deployment, LIBRARY, SCENARIO, nonce, outcome, problem, question, rewrite, token,
};
use crate::support::raw;

const USUAL: [&str; 4] = ["@method", "@target-uri", "content-digest", "content-type"];

/// A call and how it is signed; the default is right in every respect.
struct Signing {
    path: String,
    target: String,
    label: String,
    components: Vec<&'static str>,
    /// Behind the components.
    params: String,
    digest: String,
    body: String,
    key: Key,
    more: Vec<(&'static str, String)>,
}

enum Key {
    Shared(Vec<u8>),
    Ed25519(Arc<Ed25519KeyPair>),
}

struct Field {
    city: Deployment,
    token: String,
    pair: Arc<Ed25519KeyPair>,
}

impl Field {
    /// A city whose library has an Ed25519 key as well.
    async fn new() -> Self {
        let seed = [5; 32];
        let pair = Arc::new(Ed25519KeyPair::from_seed_unchecked(&seed).unwrap());
        let public = STANDARD.encode(pair.public_key().as_ref());
        let mut city = Deployment::bent(|dir| {
            rewrite(&dir.join("policies/parties.toml"), |text| {
                let key = "file = \"yx-library-1.hmac\"\n";
                text.replace(
                    key,
                    &format!("{key}[[party.key]]\nid = \"yx-library-ed\"\nalg = \"ed25519\"\npublic = \"{public}\"\n"),
                )
            });
        })
        .await;
        city.populate(1).await;
        let token = token(&mut city.person(0).await, LIBRARY).await;
        Self { city, token, pair }
    }

    fn created(&self) -> i64 {
        self.city.clock.now().as_second()
    }

    fn params(&self, created: impl std::fmt::Display) -> String {
        format!(";created={created};nonce=\"{}\";keyid=\"yx-library-1\"", nonce())
    }

    fn signing(&self) -> Signing {
        let body = question(SCENARIO, &self.token).to_string();
        Signing {
            path: ANSWERS.into(),
            target: self.city.target(),
            label: "sig1".into(),
            components: USUAL.into(),
            params: self.params(self.created()),
            digest: sha256(&body),
            body,
            key: Key::Shared(self.city.shared_key(LIBRARY)),
            more: vec![],
        }
    }

    async fn send(&self, signing: &Signing) -> jadegate::client::Response {
        let authority = self.city.config.api.to_string();
        let value = |component: &str| match component {
            "@method" => "POST",
            "@target-uri" => &signing.target,
            "@authority" => &authority,
            "content-digest" => &signing.digest,
            "content-type" => "application/json",
            _ => panic!("{component}"),
        };
        let quoted: Vec<String> = signing.components.iter().map(|c| format!("\"{c}\"")).collect();
        let params = format!("({}){}", quoted.join(" "), signing.params);
        let lines = signing.components.iter().map(|c| format!("\"{c}\": {}\n", value(c))).collect::<String>();
        let base = format!("{lines}\"@signature-params\": {params}");
        let signature = match &signing.key {
            Key::Shared(secret) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
                mac.update(base.as_bytes());
                mac.finalize().into_bytes().to_vec()
            }
            Key::Ed25519(pair) => pair.sign(base.as_bytes()).as_ref().to_vec(),
        };
        let mut headers = HeaderMap::new();
        let mut put = |name: &str, value: &str| {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        };
        put("content-type", "application/json");
        put("content-digest", &signing.digest);
        put("signature-input", &format!("{}={params}", signing.label));
        put("signature", &format!("{}=:{}:", signing.label, STANDARD.encode(signature)));
        signing.more.iter().for_each(|(name, value)| put(name, value));
        let mut api: Client = self.city.nobody();
        api.send(Method::POST, &signing.path, headers, signing.body.clone().into()).await.unwrap()
    }

    async fn met(&self, name: &str, signing: Signing) {
        let response = self.send(&signing).await;
        assert_eq!(outcome(&response), (200, "met".to_owned()), "{name}");
    }

    async fn refused(&self, name: &str, signing: Signing) {
        let response = self.send(&signing).await;
        let (status, code) = problem(&response, &[&self.token]);
        assert!((400..500).contains(&status), "{name}: {status} {code}");
        assert!(code.starts_with("signature-") || code.starts_with("content-digest-"), "{name}: {code}");
    }
}

fn sha256(body: &str) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

fn sha512(body: &str) -> String {
    format!("sha-512=:{}:", STANDARD.encode(Sha512::digest(body)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_signature_counts_in_any_order_and_under_any_label() {
    let field = Field::new().await;
    let created = field.created();
    let all = |extra: &'static str| USUAL.into_iter().rev().chain([extra]).collect::<Vec<_>>();
    let params = format!(";keyid=\"yx-library-1\";alg=\"hmac-sha256\";nonce=\"{}\";created={created}", nonce());
    field.met("as usual", field.signing()).await;
    field.met("another order of parameters", Signing { params, ..field.signing() }).await;
    field.met("another label", Signing { label: "merchant-7".into(), ..field.signing() }).await;
    field
        .met("another order of components and one more", Signing { components: all("@authority"), ..field.signing() })
        .await;

    for created in [format!("\"{created}\""), format!("{created}.5"), "-1".into(), "?1".into()] {
        field.refused(&created, Signing { params: field.params(&created), ..field.signing() }).await;
    }
    for left_out in USUAL {
        let components = USUAL.into_iter().filter(|c| *c != left_out).collect();
        field.refused(left_out, Signing { components, ..field.signing() }).await;
    }
    let short = format!(";created={created};nonce=\"short\";keyid=\"yx-library-1\"");
    field.refused("a short nonce", Signing { params: short, ..field.signing() }).await;
    let none = format!(";created={created};keyid=\"yx-library-1\"");
    field.refused("no nonce", Signing { params: none, ..field.signing() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_is_whole_and_the_configured_one() {
    let field = Field::new().await;
    let queried = format!("{}?x=1", field.city.target());
    field.refused("a query added on the way", Signing { path: format!("{ANSWERS}?x=1"), ..field.signing() }).await;
    field.refused("a query taken away", Signing { target: queried, ..field.signing() }).await;

    let forwarded = || {
        let host = "elsewhere.example";
        let pairs = [
            ("x-forwarded-host", host.to_owned()),
            ("x-forwarded-proto", "https".to_owned()),
            ("forwarded", format!("host={host};proto=https")),
        ];
        pairs.to_vec()
    };
    let elsewhere = "https://elsewhere.example/v1/answers".to_owned();
    field
        .refused(
            "another host by a proxy's word",
            Signing { target: elsewhere.clone(), more: forwarded(), ..field.signing() },
        )
        .await;
    let host = vec![("host", "elsewhere.example".to_owned())];
    for target in [elsewhere, field.city.target()] {
        // Not for us, whatever was signed.
        let response = field.send(&Signing { target, more: host.clone(), ..field.signing() }).await;
        assert_eq!(problem(&response, &[&field.token]), (400, "bad-host".to_owned()));
    }
    field.met("the right target, whatever is forwarded", Signing { more: forwarded(), ..field.signing() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_never_offered() {
    let city = Deployment::empty().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&city.read("pki/ca.pem")).unwrap()).unwrap();
    let connect = async |protocols: &[&[u8]]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        let tcp = tokio::net::TcpStream::connect(city.config.api).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        stream.map(|stream| stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(connect(&[b"h2", b"http/1.1"]).await.unwrap(), Some(b"http/1.1".to_vec()));
    assert!(connect(&[b"h2"]).await.is_err());

    // Nor is it spoken with whoever begins it unasked, or asks to go over to it.
    let begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let asked = "GET /healthz HTTP/1.1\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n";
    for side in ["web", "api"] {
        let at = if side == "web" { city.config.listen } else { city.config.api };
        let asked = format!("{asked}host: {at}\r\n\r\n");
        for (call, expected) in [(begun.as_slice(), "HTTP/1.1 400 "), (asked.as_bytes(), "HTTP/1.1 200 ")] {
            let got = if side == "web" {
                let mut socket = tokio::net::TcpStream::connect(at).await.unwrap();
                socket.write_all(call).await.unwrap();
                raw::to_the_end(&mut socket, Duration::from_secs(5)).await
            } else {
                let mut socket = raw::tls(&city, None).await;
                socket.write_all(call).await.unwrap();
                raw::to_the_end(&mut socket, Duration::from_secs(5)).await
            };
            let got = String::from_utf8_lossy(&got.expect("the connection ends")).into_owned();
            assert!(got.is_empty() || got.starts_with(expected), "{side}: {got}");
            assert!(!got.is_empty() || expected.contains("400"), "{side}: no answer");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_known_digest_must_be_right_and_one_must_be_known() {
    let field = Field::new().await;
    let with = |digest: &dyn Fn(&str) -> String| {
        let signing = field.signing();
        Signing { digest: digest(&signing.body), ..signing }
    };
    field.met("two right ones", with(&|b| format!("{}, {}", sha512(b), sha256(b)))).await;
    field.met("sha-512 alone", with(&sha512)).await;
    field.met("an unknown one beside a right one", with(&|b| format!("foo=:AA==:, {}", sha256(b)))).await;
    field.refused("md5 alone", with(&|_| "md5=:XUFAKrxLKna5cZ2REBfFkg==:".into())).await;
    field.refused("a wrong one beside a right one", with(&|b| format!("{}, {}", sha256(b), sha512("x")))).await;
    field.refused("no colons", with(&|b| format!("SHA-256={}", STANDARD.encode(Sha256::digest(b))))).await;
    field.refused("an upper-case name", with(&|b| sha256(b).replace("sha-256", "SHA-256"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_algorithm_belongs_to_the_key() {
    let field = Field::new().await;
    let params =
        |key_id: &str, alg: &str| format!(";created={};nonce=\"{}\";keyid=\"{key_id}\"{alg}", field.created(), nonce());
    let ed = || Key::Ed25519(field.pair.clone());
    let as_secret = || Key::Shared(field.pair.public_key().as_ref().to_vec());
    let (hmac, ed25519) = (";alg=\"hmac-sha256\"", ";alg=\"ed25519\"");
    field.met("ed25519", Signing { params: params("yx-library-ed", ed25519), key: ed(), ..field.signing() }).await;
    field.met("ed25519 unsaid", Signing { params: params("yx-library-ed", ""), key: ed(), ..field.signing() }).await;
    for alg in [hmac, ed25519, ""] {
        let params = params("yx-library-ed", alg);
        field.refused("a public key as a secret", Signing { params, key: as_secret(), ..field.signing() }).await;
    }
    let hmac_as_ed = Signing { params: params("yx-library-1", ed25519), ..field.signing() };
    field.refused("a shared key under another algorithm", hmac_as_ed).await;
    let none = Signing { params: params("yx-library-1", ";alg=\"none\""), ..field.signing() };
    field.refused("no algorithm", none).await;
    let ed_as_hmac = Signing { params: params("yx-library-ed", hmac), key: ed(), ..field.signing() };
    field.refused("a signature by the right key that names another algorithm", ed_as_hmac).await;
}
