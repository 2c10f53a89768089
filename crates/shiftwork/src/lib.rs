//! Shiftwork.
pub mod conn;
pub mod hand_over;
pub mod http;
pub mod session;
pub mod task;
pub mod tcp;
pub mod websocket;
