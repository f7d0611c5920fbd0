//! Faults that std does not offer: signals that come all the time, a fork in a signal handler, descriptors
//! closed behind everybody's back; and memory in which what a process wrote down survives its death.

#![expect(unsafe_code, reason = "signals, shared memory, descriptors closed by number")]

use std::io;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::{Forked, adopted};

/// What may lie in [`Shared`] memory: all zeroes is one, and several processes may write it.
pub(crate) trait Cell {}

impl Cell for AtomicU8 {}
impl Cell for AtomicU64 {}

/// Cells that this process and all those it forks later see alike, however any of them ends. Memory is taken
/// only for those that are used.
pub(crate) struct Shared<T: Cell + 'static> {
    cells: &'static [T],
}

impl<T: Cell> Shared<T> {
    pub(crate) fn new(count: usize) -> Self {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                count * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(base != libc::MAP_FAILED, "no shared memory: {}", io::Error::last_os_error());
        // SAFETY: mapped just now for this many cells, zeroed, aligned to a page; zeroes are valid cells, and
        // it is unmapped only when this goes, which hands out no longer borrow than its own.
        let cells = unsafe { std::slice::from_raw_parts(base.cast(), count) };
        Self { cells }
    }
}

impl<T: Cell> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.cells
    }
}

impl<T: Cell> Drop for Shared<T> {
    fn drop(&mut self) {
        let base = self.cells.as_ptr().cast_mut().cast();
        // SAFETY: mapped by `new` with this length; whoever borrowed from it is gone.
        unsafe { libc::munmap(base, size_of_val(self.cells)) };
    }
}

// ---------------------------------------------------------------------------------------------------
// Signals

/// Signals that this process has handled.
static TICKS: AtomicU64 = AtomicU64::new(0);
/// The number of the signal whose handler forks; 0: none does.
static FORK_AT: AtomicU64 = AtomicU64::new(0);
/// The child that a handler made.
static CHILD: AtomicI32 = AtomicI32::new(0);
static IS_CHILD: AtomicBool = AtomicBool::new(false);

extern "C" fn on_tick(_: libc::c_int) {
    if TICKS.fetch_add(1, Ordering::SeqCst) + 1 != FORK_AT.load(Ordering::SeqCst) {
        return;
    }
    // SAFETY: it returns the address of this thread's own error number.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; the handler must leave it as it was.
    let before = unsafe { *errno };
    // SAFETY: the child returns from the handler and goes on with what this thread does, which is what the test
    // is about; the process has no other thread that could hold a lock of the C library.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        IS_CHILD.store(true, Ordering::SeqCst);
        // SAFETY: no memory is passed.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    } else {
        CHILD.store(pid, Ordering::SeqCst);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// From now on this process handles a signal `every` so often; with or without `SA_RESTART`, which decides
/// whether the kernel goes on with a system call that was interrupted, where it can.
pub(crate) fn tick(every: Duration, restart: bool) {
    let handler: extern "C" fn(libc::c_int) = on_tick;
    // SAFETY: all zeroes is a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
    // SAFETY: the action is valid, and its handler does what a handler may.
    let set = unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) };
    assert_eq!(set, 0, "no handler: {}", io::Error::last_os_error());
    let micros = libc::suseconds_t::try_from(every.as_micros()).expect("less than a second");
    let interval = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the timer is a valid `itimerval` of ours.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    assert_eq!(set, 0, "no timer: {}", io::Error::last_os_error());
}

/// No more signals.
pub(crate) fn stop_ticking() {
    // SAFETY: all zeroes is a timer that is off.
    let off: libc::itimerval = unsafe { std::mem::zeroed() };
    // SAFETY: the timer is a valid `itimerval` of ours.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const off, ptr::null_mut()) };
}

pub(crate) fn ticks() -> u64 {
    TICKS.load(Ordering::SeqCst)
}

/// Has the handler of one of the next signals fork, once.
pub(crate) fn fork_at_tick(from_now: u64) {
    CHILD.store(0, Ordering::SeqCst);
    FORK_AT.store(ticks() + from_now, Ordering::SeqCst);
}

/// Whether this is the process that a handler made.
pub(crate) fn is_child_of_a_handler() -> bool {
    IS_CHILD.load(Ordering::SeqCst)
}

/// The child that a handler of this process made.
pub(crate) fn child_of_a_handler() -> Option<Forked> {
    match CHILD.load(Ordering::SeqCst) {
        0 => None,
        pid => Some(adopted(pid)),
    }
}

// ---------------------------------------------------------------------------------------------------
// Descriptors

/// Closes every descriptor, as a program does that makes itself a daemon; all but standard error, on which a
/// failure is told.
pub(crate) fn close_every_descriptor() {
    for (first, last) in [(0, 1), (3, libc::c_uint::MAX)] {
        // SAFETY: no memory is passed. Whoever has one of these in this process, which does nothing but this
        // test, gets an error or checks what it has, which is what the test is about.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        assert_eq!(closed, 0, "cannot close: {}", io::Error::last_os_error());
    }
}
