//! What a release knows before any worker of it lives.

use std::path::Path;
use std::sync::Arc;

use crate::server::AppSettings;
use crate::server::app::AnyApp;

/// What `preload` and `release` get to see.
#[derive(Debug, Clone)]
pub struct Boot {
    pub(crate) generation: u64,
    pub(crate) release: String,
    pub(crate) app: AnyApp,
    pub(crate) base: Arc<Path>,
}

impl Boot {
    /// The application's settings.
    ///
    /// # Panics
    /// If `A` is not the type that was given to [`Server::app`](crate::Server::app).
    #[must_use]
    pub fn app<A: AppSettings>(&self) -> Arc<A> {
        read_app(&self.app)
    }

    /// Number of the generation, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What the release calls itself; empty while that is being asked.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Where relative paths start: the folder of the settings file, else where the command was
    /// typed.
    #[must_use]
    pub fn base_dir(&self) -> &Path {
        &self.base
    }
}

pub(crate) fn read_app<A: AppSettings>(app: &AnyApp) -> Arc<A> {
    match Arc::clone(app).downcast::<A>() {
        Ok(app) => app,
        Err(_) => panic!(
            "app::<{}>() is not the type that was given to Server::app",
            std::any::type_name::<A>()
        ),
    }
}
