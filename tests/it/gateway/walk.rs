//! INVARIANT (one withheld): one answer of each kind, by token and by code, and a repeat of each. What the store sees of
//! them is equal but for keys.
//!
//! Erasure is not built yet; its kind (`erased`) joins the list with it.

use std::collections::BTreeMap;

use jadegate::authority::Login;
use jadegate::gateway::{ConsentRequest, NewConsent};
use jadegate::store::Table;
use jadegate::store::faulty::{Deed, Touch};
use jadegate::tables;

use crate::support::world::{World, caller, lines, register_line};

const BIKE: &str = "bike-deposit";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Met,
    BelowTheCut,
    NoScore,
    Declined,
    Revoked,
    Ended,
    UsedUp,
    CodeUsed,
    CodeReplaced,
    CodeExpired,
}

use Kind::{BelowTheCut, CodeExpired, CodeReplaced, CodeUsed, Declined, Ended, Met, NoScore, Revoked, UsedUp};

const KINDS: [Kind; 10] =
    [Met, BelowTheCut, NoScore, Declined, Revoked, Ended, UsedUp, CodeUsed, CodeReplaced, CodeExpired];

impl Kind {
    fn is_of_a_code(self) -> bool {
        matches!(self, CodeUsed | CodeReplaced | CodeExpired)
    }
}

/// The same call again and again; by the last one everything that was met is used up.
const TIMES: [&str; 4] = ["first", "repeat", "repeat again", "ten minutes later"];

type Shape = Vec<(Deed, Table, usize, Option<usize>)>;

/// What the store sees beside keys. A checkpoint's bytes grow with the digits of the log's size.
fn shape(record: &[Touch]) -> Shape {
    let plain = |(deed, table, key, bytes)| (deed, table, key, if table == tables::CHECKPOINT { None } else { bytes });
    record.iter().map(|touch| plain(touch.shape())).collect()
}

struct Ready {
    kind: Kind,
    login: Login,
    consent: NewConsent,
    by_code: bool,
    shown: String,
}

/// One person for each kind, who has been answered about today already, and whose consent has been shown once.
async fn prepared(world: &World) -> Vec<Ready> {
    let people: Vec<(Kind, bool)> = KINDS
        .into_iter()
        .flat_map(|kind| [(kind, false), (kind, true)])
        .filter(|(kind, by_code)| *by_code || !kind.is_of_a_code())
        .collect();
    let register: Vec<_> = (1..)
        .zip(&people)
        .map(|(n, (kind, _))| {
            let mut line = register_line(n);
            line["resident"] = (*kind != NoScore).into();
            line
        })
        .collect();
    world.gateway.enrol(&caller("yx-public-security"), &lines(&register)).await.unwrap();
    let mut ready = Vec::new();
    for (n, (kind, by_code)) in (1..).zip(people) {
        if !matches!(kind, BelowTheCut) {
            world.make_good(n).await;
        }
        let login = world.login(n).await;
        let request = ConsentRequest {
            scenario: BIKE.into(),
            party: Some("yx-bike".into()),
            uses: Some(if kind == UsedUp && !by_code { 1 } else { 2 }),
            days: Some(if kind == Ended { 1 } else { 30 }),
            decline: kind == Declined,
        };
        let consent = world.gateway.give_consent(&login, &request).await.unwrap();
        ready.push(Ready { kind, login, consent, by_code, shown: String::new() });
    }
    // A day less 90 s on: the first codes.
    world.advance(86_400 - 90);
    for one in &mut ready {
        if one.kind == CodeExpired {
            one.shown = world.code(&one.login, &one.consent).await;
        }
    }
    world.advance(61);
    for one in &mut ready {
        // Another consent fixes the day, and this one is shown once.
        let library = world.consent(&one.login, "yx-library", "library-deposit", 1).await;
        world.asked("yx-library", "library-deposit", &library.token).await;
        world.asked("yx-bike", BIKE, &one.consent.token).await;
        if one.by_code && one.kind != CodeExpired {
            one.shown = world.code(&one.login, &one.consent).await;
        }
        if !one.by_code {
            one.shown.clone_from(&one.consent.token);
        }
        match one.kind {
            CodeReplaced => drop(world.code(&one.login, &one.consent).await),
            CodeUsed => assert!(world.asked("yx-bike", BIKE, &one.shown).await),
            UsedUp if one.by_code => assert!(world.asked("yx-bike", BIKE, &one.consent.token).await),
            Revoked => world.gateway.revoke(&one.login, &one.consent.id.to_text()).await.unwrap(),
            _ => {}
        }
    }
    // The day is over for the consents of one day; the codes have 30 s left.
    world.advance(30);
    // The first entry of the new hour.
    world.consent(&ready[0].login, "yx-ebike", BIKE, 1).await;
    ready
}

#[tokio::test]
async fn every_answer_of_a_kind_looks_the_same_to_the_store() {
    let world = World::new().await;
    let ready = prepared(&world).await;
    let mut seen: BTreeMap<(bool, &str), Vec<(Kind, Shape)>> = BTreeMap::new();
    let mut bodies = Vec::new();
    let nonce = world.fresh("nonce");
    for which in TIMES {
        if which == "ten minutes later" {
            world.advance(601);
        }
        for one in &ready {
            world.store.start_record();
            let said = world.ask_as(&caller("yx-bike"), BIKE, &one.shown, &nonce).await.unwrap();
            let record = world.store.take_record();
            let met = one.kind == Met && which != "ten minutes later";
            assert_eq!(said.met, met, "{which} {:?}, by code: {}", one.kind, one.by_code);
            if !said.met {
                bodies.push(said.body);
            }
            seen.entry((one.by_code, which)).or_default().push((one.kind, shape(&record)));
        }
    }
    assert!(world.log_size() < 250, "no tile is completed in between");
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "withheld answers are the same bytes");
    for ((by_code, which), shapes) in &seen {
        let (_, met) = &shapes[0];
        for (kind, shape) in shapes {
            assert_eq!(shape, met, "{which} {kind:?}, by code: {by_code}");
        }
    }
    // A code costs one look-up more, and nothing else.
    for which in TIMES {
        let (_, by_token) = &seen[&(false, which)][0];
        let (_, by_code) = &seen[&(true, which)][0];
        assert_eq!(by_code[0].1, tables::CODE);
        assert_eq!(&by_code[1..], by_token.as_slice());
    }
    // Every one writes these and no others.
    let mut written: Vec<&str> = seen[&(false, "first")][0]
        .1
        .iter()
        .filter(|(deed, ..)| *deed == Deed::Put)
        .map(|(_, table, ..)| table.name())
        .collect();
    written.sort_unstable();
    assert_eq!(written, ["access", "checkpoint", "consent", "leaf", "reply", "today"]);
}

/// The day's first ask about each person: nothing is fixed, nothing was shown before.
#[tokio::test]
async fn the_first_ask_of_a_day_looks_the_same_whatever_it_is() {
    let world = World::new().await;
    let mut shapes = Vec::new();
    for (n, kind) in (1..).zip([Met, BelowTheCut, NoScore, Declined, Revoked, CodeReplaced]) {
        let mut line = register_line(n);
        line["resident"] = (kind != NoScore).into();
        world.gateway.enrol(&caller("yx-public-security"), &lines(&[line])).await.unwrap();
        if kind != BelowTheCut {
            world.make_good(n).await;
        }
        let login = world.login(n).await;
        let consent = match kind {
            Declined => world.decline(&login, "yx-bike", BIKE).await,
            _ => world.consent(&login, "yx-bike", BIKE, 2).await,
        };
        let mut shown = consent.token.clone();
        if kind == Revoked {
            world.gateway.revoke(&login, &consent.id.to_text()).await.unwrap();
        }
        if kind == CodeReplaced {
            shown = world.code(&login, &consent).await;
            world.code(&login, &consent).await;
        }
        world.store.start_record();
        assert_eq!(world.asked("yx-bike", BIKE, &shown).await, kind == Met);
        let record = world.store.take_record();
        let skipped = usize::from(kind == CodeReplaced);
        shapes.push((kind, shape(&record[skipped..])));
    }
    for (kind, shape) in &shapes {
        assert_eq!(shape, &shapes[0].1, "{kind:?}");
    }
}

/// Known and bounded: on the first day of a new score (a boundary passed, no report since, no sweep yet) a grant reads the
/// dossier and a lapse does not. It shows to the store's holder alone, never to a party, and the sweep keeps it rare.
#[tokio::test]
async fn a_due_standing_is_the_one_path_on_which_a_grant_reads_more() {
    let world = World::new().await;
    let mut shapes = Vec::new();
    for n in [1, 2] {
        world.register(n..n + 1).await;
        let mut record = crate::support::world::record_line("yx-civil-affairs", "volunteer-hours", "h", n, Some(300));
        record["id"] = format!("h-{n}").into();
        record["valid_until"] = "2026-11-26".into();
        world.report("yx-civil-affairs", &[record]).await;
    }
    let (granting, lapsing) = (world.login(1).await, world.login(2).await);
    let consent = world.consent(&granting, "yx-bike", BIKE, 2).await;
    let decline = world.decline(&lapsing, "yx-bike", BIKE).await;
    world.next_day();
    world.consent(&granting, "yx-bike", BIKE, 2).await;
    for token in [&consent.token, &decline.token] {
        world.store.start_record();
        assert!(!world.asked("yx-bike", BIKE, token).await);
        shapes.push(shape(&world.store.take_record()));
    }
    let more: Vec<_> = shapes[0].iter().filter(|touch| !shapes[1].contains(touch)).map(|touch| touch.1).collect();
    assert_eq!(more, [tables::DOSSIER]);
    assert_eq!(shapes[0].len(), shapes[1].len() + 3, "person, standing and dossier again");
}
