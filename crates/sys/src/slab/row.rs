//! One process's row: what it is doing now, and its totals.

use std::sync::atomic::{AtomicU64, Ordering};

use super::counts::Counts;

/// Bytes of a row, and of the header before the first one.
pub(super) const SIZE: usize = 1024;

macro_rules! row {
    ($($(#[$doc:meta])* $field:ident / $set:ident),* $(,)?) => {
        /// A process's row. Zero is where everything in it starts.
        #[derive(Debug, Default)]
        #[repr(C, align(1024))]
        pub struct Row {
            $($field: AtomicU64,)*
            /// For what releases to come want to show, without moving what follows.
            spare: [AtomicU64; 2],
            /// Its totals.
            pub counts: Counts,
        }

        impl Row {
            $(
                $(#[$doc])*
                #[inline]
                pub fn $field(&self) -> u64 {
                    self.$field.load(Ordering::Relaxed)
                }

                /// Writes the value that the reader of this name reads.
                #[inline]
                pub fn $set(&self, value: u64) {
                    self.$field.store(value, Ordering::Relaxed);
                }
            )*

            /// Sets everything to zero.
            pub fn clear(&self) {
                $(self.$set(0);)*
                self.spare.iter().for_each(|it| it.store(0, Ordering::Relaxed));
                self.counts.clear();
            }
        }
    };
}

row! {
    /// Its pid.
    raw_pid / set_raw_pid,
    /// Its worker id.
    raw_worker_id / set_raw_worker_id,
    /// Its generation.
    generation / set_generation,
    /// When it began, in milliseconds of the monotonic clock.
    started_ms / set_started_ms,
    /// Requests in hand; of a task worker: tasks.
    in_flight / set_in_flight,
    /// Connections open.
    connections / set_connections,
    /// When its loop turned last, in milliseconds of the monotonic clock.
    heartbeat_ms / set_heartbeat_ms,
    /// When the oldest request in hand began; 0: none is in hand.
    oldest_ms / set_oldest_ms,
    /// Whether it drains (1).
    draining / set_draining,
    /// One more than the number of the reply socket of the task that it runs; 0: it runs none.
    claimed_reply / set_claimed_reply,
    /// The task that it runs.
    claimed_task / set_claimed_task,
    /// Tasks that this worker has sent and that are not answered, whether they wait or run.
    tasks_unanswered / set_tasks_unanswered,
    /// Whether it takes up connections that are handed over (1).
    adopts / set_adopts,
    /// Whether it is a canary that is being judged (1): connections that are handed over are left to
    /// others as long as there are any. The manager writes it.
    on_trial / set_on_trial,
}

// Releases that were built apart share this memory: within a VERSION no word changes its place.
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Row>() == SIZE && size_of::<Counts>() == (12 + 2 * 19) * 8);
    assert!(offset_of!(Row, raw_pid) == 0 && offset_of!(Row, started_ms) == 24);
    assert!(offset_of!(Row, in_flight) == 32 && offset_of!(Row, heartbeat_ms) == 48);
    assert!(offset_of!(Row, draining) == 64 && offset_of!(Row, claimed_reply) == 72);
    assert!(offset_of!(Row, tasks_unanswered) == 88 && offset_of!(Row, adopts) == 96);
    assert!(offset_of!(Row, on_trial) == 104);
    assert!(offset_of!(Row, counts) == 128);
    assert!(offset_of!(Counts, latency) == 12 * 8);
};

impl Row {
    /// Writes its pid.
    pub fn set_pid(&self, pid: i32) {
        self.set_raw_pid(u64::from(pid.cast_unsigned()));
    }

    /// Writes its worker id.
    pub fn set_worker_id(&self, worker_id: u32) {
        self.set_raw_worker_id(u64::from(worker_id));
    }

    /// One more request is in hand. From any thread; gives how many there were.
    #[inline]
    pub fn one_more_in_flight(&self) -> u64 {
        self.in_flight.fetch_add(1, Ordering::Relaxed)
    }

    /// One request fewer is in hand. From any thread; gives how many there were.
    #[inline]
    pub fn one_fewer_in_flight(&self) -> u64 {
        self.in_flight.fetch_sub(1, Ordering::Relaxed)
    }

    /// One more connection is open. From any thread.
    #[inline]
    pub fn one_more_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// One connection fewer is open. From any thread.
    #[inline]
    pub fn one_fewer_connection(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Says, before it is run, which task this process has and whose it is.
    #[inline]
    pub fn set_claim(&self, reply: u32, task: u64) {
        self.set_claimed_task(task);
        // The reader believes the task only with this.
        self.claimed_reply.store(u64::from(reply) + 1, Ordering::Release);
    }

    /// The task was answered.
    #[inline]
    pub fn clear_claim(&self) {
        self.claimed_reply.store(0, Ordering::Release);
    }

    /// Reply socket and number of the task that this process has.
    pub fn claim(&self) -> Option<(u32, u64)> {
        let reply = self.claimed_reply.load(Ordering::Acquire).checked_sub(1)?;
        Some((u32::try_from(reply).ok()?, self.claimed_task()))
    }
}
