//! The shop's own surface, as it is fixed.

use shiftwork_sys::signal;

use crate::support::http::{Client, Response, post};
use crate::support::processes::send;
use crate::support::shop::{Shop, Site};
use crate::support::wait::{LONG, within};

const MARKS: [&str; 5] = ["x-release", "x-build", "x-generation", "x-worker-id", "x-worker-pid"];

#[test]
fn every_answer_is_marked() {
    let shop = Shop::start();
    let mut client = shop.client();
    for (path, status) in [
        ("/hello", 200),
        ("/", 200),
        ("/page.css", 200),
        ("/page.js", 200),
        ("/slow?ms=1", 200),
        ("/slow?ms=soon", 400),
        ("/block?ms=1", 200),
        ("/orders", 200),
        ("/orders/77", 404),
        ("/orders/seven", 404),
        ("/nothing/here", 404),
        ("/echo", 405),
        ("/admin/reload", 405),
        ("/ws", 400),
    ] {
        let response = client.get(path).unwrap();
        if path == "/ws" {
            assert!([400, 426].contains(&response.status), "{path}: {response:?}");
        } else {
            assert_eq!(response.status, status, "{path}: {response:?}");
        }
        assert_marked(&response);
    }
    shop.stop();
}

#[test]
fn what_the_server_answers_in_the_shops_place_is_marked_too() {
    let shop = Site::new()
        .with("limits.body_size", "1KiB")
        .with("limits.request_timeout", "200ms")
        .with("limits.header_timeout", "200ms")
        .start();
    let long = "x".repeat(20_000);
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (sent, status) in [
        ("this is no HTTP\r\n\r\n".to_owned(), 400),
        ("GET /hel".to_owned(), 408),
        (format!("POST /echo HTTP/1.1\r\ncontent-length: 2000\r\n\r\n{long:.2000}"), 413),
        (format!("GET /hello HTTP/1.1\r\nx: {long}\r\n\r\n"), 431),
        ("GET /slow?ms=60000 HTTP/1.1\r\n\r\n".to_owned(), 503),
        (format!("GET /ws HTTP/1.1\r\nhost: shop\r\n{upgrade}\r\n"), 101),
    ] {
        let mut client = shop.client();
        // On a connection that has served already, too.
        client.get("/hello").unwrap();
        client.send(sent.as_bytes()).unwrap();
        let response = client.receive().unwrap();
        assert_eq!(response.status, status, "{response:?}");
        assert_marked(&response);
    }
    shop.stop();
}

#[track_caller]
fn assert_marked(response: &Response) {
    for mark in MARKS {
        assert!(response.header(mark).is_some(), "{mark} is missing: {response:?}");
    }
}

#[test]
fn hello_tells_who_answers() {
    let shop = Shop::start();
    assert_marked(&shop.get("/health").unwrap());
    let response = shop.get("/hello").unwrap();
    let mark = |name| response.header(name).unwrap();
    assert_eq!(
        response.text(),
        format!(
            "hello from release 1, generation 1, worker {}, pid {}",
            mark("x-worker-id"),
            mark("x-worker-pid")
        )
    );
    assert!(shop.status().pids("worker", 1).contains(&response.worker_pid()));
    let mut client = shop.client();
    assert_eq!(client.post("/echo", "a body").unwrap().text(), "a body");
    assert_eq!(client.post("/echo", "").unwrap().text(), "");
    assert_eq!(client.get("/slow?ms=5").unwrap().text(), "done");
    assert_eq!(client.get("/block?ms=5").unwrap().text(), "done");
    shop.stop();
}

#[test]
fn an_order_is_paid_and_shipped() {
    let shop = Shop::start();
    let mut client = shop.client();
    let answer = client.post("/orders", r#"{"item":"lamp","quantity":3}"#).unwrap();
    assert_eq!(answer.status, 201);
    let order = answer.json();
    let expected = serde_json::json!(
        {"id": order["id"], "item": "lamp", "quantity": 3, "state": "shipped"});
    assert_eq!(order, expected);
    let found = client.get(&format!("/orders/{}", order["id"])).unwrap();
    assert_eq!(found.json(), expected);
    let sums = client.get("/orders").unwrap().json();
    assert_eq!(sums, serde_json::json!({"paid": 1, "shipped": 1}));
    for body in [
        "",
        "{",
        "[]",
        r#"{"item":"lamp"}"#,
        r#"{"item":"lamp","quantity":-1}"#,
        r#"{"item":"","quantity":1}"#,
        r#"{"item":"lamp","quantity":0}"#,
    ] {
        let refused = client.post("/orders", body).unwrap();
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.json()["error"].is_string(), "{refused:?}");
    }
    let missing = client.get("/orders/4711").unwrap();
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].is_string(), "{missing:?}");
    assert_eq!(client.get("/orders").unwrap().json()["paid"], 1);
    shop.stop();
}

/// `POST /admin/reload` with these headers.
fn ask_reload(client: &mut Client, headers: &str) -> crate::support::http::Response {
    client
        .send(
            format!("POST /admin/reload HTTP/1.1\r\n{headers}content-length: 0\r\n\r\n").as_bytes(),
        )
        .unwrap();
    client.receive().unwrap()
}

#[test]
fn the_button_reloads_from_the_same_origin_only() {
    let mut shop = Shop::start();
    let mut client = shop.client();
    for headers in [
        "host: shop\r\n",
        "host: shop\r\norigin: http://elsewhere\r\n",
        "host: shop\r\norigin: http://shop.elsewhere\r\n",
        "host: shop\r\norigin: null\r\n",
        "host: shop\r\norigin: http://shop\r\nsec-fetch-site: cross-site\r\n",
        "host: shop\r\nsec-fetch-site: same-site\r\n",
    ] {
        assert_eq!(ask_reload(&mut client, headers).status, 403, "{headers}");
    }
    assert_eq!(shop.status().generation, 1);

    let done = ask_reload(&mut client, "host: shop:1\r\norigin: http://shop:1\r\n").json();
    assert_eq!((&done["outcome"], &done["generation"]), (&"committed".into(), &2.into()), "{done}");
    let done = ask_reload(&mut client, "host: shop\r\nsec-fetch-site: same-origin\r\n").json();
    assert_eq!((&done["outcome"], &done["generation"]), (&"committed".into(), &3.into()), "{done}");

    shop.put("app.fault", "panic_in_preload");
    let failed = ask_reload(&mut client, "host: shop\r\norigin: http://shop\r\n").json();
    assert_ne!(failed["outcome"], "committed", "{failed}");
    assert!(failed.to_string().contains("panic_in_preload"), "{failed}");
    assert_eq!(client.get("/hello").unwrap().generation(), 3);
    shop.stop();
}

#[test]
fn what_a_killed_worker_was_paid_for_is_shipped_by_another() {
    let shop = Shop::start();
    let mut clients: Vec<_> = (0..8).map(|_| shop.client()).collect();
    for client in &mut clients {
        client.send(&post("/orders", r#"{"item":"lamp","quantity":1}"#)).unwrap();
    }
    let mut watch = shop.client();
    within(LONG, "orders are paid and not shipped", || {
        let sums = watch.get("/orders").unwrap().json();
        (sums["paid"] != sums["shipped"]).then_some(())
    });
    for pid in shop.status().pids("worker", 1) {
        send(pid, signal::KILL);
    }
    within(LONG, "they are shipped", || {
        let sums = shop.get("/orders").ok()?.json();
        (sums["paid"] == sums["shipped"]).then_some(())
    });
    shop.wait_log("its worker had died");
    shop.stop();
}
