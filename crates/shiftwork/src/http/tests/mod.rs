//! The driver over real sockets, one rule a test.
#![allow(clippy::unwrap_used)]

mod fixture;
mod leave;
mod requests;
mod stops;
