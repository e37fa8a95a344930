//! `jadegate model` on a deployment that is not running: tried on its store, drafted and published through its gateway.

use std::sync::Arc;

use jiff::civil::Date;

use super::Config;
use super::deployment::DeploymentError;
use crate::clock::{Clock, day_of};
use crate::entropy::Entropy;
use crate::gateway::{Gateway, GatewayError, ModelView, try_on_store};
use crate::store::sled::OpenError;
use crate::trial::Impact;

/// How long is waited for a gateway's listener.
const KNOCK: std::time::Duration = std::time::Duration::from_secs(2);

/// Why a model was not tried, drafted or published.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The deployment does not open.
    #[error(transparent)]
    Deployment(DeploymentError),
    /// A gateway runs on it.
    #[error("a gateway runs on this deployment: ask it, with --gateway {0} in place of --config")]
    Running(String),
    /// The gateway refused, or failed.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

impl Config {
    fn not_open(&self, error: DeploymentError) -> ModelError {
        match error {
            DeploymentError::Store(OpenError::InUse { .. }) => ModelError::Running(self.web_base.clone()),
            error => ModelError::Deployment(error),
        }
    }

    /// How grades would move under a model today. Nothing is written: neither a cell nor an entry.
    pub async fn try_model(
        &self,
        file: (&str, &[u8]),
        clock: &dyn Clock,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Impact, ModelError> {
        let open = |error| self.not_open(error);
        let keys = self.open_keys().map_err(open)?;
        let (policies, _) = self.open_policies().map_err(open)?;
        let store = self.open_store(false).await.map_err(open)?;
        Ok(try_on_store(store, keys, entropy, &policies, day_of(clock.now()), file).await?)
    }

    /// Publishes a draft for comment.
    pub async fn draft_model(
        &self,
        (file, bytes): (&str, &[u8]),
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<ModelView, ModelError> {
        let gateway = self.stopped_gateway(clock, entropy).await?;
        let drafted = gateway.draft_model(None, file, bytes).await;
        gateway.close().await;
        Ok(drafted?)
    }

    /// Publishes an approved draft, from a day on.
    pub async fn publish_model(
        &self,
        id: &str,
        from: Date,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<ModelView, ModelError> {
        let gateway = self.stopped_gateway(clock, entropy).await?;
        let published = gateway.publish_draft(None, id, from).await;
        gateway.close().await;
        Ok(published?)
    }

    /// All models.
    pub async fn list_models(
        &self,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Vec<ModelView>, ModelError> {
        let gateway = self.stopped_gateway(clock, entropy).await?;
        let listed = gateway.models().await;
        gateway.close().await;
        Ok(listed?)
    }

    async fn stopped_gateway(&self, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Gateway, ModelError> {
        // A database lets a second process in, and two must never write one log: so whoever listens is asked first.
        if std::net::TcpStream::connect_timeout(&self.listen, KNOCK).is_ok() {
            return Err(ModelError::Running(self.web_base.clone()));
        }
        Ok(self.open(clock, entropy).await.map_err(|error| self.not_open(error))?.gateway)
    }
}
