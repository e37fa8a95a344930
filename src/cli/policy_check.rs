//! `jadegate policy check`: a policy folder read as the gateway would read it, every mistake named.

use std::io::IsTerminal;
use std::path::Path;

use crate::cli::{Exit, Failure, PolicyCheckArgs, say, tell};
use crate::config;
use crate::policies::PolicySet;
use crate::policy::Mistakes;

/// Runs `jadegate policy check DIR`.
pub fn run(args: &PolicyCheckArgs) -> Result<Exit, Failure> {
    let files = config::read_policies(&args.dir).map_err(Failure::of)?;
    let count = files.len();
    match PolicySet::parse(files) {
        Ok(set) => {
            say(&format!(
                "{}: {count} files, no mistake: {} indicators, {} models, {} scenarios, {} parties",
                args.dir.display(),
                set.catalogue.len(),
                set.models.len(),
                set.scenarios.len(),
                set.parties.len(),
            ));
            Ok(Exit::Done)
        }
        Err(mistakes) => {
            show(&mistakes, &args.dir);
            Ok(Exit::Failed)
        }
    }
}

/// A line for each mistake as the result; on a terminal, the place in the file too.
fn show(mistakes: &Mistakes, folder: &Path) {
    for mistake in mistakes.iter() {
        if std::io::stdout().is_terminal() {
            say(&format!("{:?}", miette::Report::new(mistake.clone())));
        } else {
            say(&mistake.to_string());
        }
    }
    tell(&format!("jadegate: {} mistakes in {}", mistakes.len(), folder.display()));
}
