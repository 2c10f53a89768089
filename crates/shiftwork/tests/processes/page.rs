//! The shop's page in a real browser: a reload is pressed, and nothing breaks.

use crate::support::browser::Browser;
use crate::support::shop::Shop;
use crate::support::wait::{LONG, within};

/// Pays for one lamp, and waits until it is shipped.
#[track_caller]
fn order(browser: &mut Browser) {
    let orders = browser.evaluate("document.querySelectorAll('#orders li').length");
    browser.press("#order button[type=submit]");
    browser.until(&format!(
        "document.querySelectorAll('#orders li').length > {orders}
         && document.querySelector('#orders li').textContent.endsWith(' shipped')"
    ));
}

#[test]
fn a_reload_is_pressed_and_the_page_lives_on() {
    let mut shop = Shop::start();
    let Some(mut browser) = Browser::open(&format!("http://{}/", shop.web())) else { return };
    let text = |selector: &str| format!("document.querySelector('{selector}')?.textContent");
    let shows = |selector: &str, wanted: &str| format!("{} === '{wanted}'", text(selector));
    browser.until(&shows("#generation", "1"));
    order(&mut browser);

    browser.press("#reload");
    browser.until("document.querySelector('#outcome')?.className === 'good'");
    let outcome = browser.evaluate(&text("#outcome"));
    assert!(outcome.as_str().unwrap().starts_with("Generation 2 took over in "), "{outcome}");
    // By the feed; and by an answer.
    browser.until(&shows("#generation", "2"));
    browser.until(&format!("{}.includes('generation 2')", text("#answer")));
    order(&mut browser);
    browser.until(&shows("#paid", "2"));
    browser.until(&shows("#shipped", "2"));

    // One that fails is told, with the reason, and changes nothing.
    shop.put("app.fault", "exit_at_start");
    browser.press("#reload");
    browser.until("document.querySelector('#outcome')?.className === 'bad'");
    let outcome = browser.evaluate(&text("#outcome"));
    let outcome = outcome.as_str().unwrap();
    assert!(outcome.contains("Generation 2 goes on"), "{outcome}");
    order(&mut browser);

    // All the while it was one connection, on which the feed still comes.
    let heard = browser.events("Network.webSocketFrameReceived").len();
    within(LONG, "the feed is heard", || {
        browser.evaluate("0");
        (browser.events("Network.webSocketFrameReceived").len() > heard).then_some(())
    });
    let opened = browser.events("Network.webSocketCreated");
    assert_eq!(opened.len(), 1, "{opened:#?}");
    let feed = opened[0]["requestId"].clone();
    for broken in ["Network.webSocketClosed", "Network.webSocketFrameError"] {
        assert!(browser.events(broken).is_empty(), "{broken}: {:#?}", browser.events(broken));
    }
    let frames = browser.events("Network.webSocketFrameReceived");
    assert!(frames.iter().all(|it| it["requestId"] == feed));
    let second = frames.iter().any(|it| {
        it["response"]["payloadData"].as_str().is_some_and(|it| it.contains("\"generation\":2"))
    });
    assert!(second, "{frames:#?}");
    // Nor has the script of the page failed anywhere, or a request.
    assert_eq!(browser.events("Runtime.exceptionThrown"), [] as [&serde_json::Value; 0]);
    assert_eq!(browser.events("Network.loadingFailed"), [] as [&serde_json::Value; 0]);
    assert_eq!(browser.events("Log.entryAdded"), [] as [&serde_json::Value; 0]);
    drop(browser);
    shop.stop();
}
