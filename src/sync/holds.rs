//! Which locks the running thread keeps while the user's code runs: waiting for one of those would be
//! waiting for oneself.

use std::cell::RefCell;

use crate::sys::lease::Identity;

/// One of the locks of one segment: the segment's nonce, and which lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) nonce: u64,
    pub(crate) lock: u32,
}

thread_local! {
    /// A guard that was leaked stays here until its thread ends.
    static HOLDS: RefCell<Vec<(Key, Identity)>> = const { RefCell::new(Vec::new()) };
}

/// Recorded for as long as it lives.
#[must_use]
pub(crate) struct Hold {
    key: Key,
    owner: u32,
}

impl Hold {
    /// Records that the running thread keeps the lock under this identity.
    pub(crate) fn new(key: Key, me: Identity) -> Self {
        // While a thread ends there is no list any more: one that waits for itself then waits.
        _ = HOLDS.try_with(|holds| holds.borrow_mut().push((key, me)));
        Self { key, owner: me.id() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        _ = HOLDS.try_with(|holds| {
            let mut holds = holds.borrow_mut();
            let mine = |(key, me): &(Key, Identity)| *key == self.key && me.id() == self.owner;
            if let Some(at) = holds.iter().rposition(mine) {
                holds.swap_remove(at);
            }
        });
    }
}

/// Whether it is the running thread itself that keeps the lock, whose word names `owner`. What a forked child
/// has copied of its parent's records does not count.
pub(crate) fn is_own(key: Key, owner: u32) -> bool {
    let own = |(held, me): &(Key, Identity)| *held == key && me.id() == owner && me.is_current();
    // All threads of a model are one thread of the machine.
    !cfg!(loom) && HOLDS.try_with(|holds| holds.borrow().iter().any(own)).unwrap_or(false)
}
