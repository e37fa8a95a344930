//! `jadegate model`: what another model would do, a draft for comment, and its publication.
//!
//! On a stopped deployment (`--config`) the store is opened here; a running gateway is asked over its API (`--gateway`),
//! as the operator whose session that is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args as Arguments, Subcommand};
use http::StatusCode;
use jiff::civil::Date;
use serde_json::{Value, json};

use crate::cli::{Exit, Failure, say, system_trust, watched};
use crate::client::{Client, Response};
use crate::clock::Clock;
use crate::config::models::ModelError;
use crate::config::{Config, read_limited};
use crate::entropy::Entropy;
use crate::gateway::{GatewayError, MODEL_BYTES_MAX, Refusal};
use crate::http::models::impact;
use crate::http::session::COOKIE;
use crate::trial::{Impact, Ways, drawing};

/// How long a running gateway may take to score everybody.
const PATIENCE: Duration = Duration::from_secs(600);

/// `jadegate model`.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Scores everybody under a model without changing anything, and shows how grades would move
    Try(TryArgs),
    /// Publishes a draft for comment, with how grades would move
    Draft(DraftArgs),
    /// Publishes an approved draft, to hold from a day on
    Publish(PublishArgs),
}

/// Which deployment, and as whom.
#[derive(Debug, Clone, Arguments)]
pub struct Reach {
    /// The jadegate.toml of a deployment whose gateway is stopped
    #[arg(long, value_name = "FILE", required_unless_present = "gateway", conflicts_with = "gateway")]
    config: Option<PathBuf>,
    /// The address of a running gateway's pages, as http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// A file with the value of an operator's session cookie at that gateway
    #[arg(long, value_name = "FILE", requires = "gateway")]
    session: Option<PathBuf>,
    /// The operator to log in as, where that gateway is a demo
    #[arg(long, value_name = "LOGIN", requires = "gateway", conflicts_with = "session")]
    login: Option<String>,
}

/// `jadegate model try`.
#[derive(Debug, Clone, Arguments)]
pub struct TryArgs {
    /// The model's file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    reach: Reach,
    /// Prints JSON in place of tables
    #[arg(long)]
    json: bool,
    /// Writes a drawing to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// `jadegate model draft`.
#[derive(Debug, Clone, Arguments)]
pub struct DraftArgs {
    /// The model's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    reach: Reach,
}

/// `jadegate model publish`.
#[derive(Debug, Clone, Arguments)]
pub struct PublishArgs {
    /// The draft's id
    #[arg(value_name = "ID")]
    id: String,
    /// The first day on which it holds
    #[arg(long, value_name = "DAY")]
    from: Date,
    #[command(flatten)]
    reach: Reach,
}

/// Runs one of them.
pub async fn run(command: Command, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Exit, Failure> {
    match command {
        Command::Try(args) => try_model(&args, clock, entropy).await,
        Command::Draft(args) => draft(&args, clock, entropy).await,
        Command::Publish(args) => publish(&args, clock, entropy).await,
    }
}

fn read(file: &Path) -> Result<(String, Vec<u8>), Failure> {
    let bytes = read_limited(file, MODEL_BYTES_MAX as u64).map_err(Failure::of)?;
    Ok((file.display().to_string(), bytes))
}

async fn try_model(args: &TryArgs, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Exit, Failure> {
    let (name, bytes) = read(&args.file)?;
    let bar = if watched() { indicatif::ProgressBar::new_spinner() } else { indicatif::ProgressBar::hidden() };
    bar.set_message("试算中 / scoring everybody");
    bar.enable_steady_tick(Duration::from_millis(200));
    let shown: Impact = match args.reach.config()? {
        Some(config) => config.try_model((&name, &bytes), &*clock, entropy).await.map_err(Failure::of)?,
        None => {
            let mut client = args.reach.client().await?;
            let answer = client.post("/v1/models/trials", "application/toml", bytes, Vec::new()).await;
            serde_json::from_value(body(&answer.map_err(Failure::of)?, &name)?).map_err(Failure::of)?
        }
    };
    bar.finish_and_clear();
    if let Some(file) = &args.svg {
        std::fs::write(file, drawing::svg(&shown)).map_err(|e| Failure::file("write", file, e))?;
    }
    if args.json {
        say(&format!("{:#}", impact(&shown)));
    } else {
        table(&shown).iter().for_each(|line| say(line));
    }
    Ok(Exit::Done)
}

async fn draft(args: &DraftArgs, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Exit, Failure> {
    let (name, bytes) = read(&args.file)?;
    let (id, until, shown) = match args.reach.config()? {
        Some(config) => {
            let drafted = config.draft_model((&name, &bytes), clock, entropy).await.map_err(Failure::of)?;
            let until = drafted.comment_until.map(|day| day.to_string());
            (drafted.id.to_string(), until, drafted.impact)
        }
        None => {
            let mut client = args.reach.client().await?;
            let answer = client.post("/v1/models", "application/toml", bytes, Vec::new()).await;
            let drafted = body(&answer.map_err(Failure::of)?, &name)?;
            let shown = drafted.get("impact").cloned().and_then(|shown| serde_json::from_value(shown).ok());
            (text(&drafted, "id"), drafted.get("comment_until").and_then(Value::as_str).map(str::to_owned), shown)
        }
    };
    shown.iter().flat_map(table).for_each(|line| say(&line));
    let until = until.unwrap_or_default();
    say(&format!("{id}：公开征求意见，{until} 起可发布，须两人在“评分模型”页（/models）批准"));
    say(&format!(
        "{id}: open for comment; it can be published from {until} on, once two officers or operators have approved it on the page /models"
    ));
    Ok(Exit::Done)
}

async fn publish(args: &PublishArgs, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Exit, Failure> {
    match args.reach.config()? {
        Some(config) => {
            config.publish_model(&args.id, args.from, clock, entropy).await.map_err(|error| match error {
                ModelError::Gateway(GatewayError::Refused(Refusal::NotFound)) => no_model(&args.id),
                error => Failure::of(error),
            })?;
        }
        None => {
            let (mut client, path) = (args.reach.client().await?, format!("/v1/models/{}/publication", args.id));
            let answer = client.post_json(&path, &json!({ "from": args.from })).await.map_err(Failure::of)?;
            if answer.status == StatusCode::NOT_FOUND {
                return Err(no_model(&args.id));
            }
            body(&answer, &args.id)?;
        }
    }
    let (id, from) = (&args.id, args.from);
    say(&format!("{id}：已发布，{from} 零时起施行；当天之前的答复不变"));
    say(&format!(
        "{id}: published, and holds from {from}, midnight in Shanghai; answers before that day stay as they are"
    ));
    Ok(Exit::Done)
}

fn no_model(id: &str) -> Failure {
    Failure::Failed(format!("no model has the id {id}: draft it first, or look at the page /models for what there is"))
}

impl Reach {
    fn config(&self) -> Result<Option<Config>, Failure> {
        self.config.as_ref().map(|file| Config::read(file).map_err(Failure::of)).transpose()
    }

    /// The running gateway, as the operator.
    async fn client(&self) -> Result<Client, Failure> {
        let base = self.gateway.clone().unwrap_or_default();
        let tls = if base.starts_with("https:") { Some(system_trust()?) } else { None };
        let client = Client::new(&base, tls).map_err(|e| Failure::Usage(e.to_string()))?;
        let mut client = client.patience(PATIENCE);
        if let Some(file) = &self.session {
            let token = std::fs::read_to_string(file).map_err(|e| Failure::file("read", file, e))?;
            client.set_cookie(COOKIE, token.trim());
            return Ok(client);
        }
        let login = self.login.as_deref().ok_or_else(|| {
            Failure::Usage("name an operator's session with --session, or of a demo a login with --login".into())
        })?;
        let form = format!("as={login}");
        let answer = client.post("/demo/login", "application/x-www-form-urlencoded", form, Vec::new()).await;
        let answer = answer.map_err(Failure::of)?;
        if !answer.status.is_success() && !answer.status.is_redirection() {
            return Err(Failure::Failed(format!("{base} does not let {login} log in: only a demo does")));
        }
        Ok(client)
    }
}

/// The body of a call that went well; else what the gateway says, with the file's own name.
fn body(answer: &Response, name: &str) -> Result<Value, Failure> {
    let value = answer.json().map_err(Failure::of)?;
    if answer.status.is_success() {
        return Ok(value);
    }
    let detail = text(&value, "detail").replace("model.toml:", &format!("{name}:"));
    Err(Failure::Failed(format!("{detail} ({})", text(&value, "code"))))
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The tables, in both languages.
pub(crate) fn table(shown: &Impact) -> Vec<String> {
    let said = |count: Option<u64>| count.map_or_else(|| "·".to_owned(), |count| count.to_string());
    let ways = |ways: &Ways| format!("{:>10}{:>10}{:>10}", said(ways.up), said(ways.same), said(ways.down));
    let mut lines = vec![
        format!("{} → {}", shown.before, shown.after),
        format!(
            "{}：{} 人有分，取整到十；· 为十人以下，或会透露十人以下 / people with a score, to the ten; · is under ten, or would give such a count away",
            shown.on,
            said(shown.people)
        ),
        String::new(),
        "等级 / grades: 现行 now ↓, 试算 tried →".to_owned(),
    ];
    let head: String = shown.grades_after.iter().map(|grade| format!("{:>14}", grade.code)).collect();
    lines.push(format!("{:<14}{head}{:>14}", "", "合计 / all"));
    for row in &shown.grades_before {
        let cells = shown.moves.iter().filter(|moved| moved.from == row.code);
        let cells: String = cells.map(|moved| format!("{:>14}", said(moved.people))).collect();
        lines.push(format!("{:<14}{cells}{:>14}", row.code, said(row.people)));
    }
    let totals: String = shown.grades_after.iter().map(|grade| format!("{:>14}", said(grade.people))).collect();
    lines.push(format!("{:<14}{totals}{:>14}", "all", said(shown.people)));
    lines.push(String::new());
    lines.push(format!("{:<22}{:>10}{:>10}{:>10}", "年龄 / age", "up", "same", "down"));
    for age in &shown.ages {
        let to = age.to.map_or_else(|| format!("{}+", age.from), |to| format!("{}–{to}", age.from));
        lines.push(format!("{to:<22}{}", ways(&age.ways)));
    }
    lines.push(format!("{:<22}{}", "all", ways(&shown.ways)));
    lines.push(String::new());
    lines.push(format!("{:<22}{:>10}{:>10}{:>10}", "维度 / dimension", "more", "same", "fewer"));
    for dimension in &shown.dimensions {
        lines.push(format!("{:<22}{}", dimension.code, ways(&dimension.ways)));
    }
    lines
}
