//! What the tests of whole processes stand on.

pub(crate) mod binary;
pub(crate) mod browser;
pub(crate) mod command;
pub(crate) mod exposition;
pub(crate) mod http;
pub(crate) mod kept;
pub(crate) mod load;
pub(crate) mod processes;
pub(crate) mod shop;
pub(crate) mod site;
pub(crate) mod talk;
pub(crate) mod told;
pub(crate) mod wait;

/// Says that the running test cannot be tried here, past the harness, which shows nothing of a test
/// that passes.
pub(crate) fn not_tried(why: &str) {
    use std::io::Write as _;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "NOT TRIED: {test}: {why}");
}
