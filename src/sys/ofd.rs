//! Locks on bytes of a file that belong to an open file description (`F_OFD_SETLK`, `F_OFD_GETLK`).

use std::io;
use std::os::fd::RawFd;

use super::{check, random};

/// Who may take a name away.
pub(crate) const DOOR: u64 = 0;
/// The owner of a lock whose real owner died and whose id was then given to a newcomer. Never leased.
pub(crate) const TOMB: u32 = (1 << 28) - 1;
/// The ids from here on are those of guests, who do not keep a segment from going with its last user.
const GUESTS: u32 = 1 << 27;
/// How many bytes there are to lock: those of the ids, and above them those of the classes.
pub(crate) const BYTES: u64 = 1 << 36;
/// The bytes of the ids, the door and TOMB among them.
pub(crate) const IDS: u64 = 1 << 28;

/// A row of bytes above those of the ids, of which each member of something locks one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(u8);

impl Class {
    /// `number` is 0 to 6.
    pub(crate) const fn new(number: u8) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    const fn start(self) -> u64 {
        (self.0 as u64 + 1) << 32
    }

    pub(crate) const fn byte(self, member: u32) -> u64 {
        self.start() + member as u64
    }
}

/// How many random ids are tried before it is taken for granted that somebody holds all of them.
const TRIES: usize = 64;

/// Locks the byte of a random id that nobody has; `None` if somebody holds all of them for a moment.
pub(crate) fn lock_some_id(fd: RawFd, guest: bool) -> io::Result<Option<u32>> {
    let (first, end) = if guest { (GUESTS, TOMB) } else { (1, GUESTS) };
    Ok(lock_one_of(fd, first.into(), u64::from(end - first))?.and_then(|byte| u32::try_from(byte).ok()))
}

/// Locks everything but the ids of guests, if no other description holds any of that.
pub(crate) fn lock_but_guests(fd: RawFd) -> io::Result<bool> {
    Ok(lock(fd, DOOR, GUESTS.into())? && lock(fd, TOMB.into(), BYTES - u64::from(TOMB))?)
}

/// Whether another description holds an id that is no guest's.
pub(crate) fn is_used(fd: RawFd) -> io::Result<bool> {
    Ok(first_holder(fd, 1, u64::from(GUESTS) - 1)?.is_some())
}

/// Locks a byte of the class; false if somebody holds all of them for a moment. Async-signal-safe.
pub(crate) fn enter(fd: RawFd, class: Class) -> io::Result<bool> {
    Ok(enter_some(fd, class)?.is_some())
}

/// Whether another description is in the class. One that only bars it does not count.
pub(crate) fn is_entered(fd: RawFd, class: Class) -> io::Result<bool> {
    Ok(find(fd, libc::F_RDLCK, class.start(), IDS)?.is_some())
}

/// Lets nobody into the class, if no other description is in it. Any number of descriptions can do so at once.
pub(crate) fn bar(fd: RawFd, class: Class) -> io::Result<bool> {
    lock_as(libc::F_RDLCK, fd, class.start(), IDS)
}

pub(crate) fn unbar(fd: RawFd, class: Class) {
    unlock(fd, class.start(), IDS);
}

/// Locks a byte of the class, and says which; `None` if somebody holds all of them for a moment.
pub(crate) fn enter_some(fd: RawFd, class: Class) -> io::Result<Option<u32>> {
    let byte = lock_one_of(fd, class.start() + 1, u64::from(TOMB) - 1)?;
    Ok(byte.and_then(|byte| u32::try_from(byte - class.start()).ok()))
}

/// Locks one of `count` bytes.
fn lock_one_of(fd: RawFd, first: u64, count: u64) -> io::Result<Option<u64>> {
    for _ in 0..TRIES {
        let byte = first + random()? % count;
        if lock(fd, byte, 1)? {
            return Ok(Some(byte));
        }
    }
    Ok(None)
}

/// False if another description holds part of the range. Never blocks.
pub(crate) fn lock(fd: RawFd, start: u64, len: u64) -> io::Result<bool> {
    lock_as(libc::F_WRLCK, fd, start, len)
}

fn lock_as(kind: libc::c_int, fd: RawFd, start: u64, len: u64) -> io::Result<bool> {
    match control(fd, libc::F_OFD_SETLK, &mut request(kind, start, len)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn unlock(fd: RawFd, start: u64, len: u64) {
    // Nothing can be done about an error, and the close that follows a broken descriptor unlocks too.
    _ = control(fd, libc::F_OFD_SETLK, &mut request(libc::F_UNLCK, start, len));
}

/// Start and length of some lock that another description holds on part of the range. What is locked
/// beyond our bytes is not ours and not counted.
pub(crate) fn first_holder(fd: RawFd, start: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    find(fd, libc::F_WRLCK, start, len)
}

/// The same, of those locks that a lock of this kind would conflict with.
fn find(fd: RawFd, kind: libc::c_int, start: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    let mut request = request(kind, start, len);
    control(fd, libc::F_OFD_GETLK, &mut request)?;
    if libc::c_int::from(request.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let (start, len) = (request.l_start.cast_unsigned(), request.l_len.cast_unsigned());
    // A length of 0 is "to the end, however far", which nobody of ours asks for.
    let end = if len == 0 { BYTES } else { start.saturating_add(len).min(BYTES) };
    Ok(Some((start, end.saturating_sub(start).max(1))))
}

/// How many ids other descriptions hold.
///
/// The kernel tells of one lock at a time, the one of the conflicting ones that was taken first, wherever it
/// lies in the range. So what lies before and after each has to be asked about too, and every gap once: a
/// walk from left to right would leave some out. Each question costs the kernel a walk over all locks of the
/// file: 2 ms in all for 400 handles, and some 50 ms for 1000.
pub(crate) fn count_ids(fd: RawFd) -> io::Result<usize> {
    let mut count = 0;
    let mut ranges = vec![(1, IDS - 1)];
    while let Some((start, len)) = ranges.pop() {
        let Some((at, held)) = first_holder(fd, start, len)? else { continue };
        count += 1;
        let (end, after) = (start + len, (at + held).max(start + 1));
        if at > start {
            ranges.push((start, at - start));
        }
        if after < end {
            ranges.push((after, end - after));
        }
    }
    Ok(count)
}

fn request(kind: libc::c_int, start: u64, len: u64) -> libc::flock {
    // SAFETY: all zeroes is a valid `flock`; `l_pid` must be 0 for these commands.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::c_short::try_from(kind).unwrap_or_default();
    request.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
    request.l_start = start.cast_signed();
    request.l_len = len.cast_signed();
    request
}

fn control(fd: RawFd, command: libc::c_int, request: &mut libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: the request is a valid `flock` of ours.
        match check(unsafe { libc::fcntl(fd, command, &raw mut *request) }) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            done => return done.map(drop),
        }
    }
}
