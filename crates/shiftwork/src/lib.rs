//! Shiftwork.
pub mod cli;
pub mod session;
pub mod settings;
pub mod tcp;
pub mod websocket;
