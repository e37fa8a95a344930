//! Receipts of batches, withdrawals, and a provider's own list.

use jadegate::attestation::batch::{self, Feed};
use jadegate::attestation::{Expected, LEEWAY_S};
use jadegate::clock::Clock;
use jadegate::gateway::{BatchView, Refusal, SentSummary, SentView};
use jadegate::tables;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::world::{World, caller, is_fault, lines, number, record_line, refusal, register_line};

const CIVIL: &str = "yx-civil-affairs";
const HEALTH: &str = "yx-health";

fn hours(id: &str, n: u32) -> Value {
    record_line(CIVIL, "volunteer-hours", id, n, Some(1))
}

fn verified(world: &World, view: &BatchView, party: &str) -> batch::Claims {
    let expected = Expected { aud: Some(party), nonce: None, now: world.clock.now(), leeway_s: LEEWAY_S };
    let verified = batch::verify(&view.receipt, &world.jwks(), &expected).unwrap();
    assert!(verified.signed);
    let digest: [u8; 32] = Sha256::digest(&view.receipt).into();
    assert_eq!(view.proof.extra[..32], digest, "the entry commits to the receipt");
    view.proof.verify(world.gateway.log().verifier()).unwrap();
    verified.claims
}

#[tokio::test]
async fn each_batch_has_a_receipt_of_what_was_sent_with_its_proof() {
    let world = World::new().await;
    let mut sent: Vec<Value> = (0..501).map(|n| hours(&format!("r-{n}"), n)).collect();
    sent[3]["quantity"] = 0.into();
    sent[500]["indicator"] = "nothing".into();
    let body = lines(&sent);
    let intake = world.gateway.report(&caller(CIVIL), &body).await.unwrap();
    assert_eq!((intake.accepted, intake.rejected.len(), intake.batches.len()), (499, 2, 2));
    let all = batch::lines(&body);
    let parts = [(&all[..500], [499, 0, 0, 1], (1, 500)), (&all[500..], [0, 0, 0, 1], (501, 501))];
    for (answered, (part, counts, (first, last))) in intake.batches.iter().zip(parts) {
        let id = answered.id;
        let view = world.gateway.batch(&caller(CIVIL), &id.to_text()).await.unwrap();
        assert!(view == *answered, "the answer to the upload has the same receipt and proof");
        let claims = verified(&world, &view, CIVIL);
        assert_eq!((claims.jti, claims.feed, claims.counts), (id.to_text(), Feed::Records, counts));
        assert_eq!((claims.first_line, claims.last_line, claims.lines), (first, last, part.len() as u64));
        assert_eq!(claims.sha256, batch::digest(part));
        // The same bytes again, whatever has been logged since.
        world.make_good(1).await;
        let again = world.gateway.batch(&caller(CIVIL), &id.to_text()).await.unwrap();
        assert_eq!((again.receipt, again.proof.to_text()), (view.receipt, view.proof.to_text()));
    }
    // The register's too, and what is sent again is another batch.
    let body = lines(&[register_line(1)]);
    for counts in [[1, 0, 0, 0], [0, 1, 0, 0]] {
        let intake = world.gateway.enrol(&caller("yx-public-security"), &body).await.unwrap();
        let view = world.gateway.batch(&caller("yx-public-security"), &intake.batches[0].id.to_text()).await.unwrap();
        let claims = verified(&world, &view, "yx-public-security");
        assert_eq!((claims.feed, claims.counts, claims.sha256), (Feed::Register, counts, Sha256::digest(&body).into()));
    }
}

#[tokio::test]
async fn a_receipt_is_shown_to_the_party_that_sent_the_batch_alone() {
    let world = World::new().await;
    let intake = world.report(CIVIL, &[hours("a", 1)]).await;
    let id = intake.batches[0].id.to_text();
    let size = world.log_size();
    for (who, id) in [(HEALTH, id.as_str()), (CIVIL, "AAAAAAAAAAAAAAAAAAAAAA"), (CIVIL, "nothing"), (CIVIL, "")] {
        assert_eq!(refusal(world.gateway.batch(&caller(who), id).await), Refusal::NotFound, "{who} {id}");
    }
    // Who only asks reads nothing of the kind.
    assert_eq!(refusal(world.gateway.batch(&caller("yx-bike"), &id).await), Refusal::NotPermitted);
    let signed = world.signed(CIVIL, "signature-nonce-1");
    world.gateway.batch(&signed, &id).await.unwrap();
    assert_eq!(refusal(world.gateway.batch(&signed, &id).await), Refusal::ReplayedSignature);
    let expected = ["refuse", "refuse", "refuse", "refuse", "refuse", "read-sent"];
    assert_eq!(world.actions_since(size).await, expected);
}

/// What a receipt says is about lines, and nothing of what stands in them.
#[tokio::test]
async fn a_receipt_says_nothing_personal() {
    use base64::Engine;
    let world = World::new().await;
    let intake = world.report(CIVIL, &[hours("secret-id", 1)]).await;
    let view = world.gateway.batch(&caller(CIVIL), &intake.batches[0].id.to_text()).await.unwrap();
    let decode = |part: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    let said: String = view
        .receipt
        .split('.')
        .take(2)
        .map(|part| String::from_utf8(decode(part)).unwrap())
        .collect::<Vec<_>>()
        .join(" ");
    for secret in [number(1).as_str(), "某", "secret-id", "volunteer"] {
        assert!(!said.contains(secret), "{said}");
    }
    for (place, cell) in world.cells(tables::BATCH).await.into_iter().chain(world.cells(tables::SENT).await) {
        let bytes = [place.key, cell.value].concat();
        assert!(
            !bytes.windows(9).any(|part| part == b"secret-id") && !bytes.windows(8).any(|part| part == b"yx-civil")
        );
    }
}

async fn ids(world: &World, before: Option<&str>, limit: usize) -> Vec<String> {
    let views = world.gateway.sent(&caller(CIVIL), before, limit).await.unwrap();
    views.iter().map(|view| view.id.as_str().to_owned()).collect()
}

#[tokio::test]
async fn a_provider_lists_its_own_records_newest_first_in_pages() {
    let world = World::new().await;
    assert_eq!(ids(&world, None, 10).await, Vec::<String>::new());
    // Over months, a day with two batches, one with long ids that need several cells, another provider in between.
    let long = |n: u32| {
        format!(
            "长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长长-{n:04}"
        )
    };
    let mut expected: Vec<String> = Vec::new();
    for day in 0..4u32 {
        let first: Vec<String> = (0..3).map(|n| format!("d{day}-{n}")).collect();
        let second: Vec<String> = if day == 2 { (0..400).map(long).collect() } else { vec![format!("e{day}")] };
        for ids in [first, second] {
            let sent: Vec<Value> = (0..).zip(&ids).map(|(n, id)| hours(id, 10 + n % 50)).collect();
            assert_eq!(world.report(CIVIL, &sent).await.accepted, ids.len() as u64);
            world.report(HEALTH, &[record_line(HEALTH, "blood-donation", &ids[0], 1, Some(1))]).await;
            expected.extend(ids);
            world.advance(1);
        }
        world.advance(17 * 86_400);
    }
    expected.reverse();
    // What is sent again, changed or moved to somebody else, stays where it was.
    let mut again = hours("d0-1", 99);
    again["occurred_on"] = "2026-06-02".into();
    assert_eq!(world.report(CIVIL, &[again, hours("d1-1", 11)]).await.replaced, 1);
    assert_eq!(ids(&world, None, 1_000).await, expected);
    for limit in [1, 7, 400] {
        let (mut paged, mut before) = (Vec::new(), None);
        loop {
            let page = ids(&world, before.as_deref(), limit).await;
            assert!(page.len() <= limit);
            before = page.last().cloned();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
            if limit == 1 && paged.len() > 20 {
                break;
            }
        }
        assert_eq!(paged, expected[..paged.len()], "by {limit}");
        assert!(limit == 1 || paged.len() == expected.len());
    }
    let elsewhere = world.gateway.sent(&caller(HEALTH), None, 1_000).await.unwrap();
    assert_eq!(elsewhere.len(), 8);
    for before in ["no-such", "e9", ""] {
        assert!(matches!(refusal(world.gateway.sent(&caller(CIVIL), Some(before), 5).await), Refusal::BadPage(_)));
    }
    assert_eq!(refusal(world.gateway.sent(&caller("yx-bike"), None, 5).await), Refusal::NotPermitted);
}

async fn row(world: &World, id: &str) -> SentView {
    let views = world.gateway.sent(&caller(CIVIL), None, 1_000).await.unwrap();
    views.into_iter().find(|view| view.id.as_str() == id).unwrap()
}

#[tokio::test]
async fn a_withdrawn_record_counts_on_no_day_and_stays_withdrawn() {
    let world = World::new().await;
    world.register(1..3).await;
    let record = record_line(CIVIL, "volunteer-hours", "h", 1, Some(300));
    world.report(CIVIL, &[record.clone(), hours("other", 1)]).await;
    let login = world.login(1).await;
    assert!(world.score(&login).await > Some(600));
    assert!(!row(&world, "h").await.withdrawn);

    // Somebody else's is as one that never was.
    for (who, id) in [(HEALTH, "h"), (CIVIL, "no-such"), (CIVIL, "")] {
        assert_eq!(
            refusal(world.gateway.withdraw(&caller(who), id, "a mistake").await),
            Refusal::NotFound,
            "{who} {id}"
        );
    }
    for reason in ["", "  ", "\u{202e}x", &"x".repeat(1_001)] {
        let refused = refusal(world.gateway.withdraw(&caller(CIVIL), "h", reason).await);
        assert!(matches!(refused, Refusal::OutOfRange { field: "reason", .. }));
    }
    assert_eq!(refusal(world.gateway.withdraw(&caller("yx-bike"), "h", "x").await), Refusal::NotPermitted);

    let before = world.log_size();
    world.gateway.withdraw(&caller(CIVIL), "h", "写错了人").await.unwrap();
    assert_eq!(world.score(&login).await, Some(500));
    world.gateway.withdraw(&caller(CIVIL), "h", "another reason").await.unwrap();
    assert_eq!(world.actions_since(before).await, ["withdraw", "withdraw"]);
    let summary = world.gateway.sent_summary(&caller(CIVIL)).await.unwrap();
    assert_eq!(summary, SentSummary { withdrawn: 1, objected: 0 });
    assert_eq!(world.gateway.sent_summary(&caller(HEALTH)).await.unwrap(), SentSummary::default());
    let listed = row(&world, "h").await;
    assert!(listed.withdrawn && listed.objections == 0 && !row(&world, "other").await.withdrawn);

    // It outlives replacement, and a move to somebody else.
    let mut corrected = record;
    corrected["quantity"] = 299.into();
    assert_eq!(world.report(CIVIL, &[corrected.clone()]).await.replaced, 1);
    assert_eq!(world.report(CIVIL, &[corrected.clone()]).await.unchanged, 1);
    assert_eq!(world.score(&login).await, Some(500));
    corrected["person"] = json!({ "id_number": number(2), "name": "某2" });
    assert_eq!(world.report(CIVIL, &[corrected]).await.replaced, 1);
    let moved = world.login(2).await;
    assert_eq!(world.score(&moved).await, Some(500));
    let export = world.gateway.export(&moved).await.unwrap();
    assert!(export.records[0].withdrawn);
    assert_eq!(export.records[0].withdrawn_because.as_deref(), Some("写错了人"));
    assert!(row(&world, "h").await.withdrawn);
    assert_eq!(world.gateway.sent_summary(&caller(CIVIL)).await.unwrap().withdrawn, 1);
}

/// A withdrawal and a report about the same record at once leave it withdrawn.
#[tokio::test]
async fn a_withdrawal_beside_reports_is_not_lost() {
    let world = std::sync::Arc::new(World::new().await);
    let login = world.good(1).await;
    world.report(CIVIL, &[hours("h", 1)]).await;
    let mut calls = tokio::task::JoinSet::new();
    for quantity in 1..9u32 {
        let reporting = world.clone();
        calls.spawn(async move {
            let record = record_line(CIVIL, "volunteer-hours", "h", 1, Some(quantity * 10));
            reporting.report(CIVIL, &[record]).await;
        });
        if quantity == 4 {
            let withdrawing = world.clone();
            calls.spawn(async move { withdrawing.gateway.withdraw(&caller(CIVIL), "h", "x").await.unwrap() });
        }
    }
    calls.join_all().await;
    assert_eq!(world.score(&login).await, Some(650));
}

#[tokio::test]
async fn a_bent_receipt_or_list_is_a_fault() {
    let world = World::new().await;
    let id = world.report(CIVIL, &[hours("h", 1)]).await.batches[0].id.to_text();
    for table in [tables::BATCH, tables::SENT, tables::ORIGIN] {
        for (place, cell) in world.cells(table).await {
            let mut bent = cell.clone();
            bent.value[20] ^= 1;
            world.put(&place, bent).await;
            let called = match table {
                tables::BATCH => is_fault(&world.gateway.batch(&caller(CIVIL), &id).await),
                _ => is_fault(&world.gateway.sent(&caller(CIVIL), None, 5).await),
            };
            assert!(called, "{table:?}");
            world.put(&place, cell).await;
        }
    }
}
