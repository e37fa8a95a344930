//! `jadegate verify` and `log verify` as a relying party runs them, on evidence that a gateway gave.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jadegate::attestation::{Claims, compact, signing_input};
use jadegate::keys::SigningKey;
use serde_json::{Value, json};

use crate::support::deployment::{ANSWERS, Deployment, LIBRARY, SCENARIO, question, text, token};
use crate::support::process::run;

/// An answer, and the files that prove it.
struct Evidence {
    city: Deployment,
    token: String,
    nonce: String,
    proof: String,
}

impl Evidence {
    async fn new() -> Self {
        let city = Deployment::city().await;
        let consent = token(&mut city.person(0).await, LIBRARY).await;
        let call = question(SCENARIO, &consent);
        let answer = city.party(LIBRARY).post_json(ANSWERS, &call).await.unwrap().json().unwrap();
        let this = Self {
            token: text(&answer, "attestation"),
            proof: text(&answer, "proof"),
            nonce: text(&call, "nonce"),
            city,
        };
        let mut public = this.city.public();
        this.write("jwks.json", &public.get("/.well-known/jwks.json").await.unwrap().body);
        this.write("log-key", &public.get("/log/key").await.unwrap().body);
        this.write("proof", this.proof.as_bytes());
        this.write("token", this.token.as_bytes());
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.city.dir().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn verify(&self, more: &[&str]) -> (i32, String, String) {
        let jwks = self.path("jwks.json");
        let args = ["verify", &self.token, "--jwks", jwks.to_str().unwrap()];
        run(&args.iter().chain(more).copied().collect::<Vec<_>>())
    }

    fn verify_with_proof(&self) -> (i32, String, String) {
        let (proof, key) = (self.path("proof"), self.path("log-key"));
        self.verify(&[
            "--aud",
            LIBRARY,
            "--nonce",
            &self.nonce,
            "--proof",
            proof.to_str().unwrap(),
            "--log-key",
            key.to_str().unwrap(),
        ])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_holds_and_without_its_expectations_a_copy_would_pass_too() {
    let evidence = Evidence::new().await;
    let (code, out, err) = evidence.verify_with_proof();
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("VALID") && out.contains(LIBRARY) && out.contains("score at least 600"), "{out}");
    assert!(out.contains("in the access log"), "{out}");

    let (code, _, err) = evidence.verify(&[]);
    assert!(code == 0 && err.contains("without --aud and --nonce a copy would pass too"), "{err}");
    let (code, _, err) = evidence.verify(&["--aud", LIBRARY]);
    assert!(code == 0 && err.contains("without --nonce a copy would pass too"), "{err}");

    let (code, out, err) = evidence.verify(&["--aud", "yx-bike", "--nonce", &evidence.nonce]);
    assert!(code == 1 && out.is_empty() && err.contains("another party's answer"), "{err}");
    let (code, _, err) = evidence.verify(&["--aud", LIBRARY, "--nonce", "0123456789abcdef"]);
    assert!(code == 1 && err.contains("another call"), "{err}");
    let (code, _, err) = evidence.verify(&["--proof", evidence.path("proof").to_str().unwrap()]);
    assert!(code == 2 && err.contains("--log-key"), "{err}");
    let missing = run(&["verify", &evidence.token, "--jwks", "/nowhere/jwks.json"]);
    assert!(missing.0 == 1 && missing.2.contains("NOT CHECKED: cannot open /nowhere/jwks.json"), "{}", missing.2);

    let changed = evidence.token.replacen('.', "A.", 1);
    let (code, _, err) = run(&["verify", &changed, "--jwks", evidence.path("jwks.json").to_str().unwrap()]);
    assert!(code == 1 && err.contains("NOT VALID"), "{err}");
}

/// Signature lines that nobody can check are passed over; the log's own must be right.
#[tokio::test(flavor = "multi_thread")]
async fn grease_in_a_proof_is_passed_over_and_a_wrong_signature_is_not() {
    let evidence = Evidence::new().await;
    let key = String::from_utf8(evidence.city.read("log-key")).unwrap();
    let name = key.split('+').next().unwrap();
    let own = evidence.proof.lines().find(|line| line.starts_with("\u{2014} ")).unwrap();
    let grease = format!("\u{2014} grease.invalid {}", STANDARD.encode([7; 40]));
    let other_id = format!("\u{2014} {name} {}", STANDARD.encode([9; 68]));
    for (what, lines) in [
        ("before", format!("{grease}\n{own}")),
        ("behind", format!("{own}\n{grease}")),
        ("the log's name and another key", format!("{other_id}\n{own}")),
    ] {
        evidence.write("proof", evidence.proof.replace(own, &lines).as_bytes());
        let (code, _, err) = evidence.verify_with_proof();
        assert_eq!(code, 0, "{what}: {err}");
    }
    let (head, signature) = own.rsplit_once(' ').unwrap();
    let mut bytes = STANDARD.decode(signature).unwrap();
    bytes[40] ^= 1;
    let wrong = format!("{head} {}", STANDARD.encode(&bytes));
    for lines in [wrong.clone(), format!("{own}\n{wrong}"), grease, other_id] {
        evidence.write("proof", evidence.proof.replace(own, &lines).as_bytes());
        let (code, out, err) = evidence.verify_with_proof();
        assert!(code == 1 && out.is_empty() && err.contains("NOT VALID"), "{lines}: {err}");
    }
    // The proof of another answer.
    let call = question(SCENARIO, &token(&mut evidence.city.person(0).await, LIBRARY).await);
    let other = evidence.city.party(LIBRARY).post_json(ANSWERS, &call).await.unwrap().json().unwrap();
    evidence.write("proof", text(&other, "proof").as_bytes());
    let (code, _, err) = evidence.verify_with_proof();
    assert!(code == 1 && err.contains("of another answer"), "{err}");
}

/// The answer's claims, issued anew by a key of ours, beginning so many seconds from now.
fn issued(key: &SigningKey, from_s: i64, lifetime_s: i64) -> String {
    use jadegate::clock::Clock as _;
    let iat = jadegate::clock::SystemClock::new().now().as_second() + from_s;
    let claims = Claims {
        iss: "https://127.0.0.1:8443".into(),
        aud: jadegate::code::PartyId::parse(LIBRARY).unwrap(),
        iat,
        exp: iat + lifetime_s,
        jti: "0123456789abcdef".into(),
        nonce: "0123456789abcdef".into(),
        scenario: jadegate::code::ScenarioId::parse(SCENARIO).unwrap(),
        as_of: jiff::civil::date(2026, 11, 25),
        sub: None,
        met: json!({"score_at_least": 600}),
        model: format!("yuxi-2026#sha256-{}", "a".repeat(64)),
    };
    let input = signing_input(key.kid(), &claims);
    compact(&input, &key.sign(input.as_bytes()).unwrap())
}

/// The clock of whoever verifies, and keys that it does not have.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_may_differ_a_little_and_keys_must_be_known() {
    let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap();
    let (x, y) = key.public();
    let b64 = |bytes: [u8; 32]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": key.kid(), "x": b64(x), "y": b64(y)}]});
    let folder = crate::support::Folder::new();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, jwks.to_string()).unwrap();
    let verify = |token: &str| run(&["verify", token, "--jwks", file.to_str().unwrap()]);

    let (code, _, err) = verify(&issued(&key, 2, 600));
    assert!(code == 0 && err.contains("clocks may differ by 60 s"), "{err}");
    let (code, _, err) = verify(&issued(&key, -601, 600));
    assert!(code == 0 && err.contains("clocks may differ by 60 s"), "{err}");
    let (code, _, err) = verify(&issued(&key, -600 - 3600, 600));
    assert!(code == 1 && err.contains("ask again for a new one"), "{err}");
    let (code, _, err) = verify(&issued(&key, 3600, 600));
    assert!(code == 1 && err.contains("check this machine's clock"), "{err}");

    let other = SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap();
    let (code, _, err) = verify(&issued(&other, 0, 600));
    assert!(code == 1 && err.contains("fetch /.well-known/jwks.json again"), "{err}");

    // What may be kept of a key set is not kept for long.
    let city = Deployment::empty().await;
    let served = city.public().get("/.well-known/jwks.json").await.unwrap();
    let cache = served.headers["cache-control"].to_str().unwrap();
    let age: u64 = cache.split("max-age=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!((1..=3600).contains(&age), "{cache}");
    let keys: Value = served.json().unwrap();
    assert!(keys["keys"].as_array().unwrap().iter().all(|key| key.get("d").is_none()));
}

/// The receipt of a batch, with its proof and the file that was sent; neither side can say that it was another.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_a_batch_verifies_offline_with_the_file_that_was_sent() {
    use crate::support::deployment::{COURT, NDJSON, P1};
    let city = Deployment::empty().await;
    let record = |n: u32| {
        json!({"id": format!("r-{n}"), "provider": COURT, "indicator": "civil-judgment-unperformed",
            "person": {"id_number": P1, "name": "测试"}, "occurred_on": "2026-03-01"})
    };
    // Two batches, a blank line, carriage returns, a line that is refused.
    let mut sent = String::from("\u{feff}{}\r\n\r\n");
    (1..=500).for_each(|n| sent.push_str(&format!("{}\r\n", record(n))));
    let mut court = city.party(COURT);
    let taken = court.post("/v1/records", NDJSON, sent.clone(), vec![]).await.unwrap().json().unwrap();
    let ids: Vec<String> = taken["batches"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().into()).collect();
    assert_eq!((taken["accepted"].as_u64(), ids.len()), (Some(500), 2));
    let path = |name: &str| city.dir().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, bytes: &[u8]| std::fs::write(path(name), bytes).unwrap();
    write("jwks", &city.public().get("/.well-known/jwks.json").await.unwrap().body);
    write("no-keys", b"{\"keys\":[]}");
    write("key", &city.public().get("/log/key").await.unwrap().body);
    write("sent", sent.as_bytes());
    let mut held = Vec::new();
    for id in &ids {
        let batch = court.get(&format!("/v1/batches/{id}")).await.unwrap().json().unwrap();
        write("proof", text(&batch, "proof").as_bytes());
        let receipt = text(&batch, "receipt");
        let verify = |more: &[&str]| run(&[&["verify", &receipt], more].concat());
        let (jwks, proof, key, file) = (path("jwks"), path("proof"), path("key"), path("sent"));
        let logged = ["--proof", &proof, "--log-key", &key];
        let (code, out, err) =
            verify(&[&["--jwks", jwks.as_str(), "--aud", COURT, "--file", &file][..], &logged].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        for part in ["VALID receipt", COURT, id, "in the access log", "records"] {
            assert!(out.contains(part), "{part} in {out}");
        }
        let (code, _, err) = verify(&["--jwks", &jwks]);
        assert!(code == 0 && err.contains("without --file"), "{err}");
        // A key that has ended: the log alone proves it, and without the log nothing does.
        let (code, out, err) = verify(&[&["--jwks", path("no-keys").as_str()][..], &logged].concat());
        assert!(code == 0 && out.contains("by its entry in the log") && err.contains("the log alone"), "{err}");
        let (code, _, err) = verify(&["--jwks", &path("no-keys")]);
        assert!(code == 1 && err.contains("NOT VALID"), "{err}");
        // Another party, another file, a nonce.
        assert_eq!(verify(&["--jwks", &jwks, "--aud", LIBRARY]).0, 1);
        for other in [sent.replace("r-1\"", "r-x\"").replace("r-500", "r-x"), sent[..sent.len() / 3].to_owned()] {
            write("other", other.as_bytes());
            let (code, _, err) = verify(&["--jwks", &jwks, "--file", &path("other")]);
            assert!(code == 1 && err.contains("not those that were sent"), "{err}");
        }
        assert_eq!(verify(&["--jwks", &jwks, "--nonce", "n-0123456789abcdef"]).0, 2);
        held.push((receipt, text(&batch, "proof")));
    }
    // One receipt's proof does not prove the other.
    write("proof", held[0].1.as_bytes());
    let (proof, key, jwks) = (path("proof"), path("key"), path("jwks"));
    let (code, _, err) = run(&["verify", &held[1].0, "--jwks", &jwks, "--proof", &proof, "--log-key", &key]);
    assert!(code == 1 && err.contains("another answer or batch"), "{err}");
}
