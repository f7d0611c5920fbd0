//! Knowing that one is a forked child, and keeping a child from holding its parent's leases.
//!
//! A child shares its parent's open file descriptions. While it does, it keeps the parent's locks
//! alive after the parent has died, and it must never act under the parent's lease id. So:
//!
//! * A word in a page that the kernel wipes on `fork` (`MADV_WIPEONFORK`, also on a raw `clone`) holds
//!   the *generation* of this process. A child finds 0 there.
//! * Each lease descriptor is registered here. The first thing that happens in a child (in the
//!   `pthread_atfork` handler, else at its first call of ours) is that each registered descriptor is
//!   replaced in place by a new description of the same file, which holds no lock. The child's handle
//!   counts as attached from its first put or get on; a child that never uses it does not hide that
//!   everybody else has died. The end of a pipe is different: what is inherited keeps it open, as an inherited
//!   descriptor does, so the child is in the class of its end before the parent's description is let go.
//!
//! Locks that live in process memory are copied by `fork` as they are, held or not. They hold the
//! generation of their holder, so that a child sees a lock that nobody will release.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::ofd::{self, Class};
use super::{check, check_code, futex};
use crate::deadline;

/// The mark of a process that has just been forked: the kernel wiped its page.
const WIPED: u32 = 0;
/// Some thread of the child is replacing the lease descriptors.
const ADOPTING: u32 = 1;
/// Generations count up from here, one for each fork in a line of descent.
const FIRST_GENERATION: u32 = 2;

/// How often this process has forked, or is about to have. Not how often it has started a program by other means, whose
/// copies of the descriptors nobody uses.
static FORKS: AtomicU32 = AtomicU32::new(0);
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
/// The last generation given out. Inherited, unlike the mark.
static LAST: AtomicU32 = AtomicU32::new(FIRST_GENERATION);

/// The word that tells a child that it is one. Mapped once, never unmapped.
///
/// # Errors
/// The page cannot be mapped, or the kernel cannot wipe it on fork.
pub(crate) fn mark() -> io::Result<&'static AtomicU32> {
    let mapped = MARK.load(Ordering::Acquire);
    let mapped = if mapped.is_null() { map_mark()? } else { mapped };
    // SAFETY: set once to a page that is never unmapped, and only ever used as an atomic.
    Ok(unsafe { &*mapped })
}

#[cold]
fn map_mark() -> io::Result<*mut AtomicU32> {
    const LEN: usize = 4096;
    // SAFETY: a new anonymous private mapping at an address of the kernel's choice.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page was mapped just now with this length.
    let advised = check(unsafe { libc::madvise(page, LEN, libc::MADV_WIPEONFORK) });
    let mark: *mut AtomicU32 = page.cast();
    // SAFETY: mapped, zeroed, aligned to a page, and still ours alone.
    unsafe { &*mark }.store(LAST.load(Ordering::Relaxed), Ordering::Relaxed);
    let won = advised.is_ok()
        && MARK.compare_exchange(ptr::null_mut(), mark, Ordering::AcqRel, Ordering::Acquire).is_ok();
    if won {
        // A fork that gets in before this is noticed at the child's first call instead.
        // SAFETY: the handlers are functions of this library, async-signal-safe in the child.
        check_code(unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child))
        })?;
        return Ok(mark);
    }
    // SAFETY: mapped above with this length, and nobody has seen it.
    unsafe { libc::munmap(page, LEN) };
    advised.map(|_| MARK.load(Ordering::Acquire))
}

/// The generation of this process. In a child it first makes the lease descriptors the child's own.
pub(crate) fn generation(mark: &AtomicU32) -> u32 {
    let generation = mark.load(Ordering::Acquire);
    if generation >= FIRST_GENERATION { generation } else { adopt(mark) }
}

/// Async-signal-safe: it runs in the child handler.
#[cold]
fn adopt(mark: &AtomicU32) -> u32 {
    loop {
        match mark.compare_exchange(WIPED, ADOPTING, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                replace_descriptors();
                let next = LAST.load(Ordering::Relaxed).wrapping_add(1).max(FIRST_GENERATION);
                LAST.store(next, Ordering::Relaxed);
                mark.store(next, Ordering::Release);
                return next;
            }
            Err(generation) if generation >= FIRST_GENERATION => return generation,
            // SAFETY: no arguments, no memory.
            Err(_) => _ = unsafe { libc::sched_yield() },
        }
    }
}

extern "C" fn before_fork() {
    let Ok(mark) = mark() else { return };
    // Bounded: a signal handler may fork in the middle of a registration of this very thread.
    let locked = REGISTERING.lock_for(generation(mark), Duration::from_millis(100)).is_some();
    FORKS.fetch_add(1, Ordering::Relaxed);
    // A handler that forks inside a fork of its thread does not undo what that one holds.
    HELD_FOR_FORK.set(locked || HELD_FOR_FORK.get());
}

extern "C" fn after_fork_in_parent() {
    if HELD_FOR_FORK.replace(false) {
        REGISTERING.unlock();
    }
}

extern "C" fn after_fork_in_child() {
    let mark = MARK.load(Ordering::Acquire);
    if !mark.is_null() {
        // SAFETY: set once to a page that is never unmapped.
        generation(unsafe { &*mark });
    }
    // Whoever held it, this thread or another one, is not here.
    HELD_FOR_FORK.set(false);
    REGISTERING.unlock();
}

/// A lock in process memory that a forked child can tell from one that somebody holds.
///
/// | word | meaning                                                                         |
/// | ---- | ------------------------------------------------------------------------------- |
/// | 0    | free                                                                            |
/// | g    | held by a thread of generation g; in a process of another generation: by nobody |
#[derive(Debug)]
pub(crate) struct LocalLock {
    word: AtomicU32,
}

impl LocalLock {
    pub(crate) const fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    pub(crate) fn try_lock(&self, generation: u32) -> bool {
        self.try_take(generation).is_some()
    }

    /// If it was to be had: whether it was free, and not held by a thread that is not in this process.
    fn try_take(&self, generation: u32) -> Option<bool> {
        let word = self.word.load(Ordering::Relaxed);
        let taken = word != generation
            && self.word.compare_exchange(word, generation, Ordering::Acquire, Ordering::Relaxed).is_ok();
        taken.then_some(word == 0)
    }

    /// The same, if it is to be had within `patience`.
    pub(crate) fn lock_for(&self, generation: u32, patience: Duration) -> Option<bool> {
        let end = deadline::now() + patience;
        loop {
            let taken = self.try_take(generation);
            let now = deadline::now();
            if taken.is_some() || now >= end {
                return taken;
            }
            futex::wait(&self.word, generation, end.min(now + Duration::from_millis(1)));
        }
    }

    /// Whether it was free, and not held by a thread that is not in this process.
    pub(crate) fn lock(&self, generation: u32) -> bool {
        loop {
            if let Some(was_free) = self.lock_for(generation, Duration::from_secs(1)) {
                return was_free;
            }
        }
    }

    pub(crate) fn unlock(&self) {
        self.word.store(0, Ordering::Release);
        futex::wake(&self.word, 1);
    }
}

/// Held while a lease descriptor is opened and registered, or unregistered and closed, and by `fork`:
/// a child inherits no lease descriptor that the registry does not name.
static REGISTERING: LocalLock = LocalLock::new();

thread_local! {
    /// Whether this thread's fork holds `REGISTERING`: several threads may fork at once.
    static HELD_FOR_FORK: Cell<bool> = const { Cell::new(false) };
}

/// A slot that belongs to nobody.
const FREE: RawFd = -1;
/// A slot whose descriptor is gone, but which somebody still owns.
const LOST: RawFd = -2;

/// One registered descriptor, and the file it must be: a program may have closed the number and got
/// it back as something else.
struct Slot {
    fd: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
    /// One more than the number of the class that the handle is in; 0 if it is in none.
    class: AtomicU32,
    /// `FORKS` when the description was this process's alone.
    forks: AtomicU32,
}

impl Slot {
    const fn new() -> Self {
        Self {
            fd: AtomicI32::new(FREE),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            class: AtomicU32::new(0),
            forks: AtomicU32::new(0),
        }
    }
}

/// Slots are never freed, so a child can walk them whatever its parent's threads were doing.
struct Block {
    slots: [Slot; 64],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; 64], next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Self> {
        let next = self.next.load(Ordering::Acquire);
        // SAFETY: null, or a leaked box.
        unsafe { next.as_ref() }
    }
}

static FIRST_BLOCK: Block = Block::new();

/// All slots there are. Async-signal-safe.
fn slots() -> impl Iterator<Item = &'static Slot> {
    std::iter::successors(Some(&FIRST_BLOCK), |block| block.next()).flat_map(|block| &block.slots)
}

/// Must be called with `REGISTERING` held.
fn free_slot() -> &'static Slot {
    if let Some(slot) = slots().find(|slot| slot.fd.load(Ordering::Relaxed) == FREE) {
        return slot;
    }
    let new = Box::leak(Box::new(Block::new()));
    let mut last = &FIRST_BLOCK;
    while let Some(next) = last.next() {
        last = next;
    }
    last.next.store(new, Ordering::Release);
    &new.slots[0]
}

fn replace_descriptors() {
    for slot in slots() {
        let fd = slot.fd.load(Ordering::Acquire);
        if fd < 0 || !slot.is(fd) {
            continue;
        }
        if replace(fd, slot.class()) {
            slot.forks.store(FORKS.load(Ordering::Relaxed), Ordering::Relaxed);
        } else {
            // Without a description of its own the child must not keep the parent's.
            slot.fd.store(LOST, Ordering::Release);
            // SAFETY: the descriptor is the registered file's, as just checked, and the slot gives it up.
            unsafe { libc::close(fd) };
        }
    }
}

/// "/proc/self/fd/" and the number. Allocates nothing.
fn proc_path(fd: RawFd) -> [u8; 26] {
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut digits = [0_u8; 10];
    let mut rest = fd.unsigned_abs();
    let mut count = 0;
    while count == 0 || rest > 0 {
        digits[count] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        count += 1;
    }
    for (at, digit) in digits[..count].iter().rev().enumerate() {
        path[14 + at] = *digit;
    }
    path
}

/// Gives the number `fd` a new description of the same file, in the class of the old one. Async-signal-safe.
fn replace(fd: RawFd, class: Option<Class>) -> bool {
    let path = proc_path(fd);
    // SAFETY: the path ends in a NUL.
    let new = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDWR | libc::O_CLOEXEC) };
    if new < 0 {
        return false;
    }
    let enter = |fd| class.is_none_or(|class| ofd::enter(fd, class).unwrap_or(false));
    // Before the old description goes: there is no moment in which nobody is in the class.
    let mut entered = enter(new);
    // SAFETY: both descriptors are ours; what `fd` was before is replaced, which is the point.
    let mut replaced = unsafe { libc::dup3(new, fd, libc::O_CLOEXEC) } >= 0;
    // The parent may be leaving through the old description with everything locked.
    for _ in 0..1000 {
        if entered || !replaced {
            break;
        }
        // SAFETY: no arguments, no memory.
        unsafe { libc::sched_yield() };
        entered = enter(fd);
    }
    replaced &= entered;
    // SAFETY: opened above.
    unsafe { libc::close(new) };
    replaced
}

/// Which file an open descriptor refers to.
pub(crate) fn identify(fd: RawFd) -> io::Result<libc::stat> {
    // SAFETY: all zeroes is a valid `stat`.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours to write to.
    check(unsafe { libc::fstat(fd, &raw mut stat) })?;
    Ok(stat)
}

impl Slot {
    fn class(&self) -> Option<Class> {
        let number = self.class.load(Ordering::Relaxed).checked_sub(1)?;
        u8::try_from(number).ok().map(Class::new)
    }

    /// Whether `fd` is the file that was registered. Async-signal-safe.
    fn is(&self, fd: RawFd) -> bool {
        identify(fd).is_ok_and(|stat| {
            stat.st_dev == self.device.load(Ordering::Relaxed)
                && stat.st_ino == self.inode.load(Ordering::Relaxed)
        })
    }
}

/// A descriptor that a forked child replaces by one of its own. Above 2, close-on-exec.
pub(crate) struct Descriptor {
    slot: &'static Slot,
}

impl Descriptor {
    /// Opens and registers in one step, as seen by `fork`.
    pub(crate) fn open(path: &CStr, flags: c_int) -> io::Result<Self> {
        REGISTERING.lock(generation(mark()?));
        let opened = open_above_standard(path, flags).and_then(|fd| {
            let stat = identify(as_raw(&fd))?;
            // The kernel gave us this number: whoever else has it had its descriptor closed from outside.
            for slot in slots().filter(|slot| slot.fd.load(Ordering::Relaxed) == as_raw(&fd)) {
                slot.fd.store(LOST, Ordering::Relaxed);
            }
            let slot = free_slot();
            slot.device.store(stat.st_dev, Ordering::Relaxed);
            slot.inode.store(stat.st_ino, Ordering::Relaxed);
            slot.class.store(0, Ordering::Relaxed);
            slot.forks.store(FORKS.load(Ordering::Relaxed), Ordering::Relaxed);
            slot.fd.store(fd.into_raw_fd(), Ordering::Release);
            Ok(Self { slot })
        });
        REGISTERING.unlock();
        opened
    }

    /// The descriptor, if it still is the file that was opened. In a child it is the child's own.
    pub(crate) fn verified(&self) -> io::Result<RawFd> {
        generation(mark()?);
        let fd = self.fd();
        if fd >= 0 && self.slot.is(fd) {
            return Ok(fd);
        }
        Err(io::Error::other(
            "the descriptor that shows that this handle is alive was closed from outside, or could not be made \
             anew after fork; open the queue again by name",
        ))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.slot.fd.load(Ordering::Relaxed)
    }

    /// Remembers for a forked child which class the handle has entered.
    pub(crate) fn set_class(&self, class: Class) {
        self.slot.class.store(u32::from(class.number()) + 1, Ordering::Relaxed);
    }

    /// Gives all locks back, unless a child may have nothing else yet that shows that it is in the class: one that was
    /// forked a moment ago. A program that is just being started by other means has a copy of the descriptor, too, until
    /// it runs, and would keep the locks for that long.
    pub(crate) fn unlock(&self) -> bool {
        let Ok(mark) = mark() else { return false };
        REGISTERING.lock(generation(mark));
        let fd = self.fd();
        let forked = self.slot.forks.load(Ordering::Relaxed) != FORKS.load(Ordering::Relaxed);
        let unlocks = !forked && fd >= 0 && self.slot.is(fd);
        if unlocks {
            ofd::unlock(fd, ofd::DOOR, ofd::BYTES);
        }
        REGISTERING.unlock();
        unlocks
    }

    /// Closes it; the slot stays ours.
    pub(crate) fn close(&self) {
        self.give_up(LOST);
    }

    fn give_up(&self, state: RawFd) {
        let Ok(mark) = mark() else { return };
        REGISTERING.lock(generation(mark));
        let fd = self.slot.fd.swap(state, Ordering::AcqRel);
        if fd >= 0 && self.slot.is(fd) {
            // SAFETY: ours since `open`, as just checked; nobody else closes it.
            unsafe { libc::close(fd) };
        }
        REGISTERING.unlock();
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.give_up(FREE);
    }
}

fn as_raw(fd: &OwnedFd) -> RawFd {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}

/// Opens `path`, close-on-exec, never as standard input, output or error, not even for a moment: a
/// program started with those closed would print into the segment.
pub(crate) fn open_above_standard(path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    let mut in_the_way = Vec::new();
    loop {
        let placeholder = open(c"/", libc::O_PATH)?;
        if as_raw(&placeholder) > libc::STDERR_FILENO {
            break;
        }
        in_the_way.push(placeholder);
    }
    open(path, flags | libc::O_NONBLOCK)
}

fn open(path: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    loop {
        // SAFETY: the path ends in a NUL; the mode is read for O_TMPFILE and O_CREAT only.
        match check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) }) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            // SAFETY: a descriptor just opened, owned by nobody yet.
            opened => return Ok(unsafe { OwnedFd::from_raw_fd(opened?) }),
        }
    }
}
