//! Faults that std does not offer: signals that come all the time, a fork in a signal handler, descriptors
//! closed behind everybody's back; and memory in which what a process wrote down survives its death.

#![expect(unsafe_code, reason = "signals, shared memory, descriptors closed by number")]

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::{Forked, adopted};

/// What may lie in [`shared`] memory: all zeroes is one, and several processes may write it.
pub(crate) trait Cell {}

impl Cell for AtomicU8 {}
impl Cell for AtomicU64 {}

/// Cells that this process and all those it forks later see alike, however any of them ends. Memory is taken
/// only for those that are used, and never given back: the processes that use it do not live long.
pub(crate) fn shared<T: Cell>(count: usize) -> &'static [T] {
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
    // SAFETY: mapped just now for this many cells, zeroed, aligned to a page, and never unmapped; zeroes are
    // valid cells.
    unsafe { std::slice::from_raw_parts(base.cast(), count) }
}

// ---------------------------------------------------------------------------------------------------
// Signals

/// Where the signals are counted that this process handles.
static TICKS: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// The number of the signal whose handler forks; 0: none does.
static FORK_AT: AtomicU64 = AtomicU64::new(0);
/// Where the child that a handler makes says that it is there.
static FORKED: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// The child that a handler made.
static CHILD: AtomicI32 = AtomicI32::new(0);
static IS_CHILD: AtomicBool = AtomicBool::new(false);

extern "C" fn on_tick(_: libc::c_int) {
    // SAFETY: set before the first signal to a word that lives for ever.
    let ticks = unsafe { &*TICKS.load(Ordering::SeqCst) };
    if ticks.fetch_add(1, Ordering::SeqCst) + 1 != FORK_AT.load(Ordering::SeqCst) {
        return;
    }
    // Once.
    FORK_AT.store(0, Ordering::SeqCst);
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
        // SAFETY: set with the number of the signal to a word that lives for ever.
        unsafe { &*FORKED.load(Ordering::SeqCst) }.store(1, Ordering::SeqCst);
    } else {
        CHILD.store(pid, Ordering::SeqCst);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// From now on this process handles a signal `every` so often, and counts them in `ticks`; with or without `SA_RESTART`, which decides
/// whether the kernel goes on with a system call that was interrupted, where it can.
pub(crate) fn tick(every: Duration, restart: bool, ticks: &'static AtomicU64) {
    TICKS.store(ptr::from_ref(ticks).cast_mut(), Ordering::SeqCst);
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

/// Has the handler of this signal, counted from the first, fork; the child sets `forked` to 1.
pub(crate) fn fork_at_tick(number: u64, forked: &'static AtomicU64) {
    FORKED.store(ptr::from_ref(forked).cast_mut(), Ordering::SeqCst);
    FORK_AT.store(number, Ordering::SeqCst);
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
