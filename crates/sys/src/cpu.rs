//! Processors, and which of them a process may use.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors that this thread may use (by cgroup, `taskset`, or [`keep_to`]), in ascending
/// order.
///
/// # Errors
/// If there are more than the 1,024 that a mask has room for.
pub fn allowed() -> io::Result<Vec<u32>> {
    let set = sched_getaffinity(None)?;
    let numbers = (0..CpuSet::MAX_CPU).filter(|it| set.is_set(*it));
    Ok(numbers.filter_map(|it| u32::try_from(it).ok()).collect())
}

/// Uses no others from now on. It holds for this thread and those that it starts.
///
/// # Errors
/// If none of them may be used.
pub fn keep_to(cpus: &[u32]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter_map(|it| usize::try_from(*it).ok()) {
        if cpu < CpuSet::MAX_CPU {
            set.set(cpu);
        }
    }
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_thread_keeps_to_what_it_chose_and_so_do_its_own() {
        // A thread of its own: nothing else in this process is touched.
        let kept = std::thread::spawn(|| {
            let one = *allowed().unwrap().last().unwrap();
            keep_to(&[one]).unwrap();
            let below = std::thread::spawn(|| allowed().unwrap()).join().unwrap();
            (one, allowed().unwrap(), below)
        });
        let (one, own, below) = kept.join().unwrap();
        assert_eq!((own, below), (vec![one], vec![one]));
        assert!(keep_to(&[]).is_err());
    }
}
