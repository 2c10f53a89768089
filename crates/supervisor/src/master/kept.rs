//! What the master keeps for whichever manager there is: duplicates of everything that must not end
//! with the process that made it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use crate::core::event::Generation;
use crate::passing::{Passed, Passing};
use crate::protocol::master::Keepsake;

use super::upgrade::take_all;

/// The keepsakes of the manager.
#[derive(Debug, Default)]
pub struct Kept {
    all: BTreeMap<Keepsake, Vec<OwnedFd>>,
}

impl Kept {
    /// Keeps something, in the place of what was kept under the same name.
    pub fn keep(&mut self, what: Keepsake, fds: Vec<OwnedFd>) {
        self.all.insert(what, fds);
    }

    /// Lets it go.
    pub fn let_go(&mut self, what: Keepsake) {
        self.all.remove(&what);
    }

    /// Lets everything go that only this generation used.
    pub fn forget(&mut self, generation: Generation) {
        self.all.retain(|what, _| what.generation() != Some(generation));
    }

    /// Whether there is anything from which another manager could go on.
    pub fn has_journal(&self) -> bool {
        self.all.contains_key(&Keepsake::Journal)
    }

    /// What is kept under a name.
    pub fn get(&self, what: Keepsake) -> Option<&[OwnedFd]> {
        self.all.get(&what).map(Vec::as_slice)
    }

    /// All of it, for the program that comes.
    ///
    /// # Errors
    /// If a descriptor is not open.
    pub fn describe<'a>(
        &'a self,
        passing: &mut Passing<'a>,
    ) -> io::Result<Vec<(Keepsake, Vec<Passed>)>> {
        self.all
            .iter()
            .map(|(what, fds)| {
                let passed = fds.iter().map(|it| passing.add(it)).collect::<io::Result<_>>()?;
                Ok((*what, passed))
            })
            .collect()
    }

    /// Goes on from there.
    ///
    /// # Errors
    /// If a descriptor is not what it was.
    pub fn restore(state: Vec<(Keepsake, Vec<Passed>)>) -> io::Result<Self> {
        let all = state.into_iter().map(|(what, passed)| Ok((what, take_all(passed)?)));
        Ok(Self { all: all.collect::<io::Result<_>>()? })
    }

    /// Duplicates of everything.
    ///
    /// # Errors
    /// If no descriptors are to be had.
    pub fn duplicates(&self) -> io::Result<Vec<(Keepsake, Vec<OwnedFd>)>> {
        self.all
            .iter()
            .map(|(what, fds)| {
                let fds = fds.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
                Ok((*what, fds))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn some() -> Vec<OwnedFd> {
        let (one, other) = shiftwork_sys::fd::pipe().unwrap();
        vec![one, other]
    }

    #[test]
    fn a_generation_takes_along_what_only_it_used() {
        let mut kept = Kept::default();
        for what in [
            Keepsake::HandOver,
            Keepsake::Queue(1),
            Keepsake::Reply(1, 0),
            Keepsake::Release(1),
            Keepsake::Queue(2),
            Keepsake::Child(1),
        ] {
            kept.keep(what, some());
        }
        kept.forget(1);
        let left: Vec<Keepsake> =
            kept.duplicates().unwrap().into_iter().map(|(what, _)| what).collect();
        assert_eq!(left, [Keepsake::HandOver, Keepsake::Child(1), Keepsake::Queue(2)]);
        kept.let_go(Keepsake::Child(1));
        assert_eq!(kept.duplicates().unwrap().len(), 2);
        assert!(!kept.has_journal());
    }
}
