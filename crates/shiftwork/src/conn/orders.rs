//! The word through which a worker gives orders to the driver of a connection.

use std::fmt;

/// What the worker wants of a connection: a set of the constants below. Bits are added by the worker
/// and the sweeper; only an expiry that turned out to be untrue is taken back, by the driver.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders(pub(crate) u32);

impl Orders {
    /// Hand the connection over at the next moment between two requests.
    pub const HAND_OVER: Orders = Orders(1);
    /// The server stops: answer what is in hand with `Connection: close`, then close.
    pub const CLOSE: Orders = Orders(2);
    /// Nothing has come from, or could be sent to, the client for `idle_timeout`.
    pub const IDLE_EXPIRED: Orders = Orders(4);
    /// The client has not finished a request head in `header_timeout`.
    pub const HEADER_EXPIRED: Orders = Orders(8);
    /// The handler has not answered in `request_timeout`.
    pub const REQUEST_EXPIRED: Orders = Orders(16);
    /// Drop the connection at once, with the handler that may be running for it.
    pub const CUT: Orders = Orders(32);

    /// Whether any of `orders` is given.
    pub fn any(self, orders: Orders) -> bool {
        self.0 & orders.0 != 0
    }

    /// Whether there is nothing to obey.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the worker drains, in either way.
    pub fn draining(self) -> bool {
        self.any(Orders(Orders::HAND_OVER.0 | Orders::CLOSE.0))
    }
}

impl std::ops::BitOr for Orders {
    type Output = Orders;

    fn bitor(self, other: Orders) -> Orders {
        Orders(self.0 | other.0)
    }
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Orders, &str); 6] = [
            (Orders::HAND_OVER, "hand over"),
            (Orders::CLOSE, "close"),
            (Orders::IDLE_EXPIRED, "idle expired"),
            (Orders::HEADER_EXPIRED, "header expired"),
            (Orders::REQUEST_EXPIRED, "request expired"),
            (Orders::CUT, "cut"),
        ];
        let given = NAMES.iter().filter(|(order, _)| self.any(*order)).map(|(_, name)| name);
        f.debug_set().entries(given).finish()
    }
}
