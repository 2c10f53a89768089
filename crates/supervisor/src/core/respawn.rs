//! When a process that died is forked again: at once, and later each time it dies young.

use super::event::Millis;
use serde::{Deserialize, Serialize};

/// A life shorter than this counts as dying young.
const YOUNG: Millis = 10_000;
/// The wait after the second death in a row.
const FIRST_WAIT: Millis = 100;
/// No wait is longer.
const LONGEST_WAIT: Millis = 5_000;

/// The deaths in a row of one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// Notes a death after `lived` milliseconds of serving (None: it never served) and tells how
    /// long to wait before the next fork.
    pub fn died(&mut self, lived: Option<Millis>) -> Millis {
        if lived.is_some_and(|lived| lived >= YOUNG) {
            self.deaths = 0;
        }
        let wait = match self.deaths {
            0 => 0,
            n => FIRST_WAIT.saturating_mul(1 << (n - 1).min(16)).min(LONGEST_WAIT),
        };
        self.deaths = self.deaths.saturating_add(1);
        wait
    }

    /// Deaths in a row so far.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_costs_no_wait_and_the_next_ones_double_up_to_the_limit() {
        let mut slot = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| slot.died(Some(5))).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn a_long_life_forgives() {
        let mut slot = Backoff::default();
        slot.died(None);
        slot.died(None);
        assert_eq!(slot.died(Some(YOUNG)), 0);
        assert_eq!(slot.died(Some(YOUNG - 1)), 100);
    }
}
