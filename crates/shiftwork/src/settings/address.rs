//! Listeners' addresses, as they will be bound.

use std::path::Path;

use shiftwork_supervisor::settings::LONGEST_SOCKET_PATH;
use shiftwork_sys::listen::Address;

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
    match Address::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(port_problem(text).unwrap_or_else(|| error.to_string())),
    }
}

/// What is wrong, if all that is wrong is the port.
fn port_problem(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let number = !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit());
    let right = Address::parse(&format!("{host}:0")).is_ok();
    (number && right).then(|| format!("{port} is no port: they go from 0 to 65535"))
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
            "vm:80",
            "example.org:80",
        ] {
            assert!(resolve(wrong, base).is_err(), "{wrong}");
        }
        assert!(resolve("127.0.0.1:99999", base).unwrap_err().contains("65535"));
        assert!(resolve("vm:80", base).unwrap_err().contains("names are not looked up"));
        assert!(resolve(&format!("unix:/{}", "x".repeat(107)), base).unwrap_err().contains("107"));
    }
}
