//! What processes say to each other: typed messages, one per SOCK_SEQPACKET packet, in JSON.

pub mod master;
pub mod probe;
pub mod template;
pub mod wire;
pub mod worker;
