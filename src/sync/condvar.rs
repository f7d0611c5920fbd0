//! A condition variable in one futex word.

use std::io;
use std::time::{Duration, Instant};

use crate::atomic::{AtomicU32, Ordering, loom_fence};
use crate::deadline::Deadline;
use crate::sys::futex;

/// No sleep is longer: a wake-up that died with its sender costs at most this. Each takes some 50 us of a core, of which
/// a blocked call is to use less than a thousandth.
pub(crate) const LONGEST_SLICE: Duration = Duration::from_millis(75);

/// Somebody may be asleep, or on the way.
const WAITING: u32 = 1;
/// The rest of the word counts; a sleeper sleeps on one count only.
const STEP: u32 = 2;

/// Wakes sleepers of another process. It knows nothing of what they wait for.
///
/// | count | WAITING | meaning                                                                    |
/// | ----- | ------- | -------------------------------------------------------------------------- |
/// | n     | 0       | nobody sleeps: a notify is one load                                         |
/// | n     | 1       | somebody sleeps on this value, is about to, or did and was woken or killed  |
///
/// Killed anywhere in `notify`: those who were to be woken look for themselves after 75 ms. Killed
/// between `prepare` and `sleep`, or asleep: `WAITING` stays, and the next notify finds too few to
/// wake and clears it.
///
/// # Why no wake-up is lost
///
/// A sleeper does `prepare` (W), then loads the *other end's lock word* (L), then the cursor, and
/// sleeps only if the cursor shows nothing. A notifier stores the cursor, unlocks its lock (U, a
/// read-modify-write of the same lock word), then loads this word (N). W, L, U, N are `SeqCst`, so
/// they have one order:
///
/// * U before L: L reads U's value or that of a later read-modify-write of the lock word, which is in
///   U's release sequence (lock words are changed by read-modify-write only). So U, and the cursor's
///   store before it, happen before the load of the cursor: the sleeper sees it and does not sleep.
/// * L before U: then W is before N, and N reads `WAITING`. `notify` wakes a sleeper, or finds fewer
///   asleep than it was to wake and changes the word, so that whoever prepared on the old value does
///   not fall asleep, and those who fell asleep since it counted are woken all.
///
/// An end that is held for long does not unlock after each message. It commits its cursor by a `SeqCst`
/// read-modify-write, and the cursor's load is `SeqCst`: the same two cases, with the cursor as L and U.
///
/// (Simply clearing `WAITING` and waking one does lose wake-ups, with nobody dying: of two sleepers one
/// is woken, and for the second message nobody seems to be asleep.)
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Condvar {
    word: AtomicU32,
}

impl Condvar {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// Wakes up to `count` sleepers, and everybody if there are fewer than that.
    #[inline]
    pub(crate) fn notify(&self, count: u32) {
        let word = self.word.load(Ordering::SeqCst);
        loom_fence();
        if word & WAITING != 0 {
            self.notify_slow(word, count);
        }
    }

    #[cold]
    fn notify_slow(&self, word: u32, count: u32) {
        if futex::wake(&self.word, count) < count {
            // If this fails, another notifier has changed the word since, or a sleeper has
            // prepared after our load and so sees what we notify of.
            let next = word.wrapping_add(STEP) & !WAITING;
            _ = self.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed);
            futex::wake(&self.word, u32::MAX);
        }
    }

    pub(crate) fn notify_all(&self) {
        self.notify(u32::MAX);
    }

    /// Announces a sleeper, who must look once more before it sleeps on the value returned.
    pub(crate) fn prepare(&self) -> u32 {
        let word = self.word.fetch_or(WAITING, Ordering::SeqCst);
        loom_fence();
        word | WAITING
    }

    /// Sleeps until `look` finds something or the deadline passes: what it found, and whether it slept.
    pub(crate) fn wait<T>(&self, deadline: Deadline, look: impl Fn() -> Option<T>) -> (Option<T>, bool) {
        let mut slept = false;
        while !deadline.has_passed() {
            let prepared = self.prepare();
            let found = look();
            if found.is_some() {
                return (found, slept);
            }
            slept = true;
            self.sleep(prepared, deadline.within(LONGEST_SLICE));
        }
        // One last look: what came while the time ran out is not left lying.
        (look(), slept)
    }

    /// Sleeps until somebody notifies who saw the sleeper prepare, or until `until`, or for no reason.
    pub(crate) fn sleep(&self, prepared: u32, until: Instant) {
        futex::wait(&self.word, prepared, until);
    }
}

/// Sleeps as [`Condvar::sleep`] does, on each of them until the first notify.
pub(crate) fn sleep_on_any<'a>(
    prepared: impl Iterator<Item = (&'a Condvar, u32)>,
    until: Instant,
) -> io::Result<()> {
    futex::wait_any(prepared.map(|(condvar, prepared)| (&condvar.word, prepared)), until)
}
