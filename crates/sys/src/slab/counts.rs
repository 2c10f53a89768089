//! What only ever grows: the totals of one process, and their sums over those that are gone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::distribution::{Distribution, SharedDistribution};

macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident / $add:ident),* $(,)?) => {
        /// A process's totals as they lie in the slab. Every thread of the process may count.
        #[derive(Debug, Default)]
        #[repr(C)]
        pub struct Counts {
            $($field: AtomicU64,)*
            /// How long requests took, from the end of the head until the answer was handed to
            /// the connection, and handlers of other protocols.
            pub latency: SharedDistribution,
            /// How long tasks took in their task worker, until they were answered: as many as
            /// `tasks`.
            pub task_latency: SharedDistribution,
        }

        /// Totals, read.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Sums {
            $($(#[$doc])* pub $field: u64,)*
            /// How long requests took.
            pub latency: Distribution,
            /// How long tasks took.
            pub task_latency: Distribution,
        }

        impl Counts {
            $(
                $(#[$doc])*
                #[inline]
                pub fn $field(&self) -> u64 {
                    self.$field.load(Relaxed)
                }

                /// So many more of what the reader of this name counts.
                #[inline]
                pub fn $add(&self, more: u64) {
                    self.$field.fetch_add(more, Relaxed);
                }
            )*

            /// Requests that are over, and calls of handlers of other protocols, which their
            /// durations count.
            pub fn requests(&self) -> u64 {
                self.latency.count()
            }

            /// Everything at once; what is counted meanwhile may be in it or not.
            #[must_use]
            pub fn read(&self) -> Sums {
                Sums {
                    $($field: self.$field(),)*
                    latency: self.latency.read(),
                    task_latency: self.task_latency.read(),
                }
            }

            pub(super) fn add(&self, more: &Sums) {
                $(self.$add(more.$field);)*
                self.latency.add(&more.latency);
                self.task_latency.add(&more.task_latency);
            }

            pub(super) fn clear(&self) {
                $(self.$field.store(0, Relaxed);)*
                self.latency.clear();
                self.task_latency.clear();
            }
        }

        impl Sums {
            /// Requests that are over, and calls of handlers of other protocols.
            #[must_use]
            pub fn requests(&self) -> u64 {
                self.latency.count()
            }

            /// Adds another process's.
            pub fn merge(&mut self, more: &Sums) {
                $(self.$field = self.$field.wrapping_add(more.$field);)*
                self.latency.merge(&more.latency);
                self.task_latency.merge(&more.task_latency);
            }

            /// What was counted after `earlier` was read from the same process.
            #[must_use]
            pub fn since(&self, earlier: &Sums) -> Sums {
                Sums {
                    $($field: self.$field.saturating_sub(earlier.$field),)*
                    latency: self.latency.since(&earlier.latency),
                    task_latency: self.task_latency.since(&earlier.task_latency),
                }
            }
        }
    };
}

counts! {
    /// Requests that were answered with a status of 100 to 199 (a change of protocol).
    informational / add_informational,
    /// With 200 to 299.
    successes / add_successes,
    /// With 300 to 399.
    redirects / add_redirects,
    /// With 400 to 499.
    client_errors / add_client_errors,
    /// With 500 or more.
    failures / add_failures,
    /// Calls of handlers of other protocols.
    calls / add_calls,
    /// Handlers that panicked, or returned an error; of whatever protocol.
    handler_errors / add_handler_errors,
    /// Connections that another worker has taken.
    handed_over / add_handed_over,
    /// Connections taken from another worker.
    adopted / add_adopted,
    /// Connections closed because they could not be handed over or adopted.
    hand_over_failures / add_hand_over_failures,
    /// Tasks answered, those that failed included.
    tasks / add_tasks,
    /// Tasks answered with anything but what they were to bring.
    tasks_failed / add_tasks_failed,
}
