//! Raw TCP and Unix streams: lines or plain bytes, with a session that belongs to the connection.
//!
//! ```
//! use bytes::Bytes;
//! use shiftwork::session::BoxError;
//! use shiftwork::tcp::{Connection, TcpHandler};
//!
//! struct Till;
//!
//! impl TcpHandler for Till {
//!     /// How many lines came over this connection so far.
//!     type Session = u64;
//!
//!     async fn receive(&self, conn: &mut Connection<u64>, line: Bytes) -> Result<(), BoxError> {
//!         conn.session += 1;
//!         match &line[..] {
//!             b"count" => conn.send_line(conn.session.to_string()).await?,
//!             _ => conn.send_line(line).await?,
//!         }
//!         Ok(())
//!     }
//! }
//! # let _ = shiftwork::tcp::erased(Till, shiftwork::tcp::Framing::Lines);
//! ```

mod connection;
mod framing;
mod handler;

pub use crate::session::{CloseReason, Sender, serve};
pub use connection::Connection;
pub use framing::{Framing, LengthField, Lines, LinesError};
pub use handler::{TcpHandler, erased};

#[cfg(test)]
mod driver_tests;
