//! A folder of a test's own: a release, settings, and the end of everything that runs there.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::command::{Ended, run};
use super::wait::within;
use super::{binary, processes};

/// A folder with an installed release and a settings file; nothing runs yet.
pub(crate) struct Site {
    folder: TempDir,
    settings: toml::Table,
    /// The program whose commands are typed.
    typed: PathBuf,
}

impl Site {
    /// One with nothing in it.
    pub(super) fn empty() -> Self {
        let folder = tempfile::Builder::new().prefix("shop").tempdir().expect("a folder");
        let typed = folder.path().join("current/shop");
        Self { folder, settings: toml::Table::new(), typed }
    }

    /// Two workers and one task worker on ports of their own choice.
    pub(crate) fn new() -> Self {
        let mut site = Self::empty();
        fs::create_dir(site.path("releases")).expect("a folder for releases");
        site.release("first", &binary::first());
        site.put("server.worker_num", 2);
        site.put("server.task_worker_num", 1);
        site.put("server.run_dir", "run");
        site.put("listen.web.address", "127.0.0.1:0");
        site.put("listen.till.address", "127.0.0.1:0");
        site.put("app.ledger", "shop.sqlite");
        site
    }

    /// As [`put`](Self::put), for a chain.
    pub(crate) fn with(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.put(key, value);
        self
    }

    /// Types commands by a program of their own from now on: what is installed may be no shop.
    pub(crate) fn type_apart(&mut self) {
        let folder = self.path("typed");
        fs::create_dir(&folder).expect("a folder");
        // Below this folder, so that its processes can be told.
        self.typed = folder.join("shop");
        binary::install(&binary::first(), &self.typed);
    }

    /// Writes a setting, `table.key`, to the file.
    pub(crate) fn put(&mut self, key: &str, value: impl Into<toml::Value>) {
        let (path, key) = key.rsplit_once('.').expect("a key within a table");
        let mut table = &mut self.settings;
        for name in path.split('.') {
            table = table
                .entry(name)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                .as_table_mut()
                .expect("a table");
        }
        table.insert(key.to_owned(), value.into());
        self.write();
    }

    /// Takes a setting out of the file.
    pub(crate) fn remove(&mut self, key: &str) {
        let (path, key) = key.rsplit_once('.').expect("a key within a table");
        let mut table = Some(&mut self.settings);
        for name in path.split('.') {
            table = table.and_then(|table| table.get_mut(name)?.as_table_mut());
        }
        table.expect("a table").remove(key);
        self.write();
    }

    fn write(&self) {
        self.write_settings(&toml::to_string(&self.settings).expect("settings as text"));
    }

    /// Writes the settings file as it is given, whole or not at all.
    pub(crate) fn write_settings(&self, text: &str) {
        let fresh = self.path("shop.toml.new");
        fs::write(&fresh, text).expect("write settings");
        fs::rename(fresh, self.config()).expect("replace settings");
    }

    /// Installs a release under a name of its own, and turns the link `current` to it.
    pub(crate) fn release(&self, name: &str, binary: &Path) {
        let folder = self.path("releases").join(name);
        fs::create_dir_all(&folder).expect("a folder for the release");
        binary::install(binary, &folder.join("shop"));
        let fresh = self.path("current.new");
        symlink(folder, &fresh).expect("a link");
        fs::rename(fresh, self.path("current")).expect("turn the link");
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("shop.toml")
    }

    /// The shop's command with these arguments and this site's settings file.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.typed);
        command.args(arguments).arg("--config").arg(self.config());
        command.current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("SHIFTWORK_")) {
                command.env_remove(name);
            }
        }
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        run(&mut self.command(arguments))
    }

    /// Starts in the background, which must fail with status 1 and leave nothing behind.
    #[track_caller]
    pub(crate) fn fails(&self) -> String {
        let ended = self.run(&["start", "-d"]).expect(1);
        self.assert_nothing_left();
        ended.said()
    }

    /// The pids of everything that runs here.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes::below(self.folder.path())
    }

    /// No process, no pid file, no control socket.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let folder = self.folder.path();
        within(Duration::from_secs(5), "all processes go", || {
            processes::below(folder).is_empty().then_some(())
        });
        for name in ["run/shop.pid", "run/shop.sock"] {
            assert!(!self.path(name).exists(), "{name} is still there");
        }
    }

    /// Everything that was said: on the terminal, and in the log.
    pub(crate) fn log(&self) -> String {
        let mut all = String::new();
        for name in ["terminal", "run/shop.log"] {
            if let Ok(text) = fs::read(self.path(name)) {
                let _ = writeln!(all, "{}", String::from_utf8_lossy(&text));
            }
        }
        all
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the shop said:\n{}----", self.log());
        }
        processes::kill_all(self.folder.path());
    }
}
