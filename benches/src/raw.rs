//! Everything of the baselines and the measurement that needs `unsafe`, but for the textbook's pthread
//! objects: named shared memory, sleeping on a word of it, and a process's core and parent.
#![expect(unsafe_code, reason = "raw access to shared memory, and system calls")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use shared_memory::{Shmem, ShmemConf, ShmemError};

/// A named object in /dev/shm, mapped. It is zeroed when it is made, and its maker's drop deletes it.
pub(crate) struct Segment {
    shmem: Shmem,
    base: NonNull<u8>,
    len: usize,
}

impl Segment {
    pub(crate) fn create(name: &str, len: usize) -> io::Result<Self> {
        Self::mapped(ShmemConf::new().os_id(name).size(len).create())
    }

    pub(crate) fn open(name: &str) -> io::Result<Self> {
        Self::mapped(ShmemConf::new().os_id(name).open())
    }

    fn mapped(shmem: Result<Shmem, ShmemError>) -> io::Result<Self> {
        let shmem = shmem.map_err(|error| {
            let kind = match error {
                ShmemError::MappingIdExists => io::ErrorKind::AlreadyExists,
                ShmemError::MapOpenFailed(_) => io::ErrorKind::NotFound,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })?;
        let base = NonNull::new(shmem.as_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        let len = shmem.len();
        Ok(Self { shmem, base, len })
    }

    /// Deletes the name now: those who are attached go on, and nothing is left however they end.
    pub(crate) fn unlink(&mut self) -> io::Result<()> {
        self.shmem.set_owner(false);
        std::fs::remove_file(format!("/dev/shm/{}", self.shmem.get_os_id()))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of `len` bytes at `offset`, aligned to 8 if the offset is.
    #[inline]
    pub(crate) fn address(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len && len <= self.len - offset, "outside the segment");
        // SAFETY: just checked to lie inside the mapping, which is one object.
        unsafe { self.base.as_ptr().add(offset) }
    }

    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "misaligned");
        let address = self.address(offset, 4).cast();
        // SAFETY: inside the mapping, which lives as long as `self`; aligned, since a mapping begins
        // with a page; any bytes are a valid number; whoever else writes there does so atomically.
        unsafe { AtomicU32::from_ptr(address) }
    }

    #[inline]
    pub(crate) fn long(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "misaligned");
        let address = self.address(offset, 8).cast();
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(address) }
    }

    /// Copies in what a protocol says is the caller's alone to write.
    #[inline]
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) {
        let to = self.address(offset, from.len());
        // SAFETY: both ranges are valid for this length, and `from` is private memory: nobody ever gets
        // a reference to bytes of the mapping.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }

    /// Copies out what a protocol says nobody writes meanwhile.
    #[inline]
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let from = self.address(offset, to.len());
        // SAFETY: as in `copy_in`.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
    }
}

/// Sleeps while `word` holds `expected`; may return for no reason.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32) {
    let forever = ptr::null::<libc::timespec>();
    // SAFETY: the word is borrowed for the whole call; no timeout.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, forever) };
}

/// Wakes one who sleeps on `word`.
pub(crate) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is borrowed for the whole call; waking reads nothing of it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// Wakes all who sleep on `word`.
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: as in `futex_wake`.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// How long a process has used a processor so far.
pub(crate) fn processor_time(process: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    let process = libc::pid_t::try_from(process).map_err(io::Error::other)?;
    // SAFETY: `clock` is ours to write.
    let returned = unsafe { libc::clock_getcpuclockid(process, &raw mut clock) };
    if returned != 0 {
        return Err(io::Error::from_raw_os_error(returned));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to write.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    let seconds = u64::try_from(time.tv_sec).map_err(io::Error::other)?;
    Ok(Duration::new(seconds, u32::try_from(time.tv_nsec).map_err(io::Error::other)?))
}

/// The cores that this process may run on.
pub(crate) fn cores() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the set is ours to write, of the length given; 0 is the calling thread.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) })?;
    // SAFETY: zeroed, then filled by the kernel; any bits are a valid set.
    let set = unsafe { set.assume_init() };
    let bits = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: asks for bits inside the set only.
    Ok((0..bits).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// Makes the calling thread run on these cores only.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a set of no cores is all zeroes.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    for &core in cores {
        if core >= 8 * size_of::<libc::cpu_set_t>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: just checked to be a bit of the set.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: the set is ours, of the length given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })
}

/// Has the kernel kill this process when the thread that started it ends.
pub(crate) fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: sets an attribute of this process, touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::Error::other("the parent ended before this process had begun"))
    }
}

/// The wall clock `timeout` from now: what pthread's timed calls take by default.
pub(crate) fn wall_clock_after(timeout: Duration) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    let nanoseconds = now.tv_nsec + i64::from(timeout.subsec_nanos());
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    libc::timespec {
        tv_sec: now.tv_sec.saturating_add(seconds).saturating_add(nanoseconds / 1_000_000_000),
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

fn check(returned: i32) -> io::Result<()> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
