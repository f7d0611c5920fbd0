//! A value of the whole process, under a lock that `fork` cannot leave locked in a child.

use std::cell::UnsafeCell;

use super::fork::{self, LocalLock};

/// A value that one thread at a time uses. A child that was forked while a thread used it begins with a new
/// one: what the thread has left may be half-made.
pub(crate) struct Shared<T> {
    lock: LocalLock,
    value: UnsafeCell<T>,
}

// SAFETY: the lock lets one thread at a time at the value, which may go from thread to thread.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { lock: LocalLock::new(), value: UnsafeCell::new(value) }
    }

    /// Calls `with` with the value. It must not come back here. `None` if the mark of forks cannot be had.
    pub(crate) fn with<R>(&self, new: impl FnOnce() -> T, with: impl FnOnce(&mut T) -> R) -> Option<R> {
        let generation = fork::generation(fork::mark().ok()?);
        let was_free = self.lock.lock(generation);
        let unlock = Unlock(&self.lock);
        let value = self.value.get();
        if !was_free {
            // SAFETY: the lock is ours. The old value is left alone: a thread that is not in this process was
            // in the middle of changing it.
            unsafe { value.write(new()) };
        }
        // SAFETY: the lock is ours until `unlock` is dropped, after the last use.
        let result = with(unsafe { &mut *value });
        drop(unlock);
        Some(result)
    }
}

struct Unlock<'a>(&'a LocalLock);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

/// Has `handler` called when this process exits in an orderly way.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: the handler is a function of this library that may run at that time. If it cannot be registered,
    // what it would do is done by the others, as after a crash.
    unsafe { libc::atexit(handler) };
}
