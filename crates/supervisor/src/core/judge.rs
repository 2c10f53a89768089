//! Whether a canary is as good as the workers beside it, from what both have counted in the same time.

use crate::settings::{Inconclusive, ServerSettings};

use super::event::Millis;
use super::millis;
use super::sample::Sample;

/// Fewer requests say nothing.
pub const FEWEST: u64 = 20;
/// A canary whose share of failures is so far beyond the limit is not kept until its time is over.
const CLEARLY: f64 = 0.25;
/// One failure can happen to anybody.
const MANY: u64 = 2;
/// Means that lie closer together, in milliseconds, are told apart by chance alone.
const FELT_MS: f64 = 1.0;
/// Without a time of its own a canary has so long for its requests.
const CEILING: Millis = 300_000;

/// How good a canary has to be, and when that is decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// When its time is over.
    pub time: Millis,
    /// Requests that it has to have served.
    pub requests: u64,
    /// Whether it is judged as soon as it has.
    pub at_once: bool,
    /// Its share of failures beyond the others'.
    pub errors: f64,
    /// Its mean latency, in the others'; 0: not judged.
    pub slowdown: f64,
    /// What too few requests mean.
    pub inconclusive: Inconclusive,
}

impl Limits {
    /// Those of the settings.
    pub fn of(settings: &ServerSettings) -> Self {
        let at_once = settings.canary_time.is_zero();
        Self {
            time: if at_once { CEILING } else { millis(settings.canary_time) },
            requests: settings.canary_requests.max(if at_once { 1 } else { FEWEST }),
            at_once,
            errors: settings.canary_max_errors,
            slowdown: settings.canary_max_slowdown,
            inconclusive: settings.canary_inconclusive,
        }
    }
}

/// What is thought of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing yet.
    Open,
    /// The others may follow. With what was seen, for the log.
    Good(String),
    /// They may, although nobody can say. With why not.
    Unjudged(String),
    /// They may not. With the reason.
    Bad(String),
}

/// Judges a canary that has served for `lasted`, beside `old` workers.
pub fn judge(canary: &Sample, old: &Sample, limits: &Limits, lasted: Millis) -> Judgement {
    let over = lasted >= limits.time;
    let enough = canary.served() >= limits.requests;
    let excess = excess(canary, old);
    if canary.served() >= FEWEST && excess > limits.errors + CLEARLY {
        return Judgement::Bad(failed(canary, old));
    }
    if !(over || limits.at_once && enough) {
        return Judgement::Open;
    }
    if !enough {
        return too_few(canary, limits);
    }
    if excess > limits.errors {
        return Judgement::Bad(failed(canary, old));
    }
    match slower(canary, old, limits) {
        Some(reason) => Judgement::Bad(reason),
        None => Judgement::Good(format!(
            "the canary failed {} of {} requests, the old workers {} of {}",
            canary.failures,
            canary.served(),
            old.failures,
            old.served()
        )),
    }
}

/// By how much the canary's share of failures is beyond the others'. Without traffic of their own these
/// fail at nothing.
fn excess(canary: &Sample, old: &Sample) -> f64 {
    if canary.failures < MANY { 0.0 } else { canary.error_share() - old.error_share() }
}

fn failed(canary: &Sample, old: &Sample) -> String {
    format!(
        "the canary failed {} of {} requests, the old workers {} of {} in the same time",
        canary.failures,
        canary.served(),
        old.failures,
        old.served()
    )
}

/// Why the canary is too slow, if it is.
fn slower(canary: &Sample, old: &Sample, limits: &Limits) -> Option<String> {
    if limits.slowdown == 0.0 || old.timed < FEWEST {
        return None;
    }
    let (new, known) = (canary.mean_ms()?, old.mean_ms()?);
    (new > known * limits.slowdown && new - known >= FELT_MS).then(|| {
        format!(
            "the canary took {new:.1} ms for a request, the old workers {known:.1} ms in the same \
             time (canary_max_slowdown {})",
            limits.slowdown
        )
    })
}

fn too_few(canary: &Sample, limits: &Limits) -> Judgement {
    let served = canary.served();
    let text = format!(
        "the canary served {served} request{} in {} s, of {} that it takes to judge it",
        if served == 1 { "" } else { "s" },
        limits.time as f64 / 1_000.0,
        limits.requests
    );
    match limits.inconclusive {
        Inconclusive::Commit => Judgement::Unjudged(text),
        Inconclusive::RollBack => {
            Judgement::Bad(format!("{text} (canary_inconclusive = \"roll_back\")"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVER: Millis = 10_000;

    fn limits() -> Limits {
        Limits {
            time: OVER,
            requests: 20,
            at_once: false,
            errors: 0.01,
            slowdown: 2.0,
            inconclusive: Inconclusive::RollBack,
        }
    }

    fn at_once(requests: u64) -> Limits {
        Limits { requests, at_once: true, ..limits() }
    }

    /// So many requests, so many of them failed, each taking so many microseconds.
    fn served(requests: u64, failures: u64, us: u64) -> Sample {
        Sample { requests, failures, timed: requests, spent_us: requests * us }
    }

    fn name(judgement: &Judgement) -> &'static str {
        match judgement {
            Judgement::Open => "open",
            Judgement::Good(_) => "good",
            Judgement::Unjudged(_) => "unjudged",
            Judgement::Bad(_) => "bad",
        }
    }

    #[test]
    fn errors() {
        for (canary, old, lasted, expected) in [
            // Before its time is over only what is clear is judged.
            (served(1_000, 0, 100), served(1_000, 0, 100), 9_999, "open"),
            (served(1_000, 100, 100), served(1_000, 0, 100), 9_999, "open"),
            (served(20, 20, 100), served(1_000, 0, 100), 10, "bad"),
            (served(19, 19, 100), served(1_000, 0, 100), 10, "open"),
            (served(100, 100, 100), served(100, 100, 100), 10, "open"),
            // Then everything is.
            (served(1_000, 0, 100), served(1_000, 0, 100), OVER, "good"),
            (served(1_000, 9, 100), served(1_000, 0, 100), OVER, "good"),
            (served(1_000, 11, 100), served(1_000, 0, 100), OVER, "bad"),
            // What the old ones fail at, too, is not the canary's fault.
            (served(1_000, 500, 100), served(1_000, 495, 100), OVER, "good"),
            (served(1_000, 520, 100), served(1_000, 495, 100), OVER, "bad"),
            // Better is good.
            (served(1_000, 0, 100), served(1_000, 400, 100), OVER, "good"),
            // One failure says nothing.
            (served(20, 1, 100), served(1_000, 0, 100), OVER, "good"),
            (served(20, 2, 100), served(1_000, 0, 100), OVER, "bad"),
            // Nobody else was asked anything.
            (served(50, 0, 100), Sample::default(), OVER, "good"),
            (served(50, 5, 100), Sample::default(), OVER, "bad"),
        ] {
            let judgement = judge(&canary, &old, &limits(), lasted);
            assert_eq!(name(&judgement), expected, "{canary:?} {old:?} {lasted}: {judgement:?}");
        }
    }

    #[test]
    fn latency() {
        for (canary_us, old_us, slowdown, expected) in [
            (10_000, 10_000, 2.0, "good"),
            (19_000, 10_000, 2.0, "good"),
            (21_000, 10_000, 2.0, "bad"),
            (21_000, 10_000, 3.0, "good"),
            (21_000, 10_000, 0.0, "good"),
            (5_000, 10_000, 2.0, "good"),
            // Many times nothing is still nothing.
            (900, 100, 2.0, "good"),
            (1_200, 100, 2.0, "bad"),
        ] {
            let limits = Limits { slowdown, ..limits() };
            let (canary, old) = (served(100, 0, canary_us), served(100, 0, old_us));
            let judgement = judge(&canary, &old, &limits, OVER);
            assert_eq!(name(&judgement), expected, "{canary_us} {old_us}: {judgement:?}");
        }
        let nothing = judge(&served(100, 0, 90_000), &served(19, 0, 100), &limits(), OVER);
        assert_eq!(name(&nothing), "good", "nothing to compare with");
    }

    #[test]
    fn too_few_requests_have_a_policy() {
        let few = served(19, 0, 100);
        let old = served(1_000, 0, 100);
        assert_eq!(name(&judge(&few, &old, &limits(), OVER)), "bad");
        let commit = Limits { inconclusive: Inconclusive::Commit, ..limits() };
        assert_eq!(name(&judge(&few, &old, &commit, OVER)), "unjudged");
        // Without a time of its own it is judged when it has served enough.
        assert_eq!(name(&judge(&few, &old, &at_once(20), 9_999)), "open");
        assert_eq!(name(&judge(&served(20, 0, 100), &old, &at_once(20), 10)), "good");
        assert_eq!(name(&judge(&few, &old, &at_once(20), OVER)), "bad");
    }

    #[test]
    fn reasons_have_figures() {
        let reason = |judgement| match judgement {
            Judgement::Bad(reason) => reason,
            other => panic!("{other:?}"),
        };
        let old = served(310, 0, 1_500);
        assert_eq!(
            reason(judge(&served(40, 12, 100), &old, &limits(), OVER)),
            "the canary failed 12 of 40 requests, the old workers 0 of 310 in the same time"
        );
        assert_eq!(
            reason(judge(&served(40, 0, 25_000), &old, &limits(), OVER)),
            "the canary took 25.0 ms for a request, the old workers 1.5 ms in the same time \
             (canary_max_slowdown 2)"
        );
        assert_eq!(
            reason(judge(&served(1, 0, 100), &old, &limits(), OVER)),
            "the canary served 1 request in 10 s, of 20 that it takes to judge it \
             (canary_inconclusive = \"roll_back\")"
        );
    }

    #[test]
    fn limits_of_the_settings() {
        let settings = |time, requests| ServerSettings {
            canary_time: std::time::Duration::from_secs(time),
            canary_requests: requests,
            ..ServerSettings::default()
        };
        let of = |time, requests| {
            let limits = Limits::of(&settings(time, requests));
            (limits.time, limits.requests, limits.at_once)
        };
        assert_eq!(of(10, 0), (10_000, 20, false));
        assert_eq!(of(10, 500), (10_000, 500, false));
        assert_eq!(of(0, 500), (300_000, 500, true));
        // Whoever asks for fewer than usual knows why.
        assert_eq!(of(0, 5), (300_000, 5, true));
    }
}
