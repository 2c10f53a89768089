//! The vault: what must outlive every other process. It hands out duplicates.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shiftwork_sys::listen::{self, Address, SocketFile};

use crate::core::event::Generation;
use crate::passing::Passing;
use crate::protocol::template::ListenerSpec;

use super::activation::{Given, is_activated, kept_name, take_for};
use super::state::{GivenState, HeldState, VaultState};
use super::upgrade::take_all;

/// A duplicate of a listening socket, on its way to the manager.
#[derive(Debug)]
pub struct Handed {
    /// The listener's name.
    pub name: String,
    /// The address it is bound to, with the real port.
    pub address: String,
    /// Its slot.
    pub slot: u32,
    /// The duplicate.
    pub socket: OwnedFd,
}

/// The sockets of one address.
#[derive(Debug)]
struct Held {
    sockets: Vec<OwnedFd>,
    real: String,
    /// Slots that workers have accepted on: these can have connections in their queues, and are
    /// served for as long as the address is.
    used: u32,
    wanted: BTreeMap<Generation, u32>,
    /// Removes the file of a Unix socket when it is dropped.
    file: Option<SocketFile>,
    /// The name of the listener when it was bound.
    listener: String,
    /// By what name a service manager keeps the sockets.
    kept: String,
    /// How many of them, from the first on, it has opened itself.
    activated: usize,
}

/// What the master holds for good.
#[derive(Debug, Default)]
pub struct Vault {
    /// By [`key`].
    listeners: BTreeMap<String, Held>,
    /// The generation in force.
    committed: Option<Generation>,
    /// Sockets that the service manager has passed and no listener wants yet.
    given: Vec<Given>,
    /// Whether the service manager keeps sockets over the death of this process.
    keeps: bool,
}

impl Vault {
    /// One that listeners can find given sockets in. `keeps`: whether the service manager keeps
    /// sockets over the death of this process.
    pub fn new(given: Vec<Given>, keeps: bool) -> Self {
        Self { given, keeps, ..Self::default() }
    }

    /// Binds what is new among a generation's addresses, and gives duplicates of all sockets. If
    /// one address fails, what was bound for the others is let go again.
    ///
    /// # Errors
    /// A sentence that names the address.
    pub fn bind(
        &mut self,
        generation: Generation,
        specs: &[ListenerSpec],
        slots: u32,
    ) -> Result<Vec<Handed>, String> {
        let mut handed = Vec::new();
        let known = self.listeners.values().any(|it| it.wanted.contains_key(&generation));
        if let Some((one, other)) = same_address(specs) {
            return Err(format!("listeners {one} and {other} have the same address"));
        }
        for spec in specs {
            match self.bind_one(generation, spec, slots) {
                Ok(duplicates) => handed.extend(duplicates),
                Err(reason) => {
                    // One that holds some already goes on with those.
                    if !known {
                        self.forget(generation);
                    }
                    return Err(reason);
                }
            }
        }
        Ok(handed)
    }

    /// Binds again what a generation had that was in force before, as far as that is possible; what is
    /// not is named in the log. Gives duplicates of all sockets there are.
    ///
    /// # Errors
    /// If there is none at all.
    pub fn bind_again(
        &mut self,
        generation: Generation,
        specs: &[ListenerSpec],
        slots: u32,
    ) -> Result<Vec<Handed>, String> {
        let mut handed = Vec::new();
        let mut reasons = Vec::new();
        for spec in specs {
            match self.bind_one(generation, spec, slots) {
                Ok(duplicates) => {
                    handed.extend(duplicates);
                    // Its workers accept before anything is committed.
                    if let Some(held) = self.listeners.get_mut(&key(spec)) {
                        let slots = held.wanted.get(&generation).copied().unwrap_or(0);
                        held.used = held.used.max(slots);
                    }
                }
                Err(reason) => {
                    tracing::error!("generation {generation} comes back without {reason}");
                    reasons.push(reason);
                }
            }
        }
        if handed.is_empty() && !reasons.is_empty() {
            return Err(reasons.join("; "));
        }
        Ok(handed)
    }

    /// Binds one address if it is new, and gives duplicates of its sockets; or a sentence that names it.
    fn bind_one(
        &mut self,
        generation: Generation,
        spec: &ListenerSpec,
        slots: u32,
    ) -> Result<Vec<Handed>, String> {
        self.hold(generation, spec, slots)
            .and_then(|()| self.duplicates(spec, slots).map_err(|it| it.to_string()))
            .map_err(|reason| format!("listener {}: {reason}", spec.name))
    }

    fn hold(
        &mut self,
        generation: Generation,
        spec: &ListenerSpec,
        slots: u32,
    ) -> Result<(), String> {
        let address = Address::parse(&spec.address).map_err(|error| error.to_string())?;
        let slots = if address.is_unix() { 1 } else { slots };
        match self.listeners.get_mut(&key(spec)) {
            Some(held) => {
                held.add_slots(slots, self.keeps)?;
                if held.wanted.insert(generation, slots).is_some_and(|before| slots > before) {
                    // There are to be more workers: they accept before anything is committed.
                    held.used = held.used.max(slots);
                }
            }
            None => {
                let taken = take_for(&mut self.given, spec, &address);
                let passed = taken.sockets.len() as u32;
                let sockets = match taken.sockets {
                    none if none.is_empty() => {
                        listen::bind(&address, slots as usize).map_err(|error| error.to_string())?
                    }
                    sockets => sockets,
                };
                let real = sockets
                    .first()
                    .ok_or_else(|| io::Error::other("no socket was made"))
                    .and_then(listen::local_address)
                    .map_err(|error| error.to_string())?;
                let wanted = BTreeMap::from([(generation, slots)]);
                let file = address.unix_path().map(SocketFile::remember);
                let kept = kept_name(&spec.name, &real);
                let activated = taken.activated;
                if activated > 0 && real != address.to_string() {
                    tracing::info!("listener {} is at {real}, as it was given", spec.name);
                }
                let mut held = Held {
                    sockets,
                    real,
                    // In the queues of kept sockets somebody may wait.
                    used: passed,
                    wanted,
                    // Whoever has opened it removes it.
                    file: file.filter(|_| activated == 0),
                    listener: spec.name.clone(),
                    kept,
                    activated,
                };
                held.add_slots(slots, self.keeps)?;
                self.listeners.insert(key(spec), held);
            }
        }
        Ok(())
    }

    fn duplicates(&self, spec: &ListenerSpec, slots: u32) -> io::Result<Vec<Handed>> {
        let Some(held) = self.listeners.get(&key(spec)) else { return Ok(Vec::new()) };
        let unix = held.real.starts_with("unix:");
        let all = if unix { held.sockets.len() as u32 } else { slots.max(held.used) };
        (0..all)
            // Fewer sockets than slots: one that was opened by somebody else is shared.
            .filter_map(|slot| Some((slot, held.sockets.get(slot as usize % held.sockets.len())?)))
            .map(|(slot, socket)| {
                Ok(Handed {
                    name: spec.name.clone(),
                    address: held.real.clone(),
                    slot,
                    socket: socket.try_clone()?,
                })
            })
            .collect()
    }

    /// A generation is in force: addresses that it does not have are let go.
    pub fn commit(&mut self, generation: Generation, listeners: bool) {
        // One that comes back is older than what it follows; what has just begun is newer than both.
        let newest = self.committed.map_or(generation, |before| before.max(generation));
        self.committed = Some(generation);
        if !listeners {
            return;
        }
        self.keep(|held| {
            held.wanted.retain(|number, _| *number == generation || *number > newest);
            let slots = held.wanted.get(&generation).copied();
            held.used = held.used.max(slots.unwrap_or(0));
            !held.wanted.is_empty()
        });
    }

    /// Whether any generation has been in force.
    pub fn has_committed(&self) -> bool {
        self.committed.is_some()
    }

    /// A generation is gone, or has failed: addresses that only it had are let go.
    pub fn forget(&mut self, generation: Generation) {
        if self.committed == Some(generation) {
            return;
        }
        self.keep(|held| {
            held.wanted.remove(&generation);
            !held.wanted.is_empty()
        });
    }

    /// All of it, for the program that comes.
    ///
    /// # Errors
    /// If a descriptor is not open.
    pub fn describe<'a>(&'a self, passing: &mut Passing<'a>) -> io::Result<VaultState> {
        let mut listeners = BTreeMap::new();
        for (key, held) in &self.listeners {
            let sockets = held.sockets.iter().map(|it| passing.add(it));
            let state = HeldState {
                sockets: sockets.collect::<io::Result<_>>()?,
                real: held.real.clone(),
                used: held.used,
                wanted: held.wanted.clone(),
                file: held.file.as_ref().map(|it| it.path().to_owned()),
                listener: held.listener.clone(),
                kept: held.kept.clone(),
                activated: held.activated,
            };
            listeners.insert(key.clone(), state);
        }
        let given = self
            .given
            .iter()
            .map(|it| Ok(GivenState { name: it.name.clone(), socket: passing.add(&it.socket)? }));
        let given = given.collect::<io::Result<_>>()?;
        Ok(VaultState { listeners, committed: self.committed, given, keeps: self.keeps })
    }

    /// Goes on from there.
    ///
    /// # Errors
    /// If a descriptor is not what it was.
    pub fn restore(state: VaultState) -> io::Result<Self> {
        let mut listeners = BTreeMap::new();
        for (key, held) in state.listeners {
            let held = Held {
                sockets: take_all(held.sockets)?,
                real: held.real,
                used: held.used,
                wanted: held.wanted,
                file: held.file.as_deref().map(SocketFile::remember),
                listener: held.listener,
                kept: held.kept,
                activated: held.activated,
            };
            listeners.insert(key, held);
        }
        let given = state.given.into_iter();
        let given = given.map(|it| Ok(Given { name: it.name, socket: it.socket.take()? }));
        let given = given.collect::<io::Result<_>>()?;
        Ok(Self { listeners, committed: state.committed, given, keeps: state.keeps })
    }

    /// What a service manager shall keep: by name, all sockets of an address but those that it has
    /// opened itself.
    pub fn keepable(&self) -> impl Iterator<Item = (&str, &[OwnedFd])> {
        let held = self.listeners.values().filter(|_| self.keeps);
        held.map(|it| (it.kept.as_str(), it.sockets.get(it.activated..).unwrap_or_default()))
            .filter(|(name, sockets)| !name.is_empty() && !sockets.is_empty())
    }

    /// The names of given sockets that no listener has wanted and that were not opened for one:
    /// their addresses are not this server's any more. Lets them go.
    pub fn let_unwanted_go(&mut self) -> BTreeSet<String> {
        let (opened, unwanted): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.given).into_iter().partition(is_activated);
        self.given = opened;
        unwanted.into_iter().map(|it| it.name).collect()
    }

    /// What the service manager has opened goes back to it with its door open, after a stop has
    /// closed it: somebody else, or a next start, may serve it.
    pub fn give_back(&self) {
        for held in self.listeners.values() {
            for socket in held.sockets.iter().take(held.activated) {
                listen::accept_new(socket.as_fd());
            }
        }
    }

    /// The addresses that are held, real ports and all, sorted.
    pub fn addresses(&self) -> BTreeSet<String> {
        self.listeners.values().map(|held| held.real.clone()).collect()
    }

    /// A stop begins: nobody shall find the way to a Unix socket any more, while those that have
    /// connected already are answered.
    pub fn hide_unix_files(&mut self) {
        for held in self.listeners.values_mut() {
            held.file = None;
        }
    }

    fn keep(&mut self, mut wanted: impl FnMut(&mut Held) -> bool) {
        let given = &mut self.given;
        self.listeners.retain(|_, held| {
            let stays = wanted(held);
            if !stays {
                // What the service manager has opened can be wanted again.
                let opened = held.sockets.drain(..held.activated.min(held.sockets.len()));
                let name = &held.listener;
                given.extend(opened.map(|socket| Given { name: name.clone(), socket }));
            }
            stays
        });
    }
}

impl Held {
    /// Joins sockets for more slots. One that was opened by somebody else is shared by all slots
    /// instead, if nobody would keep what waits at its siblings, or if it is another user's.
    fn add_slots(&mut self, slots: u32, keeps: bool) -> Result<(), String> {
        let more = slots.saturating_sub(self.sockets.len() as u32);
        if more == 0 || (self.activated > 0 && !keeps) {
            return Ok(());
        }
        let first = self.sockets.first().ok_or("no socket is held")?;
        let joined = match self.activated {
            0 => listen::add_slots(first, more as usize),
            _ => listen::join(first, more as usize),
        };
        match joined {
            Ok(added) => self.sockets.extend(added),
            Err(error) if self.activated > 0 => {
                tracing::info!("{}: the one socket given for it is shared ({error})", self.real);
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }
}

/// By what a listener is known from generation to generation: its address, whatever it is called;
/// where the kernel chooses the port, its name as well.
fn key(spec: &ListenerSpec) -> String {
    if spec.address.ends_with(":0") {
        format!("{} {}", spec.name, spec.address)
    } else {
        spec.address.clone()
    }
}

fn same_address(specs: &[ListenerSpec]) -> Option<(&str, &str)> {
    specs.iter().enumerate().find_map(|(index, one)| {
        let other = specs[..index].iter().find(|other| key(other) == key(one))?;
        Some((other.name.as_str(), one.name.as_str()))
    })
}
