//! What values are possible, by themselves and beside each other.

use std::time::Duration;

use bytesize::ByteSize;
use shiftwork_sys::listen::Address;

use super::ServerSettings;

/// A setting whose value is not possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Its name in the `[server]` table.
    pub key: &'static str,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

/// Longer waits than a year are mistakes, and could not be added to a time without care.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl ServerSettings {
    /// Everything that is wrong with these values, by themselves and beside each other. Empty:
    /// a server can start with them, as far as values tell (users, folders and ports are tried
    /// when it starts).
    #[must_use]
    pub fn validate(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        self.validate_numbers(&mut found);
        self.validate_durations(&mut found);
        self.validate_sizes(&mut found);
        self.validate_texts(&mut found);
        self.validate_proving(&mut found);
        found
    }

    fn validate_numbers(&self, found: &mut Vec<Invalid>) {
        let mut within = |key, value: u64, least: u64, most: u64| {
            if value < least || value > most {
                let reason = format!("must be from {least} to {most}, not {value}");
                found.push(Invalid { key, reason });
            }
        };
        within("worker_num", self.worker_num.into(), 1, 1024);
        within("task_worker_num", self.task_worker_num.into(), 0, 1024);
        within("worker_threads", self.worker_threads.into(), 1, 256);
        within("backlog", self.backlog.into(), 1, 1 << 24);
        within("reload_parallel", self.reload_parallel.into(), 0, 1024);
        within("max_generations", self.max_generations.into(), 2, 64);
        within("max_connection", self.max_connection.into(), 1, 1 << 24);
        if let Some(files) = self.open_files {
            within("open_files", files, 64, 1 << 30);
        }
    }

    fn validate_durations(&self, found: &mut Vec<Invalid>) {
        let waits = [
            ("max_wait_time", self.max_wait_time, true),
            ("pre_stop_delay", self.pre_stop_delay, true),
            ("guard_time", self.guard_time, true),
            ("start_timeout", self.start_timeout, false),
            ("task_timeout", self.task_timeout, false),
            ("heartbeat_timeout", self.heartbeat_timeout, true),
            ("max_lifetime", self.max_lifetime, true),
            ("health_timeout", self.health_timeout, false),
            ("canary_time", self.canary_time, true),
            ("observe_time", self.observe_time, true),
        ];
        for (key, value, zero) in waits {
            if value.is_zero() && !zero {
                found.push(Invalid { key, reason: "must be longer than 0s".into() });
            }
            if value > LONGEST {
                found.push(Invalid { key, reason: "must be at most 365days".into() });
            }
        }
        // A loop that turns says so ten times a second.
        let short = Duration::from_secs(1);
        if !self.heartbeat_timeout.is_zero() && self.heartbeat_timeout < short {
            let reason = "must be 0s (off) or at least 1s".into();
            found.push(Invalid { key: "heartbeat_timeout", reason });
        }
    }

    fn validate_sizes(&self, found: &mut Vec<Invalid>) {
        if self.max_memory.0 != 0 && self.max_memory < ByteSize::mib(1) {
            let reason = format!("must be 0 (off) or at least 1MiB, not {}B", self.max_memory.0);
            found.push(Invalid { key: "max_memory", reason });
        }
        let task = self.task_max_size;
        if task < ByteSize::b(1) || task > ByteSize::kib(128) {
            let reason = format!("must be from 1B to 128KiB, not {}B", task.0);
            found.push(Invalid { key: "task_max_size", reason });
        }
        let queue = self.task_queue_size;
        if queue > ByteSize::gib(1) {
            let reason = format!("must be at most 1GiB, not {}B", queue.0);
            found.push(Invalid { key: "task_queue_size", reason });
        } else if queue < task.min(ByteSize::kib(128)) {
            let reason = format!(
                "must hold at least one task: {}B is less than task_max_size, {}B",
                queue.0, task.0
            );
            found.push(Invalid { key: "task_queue_size", reason });
        }
    }

    fn validate_texts(&self, found: &mut Vec<Invalid>) {
        if let Some(umask) = &self.umask {
            let octal = !umask.is_empty() && umask.bytes().all(|it| matches!(it, b'0'..=b'7'));
            if !octal || u32::from_str_radix(umask, 8).is_ok_and(|it| it > 0o777) || umask.len() > 9
            {
                let reason = format!("must be octal and at most 0777, as \"0027\", not {umask:?}");
                found.push(Invalid { key: "umask", reason });
            }
        }
        for (key, value) in [("user", &self.user), ("group", &self.group)] {
            if value.as_deref().is_some_and(|it| it.trim().is_empty()) {
                found.push(Invalid { key, reason: "must not be empty".into() });
            }
        }
        if let Some(address) = &self.admin_address
            && let Err(error) = Address::parse(address)
        {
            found.push(Invalid { key: "admin_address", reason: error.to_string() });
        }
        let paths = [
            ("run_dir", &self.run_dir),
            ("log_file", &self.log_file),
            ("pid_file", &self.pid_file),
            ("control_socket", &self.control_socket),
            ("executable", &self.executable),
            ("chroot", &self.chroot),
        ];
        for (key, value) in paths {
            let Some(path) = value else { continue };
            if path.as_os_str().is_empty() {
                found.push(Invalid { key, reason: "must not be empty".into() });
            } else if path.as_os_str().as_encoded_bytes().contains(&0) {
                found.push(Invalid { key, reason: "must not contain a zero byte".into() });
            } else if key == "control_socket" && path.as_os_str().len() > LONGEST_SOCKET_PATH {
                let reason = format!(
                    "must be at most {LONGEST_SOCKET_PATH} bytes long, not {}: {}",
                    path.as_os_str().len(),
                    path.display()
                );
                found.push(Invalid { key, reason });
            }
        }
    }
}

/// What the kernel has room for in a Unix socket's address, in bytes.
pub const LONGEST_SOCKET_PATH: usize = 107;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(change: impl FnOnce(&mut ServerSettings)) -> Vec<&'static str> {
        let mut settings = ServerSettings::default();
        change(&mut settings);
        settings.validate().into_iter().map(|it| it.key).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(ServerSettings::default().validate(), Vec::new());
    }

    #[test]
    fn both_ends_of_every_range() {
        assert_eq!(keys(|it| it.worker_num = 0), ["worker_num"]);
        assert_eq!(keys(|it| it.worker_num = 1024), [""; 0]);
        assert_eq!(keys(|it| it.worker_num = 1025), ["worker_num"]);
        assert_eq!(keys(|it| it.task_worker_num = 0), [""; 0]);
        assert_eq!(keys(|it| it.task_worker_num = 1025), ["task_worker_num"]);
        assert_eq!(keys(|it| it.worker_threads = 0), ["worker_threads"]);
        assert_eq!(keys(|it| it.worker_threads = 257), ["worker_threads"]);
        assert_eq!(keys(|it| it.max_generations = 1), ["max_generations"]);
        assert_eq!(keys(|it| it.backlog = 0), ["backlog"]);
        assert_eq!(keys(|it| it.max_connection = 0), ["max_connection"]);
        assert_eq!(keys(|it| it.open_files = Some(3)), ["open_files"]);
        assert_eq!(keys(|it| it.task_max_size = ByteSize::b(0)), ["task_max_size"]);
        assert_eq!(keys(|it| it.task_max_size = ByteSize::kib(128)), [""; 0]);
        assert_eq!(keys(|it| it.task_max_size = ByteSize::b(131_073)), ["task_max_size"]);
        assert_eq!(keys(|it| it.task_queue_size = ByteSize::kib(1)), ["task_queue_size"]);
    }

    #[test]
    fn durations_texts_and_paths() {
        assert_eq!(keys(|it| it.start_timeout = Duration::ZERO), ["start_timeout"]);
        assert_eq!(keys(|it| it.task_timeout = Duration::ZERO), ["task_timeout"]);
        assert_eq!(keys(|it| it.max_wait_time = Duration::ZERO), [""; 0]);
        assert_eq!(keys(|it| it.guard_time = Duration::MAX), ["guard_time"]);
        assert_eq!(keys(|it| it.heartbeat_timeout = Duration::ZERO), [""; 0]);
        assert_eq!(
            keys(|it| it.heartbeat_timeout = Duration::from_millis(999)),
            ["heartbeat_timeout"]
        );
        assert_eq!(keys(|it| it.max_memory = ByteSize::kib(64)), ["max_memory"]);
        assert_eq!(keys(|it| it.umask = Some("0027".into())), [""; 0]);
        for wrong in ["", "8", "1000", "+7", "0o27", "77777777777777777777"] {
            assert_eq!(keys(|it| it.umask = Some(wrong.into())), ["umask"], "{wrong}");
        }
        assert_eq!(keys(|it| it.user = Some(" ".into())), ["user"]);
        assert_eq!(keys(|it| it.admin_address = Some("127.0.0.1:0".into())), [""; 0]);
        assert_eq!(keys(|it| it.admin_address = Some("unix:/a".into())), [""; 0]);
        for wrong in ["", "9509", "example.org:80", "unix:"] {
            assert_eq!(keys(|it| it.admin_address = Some(wrong.into())), ["admin_address"]);
        }
        assert_eq!(keys(|it| it.pid_file = Some("".into())), ["pid_file"]);
        assert_eq!(keys(|it| it.control_socket = Some("/x".repeat(54).into())), ["control_socket"]);
    }

    #[test]
    fn several_mistakes_are_found_at_once() {
        let found = keys(|it| {
            it.worker_num = 0;
            it.umask = Some("9".into());
            it.start_timeout = Duration::ZERO;
        });
        assert_eq!(found, ["worker_num", "start_timeout", "umask"]);
    }
}
