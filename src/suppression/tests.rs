//! Counts that may and may not stand together.

use super::*;

/// A total with parts; a draw of 0 rounds everything up that is over a ten.
fn line(parts: &[u64]) -> (Counts, Vec<usize>) {
    let mut counts = Counts::new();
    let total = counts.add_decided(parts.iter().sum(), 9, true);
    let places: Vec<usize> = parts.iter().map(|part| counts.add(*part, 9)).collect();
    counts.sum(total, places.clone());
    counts.protect();
    (counts, places)
}

fn said(parts: &[u64]) -> Vec<Option<u64>> {
    let (counts, places) = line(parts);
    places.iter().map(|place| counts.said(*place)).collect()
}

#[test]
fn a_count_under_ten_is_hidden_and_others_are_tens() {
    assert_eq!(said(&[100, 200, 10]), [Some(100), Some(200), Some(10)]);
    assert_eq!(said(&[9, 9, 0]), [None, None, None]);
    assert_eq!(said(&[5, 5, 300, 400]), [None, None, Some(300), Some(400)]);
}

#[test]
fn what_could_be_had_by_subtraction_is_hidden_with_the_smallest_other() {
    // Twelve, said as 10, are 19 at most; ten of them shown would leave nine at most.
    assert_eq!(said(&[10, 2]), [None, None]);
    assert_eq!(said(&[2, 10]), [None, None]);
    // Of forty-two nobody can tell: 49 at most, less 10 and 21 at least.
    assert_eq!(said(&[10, 30, 2]), [Some(10), Some(30), None]);
    // Two sums at once: the second leaves nothing open that the first did.
    let mut counts = Counts::new();
    let (all, other) = (counts.add_decided(42, 9, true), counts.add(10, 9));
    let parts = [counts.add(10, 9), counts.add(30, 9), counts.add(2, 9)];
    counts.sum(all, parts.to_vec());
    counts.sum(other, vec![parts[2]]);
    assert!(!counts.is_uncertain(parts[2]), "as many as the other, which is shown as ten or more");
    counts.protect();
    assert_eq!((counts.said(other), counts.said(parts[0])), (None, Some(10)));
}

#[test]
fn more_is_hidden_until_none_and_ten_are_both_possible() {
    // 19 in all, said as 10: at most 19. Three parts, of which two are shown, would leave at most nothing for the third.
    let mut counts = Counts::new();
    let total = counts.add_decided(25, 9, true);
    let parts = [counts.add(10, 9), counts.add(10, 9), counts.add(5, 9)];
    counts.sum(total, parts.to_vec());
    assert_eq!((counts.said(total), counts.said(parts[0])), (Some(20), Some(10)));
    assert!(!counts.is_uncertain(parts[2]), "20 is 29 at most, and two tens are shown: at most nine are left");
    counts.protect();
    assert_eq!(parts.map(|part| counts.said(part)), [None, Some(10), None]);
    assert!(counts.is_uncertain(parts[2]));
}

#[test]
fn a_decided_count_stays_as_it_is() {
    let mut counts = Counts::new();
    let total = counts.add_decided(25, 9, true);
    let parts = [counts.add_decided(10, 9, true), counts.add_decided(10, 9, true), counts.add(5, 9)];
    counts.sum(total, parts.to_vec());
    counts.protect();
    assert_eq!(parts.map(|part| counts.said(part)), [Some(10), Some(10), None]);
}

/// Rounding is right in the mean, and one person more or less moves it by chance alone.
#[test]
fn one_person_more_cannot_be_told_from_what_is_said() {
    use sha2::{Digest, Sha256};
    let draw = |id: u64| u64::from_be_bytes(Sha256::digest(id.to_be_bytes())[..8].try_into().unwrap());
    let (mut up, mut same, mut down, mut sum) = (0, 0, 0, 0);
    let (rounds, count) = (10_000, 25);
    for id in 0..rounds {
        let before = rounded(count, draw(id));
        let after = rounded(count + 1, draw(id + 1_000_000));
        sum += before;
        match after.cmp(&before) {
            std::cmp::Ordering::Greater => up += 1,
            std::cmp::Ordering::Equal => same += 1,
            std::cmp::Ordering::Less => down += 1,
        }
    }
    assert!((24.5..25.5).contains(&(sum as f64 / rounds as f64)), "right in the mean");
    assert!(down > 1_500 && same > 4_000 && up < 3_500, "{up} up, {same} the same, {down} down");
    assert!((0..100).all(|count| rounded(count, 7).abs_diff(count) < ROUNDED_TO));
    assert!((0..10).all(|tens| (0..10).all(|draw| rounded(tens * 10, draw) == tens * 10)));
}
