//! INVARIANT (few cuts; one answer a day; one withheld): an attacker who is every relying party at once learns, of a person
//! and a day, the cell between the cuts and nothing else.
//!
//! Two worlds differ in everything but the cell of each day: who the person is, records, corrections, how many of them and
//! when, the score within its cell, and why an answer is withheld. The same attacker plays in both. Each of its moves follows
//! from all that it has seen so far; what it sees must be the same bytes, move by move. What cannot be equal and says nothing
//! is named in [`side`], where it is taken out. That cells which differ do show is tested as well.
//!
//! There is no use case for repairs and objections yet: a provider's own correction (the next version of a record) stands in.

mod side;
mod wire;

use sha2::{Digest, Sha256};
use side::{Fate, Side};

use super::commitments::look_random;
use crate::support::nightly::{figure, rounds};

pub const DAYS: usize = 4;
const MOVES_A_DAY: usize = 9;

/// How the attacker reaches the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By its methods.
    Calls,
    /// By HTTP over a socket, signed.
    Http,
}

/// Small whole numbers from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// What the attacker does next: it follows from its seed and from all that it has seen.
fn choice(seed: u64, seen: &[String]) -> Dice {
    let mut hash = Sha256::new().chain_update(seed.to_be_bytes());
    for line in seen {
        hash.update(line.as_bytes());
    }
    Dice(u64::from_be_bytes(hash.finalize()[..8].try_into().unwrap()))
}

/// The people of both worlds, the cells of their days, and whether all parties' consents are the same in both.
struct Pair {
    seed: u64,
    way: Way,
    cells: [[u8; DAYS]; 2],
}

/// Plays the same attacker in both worlds. Where they `must_agree`, what it sees is equal at every move.
async fn play(pair: &Pair, must_agree: bool) -> [Vec<String>; 2] {
    played(pair, must_agree).await.map(|side| side.seen)
}

async fn played(pair: &Pair, must_agree: bool) -> [Side; 2] {
    let mut common = Dice::new(pair.seed);
    // Where no question is ever met, nobody can tell a consent that stands from one that does not.
    let never = pair.cells == [[0; DAYS]; 2];
    let fates = Fate::draw_all(&mut common);
    let mut sides = Vec::new();
    for (which, who) in [(0, 10), (1, 451)] {
        let mut own = Dice::new(pair.seed * 2 + which + 1_000_000);
        let fates = if never { Fate::draw_all(&mut own) } else { fates.clone() };
        sides.push(Side::new(pair.seed, pair.way, who, own, fates, pair.cells[which as usize][0]).await);
    }
    let mut sides: [Side; 2] = sides.try_into().ok().unwrap();
    let mut agreed = 0;
    for day in 0..DAYS {
        // The day is fixed early, or else the score stays within its cell.
        let fixed = common.below(3) > 0;
        for (side, cells) in sides.iter_mut().zip(&pair.cells) {
            side.begin_day(day, cells[day]).await;
        }
        level(&sides).await;
        for side in &mut sides {
            side.reseed();
            if fixed {
                side.somebody_asks().await;
            }
        }
        for turn in 0..MOVES_A_DAY {
            for (side, cells) in sides.iter_mut().zip(&pair.cells) {
                side.in_between(fixed, cells[day]).await;
                let mut dice = choice(pair.seed, &side.seen);
                side.prepare(&mut dice).await;
            }
            level(&sides).await;
            for side in &mut sides {
                let mut dice = choice(pair.seed, &side.seen);
                side.reseed();
                side.act(&mut dice).await;
            }
            if must_agree {
                let [one, other] = &sides;
                let new = agreed.min(one.seen.len());
                assert_eq!(
                    one.seen[new..],
                    other.seen[new..],
                    "{:?}: seed {}, day {day}, move {turn}",
                    pair.way,
                    pair.seed
                );
                agreed = one.seen.len();
            }
        }
    }
    if must_agree {
        assert_ne!(sides[0].scores, sides[1].scores, "seed {}: the scores differ", pair.seed);
    }
    sides
}

/// Other people's calls, until both logs have one size: the size of the log in a proof counts everybody's traffic, and
/// SECURITY.md says that it is not hidden.
async fn level(sides: &[Side; 2]) {
    let most = sides.iter().map(|side| side.world.log_size()).max().unwrap();
    for side in sides {
        while side.world.log_size() < most {
            side.somebody_elses_call().await;
        }
    }
}

/// The cells of the days, one in four times never above the lowest cut.
fn days(dice: &mut Dice) -> [u8; DAYS] {
    if dice.below(4) == 0 {
        return [0; DAYS];
    }
    std::array::from_fn(|_| u8::try_from(dice.below(3)).unwrap())
}

async fn the_same_is_seen(way: Way, seeds: usize) {
    let (mut moves, mut met, mut shown) = (0, 0, [Vec::new(), Vec::new()]);
    for seed in 0..seeds as u64 {
        let cells = days(&mut Dice::new(seed + 77));
        let [one, other] = played(&Pair { seed, way, cells: [cells; 2] }, true).await;
        shown[0].extend(one.shown);
        shown[1].extend(other.shown);
        let seen = one.seen;
        moves += seen.len();
        met += seen.iter().filter(|line| line.contains("\"met\"")).count();
    }
    for (world, shown) in ["one world", "the other"].iter().zip(&shown) {
        look_random(&format!("{way:?}: the public log in {world}"), shown);
    }
    assert!(met > seeds, "the attacker is told something at all: {met} of {moves}");
    figure(
        "attacker: worlds that differ in all but the cells look the same",
        format_args!(
            "{way:?}: {seeds} pairs of worlds, {moves} moves ({met} met), every transcript equal, {} entries of the log",
            shown[0].len()
        ),
    );
}

#[tokio::test]
async fn all_parties_together_see_the_cell_of_each_day_and_nothing_else() {
    the_same_is_seen(Way::Calls, rounds(12, 500)).await;
}

#[tokio::test]
async fn nor_does_a_status_a_header_or_a_length_show_more_than_the_cell() {
    the_same_is_seen(Way::Http, rounds(3, 60)).await;
}

/// So that the tests above can fail: where the cell of one day differs, most attackers notice.
#[tokio::test]
async fn worlds_that_differ_in_a_cell_look_different() {
    let (mut noticed, mut played) = (0, 0);
    for seed in 0..rounds(3, 60) as u64 {
        for (one, other) in [(0, 1), (1, 2), (0, 2)] {
            let (mut left, mut right) = ([one; DAYS], [one; DAYS]);
            left[1] = one;
            right[1] = other;
            let [left, right] = play(&Pair { seed, way: Way::Calls, cells: [left, right] }, false).await;
            played += 1;
            noticed += usize::from(left != right);
        }
    }
    assert!(noticed * 4 > played * 3, "{noticed} of {played}");
    figure("attacker: a cell that differs on one day of four is noticed", format_args!("{noticed} of {played}"));
}
