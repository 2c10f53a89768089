//! How a handler asks for its connection to become something else.

/// Stands in the extensions of a response with status 101: who takes over the connection when it has
/// been sent. Any other 101 is answered with 500, since nobody would take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeTo {
    /// The name under which the handler was registered.
    pub handler: String,
    /// The session that the connection begins with, in the handler's own serialised form.
    pub session: Option<Vec<u8>>,
}
