//! Listening sockets that were there before this server: opened by the service manager (socket
//! activation), or kept by it when an earlier master died.

use std::os::fd::OwnedFd;

use shiftwork_sys::activation;
use shiftwork_sys::listen::{self, Address};

use crate::protocol::template::ListenerSpec;

/// With this, and the listener's name, the names begin of what was given to be kept.
const KEPT: &str = "shiftwork-";

/// A socket, until a listener wants it.
#[derive(Debug)]
pub struct Given {
    /// As the service manager calls it.
    pub name: String,
    /// Itself.
    pub socket: OwnedFd,
}

/// Sockets for one address, the given ones first.
#[derive(Debug, Default)]
pub struct Taken {
    /// All of them.
    pub sockets: Vec<OwnedFd>,
    /// How many of them, from the first on, the service manager has opened itself.
    pub activated: usize,
}

/// All that were passed to this process. To be called first of all.
pub fn take() -> Vec<Given> {
    let passed = activation::take().into_iter();
    passed.map(|it| Given { name: it.name, socket: it.socket }).collect()
}

/// By what name a listener's sockets are kept: the name of the listener and its address, in which
/// the service manager suffers no colon.
pub fn kept_name(listener: &str, address: &str) -> String {
    format!("{KEPT}{listener}-{address}").replace(':', "_")
}

/// Takes what is meant for a listener out of `given`: what bears its name, whatever its address is,
/// and what was kept of its address.
pub fn take_for(given: &mut Vec<Given>, spec: &ListenerSpec, address: &Address) -> Taken {
    let (mut activated, mut kept) = (Vec::new(), Vec::new());
    for it in std::mem::take(given) {
        if it.name == spec.name {
            activated.push(it);
        } else if is_kept_for(&it, spec, address) {
            kept.push(it);
        } else {
            given.push(it);
        }
    }
    let count = activated.len();
    let sockets = activated.into_iter().chain(kept).map(|it| it.socket).collect();
    Taken { sockets, activated: count }
}

fn is_kept_for(given: &Given, spec: &ListenerSpec, address: &Address) -> bool {
    let Some(rest) = given.name.strip_prefix(KEPT) else { return false };
    let Ok(real) = listen::local_address(&given.socket) else { return false };
    match address {
        // Its file is gone: nobody could find it any more.
        Address::Unix(path) => real == address.to_string() && path.exists(),
        Address::Tcp(wanted) => match real.parse::<std::net::SocketAddr>() {
            Ok(real) if wanted.port() == 0 => {
                real.ip() == wanted.ip() && rest.starts_with(&format!("{}-", spec.name))
            }
            Ok(real) => real == *wanted,
            Err(_) => false,
        },
    }
}

/// Whether something was given by the service manager to be listened on, and not just kept.
pub fn is_activated(given: &Given) -> bool {
    !given.name.starts_with(KEPT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::TcpListener;

    fn spec(name: &str, address: &str) -> ListenerSpec {
        ListenerSpec { name: name.into(), address: address.into(), protocol: "http".into() }
    }

    fn given(name: &str) -> (Given, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (Given { name: name.into(), socket: listener.into() }, address)
    }

    fn take(given: &mut Vec<Given>, spec: &ListenerSpec) -> Taken {
        take_for(given, spec, &Address::parse(&spec.address).unwrap())
    }

    #[test]
    fn a_socket_goes_by_its_name_or_by_the_address_that_it_was_kept_for() {
        let (opened, _) = given("web");
        let (first, address) = given("shiftwork-web-x");
        let (other, _) = given("shiftwork-web-y");
        let (till, _) = given("till");
        let mut all = vec![first, other, opened, till];
        let taken = take(&mut all, &spec("web", &address));
        assert_eq!((taken.sockets.len(), taken.activated), (2, 1));
        let left: Vec<_> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(left, ["shiftwork-web-y", "till"]);
        assert_eq!(all.iter().map(is_activated).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn where_the_kernel_chose_the_port_the_name_tells() {
        let (web, real) = given("");
        let mut all = vec![
            Given { name: kept_name("web", &real), socket: web.socket },
            given(&kept_name("webs", "127.0.0.1:1")).0,
        ];
        assert!(!all[0].name.contains(':'));
        assert_eq!(take(&mut all, &spec("till", "127.0.0.1:0")).sockets.len(), 0);
        assert_eq!(take(&mut all, &spec("web", "127.0.0.1:0")).sockets.len(), 1);
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn a_kept_unix_socket_without_its_file_is_of_no_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let address = format!("unix:{}", path.display());
        let mut all = vec![Given { name: kept_name("s", &address), socket: socket.into() }];
        std::fs::rename(&path, folder.path().join("t")).unwrap();
        assert_eq!(take(&mut all, &spec("s", &address)).sockets.len(), 0);
        std::fs::rename(folder.path().join("t"), &path).unwrap();
        assert_eq!(take(&mut all, &spec("s", &address)).sockets.len(), 1);
    }
}
