//! Listeners' addresses, read without asking anybody (a name is looked up when it is bound).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use shiftwork_supervisor::settings::LONGEST_SOCKET_PATH;

/// The address as it will be bound: a Unix path made absolute with `base`.
///
/// The error says what is wrong.
pub(super) fn resolve(text: &str, base: &Path) -> Result<String, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() || path.contains('\0') {
            return Err(format!("{text:?} names no socket; write \"unix:/path/to/socket\""));
        }
        let path = super::paths::absolute(Path::new(path), base);
        if path.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(format!(
                "the path of a socket must be at most {LONGEST_SOCKET_PATH} bytes long, not {}: {}",
                path.as_os_str().len(),
                path.display()
            ));
        }
        return Ok(format!("unix:{}", path.display()));
    }
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let form = || {
        format!(
            "{text:?} is no address; write IP:PORT as in \"127.0.0.1:9501\" or \"[::1]:9501\", \
             or \"unix:/path/to/socket\""
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    if port.is_empty() || !port.bytes().all(|it| it.is_ascii_digit()) {
        return Err(form());
    }
    if port.parse::<u16>().is_err() {
        return Err(format!("{port} is no port: they go from 0 to 65535"));
    }
    let named = !host.is_empty()
        && host.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it));
    let number = host.bytes().all(|it| it.is_ascii_digit() || it == b'.');
    if !named || (number && host.parse::<Ipv4Addr>().is_err()) {
        return Err(form());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses() {
        let base = Path::new("/srv/shop");
        for right in ["127.0.0.1:80", "[::1]:0", "0.0.0.0:65535", "localhost:9501", "unix:/a/b"] {
            assert_eq!(resolve(right, base).unwrap(), right);
        }
        assert_eq!(resolve("unix:run/web.sock", base).unwrap(), "unix:/srv/shop/run/web.sock");
        for wrong in [
            "",
            ":80",
            "80",
            "127.0.0.1",
            "1.2.3:80",
            "127.0.0.1:",
            "::1:80x",
            "a b:1",
            "unix:",
            "h:+1",
        ] {
            assert!(resolve(wrong, base).is_err(), "{wrong}");
        }
        assert!(resolve("127.0.0.1:99999", base).unwrap_err().contains("65535"));
        assert!(resolve(&format!("unix:/{}", "x".repeat(107)), base).unwrap_err().contains("107"));
    }
}
