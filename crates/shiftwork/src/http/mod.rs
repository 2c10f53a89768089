//! HTTP/1 connections, driven so that they can leave for another process between two requests.
//!
//! hyper parses and writes; everything around it is here: limits, panics, what happens when a client
//! goes away, and the moments at which a connection is idle enough to be taken back from hyper with
//! the bytes that it has read too far.

mod body;
mod check;
mod current;
mod driver;
mod handler;
mod io;
mod limits;
mod linger;
mod link;
mod outcome;
mod refuse;

#[cfg(test)]
mod tests;

pub use body::{RequestBody, ResponseBody};
pub use check::check;
pub use driver::{serve, serve_in_place};
pub use handler::HttpService;
pub use limits::{HttpLimits, MAX_UNREAD};
pub use outcome::{CloseReason, Outcome};

pub use crate::session::BoxError;
pub use crate::websocket::UpgradeTo;
