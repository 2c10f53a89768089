//! As much of HTTP/1 as a scrape needs, without a socket: one request, one answer, and the end.

/// A head is not longer than this, in bytes.
pub const LONGEST_HEAD: usize = 8 * 1024;

/// What can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// `/metrics`.
    Metrics,
    /// `/status`.
    Status,
}

/// Why there is nothing to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// That is no HTTP/1 request.
    Malformed,
    /// There is no such path.
    NotFound,
    /// Nothing but GET.
    NotAllowed,
    /// The head is too long.
    TooLong,
    /// The manager does not answer.
    Unavailable,
}

/// What the bytes of a request amount to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The end of the head is missing.
    Incomplete,
    /// Somebody asks for this.
    Wanted(Document),
    /// This is not to be answered otherwise.
    Refused(Refusal),
}

/// Reads what has come so far. A body that follows a head is not looked at.
pub fn read(bytes: &[u8]) -> Read {
    let Some(length) = head_length(bytes) else {
        return match bytes.len() > LONGEST_HEAD {
            true => Read::Refused(Refusal::TooLong),
            false => Read::Incomplete,
        };
    };
    if length > LONGEST_HEAD {
        return Read::Refused(Refusal::TooLong);
    }
    match understand(&bytes[..length]) {
        Some(Ok(document)) => Read::Wanted(document),
        Some(Err(refusal)) => Read::Refused(refusal),
        None => Read::Refused(Refusal::Malformed),
    }
}

/// Up to the empty line, that excluded.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let end = start + bytes[start..].iter().position(|it| *it == b'\n')?;
        if matches!(&bytes[start..end], [] | [b'\r']) {
            return Some(start);
        }
        start = end + 1;
    }
}

/// None: that is no head of a request.
fn understand(head: &[u8]) -> Option<Result<Document, Refusal>> {
    let mut lines = head.split(|it| *it == b'\n').map(|it| it.strip_suffix(b"\r").unwrap_or(it));
    let mut parts = lines.next()?.split(|it| *it == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let right = parts.next().is_none()
        && is_token(method)
        && matches!(version, b"HTTP/1.1" | b"HTTP/1.0")
        && lines.all(|it| it.is_empty() || is_field(it));
    if !right {
        return None;
    }
    let path = match target.strip_prefix(b"http://") {
        Some(rest) => &rest[rest.iter().position(|it| *it == b'/')?..],
        None => target,
    };
    if path.first() != Some(&b'/') || path.iter().any(|it| !it.is_ascii_graphic()) {
        return None;
    }
    let document = match path.split(|it| *it == b'?').next()? {
        b"/metrics" => Document::Metrics,
        b"/status" => Document::Status,
        _ => return Some(Err(Refusal::NotFound)),
    };
    Some(if method == b"GET" { Ok(document) } else { Err(Refusal::NotAllowed) })
}

fn is_token(bytes: &[u8]) -> bool {
    let mark = |it: &u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(it);
    !bytes.is_empty() && bytes.iter().all(mark)
}

fn is_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|it| *it == b':') else { return false };
    let visible = |it: &u8| *it == b'\t' || (*it >= b' ' && *it != 0x7f);
    is_token(&line[..colon]) && line.iter().all(visible)
}

/// An answer with what was wanted.
pub fn found(media_type: &str, body: &[u8]) -> Vec<u8> {
    answer("200 OK", media_type, "", body)
}

/// An answer without it.
pub fn refused(why: Refusal) -> Vec<u8> {
    let (status, extra, text) = match why {
        Refusal::Malformed => ("400 Bad Request", "", "this is no HTTP/1 request\n"),
        Refusal::NotFound => ("404 Not Found", "", "there are /metrics and /status\n"),
        Refusal::NotAllowed => ("405 Method Not Allowed", "allow: GET\r\n", "GET only\n"),
        Refusal::TooLong => ("431 Request Header Fields Too Large", "", "the head is too long\n"),
        Refusal::Unavailable => ("503 Service Unavailable", "", "the manager does not answer\n"),
    };
    answer(status, "text/plain; charset=utf-8", extra, text.as_bytes())
}

fn answer(status: &str, media_type: &str, extra: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\n{extra}connection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn told(head: &str) -> Read {
        read(format!("{head}\r\n\r\n").as_bytes())
    }

    #[test]
    fn what_a_scraper_sends() {
        let head = "GET /metrics HTTP/1.1\r\nHost: localhost:9509\r\nUser-Agent: Prometheus/3.1.0\r\n\
                    Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\r\n\
                    X-Prometheus-Scrape-Timeout-Seconds: 10";
        assert_eq!(told(head), Read::Wanted(Document::Metrics));
        assert_eq!(told("GET /status?pretty HTTP/1.0"), Read::Wanted(Document::Status));
        assert_eq!(told("GET http://x:1/metrics HTTP/1.1"), Read::Wanted(Document::Metrics));
        assert_eq!(read(b"GET /metrics HTTP/1.1\n\nrest"), Read::Wanted(Document::Metrics));
    }

    #[test]
    fn everything_else_has_its_refusal() {
        for (head, refusal) in [
            ("GET / HTTP/1.1", Refusal::NotFound),
            ("GET /metrics/ HTTP/1.1", Refusal::NotFound),
            ("POST /reload HTTP/1.1", Refusal::NotFound),
            ("POST /metrics HTTP/1.1", Refusal::NotAllowed),
            ("HEAD /status HTTP/1.1", Refusal::NotAllowed),
            ("GET /metrics HTTP/2.0", Refusal::Malformed),
            ("GET  /metrics HTTP/1.1", Refusal::Malformed),
            ("GET /metrics", Refusal::Malformed),
            ("GET metrics HTTP/1.1", Refusal::Malformed),
            ("GET http://x HTTP/1.1", Refusal::Malformed),
            ("GET /metrics HTTP/1.1\r\nno colon", Refusal::Malformed),
            ("GET /metrics HTTP/1.1\r\n folded: x", Refusal::Malformed),
            ("G\u{e4}T /metrics HTTP/1.1", Refusal::Malformed),
            ("", Refusal::Malformed),
        ] {
            assert_eq!(told(head), Read::Refused(refusal), "{head:?}");
        }
    }

    #[test]
    fn a_head_has_its_bounds() {
        let long = format!("GET /metrics HTTP/1.1\r\nx: {}", "y".repeat(LONGEST_HEAD));
        assert_eq!(read(long.as_bytes()), Read::Refused(Refusal::TooLong));
        assert_eq!(told(&long), Read::Refused(Refusal::TooLong));
        assert_eq!(read(&vec![b'a'; LONGEST_HEAD]), Read::Incomplete);
        assert_eq!(read(&vec![b'a'; LONGEST_HEAD + 1]), Read::Refused(Refusal::TooLong));
    }

    #[test]
    fn answers_say_how_long_they_are_and_that_nothing_follows() {
        let text = String::from_utf8(found("text/x", b"12345")).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n12345"));
        assert!(text.contains("content-length: 5\r\n") && text.contains("connection: close\r\n"));
        let text = String::from_utf8(refused(Refusal::NotAllowed)).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("\r\nallow: GET\r\n"), "{text}");
    }

    proptest! {
        #[test]
        fn nothing_that_comes_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
        }

        #[test]
        fn almost_a_request_neither(
            text in "(GET|POST|G T|)[ ]{0,2}(/metrics|/status|/|http://a|)[ ?]{0,2}HTTP/1[.][012]\
                     (\r?\n[a-z:\t ]{0,12}){0,4}(\r?\n){0,3}"
        ) {
            let _ = read(text.as_bytes());
        }

        /// However the network cuts it, it means the same; and no part of it means anything else.
        #[test]
        fn it_is_understood_at_its_last_byte(cut in 0_usize..60, post in any::<bool>()) {
            let method = if post { "POST" } else { "GET" };
            let head = format!("{method} /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
            let cut = cut.min(head.len());
            let expected = match (cut == head.len(), post) {
                (false, _) => Read::Incomplete,
                (true, true) => Read::Refused(Refusal::NotAllowed),
                (true, false) => Read::Wanted(Document::Metrics),
            };
            prop_assert_eq!(read(&head.as_bytes()[..cut]), expected);
        }
    }
}
