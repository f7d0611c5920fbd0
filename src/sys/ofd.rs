//! Locks on bytes of a file that belong to an open file description (`F_OFD_SETLK`, `F_OFD_GETLK`).

use std::io;
use std::os::fd::RawFd;

use super::{check, random};

/// Who may take a name away.
pub(crate) const DOOR: u64 = 0;
/// The owner of a lock whose real owner died and whose id was then given to a newcomer. Never leased.
pub(crate) const TOMB: u32 = (1 << 28) - 1;
/// How many bytes there are to lock.
pub(crate) const BYTES: u64 = 1 << 28;
/// How many random ids are tried before it is taken for granted that somebody holds all of them.
const TRIES: usize = 64;

/// Locks the byte of a random id that nobody has; `None` if somebody holds all of them for a moment.
pub(crate) fn lock_some_id(fd: RawFd) -> io::Result<Option<u32>> {
    for _ in 0..TRIES {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below TOMB")]
        let id = (random()? % u64::from(TOMB - 1)) as u32 + 1;
        if lock(fd, u64::from(id), 1)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// False if another description holds part of the range. Never blocks.
pub(crate) fn lock(fd: RawFd, start: u64, len: u64) -> io::Result<bool> {
    match control(fd, libc::F_OFD_SETLK, &mut request(libc::F_WRLCK, start, len)) {
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
    let mut request = request(libc::F_WRLCK, start, len);
    control(fd, libc::F_OFD_GETLK, &mut request)?;
    if libc::c_int::from(request.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let (start, len) = (request.l_start.cast_unsigned(), request.l_len.cast_unsigned());
    // A length of 0 is "to the end, however far", which nobody of ours asks for.
    let end = if len == 0 { BYTES } else { start.saturating_add(len).min(BYTES) };
    Ok(Some((start, end.saturating_sub(start).max(1))))
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
