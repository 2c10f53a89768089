//! The documentation in `docs/`, held to what the code knows, and `deny.toml` to what is there.

mod dependencies;
mod json;
mod settings;
mod tables;
