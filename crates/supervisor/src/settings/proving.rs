//! How a release proves itself: what the settings about that say, and what is wrong with them.

use serde::{Deserialize, Serialize};

use super::{Invalid, ServerSettings};

/// What becomes of a release whose canary had too little to do to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Inconclusive {
    /// It goes in: nothing speaks against it.
    Commit,
    /// It does not: nothing speaks for it.
    #[default]
    RollBack,
}

impl ServerSettings {
    /// The listener that `health` names, None for the first one with HTTP, and the path.
    #[must_use]
    pub fn health_target(&self) -> Option<(Option<&str>, &str)> {
        let health = self.health.as_deref()?;
        match health.split_once(':') {
            Some((name, path)) if !name.starts_with('/') => Some((Some(name), path)),
            _ => Some((None, health)),
        }
    }

    /// Whether the first worker serves beside the old ones before the others may follow.
    #[must_use]
    pub fn has_canary(&self) -> bool {
        !self.canary_time.is_zero() || self.canary_requests > 0
    }

    pub(super) fn validate_proving(&self, found: &mut Vec<Invalid>) {
        let mut wrong = |key, reason: String| found.push(Invalid { key, reason });
        if let Some((_, path)) = self.health_target() {
            let fits = path.starts_with('/') && path.bytes().all(|it| it.is_ascii_graphic());
            if !fits {
                let reason = format!(
                    "must be a path, as \"/health\", or a listener and a path, as \"web:/health\", \
                     not {:?}",
                    self.health.as_deref().unwrap_or_default()
                );
                wrong("health", reason);
            }
        }
        if !(1..=100).contains(&self.health_tries) {
            wrong("health_tries", format!("must be from 1 to 100, not {}", self.health_tries));
        }
        if self.keep_releases > 16 {
            wrong("keep_releases", format!("must be from 0 to 16, not {}", self.keep_releases));
        }
        let share = |it: f64| (0.0..=1.0).contains(&it);
        if !share(self.canary_max_errors) {
            let reason = format!("must be from 0 to 1, not {}", self.canary_max_errors);
            wrong("canary_max_errors", reason);
        }
        if let Some(rate) = self.max_error_rate
            && !share(rate)
        {
            wrong("max_error_rate", format!("must be from 0 to 1, not {rate}"));
        }
        let slowdown = self.canary_max_slowdown;
        if slowdown != 0.0 && !(1.0..=1e6).contains(&slowdown) {
            let reason = format!("must be 0 (not judged), or at least 1, not {slowdown}");
            wrong("canary_max_slowdown", reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(change: impl FnOnce(&mut ServerSettings)) -> Vec<&'static str> {
        let mut settings = ServerSettings::default();
        change(&mut settings);
        settings.validate().into_iter().map(|it| it.key).collect()
    }

    #[test]
    fn health_is_a_path_and_perhaps_a_listener() {
        for (health, target) in [
            ("/health", (None, "/health")),
            ("web:/health", (Some("web"), "/health")),
            ("/a:b", (None, "/a:b")),
            ("web:/a:b?c=/d", (Some("web"), "/a:b?c=/d")),
        ] {
            let health = Some(health.to_owned());
            let settings = ServerSettings { health, ..ServerSettings::default() };
            assert_eq!(settings.health_target(), Some(target));
            assert_eq!(settings.validate(), []);
        }
        for health in ["", "health", "web:", "web:health", "/a b", "web:/\n"] {
            assert_eq!(wrong(|it| it.health = Some(health.into())), ["health"], "{health:?}");
        }
    }

    #[test]
    fn shares_and_factors() {
        assert_eq!(wrong(|it| it.canary_max_errors = 1.5), ["canary_max_errors"]);
        assert_eq!(wrong(|it| it.canary_max_errors = f64::NAN), ["canary_max_errors"]);
        assert_eq!(wrong(|it| it.max_error_rate = Some(-0.1)), ["max_error_rate"]);
        assert_eq!(wrong(|it| it.canary_max_slowdown = 0.5), ["canary_max_slowdown"]);
        assert_eq!(wrong(|it| it.canary_max_slowdown = f64::INFINITY), ["canary_max_slowdown"]);
        assert_eq!(wrong(|it| it.canary_max_slowdown = 0.0), [""; 0]);
        assert_eq!(wrong(|it| it.health_tries = 0), ["health_tries"]);
        assert_eq!(wrong(|it| it.keep_releases = 17), ["keep_releases"]);
        assert_eq!(wrong(|it| it.health_timeout = std::time::Duration::ZERO), ["health_timeout"]);
    }
}
