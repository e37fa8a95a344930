//! The policies that ship, made a deployment's own: each party's proofs, and the demo's limits.
//!
//! The files are changed line by line, so that their comments stay for whoever reads them. What comes out is read
//! by the policy reader before it is used, which is the check that the lines were understood.

use std::collections::BTreeMap;

/// How a party proves that it is who it says.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    /// SHA-256 of its certificate's DER, in hex.
    pub(super) fingerprint: String,
    /// The id of its shared key.
    pub(super) key_id: String,
}

/// `parties.toml` with the proofs of each party that has some.
pub(super) fn with_proofs(text: &str, proofs: &BTreeMap<String, Proof>) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut party: Vec<&str> = Vec::new();
    for line in text.lines() {
        if line.trim() == "[[party]]" {
            close(&mut out, &mut party, proofs);
        }
        party.push(line);
    }
    close(&mut out, &mut party, proofs);
    let mut text = out.join("\n");
    text.push('\n');
    text
}

/// Moves the lines of one party to `out`, with its certificate after its id and its key at its end.
fn close(out: &mut Vec<String>, party: &mut Vec<&str>, proofs: &BTreeMap<String, Proof>) {
    let id = party.iter().find_map(|line| value(line, "id")).unwrap_or_default();
    let Some(proof) =
        proofs.get(id.trim_matches('"')).filter(|_| party.first().is_some_and(|l| l.trim() == "[[party]]"))
    else {
        out.extend(party.drain(..).map(str::to_owned));
        return;
    };
    // Comments and blank lines at the end belong to the next party.
    let own = party
        .iter()
        .rposition(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map_or(0, |at| at + 1);
    let mut id_said = false;
    for line in party.drain(..own) {
        if value(line, "certificates").is_some() {
            continue;
        }
        out.push(line.to_owned());
        if !id_said && value(line, "id").is_some() {
            id_said = true;
            out.push(format!("certificates = [\"sha256:{}\"]", proof.fingerprint));
        }
    }
    out.push("[[party.key]]".to_owned());
    out.push(format!("id = \"{0}\"\nalg = \"hmac-sha256\"\nfile = \"{0}.hmac\"", proof.key_id));
    out.extend(party.drain(..).map(str::to_owned));
}

/// `city.toml` with limits under which a demonstration is not slowed down: 200 calls a second by one party, from one address.
pub(super) fn with_demo_limits(text: &str) -> String {
    let at_least = [("calls_per_second", 400), ("calls_burst", 800), ("refused_per_second", 400)];
    let line = |line: &str| {
        let low = at_least.iter().find_map(|(key, least)| {
            let now: u32 = value(line, key)?.parse().ok()?;
            (now < *least).then(|| format!("{key} = {least}"))
        });
        low.unwrap_or_else(|| line.to_owned())
    };
    let mut text = text.lines().map(line).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

/// What a line says for `key`, if it says it.
fn value<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let (name, value) = line.split_once('=')?;
    (name.trim() == key).then(|| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_stand_with_their_party_and_comments_stay() {
        let text = "# all of them\n\n[[party]]\nid = \"a\"\nname = 1\n\n# the second\n[[party]]\nid = \"b\"\ncertificates = []\nname = 2\n";
        let proof = |n: &str| Proof { fingerprint: n.repeat(64), key_id: format!("{n}-1") };
        let proofs = [("a".to_owned(), proof("a")), ("b".to_owned(), proof("b"))].into();
        let out = with_proofs(text, &proofs);
        let read: toml::Table = out.parse().unwrap();
        for (at, id) in ["a", "b"].iter().enumerate() {
            let party = &read["party"][at];
            assert_eq!(party["id"].as_str(), Some(*id));
            assert_eq!(party["certificates"][0].as_str().unwrap(), format!("sha256:{}", id.repeat(64)));
            assert_eq!(party["key"][0]["id"].as_str().unwrap(), format!("{id}-1"));
        }
        assert!(
            out.starts_with("# all of them\n\n[[party]]\n") && out.contains("\n\n# the second\n[[party]]\n"),
            "{out}"
        );
    }

    #[test]
    fn low_limits_are_raised_and_high_ones_stay() {
        let out = with_demo_limits("# x\ncalls_per_second = 5\ncalls_burst = 9000\nother = 5\n");
        assert_eq!(out, "# x\ncalls_per_second = 400\ncalls_burst = 9000\nother = 5\n");
    }
}
