//! What people read in policies, in both languages of the city.

/// A text in Chinese and in English; both are written, neither is ever empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bilingual {
    /// Chinese.
    pub zh: String,
    /// English.
    pub en: String,
}

impl Bilingual {
    /// Stands for a text that could not be read, so that the other mistakes of its file are still told; what holds one
    /// never loads.
    pub(crate) fn unread() -> Self {
        Self { zh: String::new(), en: String::new() }
    }
}

/// Characters that turn the reading direction around.
pub fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}' | '\u{061C}')
}

/// A letter or digit as it is compared: full-width forms become ASCII, and case is folded.
fn folded(c: char) -> impl Iterator<Item = char> {
    let plain = match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        other => other,
    };
    plain.to_lowercase()
}

/// The words of a text as they are compared, so that `Blood_Type`, `bloodType`, `ＢＬＯＯＤ－ＴＹＰＥ` and
/// `blood type` are the same two. Anything that is no letter or digit only separates words.
pub fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut after_small) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if !word.is_empty() && (c.is_uppercase() && after_small) {
            words.push(std::mem::take(&mut word));
        }
        after_small = c.is_lowercase() || c.is_numeric();
        for f in folded(c) {
            if f.is_alphanumeric() {
                word.push(f);
            } else if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// How many letters must be added, dropped or changed to turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (cb, above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(ca != *cb)).min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// The one of `known` that somebody who wrote `word` most likely meant, if any is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = (word.chars().count() / 3).clamp(1, 4);
    known.into_iter().map(|k| (distance(word, k), k)).filter(|(d, _)| *d <= far).min().map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_same_words_are_equal() {
        for text in ["blood type", "Blood_Type", "bloodType", "BLOOD-TYPE", "ｂｌｏｏｄ　ｔｙｐｅ", " blood--type "]
        {
            assert_eq!(words(text), ["blood", "type"], "{text}");
        }
        assert_eq!(words("血型 信息"), ["血型", "信息"]);
        assert_eq!(words("--"), Vec::<String>::new());
    }

    #[test]
    fn the_nearest_word_is_offered_and_a_far_one_is_not() {
        let known = ["points", "per", "weight_by_year", "cap"];
        assert_eq!(nearest("point", known), Some("points"));
        assert_eq!(nearest("wieght_by_year", known), Some("weight_by_year"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
