//! The shared slab: one row of counters a process, in memory that all of them map.
//!
//! One process writes a row at a time: the manager before the process is named, the process itself
//! afterwards, from whichever of its threads; everybody reads.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create,
};

mod counts;
mod distribution;
mod row;

pub use counts::{Counts, Sums};
pub use distribution::{BOUNDS_US, BUCKETS, Distribution, SharedDistribution};
pub use row::Row;

use row::SIZE;

const MAGIC: u64 = u64::from_le_bytes(*b"shiftwrk");

/// The layout of header and rows.
pub const VERSION: u8 = 3;

#[derive(Debug)]
#[repr(C, align(1024))]
struct Header {
    magic: AtomicU64,
    version: AtomicU64,
    rows: AtomicU64,
    /// How many rows, counted from the first, have been in use.
    used: AtomicU64,
    spare: [AtomicU64; 12],
    /// The totals of processes that are gone.
    retired: Counts,
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Header>() == SIZE);
    assert!(offset_of!(Header, magic) == 0 && offset_of!(Header, version) == 8);
    assert!(offset_of!(Header, rows) == 16 && offset_of!(Header, used) == 24);
    assert!(offset_of!(Header, retired) == 128);
};

/// The slab, mapped into this process.
#[derive(Debug)]
pub struct Slab {
    fd: OwnedFd,
    map: MmapRaw,
    rows: u32,
}

impl AsFd for Slab {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl Slab {
    /// Makes a slab. Rows take memory only once they are used.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn create(rows: u32) -> io::Result<Self> {
        let fd = memfd_create("shiftwork-slab", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, (u64::from(rows) + 1) * SIZE as u64)?;
        // A process that shrank it would have all others end with SIGBUS.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let slab = Self::map(fd, rows)?;
        let header = slab.header();
        header.rows.store(u64::from(rows), Ordering::Relaxed);
        header.version.store(VERSION.into(), Ordering::Relaxed);
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
        let rows = u32::try_from(size / SIZE as u64).ok().and_then(|it| it.checked_sub(1));
        let rows = rows.ok_or_else(|| io::Error::other("this is no slab"))?;
        let slab = Self::map(fd, rows)?;
        let header = slab.header();
        let (magic, version) =
            (header.magic.load(Ordering::Acquire), header.version.load(Ordering::Relaxed));
        if magic != MAGIC || header.rows.load(Ordering::Relaxed) != u64::from(rows) {
            return Err(io::Error::other("this is no slab"));
        }
        if version != u64::from(VERSION) {
            return Err(io::Error::other(format!(
                "slab layout {version}, this side has {VERSION}"
            )));
        }
        Ok(slab)
    }

    fn map(fd: OwnedFd, rows: u32) -> io::Result<Self> {
        let map = MmapOptions::new().map_raw(&fd)?;
        if map.len() < (rows as usize + 1) * SIZE {
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

    /// How many rows, counted from the first, have been in use at any time: whoever looks at all rows
    /// looks at these, since a row takes memory once it is looked at.
    #[must_use]
    pub fn used(&self) -> u32 {
        u32::try_from(self.header().used.load(Ordering::Relaxed)).unwrap_or(0).min(self.rows)
    }

    /// Says how many rows have been in use. The manager's alone.
    pub fn set_used(&self, rows: u32) {
        self.header().used.store(rows.into(), Ordering::Relaxed);
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row: numbers of rows come from the manager alone.
    #[must_use]
    #[inline]
    pub fn row(&self, number: u32) -> &Row {
        assert!(number < self.rows, "row {number} of {}", self.rows);
        // SAFETY: as for the header; the row lies within the mapping, at a multiple of its
        // size.
        unsafe { &*self.map.as_ptr().add((number as usize + 1) * SIZE).cast::<Row>() }
    }

    /// The descriptor, to be handed on.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Adds the totals of a process that is gone to the sums, and clears its row. The manager's
    /// alone.
    pub fn retire(&self, number: u32) {
        let row = self.row(number);
        self.header().retired.add(&row.counts.read());
        row.clear();
    }

    /// Sums of the processes that are gone.
    #[must_use]
    pub fn retired(&self) -> Sums {
        self.header().retired.read()
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
        other.row(3).counts.add_successes(1);
        other.row(3).counts.latency.record(300);
        other.row(3).set_claim(0, 9);
        assert_eq!(slab.row(3).raw_pid(), 77);
        assert_eq!(slab.row(3).claim(), Some((0, 9)));
        slab.retire(3);
        assert_eq!(other.row(3).claim(), None);
        let retired = other.retired();
        assert_eq!((retired.successes, retired.tasks), (1, 0));
        assert_eq!((retired.latency.count(), retired.latency.sum_us), (1, 300));
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
                    row.counts.add_tasks(1);
                    row.clear_claim();
                }
                row.set_draining(1);
            });
            let row = slab.row(0);
            let mut before = 0;
            while row.draining() == 0 {
                let now = row.counts.tasks();
                assert!(now >= before);
                before = now;
                // The task may be newer than the reply by then, never older.
                if let Some((reply, task)) = row.claim() {
                    assert!(task >= u64::from(reply));
                }
            }
            assert_eq!(row.counts.tasks(), 199_999);
        });
    }

    /// Counts something in every total there is.
    fn count(counts: &Counts, seed: u64) {
        let adds: [fn(&Counts, u64); 12] = [
            Counts::add_informational,
            Counts::add_successes,
            Counts::add_redirects,
            Counts::add_client_errors,
            Counts::add_failures,
            Counts::add_calls,
            Counts::add_handler_errors,
            Counts::add_handed_over,
            Counts::add_adopted,
            Counts::add_hand_over_failures,
            Counts::add_tasks,
            Counts::add_tasks_failed,
        ];
        for (place, add) in adds.iter().enumerate() {
            add(counts, seed % 7 + place as u64);
        }
        counts.latency.record(seed);
        counts.task_latency.record(seed * 1000);
    }

    proptest::proptest! {
        #[test]
        fn no_total_ever_goes_back(steps in proptest::collection::vec((0_u32..4, 0_u64..100_000, proptest::bool::ANY), 1..60)) {
            let slab = Slab::create(4).unwrap();
            let total = || (0..4).fold(slab.retired(), |mut sums, row| {
                sums.merge(&slab.row(row).counts.read());
                sums
            });
            let expected = Counts::default();
            for (row, seed, dies) in steps {
                count(&slab.row(row).counts, seed);
                count(&expected, seed);
                proptest::prop_assert_eq!(total(), expected.read());
                if dies {
                    slab.retire(row);
                    proptest::prop_assert_eq!(slab.row(row).counts.read(), Sums::default());
                    proptest::prop_assert_eq!(total(), expected.read());
                }
            }
            let sums = expected.read();
            proptest::prop_assert_eq!(sums.since(&Sums::default()), sums);
            proptest::prop_assert_eq!(sums.since(&sums), Sums::default());
        }
    }

    fn path_of(fd: BorrowedFd<'_>) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }
}
