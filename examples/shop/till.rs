//! The till: lines over raw TCP.

use bytes::Bytes;
use shiftwork::BoxError;
use shiftwork::tcp::{Connection, TcpHandler};

/// Echoes each line as it came; `count` is answered with the number of lines so far.
pub(crate) struct Till;

impl TcpHandler for Till {
    /// Lines on this connection so far.
    type Session = u64;

    async fn receive(&self, conn: &mut Connection<u64>, line: Bytes) -> Result<(), BoxError> {
        conn.session += 1;
        match &line[..] {
            b"count" => conn.send_line(conn.session.to_string()).await?,
            _ => conn.send_line(line).await?,
        }
        Ok(())
    }
}
