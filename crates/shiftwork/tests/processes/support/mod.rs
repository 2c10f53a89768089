//! What the tests of whole processes stand on.

pub(crate) mod binary;
pub(crate) mod command;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod processes;
pub(crate) mod shop;
pub(crate) mod wait;
