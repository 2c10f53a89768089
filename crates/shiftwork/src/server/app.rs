//! The application's own settings, their type forgotten and remembered.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::settings::{NoApp, Problem, Settings, SettingsErrors, app_default, app_problems};

/// What the `[app]` table can be read as: any type with serde and a default.
pub trait AppSettings:
    Serialize + DeserializeOwned + Default + Debug + Send + Sync + 'static
{
}

impl<T: Serialize + DeserializeOwned + Default + Debug + Send + Sync + 'static> AppSettings for T {}

/// The application's settings as a value of some type.
pub(crate) type AnyApp = Arc<dyn Any + Send + Sync>;

/// How the `[app]` table is read.
pub(crate) struct App {
    pub(crate) default: Table,
    pub(crate) check: fn(&Table) -> Vec<Problem>,
    pub(crate) read: fn(&Settings) -> Result<AnyApp, SettingsErrors>,
}

impl App {
    /// An application without settings.
    pub(crate) fn none() -> Self {
        Self { default: Table::new(), check: app_problems::<NoApp>, read: read::<NoApp> }
    }

    /// # Errors
    /// If the type's default is no table.
    pub(crate) fn of<A: AppSettings>() -> Result<Self, String> {
        Ok(Self { default: app_default::<A>()?, check: app_problems::<A>, read: read::<A> })
    }
}

fn read<A: AppSettings>(settings: &Settings) -> Result<AnyApp, SettingsErrors> {
    Ok(Arc::new(settings.app::<A>()?))
}
