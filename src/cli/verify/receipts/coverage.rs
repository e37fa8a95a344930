//! Which lines of a file are covered by ranges whose lines agree, in one pass over the file.
//!
//! Ranges may lie over each other in any way: a file that was sent again has its lines in several. Between the ends of
//! ranges all lines are alike, so what is counted is counted between ends; memory grows with the ranges alone.

use crate::attestation::batch::Digesting;

/// How many lines that were never sent are named.
const NAMED_MAX: usize = 20;

/// Lines that were sent, one after the other as far as sent lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    /// How many of them were sent.
    pub(super) count: u64,
}

/// What the file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// By range: whether its lines agree.
    pub(super) agree: Vec<bool>,
    /// Sent lines that a range which agrees covers.
    pub(super) proven: Vec<Run>,
    /// Those that none covers.
    pub(super) unproven: Vec<Run>,
    /// How many lines were never sent, since they are refused as they stand, and the first of them.
    pub(super) never: u64,
    pub(super) never_sent: Vec<u64>,
}

/// A range on the way.
struct Open {
    at: usize,
    last: u64,
    digesting: Digesting,
}

/// A file on the way.
pub(super) struct Coverage {
    ranges: Vec<(u64, u64)>,
    /// The ranges by their first lines, the last one first.
    waiting: Vec<usize>,
    open: Vec<Open>,
    digests: Vec<Option<(u64, [u8; 32])>>,
    /// The first lines of stretches in which all lines are alike, in order; there is one before the first.
    cuts: Vec<u64>,
    stretches: Vec<Option<Run>>,
    stretch: usize,
    never: u64,
    never_sent: Vec<u64>,
}

impl Coverage {
    /// Over these ranges of lines, both ends among them.
    pub(super) fn new(ranges: impl Iterator<Item = (u64, u64)>) -> Self {
        let ranges: Vec<(u64, u64)> = ranges.collect();
        let mut waiting: Vec<usize> = (0..ranges.len()).collect();
        waiting.sort_by_key(|at| std::cmp::Reverse(ranges.get(*at).copied()));
        let mut cuts: Vec<u64> = ranges.iter().flat_map(|(first, last)| [*first, last.saturating_add(1)]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        Self {
            waiting,
            open: Vec::new(),
            digests: vec![None; ranges.len()],
            stretches: vec![None; cuts.len() + 1],
            ranges,
            cuts,
            stretch: 0,
            never: 0,
            never_sent: Vec::new(),
        }
    }

    /// The next line of the file; numbers go up. None are the bytes of a line that is not sent.
    pub(super) fn add(&mut self, number: u64, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes.filter(|bytes| !bytes.trim_ascii().is_empty()) else {
            self.never += 1;
            if self.never_sent.len() < NAMED_MAX {
                self.never_sent.push(number);
            }
            return;
        };
        while self.cuts.get(self.stretch).is_some_and(|cut| *cut <= number) {
            self.stretch += 1;
        }
        if let Some(slot) = self.stretches.get_mut(self.stretch) {
            let run = slot.get_or_insert(Run { first: number, last: number, count: 0 });
            (run.last, run.count) = (number, run.count + 1);
        }
        while let Some((at, range)) = self.next_waiting().filter(|(_, range)| range.0 <= number) {
            self.waiting.pop();
            self.open.push(Open { at, last: range.1, digesting: Digesting::default() });
        }
        self.close(|open| open.last < number);
        self.open.iter_mut().for_each(|open| open.digesting.add(bytes));
    }

    fn next_waiting(&self) -> Option<(usize, (u64, u64))> {
        let at = *self.waiting.last()?;
        Some((at, *self.ranges.get(at)?))
    }

    fn close(&mut self, ended: impl Fn(&Open) -> bool) {
        for open in self.open.extract_if(.., |open| ended(open)) {
            if let Some(slot) = self.digests.get_mut(open.at) {
                *slot = Some(open.digesting.finish()).filter(|(lines, _)| *lines > 0);
            }
        }
    }

    /// After the last line; `agrees` says of a range whether so many lines with this digest are its own.
    pub(super) fn finish(mut self, agrees: impl Fn(usize, (u64, [u8; 32])) -> bool) -> Found {
        self.close(|_| true);
        let agree: Vec<bool> =
            (0..).zip(&self.digests).map(|(at, digest)| digest.is_some_and(|digest| agrees(at, digest))).collect();
        // By stretch: how many ranges that agree begin with it, less how many ended before it.
        let mut steps = vec![0_i64; self.stretches.len() + 1];
        for ((first, last), _) in self.ranges.iter().zip(&agree).filter(|(_, agrees)| **agrees) {
            let place = |line: u64| self.cuts.partition_point(|cut| *cut <= line);
            if let Some(step) = steps.get_mut(place(*first)) {
                *step += 1;
            }
            if let Some(step) = steps.get_mut(place(last.saturating_add(1))) {
                *step -= 1;
            }
        }
        let (mut over, mut proven, mut unproven) = (0, Vec::new(), Vec::new());
        let mut before = None;
        for (step, run) in steps.into_iter().zip(&self.stretches) {
            over += step;
            let Some(run) = run else { continue };
            let runs: &mut Vec<Run> = if over > 0 { &mut proven } else { &mut unproven };
            match runs.last_mut().filter(|_| before == Some(over > 0)) {
                Some(last) => (last.last, last.count) = (run.last, last.count + run.count),
                None => runs.push(*run),
            }
            before = Some(over > 0);
        }
        Found { agree, proven, unproven, never: self.never, never_sent: self.never_sent }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the pass finds, said line by line.
    fn plainly(lines: &[bool], ranges: &[(u64, u64)], agree: &[bool]) -> (Vec<u64>, Vec<u64>) {
        let sent = (1..).zip(lines).filter(|(_, sent)| **sent).map(|(number, _)| number);
        sent.partition(|number| {
            ranges.iter().zip(agree).any(|((first, last), agrees)| *agrees && (first..=last).contains(&number))
        })
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_each_line_says(
            lines in proptest::collection::vec(any::<bool>(), 0..30),
            ranges in proptest::collection::vec((1..32_u64, 0..9_u64, any::<bool>()), 0..8),
        ) {
            let said: Vec<bool> = ranges.iter().map(|(.., agrees)| *agrees).collect();
            let ranges: Vec<(u64, u64)> = ranges.iter().map(|(first, more, _)| (*first, first + more)).collect();
            let mut coverage = Coverage::new(ranges.iter().copied());
            for (number, sent) in (1..).zip(&lines) {
                let text = format!("line {number}");
                coverage.add(number, sent.then_some(text.as_bytes()));
            }
            let own = |(first, last): (u64, u64)| {
                let mut digesting = Digesting::default();
                let all = (1..).zip(&lines).filter(|(number, sent)| **sent && (first..=last).contains(number));
                all.for_each(|(number, _)| digesting.add(format!("line {number}").as_bytes()));
                digesting.finish()
            };
            let found = coverage.finish(|at, digest| said[at] && digest == own(ranges[at]));
            // A range without a line has nothing to agree with.
            let agree: Vec<bool> = ranges.iter().zip(&said).map(|(range, said)| *said && own(*range).0 > 0).collect();
            prop_assert_eq!(&found.agree, &agree);
            let (proven, unproven) = plainly(&lines, &ranges, &agree);
            let sent: Vec<u64> = (1..).zip(&lines).filter(|(_, sent)| **sent).map(|(number, _)| number).collect();
            let all = |runs: &[Run]| -> Vec<u64> {
                runs.iter().flat_map(|run| sent.iter().copied().filter(|n| (run.first..=run.last).contains(n))).collect()
            };
            prop_assert_eq!(all(&found.proven), proven);
            prop_assert_eq!(all(&found.unproven), unproven);
            let count: u64 = found.proven.iter().chain(&found.unproven).map(|run| run.count).sum();
            prop_assert_eq!(count, sent.len() as u64);
            prop_assert_eq!(found.never, (lines.len() - sent.len()) as u64);
        }
    }
}
