//! The shared slab: one row of counters a process, in memory that all of them map.
//!
//! One process writes a row at a time (the manager before the process is named, the process itself
//! afterwards), so that a write is a plain load and store; everybody reads.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create,
};

const MAGIC: u64 = u64::from_le_bytes(*b"shiftwrk");
/// The layout below.
const VERSION: u64 = 1;

#[derive(Debug)]
#[repr(C, align(256))]
struct Header {
    magic: AtomicU64,
    version: AtomicU64,
    rows: AtomicU64,
    retired_requests: AtomicU64,
    retired_tasks: AtomicU64,
}

macro_rules! row {
    ($($(#[$doc:meta])* $field:ident / $set:ident),* $(,)?) => {
        /// A process's counters. Zero is where each of them starts.
        #[derive(Debug)]
        #[repr(C, align(256))]
        pub struct Row {
            $($field: AtomicU64,)*
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
    /// Requests answered.
    requests / set_requests,
    /// Requests in hand.
    in_flight / set_in_flight,
    /// Connections open.
    connections / set_connections,
    /// Tasks done.
    tasks / set_tasks,
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
    /// Answers with a status of 500 or more.
    failures / set_failures,
    /// Connections handed over.
    handed_over / set_handed_over,
    /// Connections adopted.
    adopted / set_adopted,
}

// Releases that were built apart share this memory: within a VERSION no word changes its place.
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Row>() == 256 && size_of::<Header>() == 256);
    assert!(offset_of!(Header, magic) == 0 && offset_of!(Header, version) == 8);
    assert!(offset_of!(Header, rows) == 16 && offset_of!(Header, retired_tasks) == 32);
    assert!(offset_of!(Row, raw_pid) == 0 && offset_of!(Row, started_ms) == 24);
    assert!(offset_of!(Row, requests) == 32 && offset_of!(Row, heartbeat_ms) == 64);
    assert!(offset_of!(Row, draining) == 80 && offset_of!(Row, claimed_reply) == 88);
    assert!(offset_of!(Row, claimed_task) == 96 && offset_of!(Row, adopted) == 120);
};

impl AsFd for Slab {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl Row {
    /// Writes its pid.
    pub fn set_pid(&self, pid: i32) {
        self.set_raw_pid(u64::from(pid.cast_unsigned()));
    }

    /// Writes its worker id.
    pub fn set_worker_id(&self, worker_id: u32) {
        self.set_raw_worker_id(u64::from(worker_id));
    }

    /// One more request was answered.
    #[inline]
    pub fn inc_requests(&self) {
        self.set_requests(self.requests() + 1);
    }

    /// One more task was done.
    #[inline]
    pub fn inc_tasks(&self) {
        self.set_tasks(self.tasks() + 1);
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

/// Sums of processes that are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retired {
    /// Requests answered.
    pub requests: u64,
    /// Tasks done.
    pub tasks: u64,
}

/// The slab, mapped into this process.
#[derive(Debug)]
pub struct Slab {
    fd: OwnedFd,
    map: MmapRaw,
    rows: u32,
}

impl Slab {
    /// Makes a slab. Rows take memory only once they are used.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn create(rows: u32) -> io::Result<Self> {
        let fd = memfd_create("shiftwork-slab", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, (u64::from(rows) + 1) * 256)?;
        // A process that shrank it would have all others end with SIGBUS.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let slab = Self::map(fd, rows)?;
        let header = slab.header();
        header.rows.store(u64::from(rows), Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        Ok(slab)
    }

    /// Maps a slab that another process has made.
    ///
    /// # Errors
    /// If it is none, or of another layout.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        // Whoever could shrink it could end every process that reads it.
        let sealed = fcntl_get_seals(&fd).is_ok_and(|it| it.contains(SealFlags::SHRINK));
        if !sealed {
            return Err(io::Error::other("this is no slab: it is not sealed"));
        }
        let size = File::from(fd.try_clone()?).metadata()?.len();
        let rows = u32::try_from(size / 256).ok().and_then(|it| it.checked_sub(1));
        let rows = rows.ok_or_else(|| io::Error::other("this is no slab"))?;
        let slab = Self::map(fd, rows)?;
        let header = slab.header();
        let (magic, version) =
            (header.magic.load(Ordering::Acquire), header.version.load(Ordering::Relaxed));
        if magic != MAGIC || header.rows.load(Ordering::Relaxed) != u64::from(rows) {
            return Err(io::Error::other("this is no slab"));
        }
        if version != VERSION {
            return Err(io::Error::other(format!(
                "slab layout {version}, this side has {VERSION}"
            )));
        }
        Ok(slab)
    }

    fn map(fd: OwnedFd, rows: u32) -> io::Result<Self> {
        let map = MmapOptions::new().map_raw(&fd)?;
        if map.len() < (rows as usize + 1) * 256 {
            return Err(io::Error::other("this is no slab"));
        }
        Ok(Self { fd, map, rows })
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping is page-aligned, longer than a header, never shrinks (sealed), and
        // consists of atomics, for which any bytes are a value.
        unsafe { &*self.map.as_ptr().cast::<Header>() }
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row: numbers of rows come from the manager alone.
    #[must_use]
    pub fn row(&self, number: u32) -> &Row {
        assert!(number < self.rows, "row {number} of {}", self.rows);
        // SAFETY: as for the header; the row lies within the mapping, at a multiple of 256.
        unsafe { &*self.map.as_ptr().add((number as usize + 1) * 256).cast::<Row>() }
    }

    /// The descriptor, to be handed on.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Adds the counters of a process that is gone to the sums, and clears its row. The manager's
    /// alone.
    pub fn retire(&self, number: u32) {
        let (row, header) = (self.row(number), self.header());
        let add = |sum: &AtomicU64, value: u64| {
            sum.store(sum.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
        };
        add(&header.retired_requests, row.requests());
        add(&header.retired_tasks, row.tasks());
        row.clear();
    }

    /// Sums of the processes that are gone.
    #[must_use]
    pub fn retired(&self) -> Retired {
        let header = self.header();
        Retired {
            requests: header.retired_requests.load(Ordering::Relaxed),
            tasks: header.retired_tasks.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_mappings_see_one_row_and_the_dead_are_added_up() {
        let slab = Slab::create(8).unwrap();
        let other = Slab::open(slab.fd().try_clone_to_owned().unwrap()).unwrap();
        other.row(3).set_pid(77);
        other.row(3).inc_requests();
        other.row(3).set_claim(0, 9);
        assert_eq!(slab.row(3).raw_pid(), 77);
        assert_eq!(slab.row(3).claim(), Some((0, 9)));
        slab.retire(3);
        assert_eq!(other.row(3).claim(), None);
        assert_eq!(other.retired(), Retired { requests: 1, tasks: 0 });
    }

    #[test]
    fn something_else_is_no_slab() {
        assert!(Slab::open(crate::fd::memfd("x", &[0; 4096]).unwrap()).is_err());
        assert!(Slab::open(crate::fd::memfd("x", b"").unwrap()).is_err());
    }

    #[test]
    fn a_slab_that_can_shrink_is_refused() {
        let slab = Slab::create(2).unwrap();
        let copy = memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
        let mut file = File::from(copy.try_clone().unwrap());
        io::copy(&mut File::open(path_of(slab.fd())).unwrap(), &mut file).unwrap();
        assert!(Slab::open(copy.try_clone().unwrap()).is_err());
        fcntl_add_seals(&copy, SealFlags::SHRINK).unwrap();
        assert_eq!(Slab::open(copy).unwrap().rows(), 2);
    }

    #[test]
    fn another_layout_is_named() {
        let slab = Slab::create(2).unwrap();
        slab.header().version.store(9, Ordering::Relaxed);
        let error = Slab::open(slab.fd().try_clone_to_owned().unwrap()).unwrap_err();
        assert!(error.to_string().contains("layout 9"), "{error}");
    }

    #[test]
    fn a_reader_never_sees_a_claim_of_two_halves() {
        let slab = Slab::create(1).unwrap();
        let other = Slab::open(slab.fd().try_clone_to_owned().unwrap()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let row = other.row(0);
                for task in 1..200_000 {
                    row.set_claim(task as u32, task);
                    row.inc_tasks();
                    row.clear_claim();
                }
                row.set_draining(1);
            });
            let row = slab.row(0);
            let mut before = 0;
            while row.draining() == 0 {
                let now = row.tasks();
                assert!(now >= before);
                before = now;
                // The task may be newer than the reply by then, never older.
                if let Some((reply, task)) = row.claim() {
                    assert!(task >= u64::from(reply));
                }
            }
            assert_eq!(row.tasks(), 199_999);
        });
    }

    proptest::proptest! {
        #[test]
        fn sums_are_what_was_counted(counts in proptest::collection::vec((0_u64..50, 0_u64..50), 1..20)) {
            let slab = Slab::create(4).unwrap();
            let mut expected = Retired::default();
            for (number, (requests, tasks)) in counts.into_iter().enumerate() {
                let number = (number % 4) as u32;
                let row = slab.row(number);
                (0..requests).for_each(|_| row.inc_requests());
                (0..tasks).for_each(|_| row.inc_tasks());
                expected.requests += requests;
                expected.tasks += tasks;
                slab.retire(number);
                proptest::prop_assert_eq!((row.requests(), row.tasks()), (0, 0));
            }
            proptest::prop_assert_eq!(slab.retired(), expected);
        }
    }

    fn path_of(fd: BorrowedFd<'_>) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }
}
