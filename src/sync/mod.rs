//! The interprocess mutex and condition variable, and how long to spin before sleeping on them.

pub(crate) mod condvar;
pub(crate) mod holds;
#[expect(unsafe_code, reason = "whoever owns the lock may have references to the bytes")]
pub(crate) mod locked;
pub(crate) mod mutex;
pub(crate) mod pace;
