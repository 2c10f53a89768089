//! The admin address: metrics and status over HTTP, whatever else happens, and whoever asks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use shiftwork_supervisor::metrics::MEDIA_TYPE;
use shiftwork_sys::signal;

use crate::support::exposition::Exposition;
use crate::support::http::{Client, Response};
use crate::support::load::Load;
use crate::support::processes::send;
use crate::support::shop::{Shop, Site};
use crate::support::wait::{LONG, within};

/// Where the log says that it is.
fn address(shop: &Shop) -> SocketAddr {
    within(LONG, "the admin address is told", || {
        let log = shop.site.log();
        let line = log.lines().rfind(|it| it.contains("served at http://"))?;
        line.rsplit_once("http://")?.1.trim().parse().ok()
    })
}

fn get(address: SocketAddr, path: &str) -> Response {
    let answer = Client::connect(address).and_then(|mut client| client.get(path));
    answer.unwrap_or_else(|broken| panic!("{path}: {broken}"))
}

#[track_caller]
fn scrape(address: SocketAddr) -> Exposition {
    let answer = get(address, "/metrics");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(MEDIA_TYPE)));
    assert!(answer.says_close());
    Exposition::read(&answer.text())
}

#[test]
fn it_answers_whatever_happens_and_the_totals_grow() {
    let shop = Site::new().with("server.admin_address", "127.0.0.1:0").start();
    let admin = address(&shop);
    let load = Load::keep_alive(shop.web(), 4);
    let mut last = scrape(admin);
    let mut step = |what: &str| {
        load.wait_more(50);
        let now = scrape(admin);
        now.assert_not_behind(&last);
        last = now;
        assert_eq!(get(admin, "/status").json()["state"], "serving", "after {what}");
    };
    step("the start");
    shop.reload();
    step("a reload");
    shop.site.run(&["upgrade"]).expect(0);
    step("an upgrade");
    let manager = shop.status().one("manager");
    send(manager, signal::KILL);
    shop.until("there is another manager", |status| status.role("manager")[0].pid != manager);
    step("the death of the manager");
    let counts = load.finish();
    counts.assert_flawless();
    let ok = &[("class", "2xx")];
    within(LONG, "all requests are counted", || {
        let counted = scrape(admin).value("shiftwork_requests_total", ok);
        assert!(counted <= counts.answered as f64, "{counted} of {}", counts.answered);
        (counted == counts.answered as f64).then_some(())
    });
    shop.stop();
    assert!(TcpStream::connect(admin).is_err(), "it is gone with its server");
}

#[test]
fn what_is_no_scrape_is_refused() {
    let shop = Site::new().with("server.admin_address", "127.0.0.1:0").start();
    let admin = address(&shop);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", "405"),
        ("GET /metrics\r\n\r\n", "400"),
        ("\x16\x03\x01\x02\0\x01\0\n\n", "400"),
    ] {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9000));
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.write_all(long.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    shop.stop();
}

#[test]
fn slow_and_lying_clients_cost_nothing() {
    let shop = Site::new().with("server.admin_address", "127.0.0.1:0").start();
    let admin = address(&shop);
    // More than there is room for: they begin and never end, or flood, or ask and never read.
    let crowd: Vec<TcpStream> = (0..100)
        .map(|number| {
            let mut stream = TcpStream::connect(admin).unwrap();
            let said: &[u8] = match number % 3 {
                0 => b"GET /metr",
                1 => &[b'x'; 60_000],
                _ => b"GET /metrics HTTP/1.1\r\n\r\n",
            };
            // Those that came first may be gone by now.
            let _ = stream.write_all(said);
            stream
        })
        .collect();
    let load = Load::keep_alive(shop.web(), 2);
    let began = Instant::now();
    scrape(admin);
    shop.reload();
    scrape(admin);
    // Well before any of the crowd has to go for being slow.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    load.wait_more(100);
    load.finish().assert_flawless();
    // Those who have said nothing, or too much, are let go.
    for mut stream in crowd {
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    shop.stop();
}

#[test]
fn it_moves_with_a_reload_and_a_taken_one_fails_it() {
    let mut shop = Site::new().with("server.admin_address", "127.0.0.1:0").start();
    let first = address(&shop);
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap().to_string();
    shop.put("server.admin_address", taken.clone());
    let failed = shop.reload_fails();
    let reason = failed.reason.unwrap_or_default();
    assert!(reason.contains("server.admin_address") && reason.contains(&taken), "{reason}");
    scrape(first);

    // Beside the settings file, and private.
    shop.put("server.admin_address", "unix:admin.sock");
    shop.reload();
    let path = shop.site.path("admin.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let answer = Client::connect_unix(&path).unwrap().get("/metrics").unwrap();
    Exposition::read(&answer.text());
    assert!(TcpStream::connect(first).is_err(), "the old address is let go");

    shop.remove("server.admin_address");
    shop.reload();
    assert!(!path.exists());

    drop(stranger);
    shop.put("server.admin_address", taken.clone());
    shop.reload();
    scrape(taken.parse().unwrap());
    shop.stop();
}

#[test]
fn a_taken_address_fails_the_start() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap().to_string();
    let said = Site::new().with("server.admin_address", taken.clone()).fails();
    assert!(said.contains("server.admin_address") && said.contains(&taken), "{said}");
}
