//! Watching a channel from the runtime, while it is read and written directly.

use std::io;
use std::sync::Arc;

use shiftwork_sys::socket::Channel;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has this runtime watch a channel; nothing is read or written by that. Epoll keeps one entry a
/// descriptor, so two watches of one channel need a duplicate each.
pub(crate) fn watch(
    channel: Arc<Channel>,
    interest: Interest,
) -> io::Result<AsyncFd<Arc<Channel>>> {
    // Its successor is unsafe, since any AsRawFd would do there. A channel owns its descriptor
    // and never changes it, which is all that is asked for.
    #[allow(deprecated)]
    AsyncFd::with_interest(channel, interest)
}
