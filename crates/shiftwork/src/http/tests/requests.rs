//! Requests, limits and accidents on one worker.

use std::time::Duration;

use super::fixture::{Test, get, read_head};
use crate::conn::Drain;
use crate::http::{CloseReason, HttpLimits, Outcome};

#[tokio::test]
async fn requests_are_answered_one_after_another() {
    let mut test = Test::new().await;
    for _ in 0..3 {
        let (head, body) = test.get("/hello").await;
        assert!(head.starts_with("http/1.1 200") && head.contains("date: "), "{head}");
        assert!(!head.contains("connection: close"));
        assert_eq!(body, "GET /hello");
    }
    assert_eq!(test.registry.totals().requests, 3);
    assert_eq!(test.registry.totals().in_hand, 0);
    assert_eq!(test.registry.totals().connections, 1);
    let registry = test.registry.clone();
    drop(test.client);
    let outcome = test.driver.await.unwrap();
    assert!(matches!(outcome, Outcome::Closed(CloseReason::Ended)), "{outcome:?}");
    assert!(registry.is_empty() && registry.totals().connections == 0);
}

#[tokio::test]
async fn a_panic_is_a_500_and_nothing_else() {
    let mut test = Test::new().await;
    assert!(test.get("/panic").await.0.starts_with("http/1.1 500"));
    assert!(test.get("/fail").await.0.starts_with("http/1.1 500"));
    assert!(test.get("/hello").await.0.starts_with("http/1.1 200"));
    assert_eq!(test.registry.totals().failures, 2);
}
