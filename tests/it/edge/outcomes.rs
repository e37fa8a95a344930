//! INVARIANT (one withheld), in everything that an operator reads and a caller is sent beside the body: whatever the answer,
//! and whatever the reason, a call leaves the same lines in the log at its most talkative, with the same fields and values,
//! moves the same figures by as much, costs as many signatures, and gets a head of the same bytes.
//!
//! Only times, the numbers of calls and ports are taken out before the comparison; every other name and value counts, those
//! that nobody has thought of yet included. Over the API and at the counter, by token and by code; and for a person, who gives
//! a consent, declines in the form of one, or takes back either.

use std::collections::BTreeMap;

use jadegate::client::Client;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::canaries::admin_of;
use super::timing::{Prepared, call_of, prepared_for};
use crate::support::deployment::{LIBRARY, SCENARIO, consent, make_code, question, text, token};
use crate::support::nightly::figure;
use crate::support::process::Serving;
use crate::support::raw;

/// Calls of each kind.
const EACH: usize = 2;

/// Sends a call and reads its answer: the head's bytes without the date's value, and the body.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, call: &str) -> (String, Vec<u8>) {
    stream.write_all(call.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    let line = |line: &str| if line.starts_with("date: ") { "date: …".to_owned() } else { line.to_owned() };
    (head.split("\r\n").map(line).collect::<Vec<_>>().join("\r\n"), body)
}

/// A line of the log without what differs from call to call: when, how long, and under which number.
fn plain(line: &str) -> Value {
    let mut line: Map<String, Value> = serde_json::from_str(line).unwrap_or_else(|_| panic!("no line of JSON: {line}"));
    let taken = |fields: &mut Map<String, Value>, name: &str, of_kind: fn(&Value) -> bool| {
        if let Some(value) = fields.get_mut(name).filter(|value| of_kind(value)) {
            *value = json!("…");
        }
    };
    taken(&mut line, "timestamp", Value::is_string);
    if let Some(Value::Object(fields)) = line.get_mut("fields") {
        taken(fields, "ms", Value::is_u64);
        let numbered = |value: &Value| {
            let number = value.as_str().and_then(|text| text.split_once('-'));
            number.is_some_and(|(run, nth)| run.len() == 8 && nth.parse::<u64>().is_ok())
        };
        taken(fields, "id", numbered);
    }
    Value::Object(line)
}

/// How often each line was written.
fn lines(wrote: &str) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for line in wrote.lines() {
        *counted.entry(plain(line).to_string()).or_insert(0) += 1;
    }
    counted
}

/// The whole text of the figures, as values by name and labels; of lines that say what a figure is, the text.
fn figures(text: &str) -> BTreeMap<String, f64> {
    let read = |line: &str| match line.strip_prefix('#') {
        Some(_) => (line.to_owned(), 0.0),
        None => line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap())).unwrap(),
    };
    text.lines().filter(|line| !line.is_empty()).map(read).collect()
}

/// By how much each figure moved. Of the histogram of times only what does not say how long.
fn moved(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, String> {
    let of_one = |(name, value): (&String, &f64)| {
        let is_time =
            name.starts_with("jadegate_call_seconds_bucket{") || name.starts_with("jadegate_call_seconds_sum{");
        let by = value - before.get(name).copied().unwrap_or(0.0);
        (name.clone(), if is_time && !name.contains("+Inf") { "…".to_owned() } else { format!("{by:.6}") })
    };
    after.iter().map(of_one).collect()
}

/// What one kind of call left behind.
#[derive(Debug, PartialEq)]
struct Left {
    heads: Vec<String>,
    lengths: Vec<usize>,
    lines: BTreeMap<String, usize>,
    figures: BTreeMap<String, String>,
}

/// A gateway that says everything, and how far its log and figures were read.
struct Watched {
    serving: Serving,
    admin: Client,
    read: usize,
    figures: BTreeMap<String, f64>,
}

impl Watched {
    async fn figures(&mut self) -> BTreeMap<String, f64> {
        let text = self.admin.get("/metrics").await.unwrap();
        assert_eq!(text.status, 200);
        figures(std::str::from_utf8(&text.body).unwrap())
    }

    /// From here on.
    async fn begin(&mut self) {
        self.figures = self.figures().await;
        self.read = self.serving.wrote().len();
    }

    /// What has come since: each answer's line is written before the answer leaves.
    async fn left(&mut self, heads: Vec<String>, lengths: Vec<usize>) -> Left {
        let wrote = self.serving.wrote();
        let lines = lines(&wrote[self.read..]);
        let after = self.figures().await;
        Left { heads, lengths, lines, figures: moved(&self.figures, &after) }
    }
}

/// The first is what all others are to be.
fn all_alike(what: &str, left: &[(String, Left)]) {
    let (first_name, first) = &left[0];
    for (name, this) in &left[1..] {
        for (one, other) in first.heads.iter().zip(&this.heads) {
            assert_eq!(one, other, "{what}: heads of {first_name} and {name}");
        }
        assert_eq!(first.lengths, this.lengths, "{what}: lengths of {first_name} and {name}");
        assert_eq!(first.lines, this.lines, "{what}: lines of the log of {first_name} and {name}");
        for (figure, by) in &first.figures {
            assert_eq!(Some(by), this.figures.get(figure), "{what}: {figure} after {first_name} and {name}");
        }
        let names = |left: &Left| left.figures.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(first), names(this), "{what}: names of figures after {first_name} and {name}");
    }
}

/// What is shown for each kind, and what the answer is to be.
async fn kinds(prepared: &Prepared) -> Vec<(String, Vec<String>, bool)> {
    let mut kinds = Vec::new();
    let (mut met, mut low) = (prepared.city.person(0).await, prepared.city.person(1).await);
    let codes = async |me: &mut Client| {
        let mut codes = Vec::new();
        // One for the API and one for the counter, each time.
        for _ in 0..2 * EACH {
            let given = consent(me, SCENARIO, LIBRARY, json!({"uses": 200})).await;
            codes.push(make_code(me, &given).await);
        }
        codes
    };
    kinds.push(("met by code".to_owned(), codes(&mut met).await, true));
    kinds.push(("below the cut by code".to_owned(), codes(&mut low).await, false));
    kinds.push(("met".to_owned(), vec![token(&mut met, LIBRARY).await; 2 * EACH], true));
    for (reason, shown) in &prepared.shown {
        kinds.push(((*reason).to_owned(), vec![shown[0].clone(); 2 * EACH], false));
    }
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_figure_or_header_tells_a_met_answer_from_a_withheld_one() {
    let mut prepared = prepared_for(1).await;
    let kinds = kinds(&prepared).await;
    prepared.city.stop().await.unwrap();
    let output = prepared.city.dir().join("output");
    let serving = Serving::start(&prepared.city.config_file(), &output, &[("JADEGATE_LOG", "trace")]).await;
    // It says so after it is.
    serving.writes("\"message\":\"ready\"", 1).await;
    let admin = Client::new(&admin_of(&serving), None).unwrap();
    let mut watched = Watched { serving, admin, read: 0, figures: BTreeMap::new() };
    let city = &prepared.city;

    // Over the API, on one connection, which a first call has opened.
    let mut api = raw::tls(city, Some(LIBRARY)).await;
    exchange(&mut api, &call_of(city, &question(SCENARIO, &kinds[2].1[0]).to_string())).await;
    let mut left = Vec::new();
    let asked = |shown: &str| question(SCENARIO, shown).to_string();
    let mut bodies: Vec<(String, Vec<String>, bool)> = Vec::new();
    for (name, shown, met) in &kinds {
        bodies.push((name.clone(), shown[..EACH].iter().map(|shown| asked(shown)).collect(), *met));
    }
    // The same call again, while it is one.
    for (name, shown, met) in [("repeat of met", &kinds[2].1[0], true), ("repeat of below", &kinds[3].1[0], false)] {
        let body = asked(shown);
        exchange(&mut api, &call_of(city, &body)).await;
        bodies.push((name.to_owned(), vec![body; EACH], met));
    }
    for (name, bodies, met) in &bodies {
        watched.begin().await;
        let (mut heads, mut lengths) = (Vec::new(), Vec::new());
        for body in bodies {
            let (head, body) = exchange(&mut api, &call_of(city, body)).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{name}: {head}");
            let said: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(said["answer"], if *met { "met" } else { "withheld" }, "{name}");
            heads.push(head);
            lengths.push(body.len());
        }
        left.push((name.clone(), watched.left(heads, lengths).await));
    }
    all_alike("API", &left);
    let signatures = &left[0].1.figures["jadegate_signatures_total"];
    assert_eq!(*signatures, format!("{EACH}.000000"), "one signature an answer, met or not");
    assert!(left[0].1.lines.values().sum::<usize>() >= EACH, "each call has its line: {:?}", left[0].1.lines);
    let over_the_api = left.len();

    // At the counter of the same party.
    let mut web = TcpStream::connect(city.config.listen).await.unwrap();
    let post = |path: &str, cookie: &str, form: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\norigin: {}\r\ncookie: {cookie}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            city.config.web_base,
            form.len(),
            host = city.config.listen,
        )
    };
    let (head, _) = exchange(&mut web, &post("/demo/login", "lang=en", &format!("as={LIBRARY}"))).await;
    let cookie = head.split("\r\n").find_map(|line| line.strip_prefix("set-cookie: ")).expect("a session");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let mut left = Vec::new();
    for (name, shown, met) in &kinds {
        watched.begin().await;
        let (mut heads, mut lengths) = (Vec::new(), Vec::new());
        for shown in &shown[EACH..] {
            let form = format!("scenario={SCENARIO}&code={shown}");
            let (head, body) = exchange(&mut web, &post("/counter", &cookie, &form)).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{name}: {head}");
            let said = String::from_utf8_lossy(&body).contains("可享受</h1>");
            assert_eq!(said, *met, "{name}");
            heads.push(head);
            lengths.push(body.len());
        }
        left.push((name.clone(), watched.left(heads, lengths).await));
    }
    all_alike("counter", &left);
    assert_eq!(left[0].1.figures["jadegate_signatures_total"], format!("{EACH}.000000"));
    let at_the_counter = left.len();

    // A person who consents, and one who declines in the form of a consent; and both taken back.
    let mut left = Vec::new();
    let mut given = Vec::new();
    let mut me = city.person(0).await;
    consent(&mut me, SCENARIO, LIBRARY, json!({})).await;
    for decline in [false, true] {
        watched.begin().await;
        let made = consent(&mut me, SCENARIO, LIBRARY, json!({"decline": decline})).await;
        left.push((format!("a consent, declined: {decline}"), watched.left(Vec::new(), Vec::new()).await));
        given.push(text(&made, "id"));
    }
    all_alike("consents", &left);
    let mut left = Vec::new();
    for id in &given {
        watched.begin().await;
        let path = format!("/v1/me/consents/{id}");
        let done = me.send(http::Method::DELETE, &path, http::HeaderMap::new(), vec![].into()).await.unwrap();
        assert_eq!(done.status, 204);
        left.push((id.clone(), watched.left(Vec::new(), Vec::new()).await));
    }
    all_alike("revocations", &left);
    watched.serving.signal("-TERM");
    let ended = watched.serving.ended(std::time::Duration::from_secs(20)).await;
    assert_eq!(ended.unwrap().code(), Some(0));
    figure(
        "lines, figures, signatures and headers of answers by outcome and reason",
        format_args!("{over_the_api} kinds over the API, {at_the_counter} at the counter, {EACH} calls each: equal"),
    );
}
