//! `jadegate evaluate`: scores plain files with no store.
//!
//! The same intake and the same engine as the gateway's, so a person can recompute an exported
//! score, and a model can be tried before it is published. Scores go to stdout only when the
//! policies and all files could be read; refused lines are named on stderr and left out.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::civil::Date;

use super::Exit;
use super::feed_args::FeedArgs;
use crate::catalogue::Catalogue;
use crate::clock::{self, Clock, SystemClock};
use crate::code::{PartyId, RecordId};
use crate::feed::{self, FeedError, How, Kind};
use crate::intake::{self, LineError, RecordRules};
use crate::model::Model;
use crate::person::{Identity, Person};
use crate::policy::{Document, Mistakes, Source};
use crate::prohibited::Prohibited;
use crate::record::Held;
use crate::score;

/// The arguments of `jadegate evaluate`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The catalogue of what may be collected (TOML)
    #[arg(long, value_name = "FILE")]
    pub catalogue: PathBuf,
    /// The model by which to score (TOML)
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// What the law forbids to collect (TOML); no list unless said
    #[arg(long, value_name = "FILE")]
    pub prohibited: Option<PathBuf>,
    /// The register: NDJSON, CSV in UTF-8 or GB18030, or XLSX
    #[arg(long, value_name = "FILE")]
    pub register: PathBuf,
    /// Records, one file or more: NDJSON, CSV in UTF-8 or GB18030, or XLSX
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub records: Vec<PathBuf>,
    /// The day on which to score
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    pub on: Date,
    /// How the files are to be read.
    #[command(flatten)]
    pub feed: FeedArgs,
}

fn day(text: &str) -> Result<Date, String> {
    let shape = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    shape
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| "a day is written as 2026-11-24, and must exist".to_owned())
}

/// Why nothing could be scored.
enum Failure {
    File(PathBuf, FeedError),
    Policies(Mistakes),
    Mapping(super::Failure),
    Output(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, FeedError::Io(e)) => {
                write!(f, "{}: cannot be read: {e}; check the path and the file's rights", path.display())
            }
            Self::File(path, e) => write!(f, "{}: {e}", path.display()),
            Self::Policies(mistakes) => write!(f, "{mistakes}"),
            Self::Mapping(failure) => write!(f, "{failure}"),
            Self::Output(e) => write!(f, "the scores cannot be written: {e}"),
        }
    }
}

/// Scores the files; results to `out`, everything else to `err`.
pub fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    run_at(args, clock::day_of(SystemClock::new().now()), out, err)
}

/// The same on a given day: whoever is born later than both it and `--on` cannot be in the register.
fn run_at(args: &Args, today: Date, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let mut refused = Refused { lines: 0, err };
    match evaluate(args, today.max(args.on), &mut refused, out) {
        Ok(()) if refused.lines == 0 => Exit::Done,
        Ok(()) => {
            // Nobody is left to tell where stderr is closed.
            let _ = writeln!(refused.err, "refused lines: {}; the scores are without them", refused.lines);
            Exit::Partly
        }
        Err(failure) => {
            let _ = writeln!(refused.err, "{failure}");
            Exit::Failed
        }
    }
}

/// Names refused lines, and counts them.
struct Refused<'a> {
    lines: u64,
    err: &'a mut dyn Write,
}

impl Refused<'_> {
    fn add(&mut self, path: &Path, line: u64, error: &LineError) {
        self.lines += 1;
        let _ = writeln!(self.err, "{}:{line}: {error}", path.display());
    }
}

fn evaluate(args: &Args, today: Date, refused: &mut Refused, out: &mut dyn Write) -> Result<(), Failure> {
    let policies = Policies::read(args)?;
    let mapping = args.feed.mapping().map_err(Failure::Mapping)?;
    let how = |kind| How {
        encoding: args.feed.encoding,
        mapping: mapping.as_ref(),
        sheet: args.feed.sheet.as_deref(),
        ..How::plain(kind, &policies.prohibited)
    };
    let mut people: HashMap<Identity, Person> = HashMap::new();
    each_line(&args.register, &how(Kind::Register), refused, &mut |line| {
        let person = intake::person(line, today, &policies.prohibited)?;
        people.insert(person.identity.clone(), person);
        Ok(())
    })?;
    let rules = RecordRules {
        catalogue: &policies.catalogue,
        prohibited: &policies.prohibited,
        today,
        source: intake::Source::File,
    };
    let mut last: HashMap<(PartyId, RecordId), Held> = HashMap::new();
    for path in &args.records {
        each_line(path, &how(Kind::Records), refused, &mut |line| {
            let held = intake::record(line, &rules)?;
            let key = (held.record.provider.clone(), held.record.id.clone());
            let held = match last.get(&key) {
                Some(earlier) => held.replacing(earlier),
                None => held,
            };
            last.insert(key, held);
            Ok(())
        })?;
    }
    // What is about somebody who is not registered counts for nobody, and is no mistake.
    let mut records: HashMap<&Identity, Vec<Held>> = people.keys().map(|identity| (identity, Vec::new())).collect();
    for held in last.into_values() {
        if let Some(records) = records.get_mut(&held.record.identity) {
            records.push(held);
        }
    }
    let mut people: Vec<&Person> = people.values().collect();
    people.sort_by_key(|person| (person.identity.number(), person.identity.id_type()));
    write_scores(&policies, &people, &records, args.on, out).map_err(Failure::Output)
}

fn write_scores(
    policies: &Policies,
    people: &[&Person],
    records: &HashMap<&Identity, Vec<Held>>,
    on: Date,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(out);
    writeln!(out, "id_number,status,score,grade")?;
    for person in people {
        let records = records.get(&person.identity).map_or(&[][..], Vec::as_slice);
        let outcome = score::evaluate(person, records, &policies.catalogue, &policies.model, on);
        let score = outcome.score.map(|score| score.to_string()).unwrap_or_default();
        let grade = outcome.grade.as_ref().map_or("", |grade| grade.as_str());
        writeln!(out, "{},{},{score},{grade}", person.identity.number(), outcome.status.as_str())?;
    }
    out.flush()
}

struct Policies {
    catalogue: Catalogue,
    model: Model,
    prohibited: Prohibited,
}

impl Policies {
    /// All mistakes of all three files, or the policies.
    fn read(args: &Args) -> Result<Self, Failure> {
        let mut mistakes = Mistakes::new();
        let prohibited = match &args.prohibited {
            Some(path) => {
                let source = source(path, &mut mistakes)?;
                Prohibited::read(&Document::parse(&source, &mut mistakes), &mut mistakes)
            }
            None => Prohibited::none(),
        };
        let (catalogue, model) = (source(&args.catalogue, &mut mistakes)?, source(&args.model, &mut mistakes)?);
        let document = Document::parse(&catalogue, &mut mistakes);
        let catalogue = Catalogue::read(&document, Some(&prohibited), false, &mut mistakes);
        let document = Document::parse(&model, &mut mistakes);
        // As much of the catalogue as could be read is enough to find the model's own mistakes.
        let model = Model::read(&model, &document, &catalogue, false, &mut mistakes);
        let read = model.map(|model| Self { catalogue, model, prohibited });
        mistakes.or(read).map_err(Failure::Policies)
    }
}

fn source(path: &Path, mistakes: &mut Mistakes) -> Result<Source, Failure> {
    let bytes = fs::read(path).map_err(|e| Failure::File(path.to_owned(), FeedError::Io(e)))?;
    Ok(Source::from_bytes(&path.display().to_string(), &bytes, mistakes))
}

fn each_line(
    path: &Path,
    how: &How<'_>,
    refused: &mut Refused,
    take: &mut dyn FnMut(&[u8]) -> Result<(), LineError>,
) -> Result<(), Failure> {
    let failed = |e| Failure::File(path.to_owned(), e);
    let file = File::open(path).map_err(|e| failed(e.into()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let opened = feed::source(file).and_then(|source| feed::open(&name, source, how)).map_err(failed)?;
    for note in &opened.notes {
        let _ = writeln!(refused.err, "{}: {note}", path.display());
    }
    for line in opened.lines {
        let line = line.map_err(failed)?;
        if let Err(error) = line.bytes.and_then(|bytes| take(&bytes)) {
            refused.add(path, line.number, &error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    const CATALOGUE: &str = "[[indicator]]\ncode = \"judgment\"\ncategory = \"judicial\"\nproviders = [\"yx-court\"]\nvalid_for_years = 2\n\
        [[indicator]]\ncode = \"honour\"\ncategory = \"honour\"\nproviders = [\"yx-office\", \"yx-court\"]\n";
    const MODEL: &str = "[model]\nid = \"m\"\nbase = 500\nfloor = 0\nceiling = 1000\n[[grade]]\ncode = \"fair\"\nmin = 500\n\
        [[grade]]\ncode = \"low\"\nmin = 0\n[[dimension]]\ncode = \"d\"\nmax_gain = 300\nmax_loss = 300\n\
        [[indicator]]\ncode = \"judgment\"\ndimension = \"d\"\npoints = -90\nweight_by_year = [100, 60]\n\
        [[indicator]]\ncode = \"honour\"\ndimension = \"d\"\npoints = 30\n";
    const P1: &str = r#"{"id_number":"530499199001010015","name":"王芳","resident":true,"full_capacity":true}"#;

    /// A folder of files that goes away with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("jadegate-evaluate-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            let folder = Self(path);
            folder.write("catalogue.toml", CATALOGUE).write("model.toml", MODEL);
            folder
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
            fs::write(self.0.join(name), content).unwrap();
            self
        }

        /// Exit, stdout without its heading, stderr with the folder's path taken out.
        fn run(&self, records: &[&str], on: Date) -> (Exit, Vec<String>, String) {
            let args = Args {
                catalogue: self.0.join("catalogue.toml"),
                model: self.0.join("model.toml"),
                prohibited: None,
                register: self.0.join("register.ndjson"),
                records: records.iter().map(|name| self.0.join(name)).collect(),
                on,
                feed: FeedArgs::default(),
            };
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let exit = run_at(&args, date(2026, 11, 24), &mut out, &mut err);
            let out = String::from_utf8(out).unwrap();
            let err = String::from_utf8(err).unwrap().replace(&format!("{}/", self.0.display()), "");
            (exit, out.lines().skip(1).map(str::to_owned).collect(), err)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn record(id: &str, indicator: &str, number: &str, more: &str) -> String {
        format!(
            r#"{{"id":"{id}","provider":"yx-court","indicator":"{indicator}","person":{{"id_number":"{number}","name":"王芳"}}{more}}}"#
        ) + "\n"
    }

    const ON: Date = date(2026, 11, 24);
    const DAY: &str = r#","occurred_on":"2026-06-01""#;

    #[test]
    fn spellings_of_one_number_are_one_person() {
        let folder = Folder::new("spellings");
        let person = |number: &str| P1.replace("530499199001010015", number) + "\n";
        let numbers = ["53049919880307004X", "530499250101001", "53049919880307004x", "530499199001010015"];
        folder.write("register.ndjson", format!("\u{FEFF}{}\r\n\n", numbers.map(person).concat()));
        let records = ["53049919880307004X", "53049919880307004x", "530499250101001", "53049919250101001X"];
        let records = records.iter().enumerate().map(|(at, n)| record(&format!("{at}"), "honour", n, DAY));
        folder.write("records.ndjson", records.collect::<String>());
        let (exit, out, err) = folder.run(&["records.ndjson"], date(2026, 7, 27));
        assert_eq!((exit, err.as_str()), (Exit::Done, ""));
        assert_eq!(
            out,
            [
                "53049919250101001X,scored,560,fair",
                "53049919880307004X,scored,560,fair",
                "530499199001010015,scored,500,fair"
            ]
        );
    }

    #[test]
    fn leap_days() {
        let folder = Folder::new("leap-days");
        folder.write("register.ndjson", format!("{P1}\n{}", P1.replace("530499199001010015", "530499200802290016")));
        folder.write("r", record("1", "judgment", "530499199001010015", r#","occurred_on":"2024-02-29""#));
        let scores = |on| folder.run(&["r"], on).1;
        assert_eq!(scores(date(2026, 2, 27)), ["530499199001010015,scored,446,low", "530499200802290016,under-age,,"]);
        assert_eq!(
            scores(date(2026, 2, 28)),
            ["530499199001010015,scored,500,fair", "530499200802290016,scored,500,fair"]
        );
    }

    #[test]
    fn repair_and_withdrawal_outlive_what_is_sent_again_and_the_last_version_counts() {
        let folder = Folder::new("again");
        folder.write("register.ndjson", format!("{}\n{P1}\n", P1.replace("true,", "false,")));
        let p1 = "530499199001010015";
        let state = |state: &str| format!("{DAY},{state}");
        let first = [
            record("repaired", "judgment", p1, &state(r#""repair":{"on":"2026-07-01","effect":"exclude"}"#)),
            record("withdrawn", "judgment", p1, &state(r#""withdrawn":true"#)),
            record("frozen", "judgment", p1, &state(r#""frozen":true"#)),
            record("moved", "honour", p1, DAY),
            record("of nobody", "honour", "530499200802290016", DAY),
        ];
        folder.write("first.ndjson", first.concat());
        let again = |id: &str| record(id, "judgment", p1, r#","occurred_on":"2026-06-02""#);
        let moved = record("moved", "honour", "530499200802290016", DAY);
        folder.write("again.ndjson", [again("repaired"), again("withdrawn"), again("frozen"), moved].concat());
        assert_eq!(folder.run(&["first.ndjson"], ON).1, ["530499199001010015,scored,530,fair"]);
        // Only the record that was frozen counts now, and the honour is another person's.
        let twice = folder.run(&["first.ndjson", "again.ndjson"], ON);
        assert_eq!(twice, (Exit::Done, vec!["530499199001010015,scored,410,low".into()], String::new()));
        // Said once more, nothing changes.
        assert_eq!(folder.run(&["first.ndjson", "again.ndjson", "again.ndjson"], ON), twice);
        let before_the_repair = folder.run(&["first.ndjson", "again.ndjson"], date(2026, 6, 30)).1;
        assert_eq!(before_the_repair, ["530499199001010015,scored,320,low"]);
    }

    #[test]
    fn refused_lines_are_named_and_the_rest_is_scored() {
        let folder = Folder::new("refused");
        folder.write("register.ndjson", format!("{P1}\n{}\n", P1.replace("0015", "0016")));
        let good = record("1", "honour", "530499199001010015", DAY);
        folder.write("r.ndjson", format!("{{\n{good}\n{}", good.replace("honour", "nothing")));
        let (exit, out, err) = folder.run(&["r.ndjson"], ON);
        assert_eq!((exit, exit.code()), (Exit::Partly, 3));
        assert_eq!(out, ["530499199001010015,scored,530,fair"]);
        let places: Vec<_> =
            err.lines().map(|line| line.splitn(4, ':').take(3).collect::<Vec<_>>().join(":")).collect();
        assert_eq!(
            places[..4],
            [
                "register.ndjson:2: wrong-check-digit",
                "r.ndjson:1: malformed",
                "r.ndjson:3: malformed",
                "r.ndjson:4: unknown-indicator"
            ]
        );
        assert!(!err.contains("1990") && !err.contains("王"), "{err}");
    }

    #[test]
    fn a_mistake_in_a_policy_or_a_missing_file_scores_nobody() {
        let folder = Folder::new("mistakes");
        folder.write("register.ndjson", P1);
        let (exit, out, err) = folder.run(&["missing.ndjson"], ON);
        assert_eq!((exit, exit.code(), out.len()), (Exit::Failed, 1, 0));
        assert!(err.starts_with("missing.ndjson: cannot be read: "), "{err}");
        folder.write("r", "").write("model.toml", MODEL.replace("base = 500", "base = 1001").replace("-90", "-9000"));
        folder.write("catalogue.toml", CATALOGUE.replace("judicial", "jury"));
        let (exit, out, err) = folder.run(&["r"], ON);
        assert_eq!((exit, out.len()), (Exit::Failed, 0));
        assert!(err.matches("model.toml:").count() == 2 && err.matches("catalogue.toml:").count() == 1, "{err}");
    }

    #[test]
    fn births_are_held_against_the_later_of_today_and_the_day_asked_about() {
        let folder = Folder::new("births");
        folder.write("r", "").write("register.ndjson", P1);
        assert_eq!(folder.run(&["r"], date(1980, 1, 1)).1, ["530499199001010015,under-age,,"]);
        folder.write("register.ndjson", P1.replace("530499199001010015", "530499209912310015"));
        assert_eq!(folder.run(&["r"], ON).0, Exit::Partly);
        assert_eq!(folder.run(&["r"], date(2100, 1, 1)).1, ["530499209912310015,under-age,,"]);
    }

    #[test]
    fn days_on_the_command_line() {
        assert_eq!(day("2026-11-24"), Ok(ON));
        for text in ["2026-02-30", "20261124", "2026-11-24T00:00", "today", ""] {
            assert!(day(text).is_err(), "{text}");
        }
    }
}
