//! Tables: one for each code, the fixed order of mistakes, and lines of any bytes.

use jiff::civil::date;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::policy::{Mistakes, Source as PolicySource};

const TODAY: Date = date(2026, 11, 24);

const CATALOGUE: &str = r#"
[[indicator]]
code = "judgment"
category = "judicial"
providers = ["yx-court"]
[[indicator]]
code = "hours"
category = "social-activity"
providers = ["yx-civil-affairs", "yx-court"]
unit = "hour"
[[indicator]]
code = "deposit"
category = "market"
providers = ["yx-court", "yx-bike"]
"#;

const PROHIBITED: &str = r#"
[[item]]
code = "blood-type"
name = { zh = "血型", en = "Blood type" }
legal_basis = "x"
"#;

struct City {
    catalogue: Catalogue,
    prohibited: Prohibited,
    caller: PartyId,
}

impl City {
    fn new() -> Self {
        let mut mistakes = Mistakes::default();
        Self {
            catalogue: Catalogue::parse(&PolicySource::new("catalogue.toml", CATALOGUE), None, &mut mistakes).unwrap(),
            prohibited: Prohibited::parse(&PolicySource::new("prohibited.toml", PROHIBITED), &mut mistakes).unwrap(),
            caller: PartyId::parse("yx-court").unwrap(),
        }
    }

    fn party(&self) -> RecordRules<'_> {
        RecordRules {
            catalogue: &self.catalogue,
            prohibited: &self.prohibited,
            today: TODAY,
            source: Source::Party(&self.caller),
        }
    }

    fn file(&self) -> RecordRules<'_> {
        RecordRules { source: Source::File, ..self.party() }
    }

    fn report(&self, line: impl AsRef<[u8]>) -> String {
        code(record(line.as_ref(), &self.party()))
    }

    fn read_file(&self, line: impl AsRef<[u8]>) -> String {
        code(record(line.as_ref(), &self.file()))
    }

    fn register(&self, line: impl AsRef<[u8]>) -> String {
        code(person(line.as_ref(), TODAY, &self.prohibited))
    }
}

/// `ok`, or the code; on the way every message is held to what messages must be.
fn code<T>(result: Result<T, LineError>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(LineError { code, message }) => {
            for personal in ["19900101", "530499", "王", "secret", "UTO1234567"] {
                assert!(!message.contains(personal), "{code}: {message}");
            }
            assert!(!message.is_empty() && !message.contains('\n'));
            code.to_string()
        }
    }
}

fn line() -> Value {
    json!({"id": "C-1", "provider": "yx-court", "indicator": "judgment",
        "person": {"id_number": "530499199001010015", "name": "王芳"}, "occurred_on": "2025-03-01"})
}

/// The line with some members changed; null takes one out, a path `person.name` goes inside.
fn with(changes: Value) -> String {
    changed(line(), changes)
}

fn changed(mut line: Value, changes: Value) -> String {
    for (path, value) in changes.as_object().unwrap() {
        let (object, key) = match path.split_once('.') {
            Some((outer, inner)) => (line[outer].as_object_mut().unwrap(), inner),
            None => (line.as_object_mut().unwrap(), path.as_str()),
        };
        if value.is_null() {
            object.remove(key)
        } else {
            object.insert(key.into(), value.clone())
        };
    }
    line.to_string()
}

fn somebody(changes: Value) -> String {
    let line = json!({"id_number": "530499199001010015", "name": "王芳", "resident": true, "full_capacity": true});
    changed(line, changes)
}

#[test]
fn each_mistake_of_a_record_has_its_code() {
    let city = City::new();
    let long = "长".repeat(DETAIL_CHARS_MAX + 1);
    for (changes, expected) in [
        (json!({}), "ok"),
        (json!({"id": "c".repeat(64)}), "ok"),
        (json!({"id": "长".repeat(64)}), "ok"),
        (json!({"id": "长".repeat(65)}), "too-large"),
        (json!({"id": ""}), "malformed"),
        (json!({"id": " C"}), "malformed"),
        (json!({"id": "C\u{0}"}), "malformed"),
        (json!({"id": 7}), "malformed"),
        (json!({"id": null}), "missing-field"),
        (json!({"person": null}), "missing-field"),
        (json!({"person.name": null}), "missing-field"),
        (json!({"person": ["secret"]}), "malformed"),
        (json!({"colour": "secret"}), "unknown-field"),
        (json!({"person.born_on": "1990-01-01"}), "unknown-field"),
        (json!({"530499199001010015": 1}), "unknown-field"),
        (json!({"withdrawn": true}), "unknown-field"),
        (json!({"frozen": true}), "unknown-field"),
        (json!({"repair": {"on": "2026-01-01", "effect": "exclude"}}), "unknown-field"),
        (json!({"person.id_number": "530499199001010016"}), "wrong-check-digit"),
        (json!({"person.id_number": "530499209912310015"}), "impossible-date"),
        (json!({"person.id_number": "XYZ530490010101"}), "malformed"),
        (json!({"person.id_number": 530499199001010015u64}), "malformed"),
        (json!({"person.id_type": "licence"}), "malformed"),
        (json!({"person.id_type": "passport"}), "malformed"),
        (json!({"person.id_type": "passport", "person.id_number": "UTO1234567"}), "ok"),
        (json!({"person.name": "王\u{0}芳"}), "malformed"),
        (json!({"person.name": "王\u{202E}芳"}), "malformed"),
        (json!({"person.name": "名".repeat(100)}), "ok"),
        (json!({"person.name": "王".repeat(101)}), "too-large"),
        (json!({"occurred_on": "2025-02-29"}), "impossible-date"),
        (json!({"occurred_on": "0000-01-01"}), "impossible-date"),
        (json!({"occurred_on": "2026-11-24"}), "ok"),
        (json!({"occurred_on": "2026-11-25"}), "impossible-date"),
        (json!({"occurred_on": "2025/3/1"}), "malformed"),
        (json!({"occurred_on": "2025-03-01T00:00:00Z"}), "malformed"),
        (json!({"occurred_on": "２０２５-03-01"}), "malformed"),
        (json!({"occurred_on": 20250301}), "malformed"),
        (json!({"valid_until": "2025-03-02"}), "ok"),
        (json!({"valid_until": "2025-03-01"}), "impossible-date"),
        (json!({"indicator": "nothing"}), "unknown-indicator"),
        (json!({"indicator": "No Code"}), "unknown-indicator"),
        (json!({"indicator": "blood-type"}), "prohibited-item"),
        (json!({"blood-type": "A"}), "prohibited-item"),
        (json!({"person.blood-type": "A"}), "prohibited-item"),
        (json!({"extra": [{"blood-type": "A"}]}), "prohibited-item"),
        (json!({"provider": "yx-bike", "indicator": "deposit"}), "provider-not-allowed"),
        (json!({"provider": "Not A Code"}), "provider-not-allowed"),
        (json!({"indicator": "deposit"}), "consent-required"),
        (json!({"indicator": "deposit", "consent_ref": " "}), "consent-required"),
        (json!({"indicator": "deposit", "consent_ref": "paper-1"}), "ok"),
        (json!({"quantity": 1}), "quantity-not-allowed"),
        (json!({"indicator": "hours"}), "quantity-required"),
        (json!({"detail": &long[3..]}), "ok"),
        (json!({"detail": long}), "too-large"),
        (json!({"detail": "a\nb {{7*7}}"}), "ok"),
        (json!({"detail": "a\u{202E}b"}), "malformed"),
        (json!({"detail": {"a": 1}}), "malformed"),
    ] {
        assert_eq!(city.report(with(changes.clone())), expected, "{changes}");
    }
}

#[test]
fn null_is_a_wrong_type() {
    let city = City::new();
    for field in ["id", "person", "valid_until", "quantity", "detail"] {
        let mut value = line();
        value[field] = Value::Null;
        assert_eq!(city.report(value.to_string()), "malformed", "{field}");
    }
}

#[test]
fn quantities() {
    let city = City::new();
    for (quantity, expected) in [
        ("1", "ok"),
        ("1000000", "ok"),
        ("1000001", "too-large"),
        ("9223372036854775807", "too-large"),
        ("18446744073709551616", "too-large"),
        ("-1", "malformed"),
        ("-9223372036854775808", "malformed"),
        ("0", "malformed"),
        ("-0", "malformed"),
        ("1.0", "malformed"),
        ("1e3", "malformed"),
        ("0.5", "malformed"),
        ("1e999", "malformed"),
        ("\"3\"", "malformed"),
        ("true", "malformed"),
    ] {
        let text = with(json!({"indicator": "hours", "quantity": 77})).replace("77", quantity);
        assert_eq!(city.report(&text), expected, "{quantity}");
    }
}

#[test]
fn the_form_of_a_line() {
    let city = City::new();
    let good = with(json!({}));
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let padded = |bytes: usize| format!("{good}{}", " ".repeat(bytes - good.len()));
    for (text, expected) in [
        (good.as_bytes().to_vec(), "ok"),
        (format!(" {good}\r").into_bytes(), "ok"),
        (b"".to_vec(), "malformed"),
        (b"  \r".to_vec(), "malformed"),
        (b"{".to_vec(), "malformed"),
        (b"[]".to_vec(), "malformed"),
        (b"\"secret\"".to_vec(), "malformed"),
        (format!("{good}{good}").into_bytes(), "malformed"),
        (good.replace('"', "'").into_bytes(), "malformed"),
        (good.replacen("C-1", "\\ud800", 1).into_bytes(), "malformed"),
        (deep.into_bytes(), "malformed"),
        (good.replacen('{', "{\"id\":\"C-2\",", 1).into_bytes(), "malformed"),
        (good.replacen("\"name\"", "\"name\":\"secret\",\"name\"", 1).into_bytes(), "malformed"),
        (good.replacen('{', "{\"x\":{\"y\":1,\"y\":2},", 1).into_bytes(), "malformed"),
        (good.replacen('{', "{\"\\u0069d\":\"C-2\",", 1).into_bytes(), "malformed"),
        (padded(LINE_BYTES_MAX).into_bytes(), "ok"),
        (vec![b' '; LINE_BYTES_MAX + 1], "too-large"),
    ] {
        assert_eq!(city.report(&text), expected, "{}", String::from_utf8_lossy(&text[..text.len().min(300)]));
    }
    let mut bytes = good.into_bytes();
    let at = bytes.windows(3).position(|w| w == "芳".as_bytes()).unwrap();
    bytes.remove(at + 2);
    assert_eq!(city.report(bytes), "malformed");
}

#[test]
fn a_key_said_twice_and_an_unknown_field_are_named() {
    let city = City::new();
    let message = |text: String| record(text.as_bytes(), &city.party()).unwrap_err().message;
    assert!(message(with(json!({})).replacen('{', "{\"id\":\"C-2\",", 1)).contains("`id`"));
    assert!(message(with(json!({"person.colour": 1}))).contains("`colour` in `person`"));
}

/// One line with every mistake; each step mends the first, and the next one shows.
#[test]
fn the_first_mistake_in_the_fixed_order() {
    let city = City::new();
    let mut value = line();
    value["person"]["id_number"] = json!("530499199001010016");
    value["person"]["name"] = json!("");
    value["occurred_on"] = json!("2026-11-25");
    value["indicator"] = json!("nothing");
    value["provider"] = json!("yx-bike");
    value["quantity"] = json!(5);
    value["blood-type"] = json!("A");
    value["colour"] = json!("red");
    let mut mend = |field: &str, good: Value| {
        let before = city.report(value.to_string());
        let (object, key) = match field.split_once('.') {
            Some((outer, inner)) => (value[outer].as_object_mut().unwrap(), inner),
            None => (value.as_object_mut().unwrap(), field),
        };
        if good.is_null() {
            object.remove(key)
        } else {
            object.insert(key.into(), good)
        };
        before
    };
    assert_eq!(mend("blood-type", Value::Null), "prohibited-item");
    assert_eq!(mend("colour", Value::Null), "unknown-field");
    assert_eq!(mend("person.id_number", json!("530499199001010015")), "wrong-check-digit");
    assert_eq!(mend("person.name", json!("王芳")), "malformed");
    assert_eq!(mend("occurred_on", json!("2026-11-24")), "impossible-date");
    assert_eq!(mend("indicator", json!("judgment")), "unknown-indicator");
    assert_eq!(mend("provider", json!("yx-court")), "provider-not-allowed");
    assert_eq!(mend("quantity", Value::Null), "quantity-not-allowed");
    assert_eq!(city.report(value.to_string()), "ok");
}

#[test]
fn files_carry_what_happened_to_a_record() {
    let city = City::new();
    for (changes, expected) in [
        (json!({"provider": "yx-civil-affairs", "indicator": "hours", "quantity": 3}), "ok"),
        (json!({"provider": "yx-bike"}), "provider-not-allowed"),
        (json!({"occurred_on": "2029-01-01"}), "ok"),
        (json!({"withdrawn": true, "frozen": true}), "ok"),
        (json!({"withdrawn": "true"}), "malformed"),
        (json!({"repair": {"on": "2026-01-01", "effect": "exclude"}}), "ok"),
        (json!({"repair": {"on": "2027-01-01", "effect": "shorten", "until": "2026-01-01"}}), "ok"),
        (json!({"repair": {"on": "2026-01-01", "effect": "shorten"}}), "missing-field"),
        (json!({"repair": {"effect": "exclude"}}), "missing-field"),
        (json!({"repair": {"on": "2026-01-01", "effect": "exclude", "until": "2026-01-01"}}), "malformed"),
        (json!({"repair": {"on": "2026-01-01", "effect": "forget"}}), "malformed"),
        (json!({"repair": {"on": "2026-02-30", "effect": "exclude"}}), "impossible-date"),
        (json!({"repair": {"on": "2026-01-01", "effect": "exclude", "by": "secret"}}), "unknown-field"),
        (json!({"repair": true}), "malformed"),
    ] {
        assert_eq!(city.read_file(with(changes.clone())), expected, "{changes}");
    }
}

#[test]
fn each_mistake_of_a_register_line_has_its_code() {
    let city = City::new();
    let passport = |changes: Value| {
        let mut both = json!({"id_type": "passport", "id_number": "UTO1234567", "born_on": "1990-01-01"});
        both.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        both
    };
    for (changes, expected) in [
        (json!({}), "ok"),
        (json!({"born_on": "1990-01-01"}), "ok"),
        (json!({"born_on": "1990-01-02"}), "impossible-date"),
        (json!({"born_on": "1990-02-30"}), "impossible-date"),
        (json!({"born_on": ""}), "malformed"),
        (json!({"resident": null}), "missing-field"),
        (json!({"full_capacity": "是"}), "malformed"),
        (json!({"address": "secret"}), "unknown-field"),
        (json!({"血型": "A"}), "prohibited-item"),
        (json!({"id_number": "53049920000230001X"}), "impossible-date"),
        (json!({"id_number": "530499190002290011"}), "impossible-date"),
        (json!({"id_number": "530499202302290019"}), "impossible-date"),
        (json!({"id_number": "530499199013010012"}), "impossible-date"),
        (json!({"id_number": "530499119104200011"}), "impossible-date"),
        (json!({"id_number": "530499209912310015"}), "impossible-date"),
        (json!({"id_number": "530499660230001"}), "impossible-date"),
        (json!({"id_number": "53049919901015001X"}), "ok"),
        (json!({"id_number": "530499250101001"}), "ok"),
        (json!({"id_number": "530499250101001", "born_on": "1925-01-01"}), "ok"),
        (passport(json!({})), "ok"),
        (passport(json!({"born_on": null})), "missing-field"),
        (passport(json!({"born_on": "1899-12-31"})), "impossible-date"),
        (passport(json!({"born_on": "2026-11-24"})), "ok"),
        (passport(json!({"born_on": "2026-11-25"})), "impossible-date"),
        (passport(json!({"id_number": "uto1234567"})), "malformed"),
    ] {
        assert_eq!(city.register(somebody(changes.clone())), expected, "{changes}");
    }
}

#[test]
fn what_is_written_reads_back() {
    let city = City::new();
    for changes in [
        json!({}),
        json!({"indicator": "hours", "quantity": 9, "valid_until": "2026-01-01", "detail": "d", "consent_ref": "c"}),
        json!({"person.id_type": "passport", "person.id_number": "XUT12345", "withdrawn": true, "frozen": true}),
        json!({"repair": {"on": "2026-01-01", "effect": "exclude"}}),
        json!({"repair": {"on": "2027-01-01", "effect": "shorten", "until": "2026-01-01"}, "occurred_on": "2029-01-01"}),
    ] {
        let held = record(with(changes).as_bytes(), &city.file()).unwrap();
        let written = held.to_json().to_string();
        assert_eq!(record(written.as_bytes(), &city.file()).unwrap(), held);
        assert_eq!(stored_record(written.as_bytes()).unwrap(), held);
    }
    for changes in [json!({}), json!({"id_type": "passport", "id_number": "UTO1234567", "born_on": "1990-01-01"})] {
        let read = person(somebody(changes).as_bytes(), TODAY, &city.prohibited).unwrap();
        assert!(stored_person(read.to_json().to_string().as_bytes()).unwrap() == read);
    }
}

#[test]
fn codes_are_the_contracts() {
    let codes: Vec<_> = LineCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(
        codes.join(" "),
        "malformed unknown-field missing-field wrong-check-digit impossible-date unknown-indicator provider-not-allowed \
         consent-required quantity-required quantity-not-allowed prohibited-item too-large"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let city = City::new();
        prop_assert!(record(&bytes, &city.file()).is_err());
        prop_assert!(person(&bytes, TODAY, &city.prohibited).is_err());
    }

    #[test]
    fn a_bent_line_is_read_without_a_panic(at in 0usize..150, byte in any::<u8>(), cut in prop::bool::ANY) {
        let city = City::new();
        let mut bytes = with(json!({})).into_bytes();
        if cut { bytes.truncate(at) } else if let Some(b) = bytes.get_mut(at) { *b = byte }
        if let Ok(held) = record(&bytes, &city.file()) {
            prop_assert_eq!(stored_record(held.to_json().to_string().as_bytes()).unwrap(), held);
        }
    }
}
