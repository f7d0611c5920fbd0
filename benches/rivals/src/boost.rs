//! Boost.Interprocess: `message_queue`, by way of `boost.cpp`.
#![expect(unsafe_code, reason = "calls into C++")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::ptr::NonNull;

use shmq_benches::{Link, Place};

#[cfg(boost)]
unsafe extern "C" {
    fn boost_queue_create(name: *const c_char, capacity: usize, longest: usize) -> *mut c_void;
    fn boost_queue_open(name: *const c_char) -> *mut c_void;
    fn boost_queue_send(queue: *mut c_void, message: *const c_void, length: usize) -> bool;
    fn boost_queue_receive(queue: *mut c_void, buffer: *mut c_void, length: usize) -> usize;
    fn boost_queue_remove(name: *const c_char) -> bool;
    fn boost_queue_close(queue: *mut c_void);
}

/// What stands for the functions where Boost is not there: nothing can be made.
#[cfg(not(boost))]
mod missing {
    use super::{c_char, c_void};

    pub(super) unsafe fn boost_queue_create(_: *const c_char, _: usize, _: usize) -> *mut c_void {
        std::ptr::null_mut()
    }
    pub(super) unsafe fn boost_queue_open(_: *const c_char) -> *mut c_void {
        std::ptr::null_mut()
    }
    pub(super) unsafe fn boost_queue_send(_: *mut c_void, _: *const c_void, _: usize) -> bool {
        false
    }
    pub(super) unsafe fn boost_queue_receive(_: *mut c_void, _: *mut c_void, _: usize) -> usize {
        usize::MAX
    }
    pub(super) unsafe fn boost_queue_remove(_: *const c_char) -> bool {
        false
    }
    pub(super) unsafe fn boost_queue_close(_: *mut c_void) {}
}
#[cfg(not(boost))]
use missing::*;

pub(crate) struct Boost<const N: usize> {
    queue: NonNull<c_void>,
    name: CString,
}

impl<const N: usize> Boost<N> {
    fn attached(name: &str, get: impl FnOnce(&CStr) -> *mut c_void) -> io::Result<Self> {
        if !cfg!(boost) {
            return Err(io::Error::other("Boost's headers were not there when this was built"));
        }
        let name = CString::new(format!("shmq-rivals-boost-{name}"))?;
        let queue = NonNull::new(get(&name));
        Ok(Self { queue: queue.ok_or_else(|| io::Error::other("Boost made no queue"))?, name })
    }
}

impl<const N: usize> Link for Boost<N> {
    type Item = [u8; N];

    fn create(place: &Place) -> io::Result<Self> {
        // SAFETY: the name is a string that ends with a zero.
        Self::attached(&place.name, |name| unsafe { boost_queue_create(name.as_ptr(), place.capacity, N) })
    }

    fn open(place: &Place) -> io::Result<Self> {
        // SAFETY: as above.
        Self::attached(&place.name, |name| unsafe { boost_queue_open(name.as_ptr()) })
    }

    fn unlink(&mut self) -> io::Result<()> {
        // SAFETY: as above.
        let removed = unsafe { boost_queue_remove(self.name.as_ptr()) };
        if removed { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        // SAFETY: the queue lives as long as `self`; the message has this length.
        let sent = unsafe { boost_queue_send(self.queue.as_ptr(), item.as_ptr().cast(), N) };
        if sent { Ok(()) } else { Err(io::Error::other("Boost did not send")) }
    }

    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        // SAFETY: as above, and the buffer is ours to write.
        let length = unsafe { boost_queue_receive(self.queue.as_ptr(), item.as_mut_ptr().cast(), N) };
        if length == N { Ok(()) } else { Err(io::Error::other("Boost received nothing of this length")) }
    }
}

impl<const N: usize> Drop for Boost<N> {
    fn drop(&mut self) {
        // SAFETY: made by `boost_queue_create` or `_open`, and not used again.
        unsafe { boost_queue_close(self.queue.as_ptr()) };
    }
}
