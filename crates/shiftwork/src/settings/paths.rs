//! Where files are: relative paths made absolute, and the places of a server's own files.

use std::path::{Component, Path, PathBuf};

use shiftwork_supervisor::master::Places;
use shiftwork_supervisor::settings::ServerSettings;

/// The path from `base` on, without `.` and without a look at the disk: links stay unresolved,
/// and `..` stays, because what it means depends on them.
pub(crate) fn absolute(path: &Path, base: &Path) -> PathBuf {
    base.join(path).components().filter(|it| !matches!(it, Component::CurDir)).collect()
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
    fn relative_paths_start_at_the_base_and_keep_links() {
        let base = Path::new("/srv/./shop");
        assert_eq!(absolute(Path::new("./a/../b"), base), Path::new("/srv/shop/a/../b"));
        assert_eq!(absolute(Path::new("/x"), base), Path::new("/x"));
    }
}
