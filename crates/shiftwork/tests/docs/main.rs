//! The documentation in `docs/`, held to what the code knows.

mod json;
mod settings;
mod tables;
