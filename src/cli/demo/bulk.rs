//! The story's bulk file: what a department's clerk exports from a spreadsheet, with two rows that cannot be taken.
//!
//! It is about people who are not registered yet, so nobody of the city has another score for it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::demo::{Stage, replace};
use crate::cli::feed_args::FeedArgs;
use crate::cli::import::{self, Proof, Target, What};
use crate::cli::{Failure, init};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::feed::Kind;

/// Who sends it.
const PROVIDER: &str = "yx-civil-affairs";
/// The file, in the folder of the city.
pub(super) const FILE: &str = "try/volunteers.csv";
const ROWS: &str = "记录编号,报送单位,指标代码,证件号码,姓名,发生日期,数量\r
2026-V-1,yx-civil-affairs,volunteer-hours,530499191201011016,钱一,2026/3/1,2\r
2026-V-2,yx-civil-affairs,volunteer-hours,530499191202012029,孙二,2026年3月2日,4\r
2026-V-3,yx-civil-affairs,volunteer-hours,5.30499E+17,李三,2026/3/3,3\r
2026-V-4,yx-civil-affairs,volunteer-hours,530499191203013031,周四,20260304,1\r
2026-V-5,yx-civil-affairs,volunteer-hours,530499191204014041,吴五,2026-03-05,6\r
2026-V-6,yx-civil-affairs,volunteer-hours,530499191204014044,郑六,2026-03-06,5\r
";

/// What became of its rows.
pub(super) struct Imported {
    pub(super) taken: u64,
    pub(super) refused: u64,
    pub(super) receipts: u64,
}

impl Stage {
    /// Imports the file over the running gateway's API, signed by the provider's shared key.
    pub(super) async fn import_file(
        &self,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Imported, Failure> {
        let path = self.bulk_file();
        init::folder(&self.dir.join("try"), 0o700)?;
        replace(&path, &encoding_rs::GB18030.encode(ROWS).0)?;
        let (set, secrets) = self.config.open_policies().map_err(Failure::of)?;
        let party = import::target::party(&set, Kind::Records, Some(PROVIDER))?;
        let now = (Arc::clone(&clock), entropy);
        let target = Target::find(&self.config, party, &secrets, &Proof::default(), Kind::Records, now).await?;
        let what = What {
            feed: FeedArgs::default(),
            mapping: Arc::default(),
            kind: Kind::Records,
            provider: PROVIDER.to_owned(),
            prohibited: Arc::new(set.prohibited.clone()),
        };
        let done = import::send(&Arc::new(target), &what, &path, clock.as_ref()).await?;
        if let Some(error) = done.refused {
            return Err(Failure::Failed(format!("{}: {error}", path.display())));
        }
        let receipts = done.receipts.map_or(0, |(count, _)| count);
        Ok(Imported { taken: done.counts.taken(), refused: done.rejected, receipts })
    }

    pub(super) fn bulk_file(&self) -> PathBuf {
        self.dir.join(FILE)
    }
}
