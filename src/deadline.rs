//! When a call has to be back, made once at the public edge.

use std::time::{Duration, Instant};

/// The moment at which a blocking call gives up. Monotonic, absolute.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    /// The `nowait` form: it gives up where it would have to wait.
    Now,
    At(Instant),
    Never,
}

impl Deadline {
    /// A timeout too long to represent means "for ever"; zero is the `nowait` form.
    pub(crate) fn after(timeout: Duration) -> Self {
        if timeout.is_zero() {
            return Self::Now;
        }
        now().checked_add(timeout).map_or(Self::Never, Self::At)
    }

    pub(crate) fn has_passed(self) -> bool {
        match self {
            Self::Now => true,
            Self::At(at) => now() >= at,
            Self::Never => false,
        }
    }

    /// The end of one sleep: at most `slice` from now, and never past the deadline.
    pub(crate) fn within(self, slice: Duration) -> Instant {
        let end = now() + slice;
        match self {
            Self::At(at) => end.min(at),
            Self::Now | Self::Never => end,
        }
    }
}

/// The clock of the whole crate. It stands still in the models: loom has no time.
#[cfg(not(loom))]
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(loom)]
pub(crate) fn now() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_too_long_to_represent_is_for_ever() {
        assert!(matches!(Deadline::after(Duration::MAX), Deadline::Never));
        assert!(!Deadline::after(Duration::MAX).has_passed());
    }

    #[test]
    fn zero_is_the_nowait_form() {
        assert!(matches!(Deadline::after(Duration::ZERO), Deadline::Now));
        assert!(Deadline::Now.has_passed());
    }

    #[test]
    fn a_sleep_ends_with_its_slice_or_with_the_deadline_whichever_is_first() {
        let soon = Deadline::after(Duration::from_millis(1));
        let Deadline::At(at) = soon else { panic!("{soon:?}") };
        assert_eq!(soon.within(Duration::from_secs(9)), at);
        assert!(Deadline::Never.within(Duration::from_secs(9)) > at);
    }
}
