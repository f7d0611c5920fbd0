//! Bytes of a segment behind an interprocess mutex.

use crate::sync::holds::Hold;
use crate::sync::mutex::Mutex;
use crate::sys::lease::Identity;
use crate::sys::region::Region;

/// The bytes of a segment, for whoever owns the mutex that guards them.
pub(crate) struct Locked<'a> {
    mutex: &'a Mutex,
    me: Identity,
    bytes: Region<'a>,
    /// Taken away before the mutex is unlocked.
    hold: Option<Hold>,
}

impl<'a> Locked<'a> {
    /// The caller has just taken `mutex`, the one that guards `bytes`, under `me`.
    pub(crate) fn new(mutex: &'a Mutex, me: Identity, bytes: Region<'a>, hold: Hold) -> Self {
        Self { mutex, me, bytes, hold: Some(hold) }
    }

    /// Not in a child that was forked meanwhile.
    pub(crate) fn is_ours(&self) -> bool {
        self.me.is_current()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let (base, len) = self.bytes.raw();
        // SAFETY: mapped for 'a, which outlives the borrow of `self`. Honest peers write there only under the
        // mutex, which is ours until `self` is dropped, and we only through `bytes_mut`, which borrows `self`
        // exclusively.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let (base, len) = self.bytes.raw();
        // SAFETY: as in `bytes`.
        unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), len) }
    }
}

impl Drop for Locked<'_> {
    /// In a forked child the mutex is the parent's, and stays it.
    fn drop(&mut self) {
        self.hold = None;
        if self.is_ours() {
            self.mutex.unlock(self.me);
        }
    }
}
