//! How long to spin before sleeping, and how long to look away from a busy neighbour.

use std::time::Duration;

use crate::atomic::pause;
use crate::deadline::{Deadline, now};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The longest lag, in pauses.
const LONGEST_LAG: u32 = 64;
/// About what it costs to fall asleep and be woken: spinning longer cannot pay.
const LONGEST_SPIN: Duration = Duration::from_micros(40);
/// Glances at the other side's cursor between two looks at everything else, the clock included.
const GLANCES_PER_LOOK: u32 = 32;
/// After this many sleeps spinning is tried again, at first; doubled each time it is in vain.
const FIRST_TRIAL: u32 = 4;
const LAST_TRIAL: u32 = 512;

/// How a spin ended.
pub(crate) enum Spun<T> {
    Glanced,
    Found(T),
    InVain,
}

/// What one side of one handle has learnt of the other side. Private to the process; a lost update
/// costs some nanoseconds, so everything is relaxed.
///
/// **Lag.** A taker that looks at the cursor of a streaming producer after each message takes the
/// cache line away from it each time, and both run at the speed of that line. So it looks away for
/// `lag` pauses first: doubled when more than half as many messages have come meanwhile, halved
/// otherwise, so that a message answered by a message is seen at once.
///
/// **Spin.** Spinning pays when the answer comes within the time that a sleep and a wake-up take. It
/// never pays when the other side runs on the same core. So the spin is as long as it has lately paid:
/// whole after a success, halved after each failure; once it is nothing, it is tried again after some
/// sleeps, and ever more rarely while it stays in vain.
#[derive(Debug)]
pub(crate) struct Pace {
    lag: AtomicU32,
    /// Nanoseconds.
    spin: AtomicU32,
    /// Sleeps since spinning was last tried.
    sleeps: AtomicU32,
    /// Sleeps between two trials.
    trial: AtomicU32,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            lag: AtomicU32::new(0),
            spin: AtomicU32::new(nanoseconds(LONGEST_SPIN)),
            sleeps: AtomicU32::new(0),
            trial: AtomicU32::new(FIRST_TRIAL),
        }
    }

    /// Whether a look is to be put off.
    #[inline]
    pub(crate) fn lags(&self) -> bool {
        self.lag.load(Relaxed) != 0
    }

    /// Looks away for a while, before a first look at the other side's cursor.
    pub(crate) fn lag(&self) {
        for _ in 0..self.lag.load(Relaxed) {
            pause();
        }
    }

    /// What the first look after a lag found.
    pub(crate) fn found(&self, count: u32) {
        let lag = self.lag.load(Relaxed);
        let next = if count > (lag / 2).max(1) { (lag * 2).clamp(1, LONGEST_LAG) } else { lag / 2 };
        if next != lag {
            self.lag.store(next, Relaxed);
        }
    }

    /// Spins until `glance` is true or `look` finds something, for as long as it has lately paid.
    ///
    /// `glance` reads what the other side writes in any case; `look` may take more of its cache lines
    /// away, and is asked rarely.
    pub(crate) fn spin<T>(
        &self,
        deadline: Deadline,
        glance: impl Fn() -> bool,
        look: impl Fn() -> Option<T>,
    ) -> Spun<T> {
        if cfg!(loom) {
            return Spun::InVain;
        }
        let Some(length) = self.length() else { return Spun::InVain };
        let end = deadline.within(length);
        loop {
            for _ in 0..GLANCES_PER_LOOK {
                if glance() {
                    self.spin.store(nanoseconds(LONGEST_SPIN), Relaxed);
                    self.trial.store(FIRST_TRIAL, Relaxed);
                    return Spun::Glanced;
                }
                pause();
            }
            if let Some(found) = look() {
                return Spun::Found(found);
            }
            if now() >= end {
                break;
            }
        }
        // A trial that was in vain is over at once: it must not cost another 40 us in halves.
        let was_a_trial = self.spin.load(Relaxed) == 0;
        let shorter = nanoseconds(length) / 2;
        self.spin.store(if was_a_trial || shorter < 1000 { 0 } else { shorter }, Relaxed);
        Spun::InVain
    }

    fn length(&self) -> Option<Duration> {
        let spin = self.spin.load(Relaxed);
        if spin > 0 {
            return Some(Duration::from_nanos(u64::from(spin)));
        }
        let sleeps = self.sleeps.load(Relaxed) + 1;
        let trial = self.trial.load(Relaxed);
        if sleeps < trial {
            self.sleeps.store(sleeps, Relaxed);
            return None;
        }
        self.sleeps.store(0, Relaxed);
        self.trial.store((trial * 2).min(LAST_TRIAL), Relaxed);
        Some(LONGEST_SPIN)
    }
}

fn nanoseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}
