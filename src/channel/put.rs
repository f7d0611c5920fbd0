//! Putting: one message, one written in place, or many.

use std::io;
use std::marker::PhantomData;

use super::{Channel, Look, Once, Partly, Patience, Turn, forked, lost};
use crate::atomic::pause;
use crate::deadline::Deadline;
use crate::error::{Corrupt, PutError};
use crate::ring::{Cursor, Run};
use crate::sync::holds::Hold;
use crate::sync::mutex::Refused;
use crate::sys::deadlock;
use crate::sys::lease::Identity;

/// Looks of some 10 us: about what it costs to give memory to a longest message of 8 KiB and to take it away again.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 32 };
/// Between two of them: each takes the line with the cursor away from those who get.
const PAUSES: u32 = if cfg!(loom) { 1 } else { 8 };
/// As many rounds of these come to what a whole chunk costs.
const ROUNDS: u32 = 30;
/// A round in which less was taken than its time is worth counts as so many: others may have been interrupted.
const IDLE_ROUND: u32 = 8;

impl Channel<'_> {
    /// Puts one message. Blocks while there is no room, until the deadline.
    #[inline(always)]
    pub(crate) fn put<T: Turn>(self, turn: T, message: &[u8], deadline: Deadline) -> Result<(), PutError> {
        self.check_len(message.len())?;
        // What follows stands here once more out of line: merged with the slow way it would go through memory.
        if let Some(me) = turn.known(self.segment)
            && let Some(run) = self.try_turn_to_put::<T>(me)
        {
            self.grow::<T>(me, &run, message.len())?;
            let run = self.ring().write(run, message);
            return self.finish_put::<T>(me, run, false);
        }
        self.put_slowly(turn, message, deadline)
    }

    #[cold]
    #[inline(never)]
    fn put_slowly<T: Turn>(self, turn: T, message: &[u8], deadline: Deadline) -> Result<(), PutError> {
        let me = turn.identity(self.segment).map_err(PutError::Io)?;
        let (run, slept) = self.turn_to_put::<T>(me, deadline)?;
        self.grow::<T>(me, &run, message.len())?;
        let run = self.ring().write(run, message);
        self.finish_put::<T>(me, run, slept)
    }

    /// Puts one message of `len` bytes that `fill` writes where it is to lie, while the end is locked.
    ///
    /// Killed in `fill`, or if it panics: nothing was put. Stopped there: others wait within their deadlines.
    #[inline]
    pub(crate) fn put_with<T: Turn>(
        self,
        turn: T,
        len: usize,
        deadline: Deadline,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), PutError> {
        self.check_len(len)?;
        let me = turn.identity(self.segment).map_err(PutError::Io)?;
        let (run, slept) = self.turn_to_put::<T>(me, deadline)?;
        if T::HELD && self.is_closed() {
            // The commit would find that out, but only after `fill` has run for nothing.
            return Err(PutError::Closed);
        }
        self.grow::<T>(me, &run, len)?;
        let unlock = UnlockPut { channel: self, me, turn: PhantomData::<T> };
        let hold = (!T::HELD).then(|| Hold::new(self.put_key(), me));
        let run = self.ring().write_with(run, len, fill);
        drop(hold);
        std::mem::forget(unlock);
        self.finish_put::<T>(me, run, slept)
    }

    /// Puts so many messages in runs, as many at a time as there is room for, until all are in or the deadline has
    /// passed. How many went in, with an error.
    ///
    /// Killed in the middle of a run: all of that run or none of it is in.
    pub(crate) fn put_many<'m, T: Turn>(
        self,
        turn: T,
        count: usize,
        message: impl Fn(usize) -> &'m [u8],
        deadline: Deadline,
    ) -> Result<(), Partly<PutError>> {
        (0..count).try_for_each(|at| self.check_len(message(at).len())).map_err(|error| (0, error))?;
        let me = turn.identity(self.segment).map_err(|error| (0, PutError::Io(error)))?;
        let mut done = 0;
        while done < count {
            let (mut run, slept) = self.turn_to_put::<T>(me, deadline).map_err(|error| (done, error))?;
            let ring = self.ring();
            let mut next = done;
            let mut written = Ok(run);
            while next < count {
                if next > done && !ring.has_room_after(&run) && !self.find_room_after(&mut run) {
                    break;
                }
                if let Err(error) = self.give_memory(me, &run, message(next).len()) {
                    if next == done {
                        return Err((done, self.abandon_put::<T>(me, error)));
                    }
                    break;
                }
                written = ring.write(run, message(next));
                let Ok(longer) = written else { break };
                run = longer;
                next += 1;
            }
            self.finish_put::<T>(me, written, slept).map_err(|error| (done, error))?;
            done = next;
        }
        Ok(())
    }

    /// Locks the put end and marks it as held. It blocks while somebody else has it, until the deadline.
    pub(crate) fn hold_put(self, deadline: Deadline) -> Result<(Identity, Hold), PutError> {
        let me = Once.identity(self.segment).map_err(PutError::Io)?;
        let patience = Patience::default();
        self.lock_put(me, deadline).map_err(|refused| self.refused_put(&refused, &patience))?;
        if self.ends().put.mutex.hold() {
            self.release_put(me);
            return Err(PutError::Closed);
        }
        // Not closed: a mark in the tail would be nonsense from outside, and fail every commit.
        self.ends().put.side.reopen();
        if self.is_closed() {
            // Closed in between: whoever closed it may have set the mark before it was cleared.
            self.release_put(me);
            return Err(PutError::Closed);
        }
        Ok((me, Hold::new(self.put_key(), me)))
    }

    /// Gives the put end back. In a forked child it does nothing.
    pub(crate) fn release_put(self, me: Identity) {
        if me.is_current() {
            self.unlock_put_slowly(me);
        }
    }

    fn check_len(self, len: usize) -> Result<(), PutError> {
        let max = self.port.shape.max_message;
        if len > max { Err(PutError::TooLong { len, max }) } else { Ok(()) }
    }

    /// The put end, locked, and room for a longest message behind the tail, where a run begins. Whether it slept for
    /// that.
    #[inline(always)]
    fn turn_to_put<T: Turn>(self, me: Identity, deadline: Deadline) -> Result<(Run, bool), PutError> {
        if let Some(tail) = self.try_turn_to_put::<T>(me) {
            return Ok((tail, false));
        }
        self.wait_to_put::<T>(me, deadline)
    }

    /// The same, if it is to be had at once.
    #[inline(always)]
    fn try_turn_to_put<T: Turn>(self, me: Identity) -> Option<Run> {
        if !T::HELD && !self.ends().put.mutex.try_lock(me) {
            return None;
        }
        let ring = self.ring();
        let mut run = ring.tail();
        if ring.has_room_after(&run) || (!self.port.put_pace.lags() && self.find_room_after(&mut run)) {
            return Some(run);
        }
        if !T::HELD {
            self.unlock_put(me);
        }
        None
    }

    /// Whether there is room behind `run`, by a look at the other side. Where the next message goes may change with it.
    #[inline(always)]
    fn find_room_after(self, run: &mut Run) -> bool {
        let place = self.look_for_place(run.next());
        if let Some(place) = place {
            run.go_on_at(place);
        }
        place.is_some()
    }

    /// Out of line, so that what it needs does not take registers from who does not look.
    #[cold]
    #[inline(never)]
    fn look_for_place(self, next: Cursor) -> Option<Cursor> {
        self.ring().look_for_room(next, false).ok().flatten()
    }

    #[cold]
    #[inline(never)]
    fn wait_to_put<T: Turn>(self, me: Identity, deadline: Deadline) -> Result<(Run, bool), PutError> {
        let mut patience = Patience::default();
        loop {
            // A signal handler may have forked while we slept.
            if !me.is_current() {
                return Err(self.give_up_put(&patience, PutError::Io(forked())));
            }
            if !self.ring().room_is_known() {
                self.port.put_pace.lag();
            }
            if !T::HELD {
                self.make_way_for_held_put(&patience);
                self.lock_put(me, deadline).map_err(|refused| self.refused_put(&refused, &patience))?;
            }
            let room = self.room();
            if let Ok(Some(run)) = room {
                return Ok((run, patience.slept));
            }
            if !T::HELD {
                self.unlock_put(me);
            }
            if let Err(error) = room {
                return Err(self.give_up_put(&patience, error.into()));
            }
            if self.port.shape.is_sparse() {
                return Err(self.give_up_put(&patience, PutError::NoSpace));
            }
            match self.wait_for_room(me, deadline, &mut patience) {
                Look::Ready => {}
                Look::Closed => return Err(PutError::Closed),
                Look::Nothing => return Err(self.give_up_put(&patience, PutError::Full)),
            }
        }
    }

    /// The wake-up that ended our sleep may have been meant for somebody who has held the end since, and sleeps
    /// too: we are about to wait until it lets go.
    fn make_way_for_held_put(self, patience: &Patience) {
        if patience.slept && self.ends().put.mutex.look().is_held() {
            self.pass_on_room();
        }
    }

    #[cold]
    fn refused_put(self, refused: &Refused, patience: &Patience) -> PutError {
        match refused {
            Refused::Closed => PutError::Closed,
            Refused::Forked => PutError::Io(forked()),
            Refused::Deadlock => PutError::Io(deadlock()),
            Refused::Lost => PutError::Io(lost(self.segment.lease())),
            Refused::TimedOut => self.give_up_put(patience, PutError::Full),
        }
    }

    /// Sees to it that a message of `len` bytes can be written behind `run`, or gives the turn up.
    #[inline(always)]
    fn grow<T: Turn>(self, me: Identity, run: &Run, len: usize) -> Result<(), PutError> {
        self.give_memory(me, run, len).map_err(|error| self.abandon_put::<T>(me, error))
    }

    /// The same, and keeps the turn: a sparse ring may need memory for the message.
    #[inline(always)]
    fn give_memory(self, me: Identity, run: &Run, len: usize) -> Result<(), PutError> {
        match self.ring().unallocated(run, len) {
            Some(part) => self.allocate(me, part),
            None => Ok(()),
        }
    }

    /// Gives memory to a part of the ring behind the tail. Where there is not enough for all of it, what it got is given
    /// back: others may have use for it.
    #[cold]
    #[inline(never)]
    fn allocate(self, me: Identity, part: (usize, usize)) -> Result<(), PutError> {
        let Err(error) = self.segment.allocate(self.port.lane, part) else {
            if me.is_current() {
                self.ring().allocated(part);
            }
            return Ok(());
        };
        // In a child that was forked meanwhile, the parent may have put something there.
        if me.is_current() {
            self.segment.free(self.port.lane, part);
        }
        Err(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory => {
                PutError::NoSpace
            }
            _ => PutError::Io(error),
        })
    }

    /// Gives back what a dead owner of the put end got memory for and did not commit: a batch may have been long.
    ///
    /// Killed in the middle: the next one to take over does it again.
    #[cold]
    pub(super) fn give_back(self, me: Identity) {
        let parts = self.ring().unused();
        if me.is_current() {
            for part in parts {
                self.segment.free(self.port.lane, part);
            }
        }
    }

    /// Where behind the tail there is room, by a look at the other side if need be. For the owner of the put end.
    fn room(self) -> Result<Option<Run>, Corrupt> {
        let ring = self.ring();
        let mut run = ring.tail();
        if ring.room_is_known() {
            return Ok(Some(run));
        }
        let before = ring.head_seen();
        let place = self.look_for_room_longer(run.next())?;
        let taken = ring.head_seen().wrapping_sub(before);
        self.port.put_pace.found(if place.is_some() { taken } else { 0 });
        Ok(place.map(|place| {
            run.go_on_at(place);
            run
        }))
    }

    /// Where the message that would go to `next` has room, by a look at the other side.
    ///
    /// Out of a sparse ring's full basin only if those who get take less in the meantime than memory for as much would
    /// cost, or if that has gone on for as long as memory for a chunk would.
    fn look_for_room_longer(self, next: Cursor) -> Result<Option<Cursor>, Corrupt> {
        let ring = self.ring();
        let mut place = ring.look_for_room(next, false)?;
        let mut taken = ring.bytes_taken();
        let mut rounds = if self.port.shape.is_sparse() { ROUNDS } else { 0 };
        while place.is_none() && rounds > 0 {
            for _ in 0..LOOKS {
                for _ in 0..PAUSES {
                    pause();
                }
                place = ring.look_for_room(next, false)?;
                if place.is_some() && ring.has_much_room_in_basin() {
                    return Ok(place);
                }
            }
            let before = std::mem::replace(&mut taken, ring.bytes_taken());
            let is_idle = taken.wrapping_sub(before) < self.port.shape.max_message as u64;
            rounds = rounds.saturating_sub(if is_idle { IDLE_ROUND } else { 1 });
        }
        if place.is_some() { Ok(place) } else { ring.look_for_room(next, true) }
    }

    /// Commits, unlocks and wakes. In a forked child it does none of that.
    #[inline(always)]
    fn finish_put<T: Turn>(
        self,
        me: Identity,
        run: Result<Run, Corrupt>,
        slept: bool,
    ) -> Result<(), PutError> {
        let run = match run {
            Ok(run) if me.is_current() => run,
            Ok(_) => return Err(PutError::Io(forked())),
            Err(error) => return Err(self.abandon_put::<T>(me, error.into())),
        };
        if T::HELD {
            if !self.ring().commit_held_put(run) {
                return Err(self.lost_put());
            }
        } else {
            self.ring().commit_put(run);
            self.unlock_put(me);
        }
        self.ends().not_empty.0.notify(run.messages());
        if slept {
            self.pass_on_room();
        }
        Ok(())
    }

    #[cold]
    fn abandon_put<T: Turn>(self, me: Identity, error: PutError) -> PutError {
        if !T::HELD {
            self.unlock_put(me);
        }
        self.pass_on_room();
        error
    }

    /// Why the commit of a holder failed.
    #[cold]
    fn lost_put(self) -> PutError {
        if self.is_closed() {
            return PutError::Closed;
        }
        Corrupt("the tail changed while the put end was held").into()
    }
}

/// Unlocks the put end if the user's code panics.
struct UnlockPut<'a, T: Turn> {
    channel: Channel<'a>,
    me: Identity,
    turn: PhantomData<T>,
}

impl<T: Turn> Drop for UnlockPut<'_, T> {
    fn drop(&mut self) {
        if !T::HELD {
            self.channel.unlock_put(self.me);
        }
        self.channel.pass_on_room();
    }
}
