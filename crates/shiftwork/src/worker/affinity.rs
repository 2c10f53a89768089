//! `cpu_affinity`: which processors a process keeps to.

use shiftwork_supervisor::settings::ServerSettings;
use shiftwork_sys::cpu;

/// The processors that there are to be shared out.
///
/// # Errors
/// A sentence, if there are none.
pub(crate) fn candidates(settings: &ServerSettings) -> Result<Vec<u32>, String> {
    let mut cpus = cpu::allowed()
        .map_err(|error| format!("server.cpu_affinity: the processors are not known: {error}"))?;
    let all = cpus.clone();
    cpus.retain(|it| !settings.cpu_affinity_ignore.contains(it));
    match cpus.is_empty() {
        false => Ok(cpus),
        true => Err(format!(
            "server.cpu_affinity_ignore leaves none of the processors that may be used: {all:?}"
        )),
    }
}

/// Has this process keep to its own. Before it starts any thread.
pub(super) fn apply(settings: &ServerSettings, worker_id: u32) {
    if !settings.cpu_affinity {
        return;
    }
    let kept = candidates(settings).and_then(|candidates| {
        let own = share(&candidates, worker_id, settings.worker_threads);
        cpu::keep_to(&own).map_err(|error| format!("it cannot keep to processors {own:?}: {error}"))
    });
    // The template has looked; what may be used has changed since, and serving goes first.
    if let Err(reason) = kept {
        tracing::warn!("{reason}");
    }
}

/// Those of one process: as many as it has threads, after those of the process before it, round and
/// round.
fn share(candidates: &[u32], worker_id: u32, threads: u32) -> Vec<u32> {
    let (number, threads) = (candidates.len() as u64, u64::from(threads.max(1)));
    let first = u64::from(worker_id) * threads;
    let places = (first..first + threads.min(number)).map(|it| it % number.max(1));
    places.filter_map(|it| candidates.get(usize::try_from(it).ok()?).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_the_other_round_and_round() {
        let cpus = [2, 3, 5];
        let of = |worker_id| share(&cpus, worker_id, 1);
        assert_eq!([of(0), of(1), of(2), of(3), of(1000)], [[2], [3], [5], [2], [3]]);
        assert_eq!(share(&cpus, 0, 2), [2, 3]);
        assert_eq!(share(&cpus, 1, 2), [5, 2]);
        assert_eq!(share(&cpus, 7, 64), [3, 5, 2]);
        assert!(share(&[], 7, 1).is_empty());
        assert_eq!(share(&cpus, u32::MAX, 256).len(), 3);
    }
}
