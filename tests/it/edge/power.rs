//! Power cuts: what was not synced is dropped, from the store's disk and from that of the outside checkpoints, each in its own
//! measure. strace records what the process wrote and synced; see `support::disk` for what a cut then leaves.

use std::sync::Arc;
use std::time::Duration;

use jadegate::clock::SystemClock;
use jadegate::entropy::{self, SystemEntropy};

use crate::support::deployment::Deployment;
use crate::support::disk::{Dice, RECORD, Recording};
use crate::support::nightly;
use crate::support::process::Serving;
use crate::support::survival::{Loaded, audits, holds, log_key};

/// Cuts in each recording.
const CUTS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_holds_after_a_power_cut() {
    let cuts = nightly::rounds(5, 100);
    let seed = u64::from_be_bytes(entropy::bytes(&SystemEntropy::new()).unwrap());
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let mut held = [0; 4];
    for _ in 0..cuts.div_ceil(CUTS) {
        let counts = recorded(&mut dice).await;
        held.iter_mut().zip(counts).for_each(|(held, count)| *held += count);
    }
    nightly::figure(
        "power cuts",
        format_args!(
            "{cuts} cuts in {} recordings with {} answers, {} by code, {} revocations and {} records acknowledged, none lost",
            cuts.div_ceil(CUTS),
            held[0],
            held[1],
            held[2],
            held[3]
        ),
    );
}

/// A life from the first start on, under load, and several ends of it.
async fn recorded(dice: &mut Dice) -> [usize; 4] {
    let mut city = Deployment::provisioned(Arc::new(SystemClock::new()));
    let folders = [city.config.store.folder().unwrap().to_owned(), city.config.checkpoints.clone()];
    for folder in &folders {
        std::fs::create_dir_all(folder).unwrap();
    }
    let (config, output, trace) = (city.config_file(), city.dir().join("output"), city.dir().join("trace"));
    let mut recording = Recording::before(&folders);
    let mut strace: Vec<String> = RECORD.map(str::to_owned).into();
    strace.extend(["-o".to_owned(), trace.to_str().unwrap().to_owned()]);
    let mut serving = Serving::spawn_traced(&strace, &config, &output);
    serving.ready(&config).await;
    let key = log_key(&city).await;
    city.populate(1).await;
    let city = Arc::new(city);
    let mut load = Loaded::new(city.clone());
    load.start(6);
    while load.told.len() < 120 + dice.below(60) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!load.is_over(), "{}", serving.wrote());
    }
    serving.kill();
    load.over().await;
    serving.recorded(&trace).await;
    recording.read(&trace);
    std::fs::remove_file(&trace).unwrap();
    assert!(recording.moments() > 200, "only {} calls were recorded", recording.moments());
    let (counts, told) = (load.told.counts(), load.told.clone());
    drop(load);
    let mut city = Arc::into_inner(city).unwrap();

    for cut in 0..CUTS {
        // The last one is the end itself; the others are anywhere before it, seldom while the store is being made.
        let moments = recording.moments();
        let moment = if cut == 0 { moments } else { moments - 1 - dice.below(moments) };
        println!("cut at {moment} of {moments}");
        let until = recording.cut(moment, &folders, dice);
        city.start().await;
        holds(&city, &told, &key, until).await;
        city.stop().await.unwrap();
        audits(&city).await;
    }
    counts
}
