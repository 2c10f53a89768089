//! What a user writes: the server, from its name to `run`.

mod app;
mod boot;
mod callbacks;
mod hooks;
mod listen;
mod load;
mod run;

pub use app::AppSettings;
pub use boot::Boot;
pub use listen::{Http, Listener, Tcp};

pub(crate) use app::{AnyApp, App};
pub(crate) use boot::read_app;
pub(crate) use callbacks::{Boxed, Callbacks};
pub(crate) use hooks::Hook;
pub(crate) use listen::{Serving, WebSockets};
pub(crate) use load::environment;

use std::collections::BTreeMap;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use shiftwork_supervisor::protocol::template::HookName;

use crate::BoxError;
use crate::task::{Handlers, Task};
use crate::worker::Worker;

/// Something that is made once per generation.
pub(crate) type FromBoot<T> = Box<dyn Fn(&Boot) -> T + Send + Sync>;

/// A server: master, manager, template, workers and task workers out of one executable.
///
/// `P` is what [`preload`](Server::preload) returns, `S` what
/// [`on_worker_start`](Server::on_worker_start) returns. Call the methods in that order: preload,
/// on_worker_start, then listeners and tasks, which get to see `S`.
///
/// ```no_run
/// use std::process::ExitCode;
/// use std::sync::Arc;
///
/// use axum::{Router, routing::get};
/// use shiftwork::{BoxError, Http, Server};
///
/// fn main() -> ExitCode {
///     Server::new("hello")
///         .default_setting("listen.web.address", "127.0.0.1:8080")
///         .on_worker_start(|worker, _| async move { Ok::<_, BoxError>(worker) })
///         .listen("web", Http::new(|worker: &Arc<shiftwork::Worker>| {
///             let text = format!("hello from worker {}\n", worker.id());
///             Router::new().route("/", get(move || async move { text }))
///         }))
///         .run()
/// }
/// ```
pub struct Server<P = (), S = ()> {
    pub(crate) name: String,
    pub(crate) defaults: toml::Table,
    pub(crate) app: App,
    pub(crate) release: Option<FromBoot<String>>,
    pub(crate) hooks: BTreeMap<u8, (HookName, Hook)>,
    pub(crate) preload: FromBoot<Result<P, BoxError>>,
    pub(crate) callbacks: Callbacks<P, S>,
    pub(crate) listeners: Vec<(String, Listener<S>)>,
    pub(crate) tasks: Arc<Handlers<S>>,
    /// What is wrong with the builder's own calls; `run` says so.
    pub(crate) mistakes: Vec<String>,
}

impl Server {
    /// A server of this name: it is what `ps` shows, and names settings file, control socket and
    /// pid file. ASCII letters, digits, `-` and `_`, at most 32 of them.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        let mut mistakes = Vec::new();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 32 || !name.chars().all(fits) {
            mistakes.push(format!(
                "{name:?} is no name for a server: use 1 to 32 of a-z, A-Z, 0-9, - and _"
            ));
        }
        Self {
            name,
            defaults: toml::Table::new(),
            app: App::none(),
            release: None,
            hooks: BTreeMap::new(),
            preload: Box::new(|_| Ok(())),
            callbacks: Callbacks::none(),
            listeners: Vec::new(),
            tasks: Arc::new(Handlers::new()),
            mistakes,
        }
    }

    /// Runs once per generation, in the template, before its workers are forked: what it returns
    /// they share without a copy, until somebody writes to it.
    ///
    /// It is synchronous and must leave one thread behind. What it returns must not hold database
    /// handles (most are broken by a fork, SQLite's and libpq's among them), threads or a runtime,
    /// seeded random generators (each worker would draw the same numbers), or files that workers
    /// read through one shared offset: open those in `on_worker_start`. An error or a panic keeps
    /// the old generation serving, with what was written to stderr as the reason.
    ///
    /// ```
    /// # use shiftwork::Server;
    /// let server = Server::new("hello")
    ///     .preload(|boot| Ok(std::fs::read_to_string(boot.base_dir().join("words.txt"))?))
    ///     .on_worker_start(async |_, words| Ok(words.len()));
    /// # let _: Server<String, usize> = server;
    /// ```
    #[must_use]
    pub fn preload<P: Send + Sync + 'static>(
        self,
        preload: impl Fn(&Boot) -> Result<P, BoxError> + Send + Sync + 'static,
    ) -> Server<P, ()> {
        self.require_none("preload").with_preload(Box::new(preload))
    }

    fn with_preload<P>(self, preload: FromBoot<Result<P, BoxError>>) -> Server<P, ()> {
        Server {
            name: self.name,
            defaults: self.defaults,
            app: self.app,
            release: self.release,
            hooks: self.hooks,
            preload,
            callbacks: Callbacks::none(),
            listeners: Vec::new(),
            tasks: Arc::new(Handlers::new()),
            mistakes: self.mistakes,
        }
    }
}

impl<P: Send + Sync + 'static> Server<P, ()> {
    /// Runs in each worker and task worker after the fork; its result is that process's state,
    /// shared by all of its handlers. What it loads is fresh after each reload.
    ///
    /// The process is ready when it returns. An error or a panic means that it is not: a reload
    /// fails and the old generation goes on; a respawn is tried again, later each time.
    ///
    /// ```
    /// # use shiftwork::{BoxError, Server, Worker};
    /// struct State {
    ///     worker: Worker,
    ///     // a pool of database connections, opened here and not in `preload`
    /// }
    ///
    /// let server = Server::new("hello").on_worker_start(async |worker, _| Ok(State { worker }));
    /// # let _: Server<(), State> = server;
    /// ```
    #[must_use]
    pub fn on_worker_start<S, F, R>(self, start: F) -> Server<P, S>
    where
        S: Send + Sync + 'static,
        F: Fn(Worker, Arc<P>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S, BoxError>> + Send + 'static,
    {
        let this = self.require_none("on_worker_start");
        Server {
            name: this.name,
            defaults: this.defaults,
            app: this.app,
            release: this.release,
            hooks: this.hooks,
            preload: this.preload,
            callbacks: Callbacks::starting(Box::new(move |worker, preloaded| {
                Box::pin(start(worker, preloaded))
            })),
            listeners: Vec::new(),
            tasks: Arc::new(Handlers::new()),
            mistakes: this.mistakes,
        }
    }

    /// As [`on_worker_start`](Server::on_worker_start), for code that does not await anything.
    #[must_use]
    pub fn on_worker_start_sync<S, F>(self, start: F) -> Server<P, S>
    where
        S: Send + Sync + 'static,
        F: Fn(Worker, Arc<P>) -> Result<S, BoxError> + Send + Sync + 'static,
    {
        self.on_worker_start(move |worker, preloaded| {
            let state = start(worker, preloaded);
            async move { state }
        })
    }

    /// Listeners, tasks and worker callbacks are bound to the state's type, so they come later.
    fn require_none(mut self, method: &str) -> Self {
        if !self.listeners.is_empty() || !self.tasks.names().is_empty() || !self.callbacks.is_none()
        {
            self.mistakes.push(format!(
                "call {method} before listen, on_task, on_worker_start, on_worker_stop and \
                 on_worker_exit: it decides what they get to see"
            ));
        }
        self
    }
}

impl<P: Send + Sync + 'static, S: Send + Sync + 'static> Server<P, S> {
    /// The type of the `[app]` table. Its `Default` gives the defaults; keys that it does not have
    /// are errors that name the nearest one. Read it with [`Boot::app`] and [`Worker::app`].
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Debug, Default, Serialize, Deserialize)]
    /// #[serde(default)]
    /// struct App {
    ///     greeting: String, // [app] greeting = "hello", or --set app.greeting=hello
    /// }
    ///
    /// let server = shiftwork::Server::new("hello").app::<App>();
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn app<A: AppSettings>(mut self) -> Self {
        match App::of::<A>() {
            Ok(app) => self.app = app,
            Err(mistake) => self.mistakes.push(mistake),
        }
        self
    }

    /// A default of the application's own, below the settings file: `listen.web.address`,
    /// `server.task_worker_num`, ... with its value. A key that does not exist is an error of `run`.
    #[must_use]
    pub fn default_setting(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        if let Err(mistake) = insert(&mut self.defaults, key, value.into()) {
            self.mistakes.push(mistake);
        }
        self
    }

    /// What the release calls itself in `status`. Default: the time at which its executable was
    /// last changed.
    #[must_use]
    pub fn release(mut self, label: impl Fn(&Boot) -> String + Send + Sync + 'static) -> Self {
        self.release = Some(Box::new(label));
        self
    }

    /// The listener that answers for the health of a worker: the one of that name, or the first, if it
    /// speaks HTTP.
    pub(crate) fn health_listener(&self, name: Option<&str>) -> Option<&str> {
        let mut listeners = self.http_listener_names().into_iter();
        listeners.find(|known| name.is_none_or(|name| name == *known))
    }

    /// Serves an address: `[listen.NAME] address = "IP:PORT"` or `"unix:/path"`, with an [`Http`]
    /// or a [`Tcp`] handler.
    #[must_use]
    pub fn listen(mut self, name: &str, listener: impl Into<Listener<S>>) -> Self {
        if self.listeners.iter().any(|(known, _)| known == name) {
            self.mistakes.push(format!("listener {name:?} is registered twice"));
        }
        self.listeners.push((name.to_owned(), listener.into()));
        self
    }

    /// Runs tasks of type `T` in the task workers, one at a time each; see [`Worker::task`].
    ///
    /// An error and a panic reach whoever awaits the task; the task worker goes on.
    #[must_use]
    pub fn on_task<T, F, R, E>(mut self, handler: F) -> Self
    where
        T: Task,
        F: Fn(Arc<S>, T) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T::Output, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        // Nobody else has it before `run`.
        if let Some(tasks) = Arc::get_mut(&mut self.tasks)
            && let Err(twice) = tasks.register(handler)
        {
            self.mistakes.push(twice.to_string());
        }
        self
    }

    /// Does what the command line says, in whatever role this process has been started for.
    ///
    /// Everything before this call in `main` executes in each of those roles: keep it short, and
    /// without threads (`#[tokio::main]` starts some; `run` refuses then).
    pub fn run(self) -> ExitCode {
        run::run(self)
    }
}

/// Puts a value at a dotted key.
fn insert(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), String> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => {
            let inner = table
                .entry(first.to_owned())
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match inner {
                toml::Value::Table(inner) => insert(inner, rest, value),
                _ => Err(format!("default_setting {key:?}: {first} is a value, not a table")),
            }
        }
    }
}
