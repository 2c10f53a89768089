//! Whether the manager turns: now and then it is asked, and has to answer.

use crate::core::event::Millis;

/// However short `heartbeat_timeout` is: a manager reads releases from disks that may be slow.
const SHORTEST: Millis = 5_000;
/// Whoever is asked to leave at once gets this long to begin with it.
const AT_ONCE: Millis = 2_000;
/// This process may have been kept from running itself, together with the manager: whatever has been
/// said meanwhile is heard first.
const GRACE: Millis = 1_000;

/// Decides when the manager is asked, and when it has been silent for too long.
#[derive(Debug)]
pub(super) struct Pulse {
    /// How long it may be silent; None: for ever.
    limit: Option<Millis>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody is asked.
    Rests,
    /// It has spoken. It is asked then, and gets so long.
    Turns { next: Millis, within: Millis },
    /// It was asked, and has to say something, whatever it is, until then.
    Asked { until: Millis },
    /// It has not.
    Late { until: Millis },
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// Ask it to say something.
    Ask,
    /// It hangs.
    Replace,
}

impl Pulse {
    /// Until a limit is known the manager may take its time.
    pub(super) fn new() -> Self {
        Self { limit: None, state: State::Rests }
    }

    /// `heartbeat_timeout` in milliseconds; 0: no limit.
    pub(super) fn set_limit(&mut self, limit: Millis, now: Millis) {
        self.limit = (limit > 0).then(|| limit.max(SHORTEST));
        self.heard(now);
    }

    /// The limit in milliseconds, as it was set or as it is kept; 0: none.
    pub(super) fn limit(&self) -> Millis {
        self.limit.unwrap_or(0)
    }

    /// The manager has said something, or it is a new one.
    pub(super) fn heard(&mut self, now: Millis) {
        self.state = match self.limit {
            Some(limit) => State::Turns { next: now + limit / 3, within: limit },
            None => State::Rests,
        };
    }

    /// It has been told to leave at once: also one without a limit is asked whether it does.
    pub(super) fn press(&mut self, now: Millis) {
        self.state = State::Turns { next: now, within: AT_ONCE };
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Millis> {
        match self.state {
            State::Rests => None,
            State::Turns { next, .. } => Some(next),
            State::Asked { until } | State::Late { until } => Some(until),
        }
    }

    /// What is due by now. Everything that has been said until now has to have been heard.
    pub(super) fn pass(&mut self, now: Millis) -> Step {
        if self.due().is_none_or(|due| due > now) {
            return Step::Wait;
        }
        let (state, step) = match self.state {
            State::Rests => (State::Rests, Step::Wait),
            State::Turns { within, .. } => (State::Asked { until: now + within }, Step::Ask),
            State::Asked { .. } => (State::Late { until: now + GRACE }, Step::Wait),
            State::Late { .. } => (State::Rests, Step::Replace),
        };
        self.state = state;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Millis = 30_000;

    fn limited() -> Pulse {
        let mut pulse = Pulse::new();
        pulse.set_limit(LIMIT, 0);
        pulse
    }

    /// Passes the time, each time that something is due, until something is to be done.
    fn next_step(pulse: &mut Pulse) -> (Millis, Step) {
        loop {
            let now = pulse.due().expect("nothing is due");
            match pulse.pass(now) {
                Step::Wait => {}
                step => return (now, step),
            }
        }
    }

    #[test]
    fn whoever_answers_is_asked_again_and_again() {
        let mut pulse = limited();
        for round in 1..100 {
            assert_eq!(next_step(&mut pulse), (round * LIMIT / 3, Step::Ask));
            pulse.heard(round * LIMIT / 3);
        }
    }

    #[test]
    fn whoever_does_not_is_replaced_once() {
        let mut pulse = limited();
        assert_eq!(next_step(&mut pulse), (10_000, Step::Ask));
        assert_eq!(next_step(&mut pulse), (10_000 + LIMIT + GRACE, Step::Replace));
        assert_eq!(pulse.due(), None);
        // The next one.
        pulse.heard(50_000);
        assert_eq!(next_step(&mut pulse), (60_000, Step::Ask));
    }

    #[test]
    fn both_may_have_been_kept_from_running() {
        let mut pulse = limited();
        assert_eq!(next_step(&mut pulse), (10_000, Step::Ask));
        // An hour later this process is the first to run again.
        assert_eq!(pulse.pass(3_600_000), Step::Wait);
        assert_eq!(pulse.pass(3_600_000 + GRACE - 1), Step::Wait);
        pulse.heard(3_600_500);
        assert_eq!(next_step(&mut pulse), (3_610_500, Step::Ask));
    }

    #[test]
    fn without_a_limit_it_may_be_silent_until_it_is_told_to_leave_at_once() {
        let mut pulse = Pulse::new();
        assert_eq!((pulse.due(), pulse.pass(1 << 40)), (None, Step::Wait));
        pulse.set_limit(0, 0);
        assert_eq!((pulse.due(), pulse.limit()), (None, 0));
        pulse.press(7_000);
        assert_eq!(next_step(&mut pulse), (7_000, Step::Ask));
        assert_eq!(next_step(&mut pulse), (7_000 + AT_ONCE + GRACE, Step::Replace));
        pulse.press(20_000);
        pulse.heard(20_001);
        assert_eq!(pulse.due(), None);
    }

    #[test]
    fn no_limit_is_too_short_for_a_slow_disk() {
        let mut pulse = Pulse::new();
        pulse.set_limit(1_000, 0);
        assert_eq!(pulse.limit(), SHORTEST);
    }
}
