//! A trial as a drawing: grades before and after as bars, in one ink, with both languages on it.

use super::{Impact, Part};

/// As wide as a phone, where it is read at its own size.
const WIDTH: u64 = 400;
const LEFT: u64 = 160;
const ROW: u64 = 26;

/// The drawing as a document of its own.
pub fn svg(impact: &Impact) -> String {
    let most = impact.grades_before.iter().chain(&impact.grades_after).filter_map(|part| part.people).max();
    let most = most.unwrap_or_default().max(1);
    let mut body = String::new();
    let mut y = 24;
    let text = |body: &mut String, x: u64, y: u64, anchor: &str, said: &str| {
        body.push_str(&format!(r#"<text x="{x}" y="{y}" text-anchor="{anchor}">{}</text>"#, escaped(said)));
    };
    for (title, parts) in [("现行 / now", &impact.grades_before), ("试算 / tried", &impact.grades_after)] {
        text(&mut body, 0, y, "start", title);
        y += ROW;
        for Part { name, people, .. } in parts {
            text(&mut body, LEFT - 8, y, "end", &format!("{} {}", name.zh, name.en));
            match people {
                Some(people) => {
                    let width = (people.saturating_mul(WIDTH - LEFT - 70) / most).max(1);
                    body.push_str(&format!(
                        r#"<rect x="{LEFT}" y="{}" width="{width}" height="14" fill="currentColor"/>"#,
                        y - 12
                    ));
                    text(&mut body, LEFT + width + 8, y, "start", &people.to_string());
                }
                None => text(&mut body, LEFT, y, "start", "不显示 / not shown"),
            }
            y += ROW;
        }
        y += 8;
    }
    let said = |count: Option<u64>| count.map_or_else(|| "·".to_owned(), |count| count.to_string());
    let ways = format!(
        "升 up {} · 不变 same {} · 降 down {}",
        said(impact.ways.up),
        said(impact.ways.same),
        said(impact.ways.down)
    );
    text(&mut body, 0, y, "start", &ways);
    y += ROW;
    text(&mut body, 0, y, "start", &format!("{} → {} · {}", short(&impact.before), short(&impact.after), impact.on));
    let height = y + 12;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="560" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif" font-size="14" fill="currentColor"><title>{}</title>{body}</svg>"#,
        escaped(&format!("{} → {}", short(&impact.before), short(&impact.after)))
    )
}

/// A model's id without its digest.
fn short(model: &str) -> &str {
    model.split('#').next().unwrap_or(model)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
