//! The interprocess mutex and condition variable, and how long to spin before sleeping on them.

pub(crate) mod condvar;
pub(crate) mod holds;
pub(crate) mod mutex;
pub(crate) mod pace;
