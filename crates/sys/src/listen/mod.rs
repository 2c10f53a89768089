//! Listening sockets that outlive the workers that accept on them.

mod address;
mod bind;
mod filter;
mod handshakes;

pub use address::{Address, AddressError, SocketFile};
pub use bind::{
    BindError, accept, add_slots, bind, join, local_address, shut, start, take_over_unix,
};
pub use filter::{accept_new, refuse_new, waiting, welcome};
pub use handshakes::half_open;
