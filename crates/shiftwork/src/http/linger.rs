//! Closing a connection so that the client can read our last words.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::conn::Stream;

/// How long a client may go on sending what nobody reads.
const PATIENCE: Duration = Duration::from_secs(2);
/// And how much.
const MOST: usize = 16 * 1024 * 1024;

/// Closes a connection that we end. A socket that is closed with unread bytes in it sends a reset,
/// which may overtake the answer that the client has not read yet: so our side is shut down first,
/// and what the client had already sent is read away. `expect_more`: the client is in the middle of
/// sending something.
pub(super) async fn close(mut stream: Stream, expect_more: bool) {
    if stream.shutdown().await.is_err() {
        return;
    }
    if !expect_more && !has_unread(&stream) {
        return;
    }
    // Never waited for longer, whatever it sends.
    let _ = tokio::time::timeout(PATIENCE, read_away(&mut stream)).await;
}

async fn read_away(stream: &mut Stream) {
    let mut sink = vec![0; 16 * 1024];
    let mut total = 0;
    while total < MOST {
        match stream.read(&mut sink).await {
            Ok(0) | Err(_) => return,
            Ok(read) => total += read,
        }
    }
}

fn has_unread(stream: &Stream) -> bool {
    let mut byte = [0];
    let read = match stream {
        Stream::Tcp(stream) => stream.try_read(&mut byte),
        Stream::Unix(stream) => stream.try_read(&mut byte),
    };
    matches!(read, Ok(1..))
}
