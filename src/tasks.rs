//! Items that have been put and not yet been reported as done.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::deadline::Deadline;
use crate::error::TaskDoneError;
use crate::layout::Live;
use crate::ring::Side;

/// The done count of a queue beside the count of its puts. No second commit belongs to a put: the count of
/// puts is that of the tail, so no death between the two can make `join` wait for an item that never was.
#[derive(Clone, Copy)]
pub(crate) struct Tasks<'a> {
    live: &'a Live,
    put: &'a Side,
}

impl<'a> Tasks<'a> {
    pub(crate) fn new(live: &'a Live, put: &'a Side) -> Self {
        Self { live, put }
    }

    fn put_count(self) -> u64 {
        self.put.totals().0
    }

    /// How many items are not done.
    pub(crate) fn unfinished(self) -> u64 {
        let done = self.live.done.load(SeqCst);
        left(self.put_count(), done)
    }

    /// One more is done. Killed before the exchange: it is not; after it: it is, and whoever waits for the last
    /// one looks for itself within 75 ms.
    pub(crate) fn done(self) -> Result<(), TaskDoneError> {
        let one_more = |done| (left(self.put_count(), done) > 0).then_some(done + 1);
        match self.live.done.fetch_update(SeqCst, Relaxed, one_more) {
            Ok(before) => {
                if left(self.put_count(), before + 1) == 0 {
                    self.live.all_done.notify_all();
                }
                Ok(())
            }
            Err(done) => Err(TaskDoneError { done }),
        }
    }

    /// Waits until all that were put before the call are done. False at the deadline.
    pub(crate) fn join(self, deadline: Deadline) -> bool {
        let target = self.put_count();
        let look = || (left(target, self.live.done.load(SeqCst)) == 0).then_some(());
        look().is_some() || self.live.all_done.wait(deadline, look).0.is_some()
    }
}

/// A done count beyond the count of puts, which only nonsense from outside makes, leaves nothing.
fn left(put: u64, done: u64) -> u64 {
    u64::try_from(put.wrapping_sub(done).cast_signed()).unwrap_or(0)
}
