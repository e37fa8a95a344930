//! Two samples compared: the rank test of Mann and Whitney, and the t of dudect (Reparaz, Balasch, Verbauwhede) with cropping.

/// The normal deviate of the rank-sum test, ties shared and corrected: positive where `a` tends to be larger. Beyond 3.29
/// either way a difference is significant at 0.001.
pub fn rank_z(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = a.iter().map(|x| (*x, true)).chain(b.iter().map(|x| (*x, false))).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut sum, mut ties, mut i) = (0.0, 0.0, 0);
    while i < all.len() {
        let same = all[i..].iter().take_while(|x| x.0 == all[i].0).count();
        // Ranks count from 1; those that tie get their mean.
        let rank = (2 * i + same + 1) as f64 / 2.0;
        sum += rank * all[i..i + same].iter().filter(|x| x.1).count() as f64;
        ties += (same as f64).powi(3) - same as f64;
        i += same;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let whole = n + m;
    let u = sum - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * (whole + 1.0 - ties / (whole * (whole - 1.0)));
    if variance <= 0.0 { 0.0 } else { (u - n * m / 2.0) / variance.sqrt() }
}

/// Welch's t.
pub fn welch_t(a: &[f64], b: &[f64]) -> f64 {
    let of = |x: &[f64]| {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        (mean, x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
    };
    let ((mean_a, error_a), (mean_b, error_b)) = (of(a), of(b));
    let error = (error_a + error_b).sqrt();
    if error > 0.0 { (mean_a - mean_b) / error } else { 0.0 }
}

/// The largest t, by amount, over the whole and over the samples below several quantiles of both together: a difference in
/// the bulk is not to drown in a long tail. dudect's bound for "probably different" is 10, its first warning 4.5.
pub fn dudect_t(a: &[f64], b: &[f64]) -> f64 {
    let mut all = [a, b].concat();
    all.sort_by(f64::total_cmp);
    let mut worst = welch_t(a, b);
    for percent in [50, 75, 90, 95, 99] {
        let limit = all[(all.len() - 1) * percent / 100];
        let below = |x: &[f64]| x.iter().copied().filter(|v| *v <= limit).collect::<Vec<_>>();
        let (a, b) = (below(a), below(b));
        // Fewer say nothing.
        if a.len() > 20 && b.len() > 20 {
            let t = welch_t(&a, &b);
            if t.abs() > worst.abs() {
                worst = t;
            }
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-4, "{a} is not {b}");
    }

    #[test]
    fn the_rank_test_gives_known_values() {
        // U = 0 of 25: (0 - 12.5) / sqrt(25 * 11 / 12).
        close(rank_z(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]), -2.611_165);
        close(rank_z(&[1.0, 4.0], &[2.0, 3.0]), 0.0);
        // By hand: ranks 1, 2.5, 2.5, 4; U = 0.5; variance 4/12 * (5 - 6/12) = 1.5.
        close(rank_z(&[1.0, 2.0], &[2.0, 3.0]), -1.5 / 1.5_f64.sqrt());
        close(rank_z(&[5.0; 4], &[5.0; 4]), 0.0);
    }

    #[test]
    fn t_gives_known_values() {
        // Means 2 and 4, variances 1 and 4, three each: -2 / sqrt(5/3).
        close(welch_t(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]), -1.549_193);
        close(welch_t(&[1.0; 3], &[1.0; 3]), 0.0);
    }

    /// A tenth of a millisecond on times that are spread over one, as a timer of one millisecond spreads them.
    #[test]
    fn a_hundred_microseconds_show_in_two_thousand_pairs_and_chance_does_not() {
        let mut state = 7u64;
        let mut draw = |more: f64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            50.0 + (state >> 11) as f64 / (1u64 << 53) as f64 + more
        };
        let same: Vec<f64> = (0..2_000).map(|_| draw(0.0)).collect();
        let other: Vec<f64> = (0..2_000).map(|_| draw(0.0)).collect();
        let slow: Vec<f64> = (0..2_000).map(|_| draw(0.1)).collect();
        assert!(rank_z(&same, &other).abs() < 3.29 && dudect_t(&same, &other).abs() < 4.5);
        assert!(rank_z(&slow, &same) > 8.0 && dudect_t(&slow, &same) > 8.0);
    }
}
