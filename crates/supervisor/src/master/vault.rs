//! The vault: what must outlive every other process. It hands out duplicates.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

use shiftwork_sys::listen::{self, Address, SocketFile};

use crate::core::event::Generation;
use crate::passing::Passing;
use crate::protocol::template::ListenerSpec;

use super::state::{HeldState, VaultState};
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
}

/// What the master holds for good.
#[derive(Debug, Default)]
pub struct Vault {
    /// By [`key`].
    listeners: BTreeMap<String, Held>,
    /// The generation in force.
    committed: Option<Generation>,
}

impl Vault {
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
            let bound = self
                .hold(generation, spec, slots)
                .and_then(|()| self.duplicates(spec, slots).map_err(|it| it.to_string()));
            match bound {
                Ok(duplicates) => handed.extend(duplicates),
                Err(reason) => {
                    // One that holds some already goes on with those.
                    if !known {
                        self.forget(generation);
                    }
                    return Err(format!("listener {}: {reason}", spec.name));
                }
            }
        }
        Ok(handed)
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
                let more = slots.saturating_sub(held.sockets.len() as u32);
                if more > 0 {
                    let first = held.sockets.first().ok_or("no socket is held")?;
                    let added =
                        listen::add_slots(first, more as usize).map_err(|it| it.to_string())?;
                    held.sockets.extend(added);
                }
                if held.wanted.insert(generation, slots).is_some_and(|before| slots > before) {
                    // There are to be more workers: they accept before anything is committed.
                    held.used = held.used.max(slots);
                }
            }
            None => {
                let sockets =
                    listen::bind(&address, slots as usize).map_err(|error| error.to_string())?;
                let real = sockets
                    .first()
                    .ok_or_else(|| io::Error::other("no socket was made"))
                    .and_then(listen::local_address)
                    .map_err(|error| error.to_string())?;
                let wanted = BTreeMap::from([(generation, slots)]);
                let file = address.unix_path().map(SocketFile::remember);
                let held = Held { sockets, real, used: 0, wanted, file };
                self.listeners.insert(key(spec), held);
            }
        }
        Ok(())
    }

    fn duplicates(&self, spec: &ListenerSpec, slots: u32) -> io::Result<Vec<Handed>> {
        let Some(held) = self.listeners.get(&key(spec)) else { return Ok(Vec::new()) };
        (0..)
            .zip(&held.sockets)
            .take_while(|(slot, _)| *slot < slots.max(held.used))
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
        self.committed = Some(generation);
        if !listeners {
            return;
        }
        self.keep(|held| {
            held.wanted.retain(|number, _| *number >= generation);
            let slots = held.wanted.get(&generation).copied();
            held.used = held.used.max(slots.unwrap_or(0));
            !held.wanted.is_empty()
        });
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
            };
            listeners.insert(key.clone(), state);
        }
        Ok(VaultState { listeners, committed: self.committed })
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
            };
            listeners.insert(key, held);
        }
        Ok(Self { listeners, committed: state.committed })
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
        self.listeners.retain(|_, held| wanted(held));
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
