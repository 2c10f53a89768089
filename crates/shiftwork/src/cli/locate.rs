//! Which settings, and which server is meant.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use shiftwork_supervisor::protocol::template::Snapshot;

use crate::settings::{DAEMONIZE, SettingsError, SettingsErrors, absolute, load_lenient, places};

use super::{Application, Cli, Command};

/// A settings file is not longer than this, in bytes.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Everything that the settings of this command are made from, as it is now.
///
/// The settings file is `--config`, which must be there, else `NAME.toml` where the command was
/// typed, if it is there. `-d` and `--control` of a start become overrides, so that they hold for
/// its reloads too.
///
/// # Errors
/// If the file cannot be read, is longer than 1 MiB or is no UTF-8.
pub fn read_snapshot(name: &str, cli: &Cli) -> Result<Snapshot, SettingsErrors> {
    let directory = typed_in().map_err(|error| {
        SettingsErrors::single(format!("cannot tell the current directory: {error}"))
    })?;
    if directory.to_str().is_none() {
        let reason = format!("the current directory's path is not UTF-8: {}", directory.display());
        return Err(SettingsErrors::single(reason));
    }
    snapshot_in(directory, name, cli)
}

fn snapshot_in(directory: PathBuf, name: &str, cli: &Cli) -> Result<Snapshot, SettingsErrors> {
    let file = match &cli.config {
        Some(path) => {
            let path = absolute(path, &directory);
            let text = read_file(&path).map_err(|error| unreadable(&path, &error))?;
            Some((path, text))
        }
        None => {
            let path = directory.join(format!("{name}.toml"));
            match read_file(&path) {
                Ok(text) => Some((path, text)),
                // A link into nowhere is there, and somebody counts on it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => None,
                Err(error) => return Err(unreadable(&path, &error)),
            }
        }
    };
    let mut overrides = cli.set.clone();
    if let Command::Start { daemonize } = cli.command {
        if let Some(path) = &cli.control {
            let path = absolute(path, &directory);
            overrides.push(format!("server.control_socket={}", path.display()));
        }
        if daemonize {
            overrides.push(DAEMONIZE.to_owned());
        }
    }
    Ok(Snapshot { directory, file, overrides })
}

/// The directory as the user sees it, with its links, if the shell tells the truth.
pub(super) fn typed_in() -> io::Result<PathBuf> {
    let real = std::env::current_dir()?;
    let Some(shown) = std::env::var_os("PWD").map(PathBuf::from).filter(|it| it.is_absolute())
    else {
        return Ok(real);
    };
    Ok(if is_same(&shown, &real) { shown } else { real })
}

fn is_same(a: &Path, b: &Path) -> bool {
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    inode(a).is_some() && inode(a) == inode(b)
}

fn read_file(path: &Path) -> io::Result<String> {
    if path.to_str().is_none() {
        // It travels between processes as text.
        return Err(io::Error::other("its path is not UTF-8"));
    }
    // Looked at before it is opened: opening a pipe would wait for ever.
    if !std::fs::metadata(path)?.is_file() {
        let reason = "it is not a regular file, which every reload can read again";
        return Err(io::Error::other(reason));
    }
    let mut text = String::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &io::Error) -> SettingsErrors {
    SettingsErrors::single(format!("cannot read the settings file {}: {error}", path.display()))
}

/// Where a server probably is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its control socket.
    pub socket: PathBuf,
    /// What is wrong with the settings by which it was found. Of no account if a server answers
    /// there: it goes by the settings that it was started with.
    pub errors: Vec<SettingsError>,
}

/// Finds the control socket for a command to a server that runs: `--control`, else by the
/// settings as far as they can be read. A broken settings file must not keep a reload from the
/// server, which will say what is wrong with it.
#[must_use]
pub fn locate(application: &Application<'_>, cli: &Cli) -> Located {
    if let Some(path) = &cli.control {
        return Located { socket: path.clone(), errors: Vec::new() };
    }
    let (snapshot, mut errors) = match read_snapshot(application.name, cli) {
        Ok(snapshot) => (snapshot, Vec::new()),
        Err(errors) => {
            let directory = typed_in().unwrap_or_else(|_| "/".into());
            (Snapshot { directory, file: None, overrides: cli.set.clone() }, errors.0)
        }
    };
    let (settings, found) = load_lenient(&application.inputs(&snapshot));
    errors.extend(found);
    let places = places(application.name, &settings.server, application.environment);
    Located { socket: places.control_socket, errors }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::{NoApp, app_problems};

    fn cli(line: &str) -> Cli {
        Cli::parse("shop", "1", line.split_whitespace().map(Into::into)).unwrap()
    }

    #[test]
    fn the_file_where_the_command_was_typed_or_the_one_named() {
        let folder = tempfile::tempdir().unwrap();
        let here = || folder.path().to_owned();
        assert_eq!(snapshot_in(here(), "shop", &cli("shop")).unwrap().file, None);
        assert!(snapshot_in(here(), "shop", &cli("shop --config x.toml")).is_err());
        std::fs::write(folder.path().join("shop.toml"), "a").unwrap();
        let found = snapshot_in(here(), "shop", &cli("shop")).unwrap().file.unwrap();
        assert_eq!(found, (folder.path().join("shop.toml"), "a".into()));
        std::os::unix::fs::symlink("shop.toml", folder.path().join("link.toml")).unwrap();
        let found = snapshot_in(here(), "shop", &cli("shop --config ./link.toml")).unwrap();
        assert_eq!(found.file.unwrap().0, folder.path().join("link.toml"));
    }

    #[test]
    fn files_that_are_too_large_or_no_text_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.toml");
        for (content, expected) in
            [(vec![b' '; 1024 * 1024 + 1], "1 MiB"), (vec![0xff, 0xfe], "UTF-8")]
        {
            std::fs::write(&path, content).unwrap();
            let error = snapshot_in(folder.path().into(), "shop", &cli("shop")).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.to_string().contains("shop.toml"), "{error}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.toml");
        let refused = || {
            let found = snapshot_in(folder.path().into(), "shop", &cli("shop"));
            found.unwrap_err().to_string()
        };
        std::os::unix::fs::symlink("gone", &path).unwrap();
        assert!(refused().contains("No such file"), "{}", refused());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(refused().contains("regular file"), "{}", refused());
        std::fs::remove_dir(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(refused().contains("regular file"), "{}", refused());
    }

    #[test]
    fn flags_of_a_start_become_overrides() {
        let start = snapshot_in("/d".into(), "shop", &cli("shop --control c --set a=1 -d"));
        assert_eq!(start.unwrap().overrides, ["a=1", "server.control_socket=/d/c", "-d"]);
        let status = snapshot_in("/d".into(), "shop", &cli("shop --control c --set a=1 status"));
        assert_eq!(status.unwrap().overrides, ["a=1"]);
    }

    #[test]
    fn a_broken_file_does_not_hide_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.toml");
        std::fs::write(&path, "[server]\nrun_dir = 'r'\nworker_num = 0\n[[[").unwrap();
        let application = Application {
            name: "shop",
            version: "1",
            environment: &[],
            builder: &toml::Table::new(),
            listeners: &[],
            http_listeners: &[],
            app_default: &toml::Table::new(),
            app_check: &app_problems::<NoApp>,
        };
        let typed = cli(&format!("shop reload --config {}", path.display()));
        let located = locate(&application, &typed);
        assert_eq!(located.socket, folder.path().join("r/shop.sock"));
        assert!(located.errors.len() >= 2, "{:?}", located.errors);
        let located = locate(&application, &cli("shop status --control there.sock"));
        assert_eq!(located, Located { socket: "there.sock".into(), errors: Vec::new() });
    }
}
