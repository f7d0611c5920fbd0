//! Getting: one message, one read in place, or many.

use std::marker::PhantomData;

use super::{Channel, Look, Once, Patience, Turn, forked, lost};
use crate::deadline::Deadline;
use crate::error::{Corrupt, GetError};
use crate::ring::{Message, Run};
use crate::sync::condvar::LONGEST_SLICE;
use crate::sync::holds::Hold;
use crate::sync::mutex::Refused;
use crate::sys::deadlock;
use crate::sys::lease::Identity;
use crate::sys::region::Span;

impl<'a> Channel<'a> {
    /// Gets one message: `take` copies it out. Blocks while there is none, until the deadline.
    ///
    /// `take` runs while the end is locked. The message is removed after it has returned `Ok`. Its error is in a box,
    /// because what it returns goes through registers then.
    #[inline(always)]
    pub(crate) fn get<T: Turn, R>(
        self,
        turn: T,
        deadline: Deadline,
        take: impl FnOnce(Span<'_>) -> Result<R, Box<GetError>>,
    ) -> Result<R, GetError> {
        // As in `put`: the slow way goes through memory, this one does not.
        if let Some(me) = turn.known(self.segment)
            && let Some(message) = self.try_turn_to_get::<T>(me)
        {
            let taken = take(message.bytes);
            return self.finish_get::<T, _>(me, message.run(), taken, false);
        }
        self.get_slowly(turn, deadline, take)
    }

    #[cold]
    #[inline(never)]
    fn get_slowly<T: Turn, R>(
        self,
        turn: T,
        deadline: Deadline,
        take: impl FnOnce(Span<'_>) -> Result<R, Box<GetError>>,
    ) -> Result<R, GetError> {
        let me = turn.identity(self.segment).map_err(GetError::Io)?;
        let (message, slept) = self.turn_to_get::<T>(me, deadline)?;
        let taken = take(message.bytes);
        self.finish_get::<T, _>(me, message.run(), taken, slept)
    }

    /// Gets one message where it lies: `read` sees it while the end is locked.
    ///
    /// Killed in `read`, or if it panics: the message is still there. Killed after `read` has returned and
    /// before the commit: likewise, and the next one sees it again.
    #[inline]
    pub(crate) fn get_with<T: Turn, R>(
        self,
        turn: T,
        deadline: Deadline,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, GetError> {
        let me = turn.identity(self.segment).map_err(GetError::Io)?;
        let (message, slept) = self.turn_to_get::<T>(me, deadline)?;
        let unlock = UnlockGet { channel: self, me, turn: PhantomData::<T> };
        let hold = (!T::HELD).then(|| Hold::new(self.get_key(), me));
        let taken = message.bytes.lend(read);
        drop(hold);
        std::mem::forget(unlock);
        self.finish_get::<T, _>(me, message.run(), Ok(taken), slept)
    }

    /// Gets up to `max` messages, of which `take` copies each one out. Blocks while there is none, until the
    /// deadline, and then takes what is there. How many.
    ///
    /// Killed in the middle: all of them are gone with this process or none is.
    pub(crate) fn get_many<T: Turn>(
        self,
        turn: T,
        max: usize,
        deadline: Deadline,
        mut take: impl FnMut(&Message<'_>) -> Result<(), Box<GetError>>,
    ) -> Result<usize, GetError> {
        if max == 0 {
            return Ok(0);
        }
        let me = turn.identity(self.segment).map_err(GetError::Io)?;
        let (mut message, slept) = self.turn_to_get::<T>(me, deadline)?;
        let ring = self.ring();
        if (message.pending as usize) < max
            && let Ok(Some(first)) = ring.look_for_first()
        {
            // The same message. More may have come behind it since this end last looked.
            message = first;
        }
        let mut taken = take(&message).map(|()| 1);
        while let Ok(count) = taken
            && count < max
            && let Ok(Some(next)) = ring.following(&message)
            // What cannot be taken now is there for the next call, which says why.
            && take(&next).is_ok()
        {
            message = next;
            taken = Ok(count + 1);
        }
        self.finish_get::<T, _>(me, message.run(), taken, slept)
    }

    /// Locks the get end and marks it as held. It blocks while somebody else has it, until the deadline.
    pub(crate) fn hold_get(self, deadline: Deadline) -> Result<(Identity, Hold), GetError> {
        let me = Once.identity(self.segment).map_err(GetError::Io)?;
        let patience = Patience::default();
        self.lock_get_open(me, deadline, &patience)?;
        self.ends().get.mutex.hold();
        Ok((me, Hold::new(self.get_key(), me)))
    }

    /// Gives the get end back. In a forked child it does nothing.
    pub(crate) fn release_get(self, me: Identity) {
        if me.is_current() {
            self.unlock_get_slowly(me);
        }
    }

    /// The get end, locked, and the first message. Whether it slept for that.
    #[inline(always)]
    fn turn_to_get<T: Turn>(self, me: Identity, deadline: Deadline) -> Result<(Message<'a>, bool), GetError> {
        match self.try_turn_to_get::<T>(me) {
            Some(message) => Ok((message, false)),
            None => self.wait_to_get::<T>(me, deadline),
        }
    }

    /// The same, if it is to be had at once.
    #[inline(always)]
    fn try_turn_to_get<T: Turn>(self, me: Identity) -> Option<Message<'a>> {
        if !T::HELD && !self.ends().get.mutex.try_lock(me) {
            return None;
        }
        let first = self.ring().first(|| !self.port.get_pace.lags()).ok().flatten();
        if first.is_none() && !T::HELD {
            self.unlock_get(me);
        }
        first
    }

    #[cold]
    #[inline(never)]
    fn wait_to_get<T: Turn>(self, me: Identity, deadline: Deadline) -> Result<(Message<'a>, bool), GetError> {
        let mut patience = Patience::default();
        loop {
            // A signal handler may have forked while we slept.
            if !me.is_current() {
                return Err(self.give_up_get(&patience, GetError::Io(forked())));
            }
            if !self.ring().first_is_known() {
                self.port.get_pace.lag();
            }
            if !T::HELD {
                self.make_way_for_held_get(&patience);
                self.lock_get_open(me, deadline, &patience)?;
            }
            let first = self.first();
            if let Ok(Some(message)) = first {
                return Ok((message, patience.slept));
            }
            if !T::HELD {
                self.unlock_get(me);
            }
            if let Err(error) = first {
                return Err(self.give_up_get(&patience, error.into()));
            }
            match self.wait_for_message(me, deadline, &mut patience) {
                Look::Ready => {}
                Look::Closed => return Err(GetError::Closed),
                Look::Nothing => return Err(self.give_up_get(&patience, GetError::Empty)),
            }
        }
    }

    /// The wake-up that ended our sleep may have been meant for somebody who has held the end since, and sleeps
    /// too: we are about to wait until it lets go.
    fn make_way_for_held_get(self, patience: &Patience) {
        if patience.slept && self.ends().get.mutex.look().is_held() {
            self.pass_on_message();
        }
    }

    /// Locks the get end, which nobody ever closes: where it says so, something else wrote there.
    ///
    /// Nobody waits for a turn in which there will be nothing to get: whoever has the end may never let go.
    fn lock_get_open(self, me: Identity, deadline: Deadline, patience: &Patience) -> Result<(), GetError> {
        if self.ends().get.mutex.try_lock(me) {
            return Ok(());
        }
        loop {
            let slice = match deadline {
                Deadline::Now => Deadline::Now,
                deadline => Deadline::At(deadline.within(LONGEST_SLICE)),
            };
            match self.lock_get(me, slice) {
                Ok(()) => return Ok(()),
                Err(Refused::Closed) => self.ends().get.mutex.reopen(),
                Err(Refused::Forked) => return Err(GetError::Io(forked())),
                Err(Refused::Deadlock) => return Err(GetError::Io(deadlock())),
                Err(Refused::Lost) => return Err(GetError::Io(lost(self.segment.lease()))),
                Err(Refused::TimedOut) => {
                    if self.look_for_message() == Look::Closed {
                        return Err(GetError::Closed);
                    }
                }
            }
            if deadline.has_passed() {
                return Err(self.give_up_get(patience, GetError::Empty));
            }
        }
    }

    /// The first message, by a look at the other side if need be. For the owner of the get end.
    fn first(self) -> Result<Option<Message<'a>>, Corrupt> {
        let ring = self.ring();
        if let Some(message) = ring.first_known() {
            return Ok(Some(message));
        }
        let first = ring.look_for_first()?;
        self.port.get_pace.found(first.map_or(0, |message| message.pending));
        Ok(first)
    }

    /// Commits what was taken, unlocks and wakes. In a forked child it does none of that.
    #[inline(always)]
    fn finish_get<T: Turn, R>(
        self,
        me: Identity,
        run: Run,
        taken: Result<R, Box<GetError>>,
        slept: bool,
    ) -> Result<R, GetError> {
        if !me.is_current() {
            return Err(GetError::Io(forked()));
        }
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.abandon_get::<T>(me);
                return Err(*error);
            }
        };
        let ring = self.ring();
        if T::HELD {
            ring.commit_held_get(run);
        } else {
            ring.commit_get(run);
        }
        if ring.shape.is_sparse() && ring.leaves_memory(&run) {
            self.shrink(me);
        }
        if !T::HELD {
            self.unlock_get(me);
        }
        self.ends().not_full.0.notify(run.messages());
        if slept {
            self.pass_on_message();
        }
        Ok(taken)
    }

    /// Gives back the memory behind the head of a sparse ring, when the head has left a chunk.
    ///
    /// Killed before it or in the middle: the next owner does it. That it was done is stored last, and producers keep
    /// clear of the chunks until then.
    #[cold]
    #[inline(never)]
    pub(super) fn shrink(self, me: Identity) {
        let Some(chunks) = self.ring().reclaimable() else { return };
        // In a child that was forked meanwhile, the parent may have gone on and others may have put something there.
        // A handle that has lost its file leaves it to the others.
        if me.is_current() && chunks.iter().all(|chunk| self.segment.free(self.port.lane, *chunk)) {
            self.ring().reclaimed();
        }
    }

    #[cold]
    fn abandon_get<T: Turn>(self, me: Identity) {
        if !T::HELD {
            self.unlock_get(me);
        }
        self.pass_on_message();
    }
}

/// Unlocks the get end if the user's code panics.
struct UnlockGet<'a, T: Turn> {
    channel: Channel<'a>,
    me: Identity,
    turn: PhantomData<T>,
}

impl<T: Turn> Drop for UnlockGet<'_, T> {
    fn drop(&mut self) {
        self.channel.abandon_get::<T>(self.me);
    }
}
