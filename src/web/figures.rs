//! The geometry of the pages' drawings, in whole units: templates put it into SVG.
//!
//! No drawing says by colour what somebody is worth: all is the same ink.

use fast_qr::QRBuilder;

/// A tick of the half dial: from the middle of the base, radius 100.
pub(super) struct Tick {
    pub(super) cut: u16,
    pub(super) x1: i32,
    pub(super) y1: i32,
    pub(super) x2: i32,
    pub(super) y2: i32,
    pub(super) label_x: i32,
    pub(super) label_y: i32,
    pub(super) anchor: &'static str,
}

/// Where the city's cuts stand on a half dial from 0 to 1,000 around (120, 120).
pub(super) fn ticks(cuts: &[u16]) -> Vec<Tick> {
    let tick = |cut: &u16| {
        let angle = std::f64::consts::PI * f64::from((*cut).min(1_000)) / 1_000.0;
        let at = |radius: f64| (rounded(120.0 - radius * angle.cos()), rounded(120.0 - radius * angle.sin()));
        let ((x1, y1), (x2, y2), (label_x, label_y)) = (at(90.0), at(108.0), at(113.0));
        let anchor = match *cut {
            0..=450 => "end",
            451..=549 => "middle",
            _ => "start",
        };
        Tick { cut: *cut, x1, y1, x2, y2, label_x, label_y, anchor }
    };
    cuts.iter().map(tick).collect()
}

#[allow(clippy::cast_possible_truncation, reason = "within the drawing's 240 units")]
fn rounded(value: f64) -> i32 {
    value.round() as i32
}

/// A bar from the middle (100 of 200), right for a gain and left for a loss.
pub(super) struct Bar {
    pub(super) x: i64,
    pub(super) width: i64,
    /// Where what it may at most add or take ends.
    pub(super) from: i64,
    pub(super) span: i64,
}

/// The bar of a part of the score; `most` is the largest limit of all parts, so that bars compare.
pub(super) fn bar(counted: i64, max_gain: i64, max_loss: i64, most: i64) -> Bar {
    let scaled = |points: i64| points.saturating_mul(100).checked_div(most.max(1)).unwrap_or(0).clamp(0, 100);
    let mut width = scaled(counted.abs() / 100);
    if counted != 0 {
        width = width.max(1);
    }
    let x = if counted < 0 { 100 - width } else { 100 };
    Bar { x, width, from: 100 - scaled(max_loss), span: scaled(max_loss) + scaled(max_gain) }
}

/// One column of a chart.
pub(super) struct Column {
    pub(super) x: usize,
    pub(super) y: u64,
    pub(super) height: u64,
    pub(super) said: String,
}

/// Columns of 12 units with 4 between them, 80 high at most.
pub(super) fn columns(counts: Vec<(String, u64)>) -> Vec<Column> {
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let column = |(place, (said, count)): (usize, (String, u64))| {
        let height = (count.saturating_mul(80) / most).max(u64::from(count > 0));
        Column { x: place * 16, y: 80 - height.min(80), height, said }
    };
    counts.into_iter().enumerate().map(column).collect()
}

/// A QR code as one path over `side` by `side` units, its quiet margin of four included.
pub(super) struct Qr {
    pub(super) side: usize,
    pub(super) path: String,
}

pub(super) fn qr(text: &str) -> Option<Qr> {
    let code = QRBuilder::new(text).build().ok()?;
    let mut path = String::new();
    for (row, modules) in code.data.chunks(code.size).take(code.size).enumerate() {
        let mut column = 0;
        for run in modules.chunk_by(|a, b| a.value() == b.value()) {
            if run.first().is_some_and(|module| module.value()) {
                path.push_str(&format!("M{} {}h{}v1h-{}z", column + 4, row + 4, run.len(), run.len()));
            }
            column += run.len();
        }
    }
    Some(Qr { side: code.size + 8, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_go_right_for_gains_and_left_for_losses() {
        let (gain, loss, none) = (bar(5_000, 100, 200, 200), bar(-5_000, 100, 200, 200), bar(0, 100, 200, 200));
        assert_eq!((gain.x, gain.width), (100, 25));
        assert_eq!((loss.x, loss.width), (75, 25));
        assert_eq!(none.width, 0);
        assert_eq!((gain.from, gain.span), (0, 150));
        assert_eq!(bar(1, 100, 0, 100).width, 1, "a small gain is still seen");
    }

    #[test]
    fn a_code_becomes_a_path() {
        let qr = qr("7K3M-9QXA-0B2C").unwrap();
        assert!(qr.side >= 29);
        assert!(qr.path.starts_with("M4 4h7v1h-7z"), "the first finder pattern's edge: {}", &qr.path[..20]);
        assert!(qr.path.chars().all(|c| c.is_ascii_digit() || "Mhvz -".contains(c)));
    }

    #[test]
    fn columns_fill_the_height() {
        let columns = columns(vec![("a".into(), 0), ("b".into(), 1), ("c".into(), 1_000)]);
        assert_eq!(columns.iter().map(|c| c.height).collect::<Vec<_>>(), [0, 1, 80]);
        assert!(super::columns(Vec::new()).is_empty());
    }
}
