//! WebSocket: messages in both directions over one connection, with a session that belongs to it.
//!
//! A handler implements [`WebSocket`]; it is registered by name with an HTTP listener, and a route
//! hands a request to it by answering with [`upgrade`]. Each connection is served by one task: its
//! handler gets one message at a time, in order. Pings are answered and masks, fragments, UTF-8 and
//! sizes are checked before the handler sees anything. Compression is not offered.
//!
//! ```
//! use shiftwork::session::BoxError;
//! use shiftwork::websocket::{Connection, Message, WebSocket};
//!
//! struct Echo;
//!
//! impl WebSocket for Echo {
//!     /// How many messages came over this connection so far.
//!     type Session = u64;
//!
//!     async fn message(&self, conn: &mut Connection<u64>, message: Message) -> Result<(), BoxError> {
//!         conn.session += 1;
//!         match message.as_text() {
//!             Some("count") => conn.send(conn.session.to_string()).await?,
//!             _ => conn.send(message).await?,
//!         }
//!         Ok(())
//!     }
//! }
//! # let _ = shiftwork::websocket::erased(Echo);
//! ```

mod codec;
mod connection;
mod handler;
mod message;
mod partial;
mod upgrade;

pub use crate::session::{CloseReason, Sender, serve};
pub use codec::{Decoded, Decoder, decode};
pub use connection::Connection;
pub use handler::{WebSocket, erased};
pub use message::{Message, Text, code};
pub use partial::Partial;
pub use upgrade::{Body, UpgradeTo, upgrade, upgrade_with};

#[cfg(test)]
mod codec_tests;
#[cfg(test)]
mod drain_tests;
#[cfg(test)]
mod driver_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tungstenite_tests;
#[cfg(test)]
mod upgrade_tests;
