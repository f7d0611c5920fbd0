//! The kernel's file locks: which byte is held by which open file description.

use std::collections::HashMap;

use loom::sync::{Arc, Mutex};

/// Byte to description.
pub(crate) type Locks = Arc<Mutex<HashMap<u32, u32>>>;

/// A handle: a description, the id that it holds, and what keeps two of its threads apart.
pub(crate) struct Lease {
    locks: Locks,
    description: u32,
    id: u32,
    alone: Mutex<bool>,
}

#[derive(Clone, Copy)]
pub(crate) struct Identity {
    id: u32,
}

impl Identity {
    pub(crate) fn id(self) -> u32 {
        self.id
    }

    pub(crate) fn is_current(self) -> bool {
        true
    }
}

impl Lease {
    /// Locks the byte `id`, calls `bury`, and only then is known by that id. `None` if it is held.
    pub(crate) fn join(locks: &Locks, description: u32, id: u32, bury: impl FnOnce(u32)) -> Option<Self> {
        if !lock(locks, description, id) {
            return None;
        }
        bury(id);
        Some(Self { locks: locks.clone(), description, id, alone: Mutex::new(false) })
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        Some(Identity { id: self.id })
    }

    /// What the kernel does when the process dies, at whatever instant.
    pub(crate) fn die(&self) {
        self.locks.lock().unwrap().retain(|_, holder| *holder != self.description);
    }

    pub(crate) fn is_intact(&self) -> bool {
        true
    }

    pub(crate) fn verified_fd(&self) -> std::io::Result<i32> {
        Ok(0)
    }

    pub(crate) fn is_alive(&self, owner: u32) -> bool {
        self.locks.lock().unwrap().get(&owner).is_some_and(|holder| *holder != self.description)
    }

    pub(crate) fn seize(&self, owner: u32) -> Option<Seized<'_>> {
        if owner == 0 || owner == self.id || std::mem::replace(&mut *self.alone.lock().unwrap(), true) {
            return None;
        }
        if lock(&self.locks, self.description, owner) {
            return Some(Seized { lease: self, owner });
        }
        *self.alone.lock().unwrap() = false;
        None
    }
}

pub(crate) struct Seized<'a> {
    lease: &'a Lease,
    owner: u32,
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        self.lease.locks.lock().unwrap().remove(&self.owner);
        *self.lease.alone.lock().unwrap() = false;
    }
}

/// The locks of one description do not exclude each other.
fn lock(locks: &Locks, description: u32, byte: u32) -> bool {
    *locks.lock().unwrap().entry(byte).or_insert(description) == description
}
