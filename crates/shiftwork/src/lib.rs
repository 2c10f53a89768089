//! x
pub mod conn;
pub mod hand_over;
pub mod http;
