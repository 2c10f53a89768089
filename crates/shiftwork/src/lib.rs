//! Shiftwork.
pub mod session;
pub mod task;
pub mod tcp;
pub mod websocket;
