//! The `[app]` table: what the shop itself can be told, beside what every server can.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// The shop's own settings. All have defaults: the shop works without a settings file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct App {
    /// Label of the release, told in `x-release`. Default `"1"`; a number is taken as text.
    #[serde(deserialize_with = "text_or_number")]
    pub(crate) release: String,
    /// Something to go wrong on purpose. Default `"none"`.
    pub(crate) fault: Fault,
    /// The SQLite file of the orders, created when missing. Default `"shop.sqlite"`; relative
    /// paths start where the settings file is, without one where the command was typed.
    pub(crate) ledger: PathBuf,
}

impl Default for App {
    fn default() -> Self {
        Self { release: "1".into(), fault: Fault::None, ledger: "shop.sqlite".into() }
    }
}

/// `--set app.release=2` reads as a number in TOML, but a label is what was meant.
fn text_or_number<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    struct Label;
    impl Visitor<'_> for Label {
        type Value = String;
        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a text or a number")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            // The label goes into a header of every response.
            match text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
                true => Ok(text.to_owned()),
                false => Err(E::custom("a label has printable ASCII characters only")),
            }
        }
        fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
        fn visit_f64<E: Error>(self, number: f64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    input.deserialize_any(Label)
}
