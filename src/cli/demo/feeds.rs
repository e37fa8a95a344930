//! The city reports to itself: the register and every provider's records, over the real API.
//!
//! Each caller has its own certificate and connection; a few of them send at a time. Uploads are of at most 500 lines,
//! which the gateway takes in one batch. Any line that the gateway refuses ends the demo: it made that line itself.

use std::fs;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::cli::demo::Stage;
use crate::cli::demo::calls::body;
use crate::cli::{Failure, tell, watched};
use crate::client::Client;

/// How many lines go into one upload.
const UPLOAD_LINES: usize = 500;
/// How many providers send at a time.
const SENDERS: usize = 4;

/// What was sent.
pub(super) struct Sent {
    pub(super) records: usize,
    pub(super) providers: usize,
}

/// One caller's lines.
struct Feed {
    client: Client,
    path: &'static str,
    lines: Vec<String>,
}

impl Stage {
    /// Sends the register, or only counts it if that was done before.
    pub(super) async fn send_register(&self) -> Result<usize, Failure> {
        let lines = self.city_lines("register.ndjson")?;
        let people = lines.len();
        if !self.sent {
            let registrar =
                self.set
                    .parties
                    .values()
                    .find(|p| p.roles.contains(&crate::party::PartyRole::Registrar))
                    .ok_or_else(|| Failure::Failed("the policies name no party with the role registrar".into()))?;
            let feed = Feed { client: self.api(registrar.id.as_str())?, path: "/v1/register", lines };
            send_all(vec![feed], "登记 / register").await?;
        }
        Ok(people)
    }

    /// Sends every provider's records, or only counts them if that was done before.
    pub(super) async fn send_records(&self) -> Result<Sent, Failure> {
        let mut feeds = Vec::new();
        for party in self.set.parties.keys() {
            let name = format!("records/{party}.ndjson");
            if self.dir.join("city").join(&name).exists() {
                feeds.push(Feed {
                    client: self.api(party.as_str())?,
                    path: "/v1/records",
                    lines: self.city_lines(&name)?,
                });
            }
        }
        let sent = Sent { records: feeds.iter().map(|f| f.lines.len()).sum(), providers: feeds.len() };
        if !self.sent {
            send_all(feeds, "报送 / report").await?;
            super::replace(&self.dir.join("city/sent"), b"")?;
        }
        Ok(sent)
    }

    fn city_lines(&self, name: &str) -> Result<Vec<String>, Failure> {
        let file = self.dir.join("city").join(name);
        let text = fs::read_to_string(&file).map_err(|e| Failure::file("read", &file, e))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

async fn send_all(feeds: Vec<Feed>, what: &str) -> Result<(), Failure> {
    let total: usize = feeds.iter().map(|f| f.lines.len()).sum();
    let bar = Arc::new(progress(total, what));
    let (mut waiting, mut tasks) = (feeds.into_iter(), JoinSet::new());
    for feed in waiting.by_ref().take(SENDERS) {
        tasks.spawn(send(feed, Arc::clone(&bar)));
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(Failure::of)??;
        if let Some(feed) = waiting.next() {
            tasks.spawn(send(feed, Arc::clone(&bar)));
        }
    }
    bar.finish_and_clear();
    Ok(())
}

async fn send(mut feed: Feed, bar: Arc<ProgressBar>) -> Result<(), Failure> {
    for lines in feed.lines.chunks(UPLOAD_LINES) {
        let mut upload = lines.join("\n");
        upload.push('\n');
        let response =
            feed.client.post(feed.path, "application/x-ndjson", upload, Vec::new()).await.map_err(Failure::of)?;
        let answer = body(&response, feed.path)?;
        let count =
            |name: &str| answer.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        if count("accepted") + count("unchanged") + count("replaced") != lines.len() {
            // The message of a line is about its form and never repeats its content.
            let first = answer.pointer("/rejected/0").map(Value::to_string).unwrap_or_default();
            return Err(Failure::Failed(format!("{} refused a line of the city's own: {first}", feed.path)));
        }
        bar.inc(u64::try_from(lines.len()).unwrap_or(0));
    }
    Ok(())
}

/// A bar where somebody watches, a line where not.
fn progress(total: usize, what: &str) -> ProgressBar {
    if !watched() {
        tell(&format!("{what} {total} …"));
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}
