//! The whole policy set: all files of a policy folder, read together and checked against each other.
//!
//! A set exists only without a mistake; with any, all of them are told, over all files. Each set has a digest, and each
//! one loaded is a log entry. It takes bytes, not a folder: whoever reads the folder is not here.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::access::Access;
use crate::catalogue::Catalogue;
use crate::city::City;
use crate::code::{ModelId, PartyId, ScenarioId};
use crate::model::Model;
use crate::party::{self, Party};
use crate::policy::{Document, Mistake, Mistakes, Source};
use crate::prohibited::Prohibited;
use crate::scenario::{self, Scenario};
use crate::text::nearest;

mod candidate;
mod cross;
mod midnight;

pub use candidate::Candidate;

const CITY: &str = "city.toml";
const CATALOGUE: &str = "catalogue.toml";
const SCENARIOS: &str = "scenarios.toml";
const PARTIES: &str = "parties.toml";
const ACCESS: &str = "access.toml";
const PROHIBITED: &str = "prohibited.toml";
const FILES: [&str; 6] = [CITY, CATALOGUE, SCENARIOS, PARTIES, ACCESS, PROHIBITED];
/// Where models stand.
const MODELS: &str = "models/";
/// The most bytes of one file.
const FILE_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// Everything that a policy folder says.
#[derive(Debug, Clone)]
pub struct PolicySet {
    /// `city.toml`.
    pub city: City,
    /// `catalogue.toml`.
    pub catalogue: Catalogue,
    /// `models/*.toml`, the one in force and drafts.
    pub models: BTreeMap<ModelId, Model>,
    /// `scenarios.toml`.
    pub scenarios: BTreeMap<ScenarioId, Scenario>,
    /// `parties.toml`.
    pub parties: BTreeMap<PartyId, Party>,
    /// `access.toml`.
    pub access: Access,
    /// `prohibited.toml`.
    pub prohibited: Prohibited,
    /// SHA-256 over name, length and bytes of each file, in the order of names.
    pub digest: [u8; 32],
    in_force: Model,
    model_files: BTreeMap<ModelId, String>,
    files: BTreeMap<String, Arc<str>>,
}

impl PolicySet {
    /// Reads all files, by their names within the folder (`city.toml`, `models/yuxi-2026.toml`). What is no TOML file is
    /// in the digest and is not read.
    pub fn parse(files: BTreeMap<String, Vec<u8>>) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let sources = sources(&files, &mut mistakes);
        let documents: BTreeMap<&str, Document<'_>> =
            sources.iter().map(|(name, source)| (name.as_str(), Document::parse(source, &mut mistakes))).collect();
        let read = Self::read(&sources, &documents, digest(&files), &mut mistakes);
        mistakes.or(read)
    }

    fn read(
        sources: &BTreeMap<String, Source>,
        documents: &BTreeMap<&str, Document<'_>>,
        digest: [u8; 32],
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let document = |name| documents.get(name);
        let prohibited = document(PROHIBITED).map(|d| Prohibited::read(d, mistakes));
        let catalogue = document(CATALOGUE).map(|d| Catalogue::read(d, prohibited.as_ref(), true, mistakes));
        let city = document(CITY).and_then(|d| City::read(d, mistakes));
        let parties = document(PARTIES).map(|d| party::read(d, mistakes));
        let scenarios = document(SCENARIOS).map(|d| scenario::read(d, mistakes));
        let access = document(ACCESS).map(|d| Access::read(d, mistakes));
        let unread = Catalogue::unread();
        let known = catalogue.as_ref().unwrap_or(&unread);
        let (mut models, mut model_files, mut all_models) = (BTreeMap::new(), BTreeMap::new(), true);
        for (name, source) in sources.iter().filter(|(name, _)| name.starts_with(MODELS)) {
            let Some((document, model)) =
                document(name.as_str()).and_then(|d| Some((d, Model::read(source, d, known, true, mistakes)?)))
            else {
                all_models = false;
                continue;
            };
            if let Some(other) = model_files.insert(model.id.clone(), name.clone()) {
                let what = format!("the id \"{}\" is that of {other} too", model.id);
                document.wrong(mistakes, &["model", "id"], what, "an id of its own", "rename one of the two models");
            }
            models.insert(model.id.clone(), model);
        }
        let parts = cross::Parts {
            documents,
            city: city.as_ref(),
            catalogue: known,
            models: &models,
            model_files: &model_files,
            all_models,
            scenarios: scenarios.as_ref(),
            parties: parties.as_ref(),
        };
        parts.check(mistakes);
        let city = city?;
        let in_force = models.get(&city.model)?.clone();
        Some(Self {
            city,
            catalogue: catalogue?,
            models,
            scenarios: scenarios?,
            parties: parties?.parties,
            access: access?,
            prohibited: prohibited?,
            digest,
            in_force,
            model_files,
            files: sources.iter().map(|(name, source)| (name.clone(), source.text.clone())).collect(),
        })
    }

    /// The text of one of its files.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(|text| &**text)
    }

    /// All its files by name, as text.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (name.as_str(), &**text))
    }

    /// The model that `city.toml` names.
    pub fn model(&self) -> &Model {
        &self.in_force
    }

    /// The text of a model's file, as it can be published and scored by again.
    pub fn model_file(&self, id: &str) -> Option<&str> {
        self.model_files.get(id).and_then(|name| self.file(name))
    }

    /// The name of a model's file in the set.
    pub fn model_path(&self, id: &str) -> &str {
        self.model_files.get(id).map_or("models/", String::as_str)
    }

    /// Whether another set's cuts are others; a city may change them once in 365 days.
    pub fn cuts_changed(&self, other: &Self) -> bool {
        self.city.cuts != other.city.cuts
    }
}

/// The files as texts; what is missing, misnamed or too large is a mistake.
fn sources(files: &BTreeMap<String, Vec<u8>>, mistakes: &mut Mistakes) -> BTreeMap<String, Source> {
    let mut about = |name: &str, what: &str, expected: String, help: String| {
        mistakes.add(Mistake::new(&Source::new(name, ""), 0..0, what, expected, help));
    };
    for name in FILES.iter().filter(|name| !files.contains_key(**name)) {
        about(name, "the file is missing", format!("the file {name}"), "add it; `jadegate init` writes one".into());
    }
    let is_model =
        |name: &str| name.strip_prefix(MODELS).is_some_and(|rest| rest.ends_with(".toml") && !rest.contains('/'));
    if !files.keys().any(|name| is_model(name)) {
        about(MODELS, "no model", "a file models/<id>.toml".into(), "add one; `jadegate init` writes one".into());
    }
    let mut ours = Vec::new();
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".toml")) {
        if !FILES.contains(&name.as_str()) && !is_model(name) {
            let help =
                nearest(name, FILES).map_or("move it out of the folder".into(), |near| format!("did you mean {near}?"));
            about(name, "an unknown file", format!("{}, models/<id>.toml", FILES.join(", ")), help);
        } else if bytes.len() > FILE_BYTES_MAX {
            let what = format!("a file of {} bytes", bytes.len());
            about(name, &what, format!("at most {FILE_BYTES_MAX} bytes"), "make it shorter".into());
        } else {
            ours.push((name, bytes));
        }
    }
    ours.into_iter().map(|(name, bytes)| (name.clone(), Source::from_bytes(name, bytes, mistakes))).collect()
}

fn digest(files: &BTreeMap<String, Vec<u8>>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, bytes) in files {
        for part in [name.as_bytes(), bytes] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

/// The policies that come with jadegate: a believable Yuxi, whose parties have no keys yet.
pub fn shipped() -> BTreeMap<String, Vec<u8>> {
    let files: [(&str, &[u8]); 7] = [
        (ACCESS, include_bytes!("../policies/access.toml")),
        (CATALOGUE, include_bytes!("../policies/catalogue.toml")),
        (CITY, include_bytes!("../policies/city.toml")),
        ("models/yuxi-2026.toml", include_bytes!("../policies/models/yuxi-2026.toml")),
        (PARTIES, include_bytes!("../policies/parties.toml")),
        (PROHIBITED, include_bytes!("../policies/prohibited.toml")),
        (SCENARIOS, include_bytes!("../policies/scenarios.toml")),
    ];
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect()
}

#[cfg(test)]
mod tests;
