//! Which locks the running thread keeps while the user's code runs: waiting for one of those would be
//! waiting for oneself.

use std::cell::{Cell, RefCell};

use crate::sys::lease::Identity;

/// One of the locks of one segment: the segment's nonce, and which lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) nonce: u64,
    pub(crate) lock: u32,
}

type Record = (Key, Identity);

thread_local! {
    /// Mostly there is no more than one, and a place without a destructor is found sooner.
    static FIRST: Cell<Option<Record>> = const { Cell::new(None) };
    /// A guard that was leaked stays here until its thread ends.
    static OTHERS: RefCell<Vec<Record>> = const { RefCell::new(Vec::new()) };
}

/// Recorded for as long as it lives.
#[must_use]
pub(crate) struct Hold {
    key: Key,
    owner: u32,
}

impl Hold {
    /// Records that the running thread keeps the lock under this identity.
    #[inline]
    pub(crate) fn new(key: Key, me: Identity) -> Self {
        if FIRST.get().is_none() {
            FIRST.set(Some((key, me)));
        } else {
            // While a thread ends there is no list any more: one that waits for itself then waits.
            _ = OTHERS.try_with(|others| others.borrow_mut().push((key, me)));
        }
        Self { key, owner: me.id() }
    }

    fn is(&self, (key, me): &Record) -> bool {
        *key == self.key && me.id() == self.owner
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        if FIRST.get().is_some_and(|record| self.is(&record)) {
            FIRST.set(None);
            return;
        }
        _ = OTHERS.try_with(|others| {
            let mut others = others.borrow_mut();
            if let Some(at) = others.iter().rposition(|record| self.is(record)) {
                others.swap_remove(at);
            }
        });
    }
}

/// Whether it is the running thread itself that keeps the lock, whose word names `owner`. What a forked child
/// has copied of its parent's records does not count.
pub(crate) fn is_own(key: Key, owner: u32) -> bool {
    let own = |(held, me): &Record| *held == key && me.id() == owner && me.is_current();
    // All threads of a model are one thread of the machine.
    !cfg!(loom)
        && (FIRST.get().is_some_and(|record| own(&record))
            || OTHERS.try_with(|others| others.borrow().iter().any(own)).unwrap_or(false))
}
