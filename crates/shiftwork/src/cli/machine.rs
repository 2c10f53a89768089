//! Whether this machine has what the settings name. Looks, and changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shiftwork_supervisor::places::Places;
use shiftwork_sys::user::{self, UserError};

use crate::settings::{Settings, SettingsError, source_of};

/// What a start with these settings would miss here.
pub(super) fn missing(settings: &Settings, places: &Places) -> Vec<SettingsError> {
    let mut found = Vec::new();
    let mut note = |key: &str, reason: Option<String>| {
        if let Some(reason) = reason {
            let source = source_of(&settings.sources, key);
            found.push(SettingsError { key: key.into(), source, reason, nearest: None });
        }
    };
    let server = &settings.server;
    note("server.executable", server.executable.as_deref().and_then(not_executable));
    let missing =
        |root: &Path| (!root.is_dir()).then(|| format!("there is no folder {}", root.display()));
    note("server.chroot", server.chroot.as_deref().and_then(missing));
    // Whether this user may become that one is seen at the start: who checks may be another one.
    match user::resolve(server.user.as_deref(), server.group.as_deref()) {
        Err(error @ UserError::NoUser(_)) => note("server.user", Some(error.to_string())),
        Err(error @ UserError::NoGroup(_)) => note("server.group", Some(error.to_string())),
        Ok(_) | Err(UserError::NotRoot { .. } | UserError::Io(_)) => {}
    }
    // run_dir itself is made at the start.
    let no_folder = |file: &Path| {
        let folder = file.parent().filter(|it| *it != places.run_dir)?;
        (!folder.is_dir()).then(|| format!("there is no folder {}", folder.display()))
    };
    note("server.control_socket", no_folder(&places.control_socket));
    note("server.pid_file", no_folder(&places.pid_file));
    if server.daemonize {
        note("server.log_file", no_folder(&places.log_file));
    }
    let admin = server.admin_address.as_deref().and_then(|it| it.strip_prefix("unix:"));
    note("server.admin_address", admin.map(Path::new).and_then(no_folder));
    for (name, address) in &settings.listen {
        let socket = address.strip_prefix("unix:").map(Path::new);
        note(&format!("listen.{name}.address"), socket.and_then(no_folder));
    }
    found
}

fn not_executable(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Err(error) => Some(format!("cannot execute {}: {error}", path.display())),
        Ok(it) if !it.is_file() => Some(format!("{} is not a file", path.display())),
        Ok(it) if it.permissions().mode() & 0o111 == 0 => {
            Some(format!("{} is not executable (chmod +x it)", path.display()))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::{Inputs, NoApp, app_problems, load, places};
    use shiftwork_supervisor::protocol::template::Snapshot;
    use toml::Table;

    /// The keys of what is missing, with these `--set`s typed in `directory`.
    fn keys(directory: &Path, overrides: &[&str]) -> Vec<String> {
        let overrides = overrides.iter().map(|it| (*it).to_owned()).collect();
        let snapshot = Snapshot { directory: directory.into(), file: None, overrides };
        let settings = load(&Inputs {
            snapshot: &snapshot,
            environment: &[],
            builder: &"listen.web.address = '127.0.0.1:1'".parse().unwrap(),
            listeners: &["web"],
            http_listeners: &["web"],
            app_default: &Table::new(),
            app_check: &app_problems::<NoApp>,
        })
        .unwrap();
        let places = places("shop", &settings.server, &[]);
        missing(&settings, &places).into_iter().map(|it| it.key).collect()
    }

    #[test]
    fn what_a_start_would_miss() {
        let folder = tempfile::tempdir().unwrap();
        let here = |overrides: &[&str]| keys(folder.path(), overrides);
        std::fs::write(folder.path().join("text"), "").unwrap();
        assert_eq!(here(&["server.run_dir=made/at/the/start", "server.log_file=no/log"]), [""; 0]);
        assert_eq!(here(&["server.log_file=no/log", "server.daemonize=true"]), ["server.log_file"]);
        assert_eq!(here(&["server.pid_file=no/pid"]), ["server.pid_file"]);
        assert_eq!(here(&["server.control_socket=no/sock"]), ["server.control_socket"]);
        assert_eq!(here(&["listen.web.address=unix:no/sock"]), ["listen.web.address"]);
        assert_eq!(here(&["listen.web.address=unix:sock"]), [""; 0]);
        for wrong in ["gone", "text", "."] {
            assert_eq!(here(&[&format!("server.executable={wrong}")]), ["server.executable"]);
        }
        assert_eq!(here(&["server.executable=/bin/sh"]), [""; 0]);
        assert_eq!(here(&["server.user=nobody-of-this-name"]), ["server.user"]);
        assert_eq!(here(&["server.group=nobody-of-this-name"]), ["server.group"]);
    }
}
