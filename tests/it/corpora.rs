//! The corpora of the fuzz targets, and thousands of seeded mutations of them, through the same bodies (`fuzz/bodies.rs`).
//!
//! A finding is printed with its input. Fuzzing proper, which follows what it covers, is `scripts/nightly fuzz`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::support::nightly::{figure, rounds};

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use bodies::Body;

/// The most bytes of a corpus file, so that the repository stays small.
const SEED_BYTES_MAX: usize = 8 * 1024;

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(of)
}

fn names(of: &Path) -> BTreeSet<String> {
    std::fs::read_dir(of).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn corpus(name: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = folder("corpus").join(name);
    names(&folder).into_iter().map(|file| (file.clone(), std::fs::read(folder.join(&file)).unwrap())).collect()
}

/// The words of a dictionary in libFuzzer's form, a quoted word a line.
fn dictionary(name: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(folder("dictionaries").join(format!("{name}.dict"))).unwrap();
    let word = |line: &str| {
        let (mut word, mut rest) = (Vec::new(), line.strip_prefix('"').unwrap().strip_suffix('"').unwrap());
        while let Some(c) = rest.chars().next() {
            match rest.strip_prefix("\\x") {
                Some(hex) => {
                    word.push(u8::from_str_radix(&hex[..2], 16).unwrap());
                    rest = &hex[2..];
                }
                None => {
                    assert!(c.is_ascii() && c != '\\' && c != '"', "{name}: {line}");
                    word.push(c as u8);
                    rest = &rest[1..];
                }
            }
        }
        word
    };
    text.lines().map(word).collect()
}

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % end.max(1)
    }

    /// A stretch of a text of this length.
    fn stretch(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        from..from + self.below((length - from).min(64) + 1)
    }
}

/// Bytes that mean something to some parser.
const ODD: &[u8] = b"\0\n\r\t \"',:;=+-/.0197aAXx{}[]()\\\xef\xff";

/// One to four changes.
fn mutated(dice: &mut Dice, seeds: &[&Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = ODD[dice.below(ODD.len())],
            2 => drop(bytes.drain(dice.stretch(bytes.len()))),
            3 => {
                let stretch = bytes[dice.stretch(bytes.len())].to_vec();
                bytes.splice(at..at, stretch);
            }
            4 => bytes.truncate(at),
            5 => {
                let other = seeds[dice.below(seeds.len())];
                let stretch = other[dice.stretch(other.len())].to_vec();
                bytes.splice(at..at, stretch);
            }
            6 if !words.is_empty() => {
                let word = words[dice.below(words.len())].clone();
                let end = (at + dice.below(2) * word.len()).min(bytes.len());
                bytes.splice(at..end, word);
            }
            7 => bytes.insert(at, dice.below(256) as u8),
            8 if dice.below(50) == 0 => {
                let stretch = bytes[dice.stretch(bytes.len())].repeat(1 + dice.below(600));
                bytes.splice(at..at, stretch);
            }
            _ => {
                let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
                if let Some(at) = digits.get(dice.below(digits.len())) {
                    bytes[*at] = b'0' + dice.below(10) as u8;
                }
            }
        }
    }
    bytes
}

/// What one input breaks; the panic's own message is printed by the harness.
fn finding(body: &Body, what: &str, input: &[u8]) -> Option<String> {
    let run = || (body.run)(input);
    catch_unwind(AssertUnwindSafe(run)).err().map(|_| format!("{}: {what}: \"{}\"", body.name, input.escape_ascii()))
}

fn tried(body: &Body) -> Result<usize, String> {
    let (seeds, words) = (corpus(body.name), dictionary(body.name));
    if let Some(found) = seeds.iter().find_map(|(file, bytes)| finding(body, file, bytes)) {
        return Err(found);
    }
    let (mut dice, seeds): (_, Vec<_>) = (Dice(1), seeds.values().collect());
    let count = rounds(body.rounds.0, body.rounds.1);
    for round in 0..count {
        let input = mutated(&mut dice, &seeds, &words);
        if let Some(found) = finding(body, &format!("mutation {round}"), &input) {
            return Err(found);
        }
    }
    Ok(count)
}

#[test]
fn each_parser_keeps_its_promises_over_its_corpus_and_mutations_of_it() {
    bodies::ready();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let take = || bodies::ALL.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        std::iter::from_fn(take).map(|body| tried(body)).collect::<Vec<_>>()
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let found: Vec<_> = results.iter().filter_map(|result| result.as_ref().err().map(String::as_str)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    let count: usize = results.iter().flatten().sum();
    figure("mutations of corpora", format_args!("{count} through {} parsers, no finding", results.len()));
}

#[test]
fn each_parser_has_a_target_a_small_corpus_and_a_dictionary() {
    let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
    let all: BTreeSet<String> = bodies::ALL.iter().map(|body| body.name.to_owned()).collect();
    assert_eq!(all.len(), bodies::ALL.len());
    assert_eq!(names(&folder("corpus")), all);
    assert_eq!(names(&folder("fuzz_targets")), all.iter().map(|name| format!("{name}.rs")).collect());
    assert_eq!(names(&folder("dictionaries")), all.iter().map(|name| format!("{name}.dict")).collect());
    for name in &all {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let target = std::fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(target.contains(&format!("bodies::{},", name.to_uppercase())), "{name}");
        let seeds = corpus(name);
        assert!(seeds.len() >= 5 && seeds.values().all(|seed| seed.len() <= SEED_BYTES_MAX), "{name}");
    }
}
