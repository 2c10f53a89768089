//! Where files are: relative paths made absolute, and the places of a server's own files.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use shiftwork_supervisor::places::Places;
use shiftwork_supervisor::settings::{LONGEST_SOCKET_PATH, ServerSettings};

use super::{SettingsError, Source};

/// The path from `base` on, without `.` and without a look at the disk: links stay unresolved,
/// and `..` stays, because what it means depends on them.
pub(crate) fn absolute(path: &Path, base: &Path) -> PathBuf {
    base.join(path).components().filter(|it| !matches!(it, Component::CurDir)).collect()
}

/// Settings of `[server]` that are paths.
pub(super) const PATHS: [&str; 6] =
    ["run_dir", "log_file", "pid_file", "control_socket", "executable", "chroot"];

/// A `KEY=VALUE` that means the same in any other directory: a relative path in it, be it of a
/// file or of a Unix socket, begins at `base`. All else stays as it is, wrong or not.
pub(crate) fn rooted(text: &str, base: &Path) -> String {
    let Some((key, value)) = text.split_once('=') else { return text.to_owned() };
    let parts: Vec<&str> = key.split('.').map(str::trim).collect();
    let value = super::coerce::unquoted(value.trim());
    let path = match parts[..] {
        ["server", name] if PATHS.contains(&name) => Some(("", value.as_str())),
        ["listen", _, "address"] | ["server", "admin_address"] => {
            value.strip_prefix("unix:").map(|it| ("unix:", it))
        }
        _ => None,
    };
    match path {
        Some((kind, path)) if !path.is_empty() && Path::new(path).is_relative() => {
            format!("{key}={kind}{}", absolute(Path::new(path), base).display())
        }
        _ => text.to_owned(),
    }
}

/// Where the files of the server `name` are, by its settings and `environment`.
///
/// `run_dir` is, in this order: the setting; the first of $RUNTIME_DIRECTORY (a service of
/// systemd's has it); as root `/run/NAME`; `NAME` in $XDG_RUNTIME_DIR; `NAME-UID` in the folder
/// for temporary files. Variables that are not absolute paths are passed over. NAME.sock,
/// NAME.pid and NAME.log are in it, unless settings put them elsewhere. Nothing is created.
#[must_use]
pub fn places(name: &str, server: &ServerSettings, environment: &[(String, String)]) -> Places {
    places_of(name, server, environment, shiftwork_sys::user::effective_uid())
}

/// What is wrong with these places: the control socket's path can be too long because of `run_dir`,
/// or of where the user's own run directory is.
pub(crate) fn place_problem(
    places: &Places,
    sources: &BTreeMap<String, Source>,
) -> Option<SettingsError> {
    let path = &places.control_socket;
    let length = path.as_os_str().len();
    if length <= LONGEST_SOCKET_PATH {
        return None;
    }
    let set = |key: &&str| sources.contains_key(*key);
    let key = ["server.control_socket", "server.run_dir"].into_iter().find(set);
    let key = key.unwrap_or("server.run_dir");
    let reason = format!(
        "the control socket's path must be at most {LONGEST_SOCKET_PATH} bytes long, not {length}; \
         choose a shorter folder: {}",
        path.display()
    );
    let source = sources.get(key).cloned();
    Some(SettingsError { key: key.to_owned(), source, reason, nearest: None })
}

fn places_of(
    name: &str,
    server: &ServerSettings,
    environment: &[(String, String)],
    uid: u32,
) -> Places {
    let folder = |variable: &str| -> Option<PathBuf> {
        let (_, value) = environment.iter().find(|(key, _)| key == variable)?;
        let first = Path::new(value.split(':').next()?);
        first.is_absolute().then(|| first.to_owned())
    };
    let run_dir = server.run_dir.clone().unwrap_or_else(|| {
        if let Some(folder) = folder("RUNTIME_DIRECTORY") {
            folder
        } else if uid == 0 {
            Path::new("/run").join(name)
        } else if let Some(folder) = folder("XDG_RUNTIME_DIR") {
            folder.join(name)
        } else {
            let temporary = folder("TMPDIR").unwrap_or_else(|| "/tmp".into());
            temporary.join(format!("{name}-{uid}"))
        }
    });
    let file = |set: &Option<PathBuf>, suffix: &str| {
        set.clone().unwrap_or_else(|| run_dir.join(format!("{name}.{suffix}")))
    };
    Places {
        control_socket: file(&server.control_socket, "sock"),
        pid_file: file(&server.pid_file, "pid"),
        log_file: file(&server.log_file, "log"),
        admin_address: server.admin_address.clone(),
        run_dir,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_dir(environment: &[(&str, &str)], uid: u32) -> PathBuf {
        let environment: Vec<_> =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        places_of("shop", &ServerSettings::default(), &environment, uid).run_dir
    }

    #[test]
    fn the_folder_by_user_and_environment() {
        let xdg = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(run_dir(&[("RUNTIME_DIRECTORY", "/run/a:/run/b"), xdg], 7), Path::new("/run/a"));
        assert_eq!(run_dir(&[xdg], 0), Path::new("/run/shop"));
        assert_eq!(run_dir(&[xdg], 7), Path::new("/run/user/7/shop"));
        assert_eq!(run_dir(&[("TMPDIR", "/var/tmp")], 7), Path::new("/var/tmp/shop-7"));
        assert_eq!(
            run_dir(&[("XDG_RUNTIME_DIR", "x"), ("TMPDIR", "")], 7),
            Path::new("/tmp/shop-7")
        );
    }

    #[test]
    fn settings_win() {
        let server = ServerSettings {
            run_dir: Some("/r".into()),
            pid_file: Some("/var/run/shop.pid".into()),
            ..ServerSettings::default()
        };
        let places = places_of("shop", &server, &[], 0);
        assert_eq!(places.control_socket, Path::new("/r/shop.sock"));
        assert_eq!(places.pid_file, Path::new("/var/run/shop.pid"));
        assert_eq!(places.log_file, Path::new("/r/shop.log"));
    }

    #[test]
    fn a_folder_too_deep_for_a_socket() {
        let deep = |length| ServerSettings {
            run_dir: Some(format!("/{}", "x".repeat(length)).into()),
            ..ServerSettings::default()
        };
        // Before it a slash, after it "/shop.sock".
        assert_eq!(place_problem(&places_of("shop", &deep(96), &[], 0), &BTreeMap::new()), None);
        let found = place_problem(&places_of("shop", &deep(97), &[], 0), &BTreeMap::new());
        assert_eq!(found.map(|it| it.key).as_deref(), Some("server.run_dir"));
    }

    #[test]
    fn overrides_that_are_paths_take_their_directory_along() {
        let there = |text: &str| rooted(text, Path::new("/here"));
        assert_eq!(there("server.run_dir=run"), "server.run_dir=/here/run");
        assert_eq!(there(" server . log_file = \"./a b\""), " server . log_file =/here/a b");
        assert_eq!(there("server.admin_address=unix:a"), "server.admin_address=unix:/here/a");
        assert_eq!(there("listen.web.address=unix:w.sock"), "listen.web.address=unix:/here/w.sock");
        for same in [
            "server.run_dir=/run/x",
            "server.run_dir=",
            "server.worker_num=2",
            "listen.web.address=127.0.0.1:1",
            "listen.web.address=unix:/w",
            "app.run_dir=run",
            "server.run_dir",
            "",
        ] {
            assert_eq!(there(same), same);
        }
    }

    #[test]
    fn relative_paths_start_at_the_base_and_keep_links() {
        let base = Path::new("/srv/./shop");
        assert_eq!(absolute(Path::new("./a/../b"), base), Path::new("/srv/shop/a/../b"));
        assert_eq!(absolute(Path::new("/x"), base), Path::new("/x"));
    }
}
