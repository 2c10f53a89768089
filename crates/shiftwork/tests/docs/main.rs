//! The documentation in `docs/`, held to what the code knows.

mod settings;
mod tables;
