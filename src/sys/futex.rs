//! Sleeping on a shared word and waking those who do (`futex(2)`, never the private form).

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::atomic::AtomicU32;
use crate::deadline;

/// As many words as the kernel takes at once.
pub(crate) const MOST_WORDS: usize = 128;

/// Sleeps while `word` holds `expected`, until `until` at the latest.
///
/// It may return for no reason at all (a signal, a wake-up meant for an earlier sleep): the caller
/// looks again. True if the time ran out.
pub(crate) fn wait(word: &AtomicU32, expected: u32, until: Instant) -> bool {
    let end = on_the_kernels_clock(until);
    // SAFETY: the word is borrowed for the whole call, the timespec is ours; a bitset of ones means
    // "woken by any wake", and FUTEX_WAIT_BITSET takes an absolute time on the monotonic clock.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            &raw const end,
            std::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    returned == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT)
}

/// Sleeps while all of up to `MOST_WORDS` words hold what is expected, until `until` at the latest, or for no
/// reason (`futex_waitv(2)`). Where that is not to be had, it sleeps for 1 ms at most.
pub(crate) fn wait_any<'a>(
    words: impl Iterator<Item = (&'a AtomicU32, u32)>,
    until: Instant,
) -> io::Result<()> {
    /// The kernel is too old, or a container's filter refuses it.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    const SIZE_U32: u32 = 2;
    const LOOK: Duration = Duration::from_millis(1);

    /// `struct futex_waitv`.
    #[repr(C)]
    struct Waiter {
        expected: u64,
        word: *mut u32,
        flags: u32,
        reserved: u32,
    }

    let waiters: Vec<_> = words
        .map(|(word, expected)| Waiter {
            expected: expected.into(),
            word: word.as_ptr(),
            flags: SIZE_U32,
            reserved: 0,
        })
        .collect();
    if !REFUSED.load(Ordering::Relaxed) {
        let end = on_the_kernels_clock(until);
        // SAFETY: the words are borrowed for the whole call, the list and the timespec are ours.
        let returned = unsafe {
            libc::syscall(
                libc::SYS_futex_waitv,
                waiters.as_ptr(),
                waiters.len(),
                0,
                &raw const end,
                libc::CLOCK_MONOTONIC,
            )
        };
        if returned != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) => return Ok(()),
            Some(libc::ENOSYS | libc::EPERM) => REFUSED.store(true, Ordering::Relaxed),
            _ => return Err(error),
        }
    }
    let nobody = AtomicU32::new(0);
    wait(&nobody, 0, until.min(deadline::now() + LOOK));
    Ok(())
}

fn on_the_kernels_clock(until: Instant) -> libc::timespec {
    // The kernel's clock is read after ours, so the sum can be late by what lies between, never early.
    let left = until.saturating_duration_since(deadline::now());
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec of ours to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let nanoseconds = now.tv_nsec + i64::from(left.subsec_nanos());
    let seconds = libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX);
    libc::timespec {
        tv_sec: now.tv_sec.saturating_add(seconds).saturating_add(nanoseconds / 1_000_000_000),
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

/// Wakes at most `count` sleepers and says how many there were to wake.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> u32 {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    // SAFETY: the word is borrowed for the whole call; waking reads nothing of it.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    u32::try_from(woken).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_with_nobody_to_wake_it_ends_at_its_time_and_not_before() {
        let word = AtomicU32::new(7);
        let start = Instant::now();
        while !wait(&word, 7, start + Duration::from_millis(30)) {}
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert!(start.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn another_value_does_not_sleep() {
        let word = AtomicU32::new(7);
        assert!(!wait(&word, 8, Instant::now() + Duration::from_secs(30)));
    }
}
