//! INVARIANT (no grant, no plaintext; the store is distrusted): cells that the store swaps, moves, bends or rolls back do not
//! open, and nothing opens for an authority over somebody else.

use std::sync::Arc;

use jadegate::authority::Login;
use jadegate::disclosure::Standing;
use jadegate::entropy::SystemEntropy;
use jadegate::person::{IdType, Identity, PersonId};
use jadegate::score::{Outcome, Status};
use jadegate::store::{Cell, Place, Store, Table};
use jadegate::tables;
use jadegate::vault::{Vault, VaultError};

use crate::support::world::{World, caller, is_fault, keyring, number, refusal};

const BIKE: &str = "bike-deposit";
const DAY: &str = "2026-11-25";

fn vault() -> Vault {
    let outcome = Outcome { status: Status::Scored, score: Some(500), grade: None };
    let decoy = Standing::new(outcome, DAY.parse().unwrap(), None, [0; 32]);
    Vault::new(Arc::new(keyring()), Arc::new(SystemEntropy::new()), &decoy).unwrap()
}

fn person_id(n: u32) -> PersonId {
    vault().person_id(&Identity::parse(IdType::ResidentId, &number(n), DAY.parse().unwrap()).unwrap())
}

#[tokio::test]
async fn the_vault_opens_nothing_for_an_authority_over_somebody_else() {
    let world = World::new().await;
    let (anna, bert) = (world.good(1).await, world.good(2).await);
    let consent = world.consent(&bert, "yx-bike", BIKE, 5).await;
    let vault = vault();
    for (login, own, other) in [(&anna, 1, 2), (&bert, 2, 1)] {
        let open = async |n| {
            let person = person_id(n);
            let cell = world.store.get(&Place::new(tables::PERSON, person.0)).await.unwrap().unwrap();
            vault.open_person(login, person, cell.version, &cell.value).map(drop)
        };
        assert!(open(own).await.is_ok());
        assert!(matches!(open(other).await, Err(VaultError::NotReached)));
    }
    let cell = world.store.get(&Place::new(tables::CONSENT, *consent.id.as_bytes())).await.unwrap().unwrap();
    assert!(vault.open_consent_of(&bert, consent.id, cell.version, &cell.value).is_ok());
    let opened = vault.open_consent_of(&anna, consent.id, cell.version, &cell.value);
    assert!(matches!(opened, Err(VaultError::NotReached)));
}

/// Nothing that is personal or secret lies readable in the store.
#[tokio::test]
async fn the_store_holds_no_readable_secret() {
    let world = World::new().await;
    let login = world.good(1).await;
    let consent = world.consent(&login, "yx-bike", BIKE, 5).await;
    let code = world.code(&login, &consent).await;
    let said = world.ask("yx-bike", BIKE, &code).await;
    let (number, name, token) = (number(1), crate::support::world::name(1), consent.token.clone());
    let attestation = said.attestation.unwrap();
    let secrets = [number.as_str(), &name, &token, &code, &code.replace('-', ""), &attestation, "yx-bike", "volunteer"];
    for table in jadegate::tables::ALL {
        for (place, cell) in world.cells(table).await {
            for secret in secrets {
                let found = |bytes: &[u8]| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found(&cell.value) && !found(&place.key), "{secret} in {table:?}");
            }
        }
    }
}

#[tokio::test]
async fn sealed_cells_have_few_lengths() {
    let world = World::new().await;
    for n in 1..6 {
        let login = world.good(n).await;
        for uses in 1..n {
            let consent = world.consent(&login, "yx-bike", BIKE, uses).await;
            world.asked("yx-bike", BIKE, &consent.token).await;
        }
    }
    for table in [tables::PERSON, tables::STANDING, tables::CONSENT, tables::TODAY, tables::REPLY, tables::ACCESS] {
        let lengths: std::collections::BTreeSet<usize> =
            world.cells(table).await.iter().map(|(_, cell)| cell.value.len()).collect();
        assert_eq!(lengths.len(), 1, "{table:?}: {lengths:?}");
    }
}

/// Two people of the same kind: everything about them that a cell can be exchanged for.
struct Two {
    world: World,
    logins: [Login; 2],
    tokens: [String; 2],
    codes: [String; 2],
    nonce: String,
}

async fn two() -> Two {
    let world = World::new().await;
    let logins = [world.good(1).await, world.good(2).await];
    let nonce = world.fresh("nonce");
    let (mut tokens, mut codes) = (Vec::new(), Vec::new());
    for login in &logins {
        let consent = world.consent(login, "yx-bike", BIKE, 9).await;
        assert!(world.ask_as(&caller("yx-bike"), BIKE, &consent.token, &nonce).await.unwrap().met);
        codes.push(world.code(login, &consent).await);
        tokens.push(consent.token);
    }
    Two { world, logins, tokens: tokens.try_into().unwrap(), codes: codes.try_into().unwrap(), nonce }
}

impl Two {
    /// Whether every call that reads this table ends in a fault.
    async fn all_fault(&self, table: Table) -> bool {
        let mut faults = Vec::new();
        for i in [0, 1] {
            let (world, login) = (&self.world, &self.logins[i]);
            let fresh = world.fresh("nonce");
            let bike = caller("yx-bike");
            if [tables::PERSON, tables::STANDING, tables::CONSENT, tables::TODAY, tables::ACCESS].contains(&table) {
                faults.push(is_fault(&world.ask_as(&bike, BIKE, &self.tokens[i], &fresh).await));
            }
            if table == tables::CODE {
                faults.push(is_fault(&world.ask_as(&bike, BIKE, &self.codes[i], &fresh).await));
            }
            if table == tables::REPLY {
                faults.push(is_fault(&world.ask_as(&bike, BIKE, &self.tokens[i], &self.nonce).await));
            }
            if table == tables::PERSON || table == tables::DOSSIER {
                faults.push(is_fault(&world.gateway.score(login).await));
                faults.push(is_fault(&world.gateway.export(login).await));
                let record = crate::support::world::record_line("yx-health", "blood-donation", "b", 1, Some(1));
                let body = crate::support::world::lines(&[record]);
                faults.push(is_fault(&world.gateway.report(&caller("yx-health"), &body).await));
            }
            if table == tables::MINE || table == tables::PERSON || table == tables::CONSENT {
                faults.push(is_fault(&world.gateway.consents(login).await));
            }
            if table == tables::ACCESS || table == tables::CONSENT {
                faults.push(is_fault(&world.gateway.accesses(login, None, 10).await));
            }
        }
        !faults.is_empty() && faults.into_iter().all(|fault| fault)
    }
}

const READ: [Table; 9] = [
    tables::PERSON,
    tables::STANDING,
    tables::CONSENT,
    tables::TODAY,
    tables::ACCESS,
    tables::CODE,
    tables::REPLY,
    tables::DOSSIER,
    tables::MINE,
];

#[tokio::test]
async fn cells_that_are_exchanged_do_not_open() {
    let two = two().await;
    for table in READ {
        let honest = two.world.cells(table).await;
        assert!(honest.len() >= 2);
        let size = two.world.log_size();
        for keeps_version in [true, false] {
            for (i, (place, cell)) in honest.iter().enumerate() {
                let (_, foreign) = &honest[(i + 1) % honest.len()];
                let version = if keeps_version { cell.version } else { foreign.version };
                two.world.put(place, Cell { version, value: foreign.value.clone() }).await;
            }
            assert!(two.all_fault(table).await, "{table:?} with its own version: {keeps_version}");
        }
        for (place, cell) in honest {
            two.world.put(&place, cell).await;
        }
        assert_eq!(two.world.log_size(), size, "{table:?}");
    }
    assert!(two.world.asked("yx-bike", BIKE, &two.tokens[0]).await, "with its own cells all is well");
}

#[tokio::test]
async fn bent_cells_do_not_open() {
    let two = two().await;
    for table in READ {
        let honest = two.world.cells(table).await;
        for bend in [0usize, 3, 10, 40, usize::MAX] {
            for (place, cell) in &honest {
                let mut value = cell.value.clone();
                match value.get_mut(bend) {
                    Some(byte) => *byte ^= 1,
                    None => value.truncate(20),
                }
                two.world.put(place, Cell { version: cell.version, value }).await;
            }
            assert!(two.all_fault(table).await, "{table:?} at {bend}");
        }
        for (place, cell) in honest {
            two.world.put(&place, cell).await;
        }
    }
}

/// The content of an earlier version does not open in the place of a later one.
#[tokio::test]
async fn older_content_under_the_newer_version_does_not_open() {
    let two = two().await;
    let world = &two.world;
    for table in [tables::CONSENT, tables::ACCESS, tables::STANDING, tables::DOSSIER, tables::MINE] {
        let older = world.cells(table).await;
        for (n, login) in (1..).zip(&two.logins) {
            assert!(world.asked("yx-bike", BIKE, &two.tokens[n as usize - 1]).await);
            world.consent(login, "yx-bike", BIKE, 1).await;
            let id = world.fresh("hours");
            let hours = crate::support::world::record_line("yx-civil-affairs", "volunteer-hours", &id, n, Some(1));
            world.report("yx-civil-affairs", &[hours]).await;
        }
        let newer = world.cells(table).await;
        for (place, old) in older {
            let (_, new) = newer.iter().find(|(p, _)| *p == place).unwrap();
            assert!(new.version >= old.version);
            world.put(&place, Cell { version: new.version + 1, value: old.value.clone() }).await;
        }
        assert!(two.all_fault(table).await, "{table:?}");
        for (place, cell) in newer {
            world.put(&place, cell).await;
        }
    }
}

#[tokio::test]
async fn a_deleted_cell_grants_nothing() {
    use jadegate::store::{Batch, Write};
    for table in [tables::PERSON, tables::STANDING, tables::CONSENT] {
        let two = two().await;
        let writes = two.world.cells(table).await.into_iter().map(|(place, _)| Write::Delete(place)).collect();
        two.world.store.inner().commit(Batch { checks: Vec::new(), writes }).await.unwrap();
        let asked = two.world.ask_as(&caller("yx-bike"), BIKE, &two.tokens[0], &two.world.fresh("nonce")).await;
        assert!(is_fault(&asked), "{table:?}");
    }
    // Somebody of whom nothing is left looks like anybody who is not met.
    let gone = two().await;
    for table in [tables::PERSON, tables::STANDING] {
        let writes = gone.world.cells(table).await.into_iter().map(|(place, _)| Write::Delete(place)).collect();
        gone.world.store.inner().commit(Batch { checks: Vec::new(), writes }).await.unwrap();
    }
    assert!(!gone.world.asked("yx-bike", BIKE, &gone.tokens[0]).await);
    let two = two().await;
    let writes = two.world.cells(tables::CODE).await.into_iter().map(|(place, _)| Write::Delete(place)).collect();
    two.world.store.inner().commit(Batch { checks: Vec::new(), writes }).await.unwrap();
    let asked = two.world.ask_as(&caller("yx-bike"), BIKE, &two.codes[0], &two.world.fresh("nonce")).await;
    assert_eq!(refusal(asked), jadegate::gateway::Refusal::ConsentNotRecognised);
}

/// A session's cell that is moved or bent stands for nobody.
#[tokio::test]
async fn a_session_is_its_own_cells() {
    let world = World::new().await;
    world.register(1..3).await;
    let tokens =
        [world.gateway.demo_login(&number(1)).await.unwrap(), world.gateway.demo_login("officer-1").await.unwrap()];
    let honest = world.cells(tables::SESSION).await;
    assert_eq!(honest.len(), 2);
    world.put(&honest[0].0, honest[1].1.clone()).await;
    world.put(&honest[1].0, honest[0].1.clone()).await;
    for token in &tokens {
        assert!(is_fault(&world.gateway.session(token).await));
    }
    for unknown in ["", "x", &"A".repeat(43)] {
        assert!(world.gateway.session(unknown).await.unwrap().is_none());
    }
    for (place, cell) in honest {
        world.put(&place, cell).await;
    }
    world.gateway.log_out(&tokens[0]).await.unwrap();
    assert!(world.gateway.session(&tokens[0]).await.unwrap().is_none());
    assert!(world.gateway.session(&tokens[1]).await.unwrap().is_some());
    world.advance(8 * 3600);
    assert!(world.gateway.session(&tokens[1]).await.unwrap().is_none());
    for nobody in [&number(9), "nobody", "", "530499199001010016"] {
        assert_eq!(refusal(world.gateway.demo_login(nobody).await), jadegate::gateway::Refusal::NotFound);
    }
}
