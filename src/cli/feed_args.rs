//! How a file is to be read, as `import`, `evaluate` and `verify` are told.

use std::path::PathBuf;

use crate::cli::Failure;
use crate::config::read_limited;
use crate::feed::mapping::MAPPING_BYTES_MAX;
use crate::feed::{Encoding, Mapping};
use crate::policy::{Mistakes, Source};

/// What a file does not say about itself.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FeedArgs {
    /// The encoding of files that leave it in doubt: utf-8 or gb18030
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    pub encoding: Option<Encoding>,
    /// What a department's own headings and values mean (TOML, see docs/feeds.md); for tables
    #[arg(long, value_name = "FILE")]
    pub mapping: Option<PathBuf>,
    /// Which sheet of a workbook, by its name; else the first that is not hidden
    #[arg(long, value_name = "NAME")]
    pub sheet: Option<String>,
}

fn encoding(name: &str) -> Result<Encoding, String> {
    Encoding::parse(name).ok_or_else(|| "write utf-8 or gb18030".to_owned())
}

impl FeedArgs {
    /// Whether anything was said.
    pub fn is_given(&self) -> bool {
        self.encoding.is_some() || self.mapping.is_some() || self.sheet.is_some()
    }

    /// Reads the mapping file, and names every mistake in it.
    pub fn mapping(&self) -> Result<Option<Mapping>, Failure> {
        let Some(path) = &self.mapping else { return Ok(None) };
        let bytes = read_limited(path, MAPPING_BYTES_MAX).map_err(Failure::of)?;
        let mut mistakes = Mistakes::new();
        let source = Source::from_bytes(&path.display().to_string(), &bytes, &mut mistakes);
        let read = Mapping::parse(&source, &mut mistakes);
        let listed = |mistakes: Mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        mistakes.or(read).map(Some).map_err(|mistakes| Failure::Failed(listed(mistakes)))
    }
}
