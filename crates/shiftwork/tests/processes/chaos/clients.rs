//! Those who use the server meanwhile, and look at every byte that they get.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::judge::Witness;
use super::plan::Dice;
use super::talkers;
use crate::support::http::{Broken, Client, Response, post};

/// Where the server is, and who writes down what happens.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) web: SocketAddr,
    pub(super) till: SocketAddr,
    pub(super) witness: Arc<Witness>,
}

/// A round on a connection: an error ends the connection, with who answered last on it.
pub(super) type Round = Result<(), (String, Option<i32>)>;

/// What a client does for as long as its connection lives.
type Work = fn(&Scene, &mut Dice, &'static str) -> Round;

/// Sends everybody to work.
pub(super) fn employ(scene: &Scene, dice: &mut Dice) -> Vec<JoinHandle<()>> {
    let mut all = Vec::new();
    let kinds: [(&'static str, usize, Work); 9] = [
        ("keep-alive", 4, keep_alive),
        ("pipelining", 2, pipelining),
        ("connection per request", 2, per_request),
        ("echo", 2, echo),
        ("dawdling", 4, dawdling),
        ("slow", 2, slow),
        ("orders", 4, orders),
        ("websocket", 4, talkers::websocket),
        ("till", 4, talkers::till),
    ];
    for (name, count, work) in kinds {
        for _ in 0..count {
            let (scene, mut dice) = (scene.clone(), dice.split());
            all.push(thread::spawn(move || {
                while !scene.witness.is_over() {
                    if let Err((what, pid)) = work(&scene, &mut dice, name) {
                        scene.witness.failed(name, what, pid);
                        // Whoever was refused does not ask again at once.
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            }));
        }
    }
    all
}

/// A connection that remembers who answered last.
struct Talk {
    client: Client,
    pid: Option<i32>,
}

impl Talk {
    fn connect(scene: &Scene) -> Result<Self, (String, Option<i32>)> {
        match Client::connect(scene.web) {
            Ok(client) => Ok(Self { client, pid: None }),
            Err(broken) => Err((format!("connect: {broken}"), None)),
        }
    }

    fn answer(
        &mut self,
        answer: Result<Response, Broken>,
    ) -> Result<Response, (String, Option<i32>)> {
        let response = answer.map_err(|broken| (broken.to_string(), self.pid))?;
        self.pid = response.header("x-worker-pid").and_then(|it| it.parse().ok());
        if response.says_close() {
            return Err((format!("the server wants an end: {response:?}"), self.pid));
        }
        Ok(response)
    }

    fn wrong(&self, what: &str, response: &Response) -> (String, Option<i32>) {
        (format!("{what}: {response:?}"), self.pid)
    }

    /// An answer to `/hello`, which must say in its body what it says in its head.
    fn hello(&mut self, answer: Result<Response, Broken>) -> Round {
        let response = self.answer(answer)?;
        let mark = |name| response.header(name).unwrap_or_default();
        let expected = format!(
            "hello from release {}, generation {}, worker {}, pid {}",
            mark("x-release"),
            mark("x-generation"),
            mark("x-worker-id"),
            mark("x-worker-pid")
        );
        if response.status != 200 || response.body != expected.as_bytes() {
            return Err(self.wrong("another answer", &response));
        }
        Ok(())
    }
}

fn keep_alive(scene: &Scene, _: &mut Dice, name: &'static str) -> Round {
    let mut talk = Talk::connect(scene)?;
    while !scene.witness.is_over() {
        let answer = talk.client.get("/hello");
        talk.hello(answer)?;
        scene.witness.answered(name);
    }
    Ok(())
}

fn pipelining(scene: &Scene, dice: &mut Dice, name: &'static str) -> Round {
    let mut talk = Talk::connect(scene)?;
    while !scene.witness.is_over() {
        let count = 1 + dice.below(12);
        let batch = b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n".repeat(count);
        let cut = 1 + dice.below(batch.len() - 1);
        for part in [&batch[..cut], &batch[cut..]] {
            talk.client.send(part).map_err(|broken| (broken.to_string(), talk.pid))?;
        }
        for _ in 0..count {
            let answer = talk.client.receive();
            talk.hello(answer)?;
            scene.witness.answered(name);
        }
    }
    Ok(())
}

fn per_request(scene: &Scene, _: &mut Dice, name: &'static str) -> Round {
    let mut talk = Talk::connect(scene)?;
    let answer = talk.client.get("/hello");
    talk.hello(answer)?;
    scene.witness.answered(name);
    Ok(())
}

fn echo(scene: &Scene, dice: &mut Dice, name: &'static str) -> Round {
    let mut talk = Talk::connect(scene)?;
    while !scene.witness.is_over() {
        let length = *dice.one(&[0, 1, 100, 5_000, 200_000]);
        let body = dice.letters(length);
        let answer = talk.client.post("/echo", &body);
        let response = talk.answer(answer)?;
        if response.status != 200 || response.body != body.as_bytes() {
            let got = response.body.len();
            return Err((format!("{got} other bytes than the {length} sent"), talk.pid));
        }
        scene.witness.answered(name);
    }
    Ok(())
}

/// Idle for a while, then half a request, then the rest of it.
fn dawdling(scene: &Scene, dice: &mut Dice, name: &'static str) -> Round {
    let mut talk = Talk::connect(scene)?;
    let request = b"GET /hello HTTP/1.1\r\nhost: shop\r\n\r\n";
    while !scene.witness.is_over() {
        thread::sleep(Duration::from_millis(dice.below(500) as u64));
        let cut = dice.below(request.len());
        for part in [&request[..cut], &request[cut..]] {
            talk.client.send(part).map_err(|broken| (broken.to_string(), talk.pid))?;
            thread::sleep(Duration::from_millis(dice.below(300) as u64));
        }
        let answer = talk.client.receive();
        talk.hello(answer)?;
        scene.witness.answered(name);
    }
    Ok(())
}

/// Requests that take time.
fn slow(scene: &Scene, dice: &mut Dice, name: &'static str) -> Round {
    let mut talk = Talk::connect(scene)?;
    while !scene.witness.is_over() {
        let answer = talk.client.get(&format!("/slow?ms={}", dice.below(400)));
        let response = talk.answer(answer)?;
        if response.status != 200 || response.body != b"done" {
            return Err(talk.wrong("another answer", &response));
        }
        scene.witness.answered(name);
    }
    Ok(())
}

fn orders(scene: &Scene, dice: &mut Dice, name: &'static str) -> Round {
    let mut talk = Talk::connect(scene)?;
    while !scene.witness.is_over() {
        let (item, quantity) = (dice.letters(8), 1 + dice.below(9));
        let wish = format!(r#"{{"item":"{item}","quantity":{quantity}}}"#);
        talk.client
            .send(&post("/orders", &wish))
            .map_err(|broken| (broken.to_string(), talk.pid))?;
        if dice.below(10) == 0 {
            // Hangs up while the order is anywhere between received and shipped.
            thread::sleep(Duration::from_millis(dice.below(90) as u64));
            return Ok(());
        }
        let answer = talk.client.receive();
        let response = talk.answer(answer)?;
        let right = response.status == 201
            && serde_json::from_slice::<serde_json::Value>(&response.body).is_ok_and(|order| {
                order["item"] == item.as_str()
                    && order["quantity"] == quantity
                    && order["state"] == "shipped"
            });
        if !right {
            return Err(talk.wrong("another order", &response));
        }
        scene.witness.answered(name);
    }
    Ok(())
}
