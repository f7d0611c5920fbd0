//! The atomics of the language, or loom's twins of them when the models are built.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Stands after a `SeqCst` load or read-modify-write that the argument in `sync::condvar` needs.
///
/// loom treats a `SeqCst` access as acquire and release only, so the models add the fence that the
/// language gives us for nothing.
#[inline]
pub(crate) fn loom_fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// One turn of a spinning loop.
#[inline]
pub(crate) fn pause() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
