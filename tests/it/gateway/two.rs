//! Two gateways over one store, as by a mistake of whoever runs them: the checkpoint moves by compare-and-swap and every
//! change checks what it read, so they keep one history between them.

use std::sync::Arc;

use jadegate::gateway::{AskRequest, Gateway};
use tokio::task::JoinSet;

use crate::support::world::{World, caller, lines, record_line};

const BIKE: &str = "bike-deposit";
const CIVIL: &str = "yx-civil-affairs";

async fn two() -> (World, [Arc<Gateway>; 2]) {
    let world = World::new().await;
    let other = world.another(2).await;
    let both = [world.gateway.clone(), other];
    (world, both)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_through_both_lose_nothing() {
    let (mut world, both) = two().await;
    world.register(1..2).await;
    let mut calls = JoinSet::new();
    for i in 0..16 {
        let gateway = both[i % 2].clone();
        calls.spawn(async move {
            let record = record_line(CIVIL, "volunteer-hours", &format!("r-{i}"), 1, Some(2));
            gateway.report(&caller(CIVIL), &lines(&[record])).await.unwrap().accepted
        });
    }
    assert_eq!(calls.join_all().await, [1; 16]);
    world.reopen().await.unwrap();
    let login = world.login(1).await;
    assert_eq!(world.score(&login).await, Some(516));
    assert_eq!(super::log::audit(&world).await, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_shown_to_both_is_met_once() {
    let (mut world, both) = two().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 9).await;
    let code = world.code(&login, &consent).await;
    let mut calls = JoinSet::new();
    for i in 0..16 {
        let (gateway, code) = (both[i % 2].clone(), code.clone());
        calls.spawn(async move {
            let request = AskRequest { scenario: BIKE.into(), consent: code, nonce: format!("nonce-nonce-nonce-{i}") };
            let body = gateway.ask(&caller("yx-bike"), &request).await.unwrap().into_body();
            body.starts_with(br#"{"answer":"met""#)
        });
    }
    assert_eq!(calls.join_all().await.into_iter().filter(|met| *met).count(), 1);
    world.reopen().await.unwrap();
    let login = world.login(1).await;
    assert_eq!(world.uses_left(&login).await, 8);
    assert_eq!(world.gateway.accesses(&login, None, 100).await.unwrap().len(), 16);
    assert_eq!(super::log::audit(&world).await, [] as [&str; 0]);
}
