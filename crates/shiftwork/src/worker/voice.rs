//! What this process says to the manager, and says again to the next one.

use std::sync::{Arc, Mutex, PoisonError};

use shiftwork_supervisor::protocol::worker::FromWorker;
use tokio::sync::mpsc;

/// The way to the manager. Clones speak with one voice.
#[derive(Debug, Clone)]
pub(super) struct Voice {
    sender: mpsc::UnboundedSender<FromWorker>,
    /// What a manager has to know that has heard none of it.
    said: Arc<Mutex<Vec<FromWorker>>>,
}

impl Voice {
    pub(super) fn new(sender: mpsc::UnboundedSender<FromWorker>) -> Self {
        Self { sender, said: Arc::default() }
    }

    /// Says something. Nobody hears it if the manager and the master are gone, which is no error:
    /// their end is learned where their words are read.
    pub(super) fn say(&self, message: FromWorker) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.contains(&message) {
            said.push(message.clone());
        }
        let _ = self.sender.send(message);
    }

    /// Answers a question, which another manager would not have asked.
    pub(super) fn answer(&self, message: FromWorker) {
        let _ = self.sender.send(message);
    }

    /// Says it all once more.
    pub(super) fn repeat(&self) {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for message in said.iter() {
            let _ = self.sender.send(message.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn everything_is_said_again_in_order() {
        let (sender, mut heard) = mpsc::unbounded_channel();
        let voice = Voice::new(sender);
        voice.say(FromWorker::Ready);
        voice.clone().say(FromWorker::Serving);
        voice.repeat();
        let all: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
        let once = [FromWorker::Ready, FromWorker::Serving];
        assert_eq!(all, [once.clone(), once].concat());
    }
}
