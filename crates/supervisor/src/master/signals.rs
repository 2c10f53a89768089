//! Where a signal comes in, and which verb it is.

use shiftwork_sys::signal;

use crate::core::event::{Millis, Scope, Until};
use crate::core::scale::{Count, Wish};
use crate::protocol::master::Verb;

use super::state::EarsState;

/// A second TERM this long after the first one means it.
const SECOND_TERM: Millis = 1_000;

/// What a signal asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The same as a command.
    Verb(Verb),
    /// A log file that was moved away is opened anew.
    ReopenLog,
}

/// Remembers what has been heard, as far as it matters.
#[derive(Debug)]
pub struct Ears {
    first_term: Option<Millis>,
    /// Whether the server was started in the foreground, on a terminal.
    terminal: bool,
}

/// The signals that the master reads.
pub fn all() -> Vec<i32> {
    vec![
        signal::TERM,
        signal::INT,
        signal::QUIT,
        signal::HUP,
        signal::USR1,
        signal::USR2,
        signal::TTIN,
        signal::TTOU,
        signal::CHLD,
        signal::rtmin(),
    ]
}

impl Ears {
    /// What has been heard so far, for the program that comes.
    pub fn describe(&self) -> EarsState {
        EarsState { first_term: self.first_term, terminal: self.terminal }
    }

    /// Goes on from there.
    pub fn restore(state: &EarsState) -> Self {
        Self { first_term: state.first_term, terminal: state.terminal }
    }

    /// `terminal`: whether the server was started in the foreground, on a terminal.
    pub fn new(terminal: bool) -> Self {
        Self { first_term: None, terminal }
    }

    /// Turns a signal into what it asks for.
    pub fn hear(&mut self, signo: i32, now: Millis) -> Option<Asked> {
        self.decide(signo, now, || !shiftwork_sys::daemon::has_terminal())
    }

    fn decide(&mut self, signo: i32, now: Millis, hung_up: impl Fn() -> bool) -> Option<Asked> {
        let reload = |scope| {
            let until = Until::Committed;
            Some(Asked::Verb(Verb::Reload { scope, overrides: Vec::new(), until }))
        };
        let one_more = |more| {
            let workers = Some(Count::By(more));
            Some(Asked::Verb(Verb::Scale(Wish { workers, task_workers: None })))
        };
        match signo {
            signal::TERM | signal::INT => match self.first_term {
                None => {
                    self.first_term = Some(now);
                    Some(Asked::Verb(Verb::Stop))
                }
                Some(first) if now.saturating_sub(first) >= SECOND_TERM => {
                    Some(Asked::Verb(Verb::Hurry))
                }
                Some(_) => None,
            },
            signal::QUIT => Some(Asked::Verb(Verb::Quit)),
            signal::HUP if self.terminal && hung_up() => Some(Asked::Verb(Verb::Stop)),
            signal::USR1 | signal::HUP => reload(Scope::All),
            signal::USR2 => reload(Scope::Tasks),
            signal::TTIN => one_more(1),
            signal::TTOU => one_more(-1),
            other if other == signal::rtmin() => Some(Asked::ReopenLog),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb(asked: Option<Asked>) -> Option<Verb> {
        match asked {
            Some(Asked::Verb(verb)) => Some(verb),
            _ => None,
        }
    }

    #[test]
    fn a_second_term_means_at_once_only_after_a_second() {
        let mut ears = Ears::new(false);
        assert_eq!(verb(ears.hear(signal::TERM, 5_000)), Some(Verb::Stop));
        assert_eq!(ears.hear(signal::INT, 5_999), None);
        assert_eq!(verb(ears.hear(signal::INT, 6_000)), Some(Verb::Hurry));
    }

    #[test]
    fn hup_reloads_unless_the_terminal_has_gone() {
        let reload = |scope| Verb::Reload { scope, overrides: Vec::new(), until: Until::Committed };
        let hear = |terminal, hung_up| verb(Ears::new(terminal).decide(signal::HUP, 0, || hung_up));
        assert_eq!(hear(false, true), Some(reload(Scope::All)));
        assert_eq!(hear(true, false), Some(reload(Scope::All)));
        assert_eq!(hear(true, true), Some(Verb::Stop));
    }

    #[test]
    fn users_and_the_log() {
        let mut ears = Ears::new(false);
        assert!(matches!(
            verb(ears.hear(signal::USR2, 0)),
            Some(Verb::Reload { scope: Scope::Tasks, .. })
        ));
        assert_eq!(ears.hear(signal::rtmin(), 0), Some(Asked::ReopenLog));
        for (signo, more) in [(signal::TTIN, 1), (signal::TTOU, -1)] {
            let wish = Wish { workers: Some(Count::By(more)), task_workers: None };
            assert_eq!(verb(ears.hear(signo, 0)), Some(Verb::Scale(wish)));
        }
    }
}
