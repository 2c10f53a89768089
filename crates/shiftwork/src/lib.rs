//! Shiftwork.
pub mod session;
pub mod tcp;
pub mod websocket;
