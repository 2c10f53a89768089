//! Load while something happens to the server: clients in closed loops that count.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::http::{Broken, Client, Response, post};
use super::wait::until;

/// What the clients have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    stop: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    closed: AtomicU64,
    /// The first few failures, in words.
    reasons: Mutex<Vec<String>>,
    /// Answers by generation.
    generations: Mutex<BTreeMap<u64, u64>>,
}

impl Seen {
    fn going(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, response: &Response) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let generation = response.header("x-generation").and_then(|text| text.parse().ok());
        *self.generations.lock().unwrap().entry(generation.unwrap_or(0)).or_default() += 1;
    }

    fn fail(&self, reason: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut reasons = self.reasons.lock().unwrap();
        if reasons.len() < 8 {
            reasons.push(reason);
        }
    }

    /// Checks an answer to `/hello`.
    fn judge(&self, answer: Result<Response, Broken>) -> Option<Response> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        match answer {
            Ok(response) if response.status == 200 && response.body.starts_with(b"hello from") => {
                self.note(&response);
                return Some(response);
            }
            Ok(response) => self.fail(format!("{response:?}")),
            Err(broken) => self.fail(broken.to_string()),
        }
        None
    }
}

/// The counts at the end.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// Kept connections that the server ended.
    pub(crate) closed: u64,
    pub(crate) reasons: Vec<String>,
    pub(crate) generations: BTreeMap<u64, u64>,
}

impl Counts {
    /// Nothing failed, no connection was closed, and everything sent was answered.
    #[track_caller]
    pub(crate) fn assert_flawless(&self) {
        assert_eq!((self.failed, self.closed), (0, 0), "{self:#?}");
        assert_eq!(self.sent, self.answered, "{self:#?}");
        assert!(self.answered > 0, "{self:#?}");
    }
}

/// Clients at work.
pub(crate) struct Load {
    seen: Arc<Seen>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Clients that each keep one connection and ask `/hello` again and again.
    pub(crate) fn keep_alive(address: SocketAddr, clients: usize) -> Self {
        Self::spawn(clients, move |seen, _| {
            while seen.going() {
                let mut client = match Client::connect(address) {
                    Ok(client) => client,
                    Err(broken) => {
                        seen.fail(format!("connect: {broken}"));
                        return;
                    }
                };
                while seen.going() {
                    match seen.judge(client.get("/hello")) {
                        Some(response) if response.says_close() => {
                            seen.closed.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        Some(_) => {}
                        None => break,
                    }
                }
            }
        })
    }

    /// Clients that open a connection for each request.
    pub(crate) fn per_request(address: SocketAddr, clients: usize) -> Self {
        Self::spawn(clients, move |seen, _| {
            while seen.going() {
                seen.judge(Client::connect(address).and_then(|mut client| client.get("/hello")));
            }
        })
    }

    /// Clients that send eight requests at once, cut at odd places, and then read eight answers.
    pub(crate) fn pipelined(address: SocketAddr, clients: usize) -> Self {
        Self::spawn(clients, move |seen, number| {
            let Ok(mut client) = Client::connect(address) else { return };
            let batch = b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n".repeat(8);
            let mut cut = number + 1;
            while seen.going() {
                cut = (cut * 31 + 7) % (batch.len() - 1) + 1;
                if let Err(broken) =
                    client.send(&batch[..cut]).and_then(|()| client.send(&batch[cut..]))
                {
                    seen.fail(format!("send: {broken}"));
                    return;
                }
                for _ in 0..8 {
                    if seen.judge(client.receive()).is_none() {
                        return;
                    }
                }
            }
        })
    }

    /// Clients that place orders on kept connections; `impatient` ones place two each and hang up
    /// at odd moments, without waiting for the answer.
    pub(crate) fn orders(address: SocketAddr, patient: usize, impatient: usize) -> Self {
        Self::spawn(patient + impatient, move |seen, number| {
            let order = post("/orders", r#"{"item":"lamp","quantity":2}"#);
            let mut rounds = 0;
            while seen.going() {
                let Ok(mut client) = Client::connect(address) else {
                    // Refused is right after a stop, and wrong before; the caller knows.
                    seen.closed.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                if number >= patient {
                    let _ = client.send(&order);
                    // Hangs up while the order is anywhere between received and shipped.
                    let moment = (number * 37 + rounds * 53) % 101;
                    thread::sleep(std::time::Duration::from_millis(moment as u64));
                    rounds += 1;
                    if rounds == 2 {
                        return;
                    }
                    continue;
                }
                while seen.going() {
                    seen.sent.fetch_add(1, Ordering::Relaxed);
                    match client.send(&order).and_then(|()| client.receive()) {
                        Ok(response) if response.status == 201 => {
                            seen.note(&response);
                            if response.says_close() {
                                break;
                            }
                        }
                        Ok(response) => {
                            seen.fail(format!("{response:?}"));
                            break;
                        }
                        Err(broken) => {
                            seen.fail(broken.to_string());
                            break;
                        }
                    }
                }
            }
        })
    }

    fn spawn(clients: usize, work: impl Fn(&Seen, usize) + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Seen::default());
        let work = Arc::new(work);
        let clients = (0..clients)
            .map(|number| {
                let (seen, work) = (seen.clone(), work.clone());
                thread::spawn(move || work(&seen, number))
            })
            .collect();
        Self { seen, clients }
    }

    /// Answers so far.
    pub(crate) fn answered(&self) -> u64 {
        self.seen.answered.load(Ordering::Relaxed)
    }

    /// Waits until there are so many more answers than now (or the first failure).
    #[track_caller]
    pub(crate) fn wait_more(&self, more: u64) {
        let goal = self.answered() + more;
        until("more answers", || {
            self.answered() >= goal || self.seen.failed.load(Ordering::Relaxed) > 0
        });
    }

    /// Lets every client finish its round, and counts.
    pub(crate) fn finish(self) -> Counts {
        self.seen.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            if client.join().is_err() {
                self.seen.fail("a client panicked".into());
            }
        }
        let seen = &self.seen;
        Counts {
            sent: seen.sent.load(Ordering::Relaxed),
            answered: seen.answered.load(Ordering::Relaxed),
            failed: seen.failed.load(Ordering::Relaxed),
            closed: seen.closed.load(Ordering::Relaxed),
            reasons: seen.reasons.lock().unwrap().clone(),
            generations: seen.generations.lock().unwrap().clone(),
        }
    }
}
