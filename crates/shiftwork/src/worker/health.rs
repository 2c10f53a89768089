//! Whether this worker is healthy: asked by the manager before it lets anybody in.

use std::collections::HashMap;
use std::sync::Arc;

use shiftwork_supervisor::protocol::worker::FromWorker;
use tokio::time::timeout;

use crate::server::{Boxed, Serving};

use super::process::{Running, panic_text};

/// What is wrong, for the operator.
type Failure = String;

impl<P, S> Running<P, S>
where
    P: Send + Sync + 'static,
    S: Send + Sync + 'static,
{
    /// Asks the application, within `health_timeout`, and tells the manager, who is heard meanwhile.
    pub(super) fn check_health(&mut self, attempt: u32, state: &Arc<S>) {
        let limit = self.settings.server.health_timeout;
        let check = self.health(state);
        let voice = self.voice.clone();
        tokio::spawn(async move {
            let mut running = tokio::spawn(check);
            let failure = match timeout(limit, &mut running).await {
                Ok(Ok(Ok(()))) => None,
                Ok(Ok(Err(failure))) => Some(failure),
                Ok(Err(error)) => Some(format!("the check has panicked{}", panic_text(error))),
                Err(_) => {
                    running.abort();
                    let limit = humantime::format_duration(limit);
                    Some(format!("no answer within {limit} (health_timeout)"))
                }
            };
            voice.answer(FromWorker::Health { attempt, failure });
        });
    }

    /// The application's own check, then its answer to the path of the settings.
    fn health(&mut self, state: &Arc<S>) -> Boxed<Result<(), Failure>> {
        let server = self.server;
        let own = server.callbacks.health.as_ref();
        let own = own.map(|check| check(self.worker.clone(), Arc::clone(state)));
        let target = self.settings.server.health_target();
        let target = target.map(|(name, path)| (server.health_listener(name), path.to_owned()));
        let asked = target.map(|(name, path)| {
            let name = name.unwrap_or_default();
            (self.serving(state).get(name).cloned(), path)
        });
        Box::pin(async move {
            if let Some(own) = own {
                own.await.map_err(|error| error.to_string())?;
            }
            match asked {
                Some((Some(Serving::Http { service, .. }), path)) => service.check(path).await,
                Some((_, path)) => Err(format!("no listener answers {path} over HTTP")),
                None => Ok(()),
            }
        })
    }

    /// What connections are served with, made once.
    pub(super) fn serving(&mut self, state: &Arc<S>) -> &HashMap<String, Serving> {
        let server = self.server;
        self.serving.get_or_insert_with(|| {
            let listeners = server.listeners.iter();
            listeners.map(|(name, it)| (name.clone(), it.serving(state))).collect()
        })
    }
}
