//! Which counts of people may be shown together, so that none under ten can be had from them.
//!
//! A count under [`LEAST`] is not shown. What is shown is rounded to tens, up or down by a draw that belongs to the very
//! people counted: so two tables of almost the same people cannot be subtracted from each other. And where a hidden count
//! could still be told from the others (a total less its parts, over several tables that share people), more are hidden:
//! the smallest that helps. What a reader can tell is worked out by integer programming: everything shown lies within
//! nine of what it says, every sum that the tables have by construction holds, and both none and ten must be possible
//! for each hidden count under ten. Pure; it knows counts and sums, not people.

use microlp::{ComparisonOp, OptimizationDirection, Problem, Variable};

/// No count below this is shown.
pub const LEAST: u64 = 10;
/// Shown counts are multiples of this.
pub const ROUNDED_TO: u64 = 10;

/// One count among others.
#[derive(Debug, Clone, Copy)]
struct Count {
    people: u64,
    /// What is said of it, where it is shown.
    said: u64,
    shown: bool,
    /// Whether it may still be hidden; what was decided elsewhere stays as it is.
    open: bool,
}

/// Counts, and which of them add up to which.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    counts: Vec<Count>,
    sums: Vec<(usize, Vec<usize>)>,
}

impl Counts {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more count, with the draw of its people ([`rounded`]); its place is returned.
    pub fn add(&mut self, people: u64, draw: u64) -> usize {
        self.push(people, draw, people >= LEAST, true)
    }

    /// One that is shown or hidden already, and stays so.
    pub fn add_decided(&mut self, people: u64, draw: u64, shown: bool) -> usize {
        self.push(people, draw, shown, false)
    }

    fn push(&mut self, people: u64, draw: u64, shown: bool, open: bool) -> usize {
        self.counts.push(Count { people, said: rounded(people, draw), shown, open });
        self.counts.len() - 1
    }

    /// That these counts make up the whole.
    pub fn sum(&mut self, whole: usize, parts: Vec<usize>) {
        self.sums.push((whole, parts));
    }

    /// Hides a count whatever it is.
    pub fn hide(&mut self, place: usize) {
        if let Some(count) = self.counts.get_mut(place) {
            count.shown = false;
        }
    }

    /// What may be said of a count; none where it is hidden.
    pub fn said(&self, place: usize) -> Option<u64> {
        self.counts.get(place).filter(|count| count.shown).map(|count| count.said)
    }

    /// Hides as many more as are needed, until no hidden count under ten can be told.
    pub fn protect(&mut self) {
        let small = |(_, count): &(usize, &Count)| !count.shown && count.people < LEAST;
        let small: Vec<usize> = self.counts.iter().enumerate().filter(small).map(|(place, _)| place).collect();
        // Hiding one more only ever leaves more possible, so what is protected stays so.
        for place in small {
            // Where nothing more can be hidden there is nothing to work out.
            while let Some(next) = self.complement(place) {
                if self.is_uncertain(place) {
                    break;
                }
                self.hide(next);
            }
        }
    }

    /// The smallest count that shares a sum with this one and may still be hidden; else the smallest of all.
    fn complement(&self, place: usize) -> Option<usize> {
        let near = |at: usize| {
            self.sums.iter().any(|(whole, parts)| {
                let has = |at: usize| *whole == at || parts.contains(&at);
                has(place) && has(at)
            })
        };
        let may = self.counts.iter().enumerate().filter(|(_, count)| count.shown && count.open);
        may.min_by_key(|(at, count)| (!near(*at), count.people, *at)).map(|(at, _)| at)
    }

    /// Whether a reader of all that is shown must think both none and ten possible here.
    pub fn is_uncertain(&self, place: usize) -> bool {
        let least = self.bound(place, OptimizationDirection::Minimize);
        let most = self.bound(place, OptimizationDirection::Maximize);
        least == Some(0) && most.is_some_and(|most| most >= LEAST)
    }

    /// The least or the most that a count can be as far as a reader can tell. None where that is not found for certain,
    /// which is taken as if it could be told.
    fn bound(&self, place: usize, direction: OptimizationDirection) -> Option<u64> {
        let most = self.counts.iter().map(|count| count.people).max().unwrap_or_default().saturating_add(2 * LEAST);
        let bounded = |count: u64| i32::try_from(count).unwrap_or(i32::MAX);
        let mut problem = Problem::new(direction);
        let variable = |(at, count): (usize, &Count)| -> Variable {
            let goal = if at == place { 1.0 } else { 0.0 };
            let (least, most) = match count.shown {
                true => (count.said.saturating_sub(ROUNDED_TO - 1).max(LEAST), count.said + ROUNDED_TO - 1),
                false => (0, most),
            };
            problem.add_integer_var(goal, (bounded(least), bounded(most)))
        };
        let variables: Vec<Variable> = self.counts.iter().enumerate().map(variable).collect();
        for (whole, parts) in &self.sums {
            let parts = parts.iter().map(|part| (*part, 1.0));
            let terms = std::iter::once((*whole, -1.0)).chain(parts);
            let terms: Vec<(Variable, f64)> =
                terms.filter_map(|(at, sign)| Some((*variables.get(at)?, sign))).collect();
            problem.add_constraint(terms.as_slice(), ComparisonOp::Eq, 0.0);
        }
        let outcome = problem.solve().ok().filter(microlp::SolveOutcome::is_optimal)?;
        let found = outcome.solution()?.objective().round();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the bounds of the variables"
        )]
        Some(found.max(0.0) as u64)
    }
}

/// A count as it is said: a multiple of ten, up or down by its draw, so that it is right in the mean. The draw is the same
/// for the same people and another for others: looking twice tells nothing, and one person more or less changes what is
/// said no more than by chance.
pub fn rounded(people: u64, draw: u64) -> u64 {
    let over = people % ROUNDED_TO;
    let down = people - over;
    if draw % ROUNDED_TO < over { down + ROUNDED_TO } else { down }
}

#[cfg(test)]
mod tests;
