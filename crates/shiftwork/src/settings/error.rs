//! Where a setting comes from, and what can be wrong with one.

use std::fmt::{self, Write};
use std::path::PathBuf;

use serde::{Serialize, Serializer};

/// Where a setting's value comes from. Later ones win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Shiftwork's own default, or that of the application's `[app]` type.
    Default,
    /// The application's builder.
    Builder,
    /// The settings file.
    File {
        /// Absolute, links unresolved.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// This environment variable.
    Environment(String),
    /// This `KEY=VALUE` of a `--set`.
    Set(String),
    /// The flag `-d`.
    Daemonize,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Harmless { inner: f, breaks: false };
        match self {
            Self::Default => f.write_str("default"),
            Self::Builder => f.write_str("the program"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Set(text) => write!(f, "--set {text}"),
            Self::Daemonize => f.write_str("-d"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SettingsError {
    /// The dotted key; empty where it is a whole file, or nothing that has a key.
    pub key: String,
    /// Where the value comes from. None: there is no value, and there should be one.
    pub source: Option<Source>,
    /// What is wrong with it.
    pub reason: String,
    /// The dotted key that was probably meant, if the key is unknown.
    pub nearest: Option<String>,
}

/// Text that was typed somewhere, on its way to a terminal: no character of it moves the cursor,
/// and only where `breaks` says so it ends a line.
struct Harmless<'a, 'f> {
    inner: &'a mut fmt::Formatter<'f>,
    breaks: bool,
}

impl Write for Harmless<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() && !(self.breaks && c == '\n') {
                write!(self.inner, "{}", c.escape_default())?;
            } else {
                self.inner.write_char(c)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Harmless { inner: f, breaks: true };
        match (&self.source, self.key.is_empty()) {
            (Some(source), true) => write!(f, "{source}: ")?,
            (Some(source), false) => write!(f, "{} ({source}): ", self.key)?,
            (None, false) => write!(f, "{}: ", self.key)?,
            (None, true) => {}
        }
        f.write_str(&self.reason)?;
        match &self.nearest {
            Some(name) => write!(f, "; did you mean {name}?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with the settings, found at once; never empty. Displayed one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsErrors(pub Vec<SettingsError>);

impl SettingsErrors {
    /// A mistake that is nobody's key.
    pub(crate) fn single(reason: String) -> Self {
        Self(vec![SettingsError { key: String::new(), source: None, reason, nearest: None }])
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_cannot_steer_a_terminal() {
        let error = SettingsError {
            key: "server.\u{1b}[31m".into(),
            source: Some(Source::Set("server.\u{1b}[31m=a\nb".into())),
            reason: "two\nlines\r".into(),
            nearest: None,
        };
        let expected = "server.\\u{1b}[31m (--set server.\\u{1b}[31m=a\\nb): two\nlines\\r";
        assert_eq!(error.to_string(), expected);
    }
}
