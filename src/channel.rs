//! Blocking put and get of bytes: a ring, a mutex for each end, and two condition variables.
//!
//! What each step of a put and a get leaves behind when the process is killed there is a table in
//! `docs/design.md`; the states of the words are described where the words are declared.

use std::io;

use crate::atomic::{AtomicU64, Ordering};
use crate::deadline::Deadline;
use crate::error::{Corrupt, GetError, PutError};
use crate::layout::{End, Ends};
use crate::ring::{Message, Ring};
use crate::sync::condvar::Condvar;
use crate::sync::mutex::{LONGEST_SLICE, Refused, Taken, Word};
use crate::sync::pace::{Pace, Spun};
use crate::sys::lease::{Identity, Lease};

/// A view of one channel of an attached segment, made for each call.
#[derive(Clone, Copy)]
pub(crate) struct Channel<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) ends: &'a Ends,
    pub(crate) recoveries: &'a AtomicU64,
    pub(crate) ring: Ring<'a>,
    pub(crate) paces: &'a Paces,
}

/// What this handle has learnt about waiting, for each end.
#[derive(Debug)]
pub(crate) struct Paces {
    put: Pace,
    get: Pace,
}

impl Paces {
    pub(crate) fn new() -> Self {
        Self { put: Pace::new(), get: Pace::new() }
    }
}

/// What a look at the queue, without any lock, says about going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The operation can go on, or has something to report.
    Ready,
    /// There is nothing to wait for any more.
    Closed,
    Nothing,
}

/// How far a call has come with its waiting.
#[derive(Default)]
struct Patience {
    /// It slept, so a wake-up meant for somebody else may have ended with it.
    slept: bool,
    /// The deadline has passed, and the last look has been had.
    over: bool,
}

/// The process was forked in the middle of the call, and this is the child.
fn forked() -> io::Error {
    io::Error::other(
        "the process forked in the middle of this call; in the child it has done nothing, call it again",
    )
}

/// Methods take the view by value: only a call that leaves the fast path has it put into memory.
impl<'a> Channel<'a> {
    /// Puts one message. Blocks while there is no room, until the deadline.
    #[inline]
    pub(crate) fn put(self, me: Identity, message: &[u8], deadline: Deadline) -> Result<(), PutError> {
        let max = self.ring.shape.max_message;
        if message.len() > max {
            return Err(PutError::TooLong { len: message.len(), max });
        }
        if self.ends.put.mutex.try_lock(me) {
            if self.ring.room_is_known() || (!self.paces.put.lags() && self.ring.look_for_room() == Ok(true))
            {
                let put = self.write(me, message);
                return self.finish_put(me, put, false);
            }
            self.unlock_put(me);
        }
        self.put_slowly(me, message, deadline)
    }

    #[cold]
    #[inline(never)]
    fn put_slowly(self, me: Identity, message: &[u8], deadline: Deadline) -> Result<(), PutError> {
        let mut patience = Patience::default();
        loop {
            // A signal handler may have forked while we slept.
            if !me.is_current() {
                return Err(PutError::Io(forked()));
            }
            if !self.ring.room_is_known() {
                self.paces.put.lag();
            }
            match self.lock_put(me, deadline) {
                Ok(()) => {}
                Err(Refused::Closed) => return Err(PutError::Closed),
                Err(Refused::Forked) => return Err(PutError::Io(forked())),
                Err(Refused::TimedOut) => return Err(self.give_up_put(&patience, PutError::Full)),
            }
            match self.room() {
                Ok(true) => {
                    let put = self.write(me, message);
                    return self.finish_put(me, put, patience.slept);
                }
                Ok(false) => self.unlock_put(me),
                Err(error) => {
                    self.unlock_put(me);
                    return Err(self.give_up_put(&patience, error.into()));
                }
            }
            match self.wait_for_room(deadline, &mut patience) {
                Look::Ready => {}
                Look::Closed => return Err(PutError::Closed),
                Look::Nothing => return Err(self.give_up_put(&patience, PutError::Full)),
            }
        }
    }

    /// Whether there is room, by a look at the other side if need be. For the owner of the put end.
    fn room(self) -> Result<bool, Corrupt> {
        if self.ring.room_is_known() {
            return Ok(true);
        }
        let before = self.ring.head_seen();
        let room = self.ring.look_for_room()?;
        let taken = self.ring.head_seen().wrapping_sub(before);
        self.paces.put.found(if room { taken } else { 0 });
        Ok(room)
    }

    /// Writes and commits, where there is room. In a forked child it commits nothing.
    #[inline(always)]
    fn write(self, me: Identity, message: &[u8]) -> Result<(), Corrupt> {
        let written = self.ring.write(message)?;
        if me.is_current() {
            self.ring.commit_put(written);
        }
        Ok(())
    }

    #[inline(always)]
    fn finish_put(self, me: Identity, put: Result<(), Corrupt>, slept: bool) -> Result<(), PutError> {
        if !me.is_current() {
            return Err(PutError::Io(forked()));
        }
        self.unlock_put(me);
        self.ends.not_empty.0.notify(1);
        if slept {
            self.pass_on_room();
        }
        put.map_err(PutError::from)
    }

    /// Gets one message: `take` copies it out. Blocks while there is none, until the deadline.
    ///
    /// `take` runs while the end is locked. The message is removed after it has returned `Ok`.
    #[inline]
    pub(crate) fn get<R>(
        self,
        me: Identity,
        deadline: Deadline,
        take: impl FnOnce(&Message<'_>) -> Result<R, GetError>,
    ) -> Result<R, GetError> {
        if self.ends.get.mutex.try_lock(me) {
            let mut first = self.ring.first_known();
            if first.is_none() && !self.paces.get.lags() {
                first = self.ring.look_for_first().ok().flatten();
            }
            if let Some(message) = first {
                let taken = take(&message);
                return self.finish_get(me, &message, taken, false);
            }
            self.unlock_get(me);
        }
        let (message, slept) = self.wait_for_first(me, deadline)?;
        let taken = take(&message);
        self.finish_get(me, &message, taken, slept)
    }

    /// Waits for a message and comes back with the get end locked, and whether it slept.
    #[cold]
    #[inline(never)]
    fn wait_for_first(self, me: Identity, deadline: Deadline) -> Result<(Message<'a>, bool), GetError> {
        let mut patience = Patience::default();
        loop {
            if !me.is_current() {
                return Err(GetError::Io(forked()));
            }
            if !self.ring.first_is_known() {
                self.paces.get.lag();
            }
            match self.lock_get(me, deadline) {
                Ok(()) => {}
                Err(Refused::Closed) => {
                    // No get end is ever closed: something else wrote there.
                    self.ends.get.mutex.reopen();
                    continue;
                }
                Err(Refused::Forked) => return Err(GetError::Io(forked())),
                Err(Refused::TimedOut) => return Err(self.give_up_get(&patience, GetError::Empty)),
            }
            match self.first() {
                Ok(Some(message)) => return Ok((message, patience.slept)),
                Ok(None) => self.unlock_get(me),
                Err(error) => {
                    self.unlock_get(me);
                    return Err(self.give_up_get(&patience, error.into()));
                }
            }
            match self.wait_for_message(deadline, &mut patience) {
                Look::Ready => {}
                Look::Closed => return Err(GetError::Closed),
                Look::Nothing => return Err(self.give_up_get(&patience, GetError::Empty)),
            }
        }
    }

    /// The first message, by a look at the other side if need be. For the owner of the get end.
    fn first(self) -> Result<Option<Message<'a>>, Corrupt> {
        if let Some(message) = self.ring.first_known() {
            return Ok(Some(message));
        }
        let first = self.ring.look_for_first()?;
        self.paces.get.found(first.map_or(0, |message| message.pending));
        Ok(first)
    }

    #[inline(always)]
    fn finish_get<R>(
        self,
        me: Identity,
        message: &Message<'_>,
        taken: Result<R, GetError>,
        slept: bool,
    ) -> Result<R, GetError> {
        if !me.is_current() {
            return Err(GetError::Io(forked()));
        }
        if taken.is_err() {
            self.unlock_get(me);
            self.pass_on_message();
            return taken;
        }
        self.ring.commit_get(message);
        self.unlock_get(me);
        self.ends.not_full.0.notify(1);
        if slept {
            self.pass_on_message();
        }
        taken
    }

    fn lock_put(self, me: Identity, deadline: Deadline) -> Result<(), Refused> {
        if self.ends.put.mutex.lock(self.lease, me, deadline)? == Taken::FromTheDead {
            self.ring.refresh_put();
            self.recover();
        }
        Ok(())
    }

    fn lock_get(self, me: Identity, deadline: Deadline) -> Result<(), Refused> {
        if self.ends.get.mutex.lock(self.lease, me, deadline)? == Taken::FromTheDead {
            self.ring.refresh_get();
            self.recover();
        }
        Ok(())
    }

    /// After a take-over: the dead owner may have committed and not said so.
    #[cold]
    fn recover(self) {
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        self.ends.not_empty.0.notify_all();
        self.ends.not_full.0.notify_all();
    }

    #[inline(always)]
    fn unlock_put(self, me: Identity) {
        if me.is_current() && !self.ends.put.mutex.try_unlock(me) {
            self.unlock_put_slowly(me);
        }
    }

    #[cold]
    #[inline(never)]
    fn unlock_put_slowly(self, me: Identity) {
        if self.ends.put.mutex.unlock(me) {
            // Those who wait for the last put to leave may now find the end.
            self.ends.not_empty.0.notify_all();
        }
    }

    #[inline(always)]
    fn unlock_get(self, me: Identity) {
        if me.is_current() && !self.ends.get.mutex.try_unlock(me) {
            self.ends.get.mutex.unlock(me);
        }
    }

    #[inline(never)]
    fn wait_for_room(self, deadline: Deadline, patience: &mut Patience) -> Look {
        let glance = || !self.ring.looks_full();
        wait(&self.ends.not_full.0, &self.paces.put, deadline, patience, glance, || self.look_for_room())
    }

    #[inline(never)]
    fn wait_for_message(self, deadline: Deadline, patience: &mut Patience) -> Look {
        let glance = || !self.ring.looks_empty();
        wait(&self.ends.not_empty.0, &self.paces.get, deadline, patience, glance, || self.look_for_message())
    }

    /// Whether a put can go on. The order of the loads matters: see `sync::condvar`.
    pub(crate) fn look_for_room(self) -> Look {
        if self.ends.put.mutex.look().is_closed() {
            return Look::Closed;
        }
        self.ends.get.mutex.look();
        if self.ring.looks_full() { Look::Nothing } else { Look::Ready }
    }

    /// Whether a get can go on. The order of the loads matters: see `sync::condvar`.
    ///
    /// `Closed` is said only once nothing can come any more: the lock word was closed, no put that got
    /// in before was still inside (a dead one is not), and *after that* the ring was still empty.
    pub(crate) fn look_for_message(self) -> Look {
        let put = self.ends.put.mutex.look();
        if !self.ring.looks_empty() {
            return Look::Ready;
        }
        if !put.is_closed() {
            return Look::Nothing;
        }
        self.end_held_puts(put);
        if put.caller_inside().is_some_and(|owner| self.is_alive(owner)) {
            return Look::Nothing;
        }
        if self.ring.looks_empty() { Look::Closed } else { Look::Ready }
    }

    fn is_alive(self, owner: u32) -> bool {
        // Our own id: another thread of this handle. The kernel does not show us our own lease.
        self.lease.identity().is_some_and(|me| me.id() == owner) || self.lease.is_alive(owner)
    }

    /// Hands a wake-up on, if there is something to be had for it.
    #[cold]
    fn pass_on_message(self) {
        if self.look_for_message() != Look::Nothing {
            self.ends.not_empty.0.notify(1);
        }
    }

    #[cold]
    fn pass_on_room(self) {
        if self.look_for_room() != Look::Nothing {
            self.ends.not_full.0.notify(1);
        }
    }

    #[cold]
    fn give_up_put(self, patience: &Patience, error: PutError) -> PutError {
        if patience.slept {
            self.pass_on_room();
        }
        // Closed beats Full.
        if matches!(error, PutError::Full) && self.is_closed() { PutError::Closed } else { error }
    }

    #[cold]
    fn give_up_get(self, patience: &Patience, error: GetError) -> GetError {
        if patience.slept {
            self.pass_on_message();
        }
        error
    }

    /// Closes the channel for everybody. Takes no lock, waits for nobody.
    ///
    /// Killed after the first store: it is closed; sleepers find out at the end of their slice, and
    /// whoever looks for a message does the second.
    pub(crate) fn close(self) {
        let put = self.ends.put.mutex.close();
        self.end_held_puts(put);
        self.ends.put.mutex.wake_all();
        self.ends.get.mutex.wake_all();
        self.ends.not_empty.0.notify_all();
        self.ends.not_full.0.notify_all();
    }

    /// Who holds the put end for long commits without looking at the lock word, so the closed bit is set
    /// in the tail as well. Only then: the tail of an ordinary put is stored by its owner alone.
    fn end_held_puts(self, put: Word) {
        if put.is_held() {
            self.ends.put.side.close();
        }
    }

    pub(crate) fn is_closed(self) -> bool {
        self.ends.put.mutex.look().is_closed()
    }

    /// Every lock word of the channel still owned by `id` is made one of the unknown dead.
    pub(crate) fn bury(ends: &Ends, id: u32) {
        for End { mutex, .. } in [&ends.put, &ends.get] {
            mutex.bury(id);
        }
    }
}

/// Spins, then sleeps, until `look` finds something or the deadline has passed. A `glance` is the part of
/// the look that needs nothing but the cursors.
fn wait(
    condvar: &Condvar,
    pace: &Pace,
    deadline: Deadline,
    patience: &mut Patience,
    glance: impl Fn() -> bool,
    look: impl Fn() -> Look,
) -> Look {
    if patience.over {
        return Look::Nothing;
    }
    if !deadline.has_passed() {
        if !patience.slept {
            let found = || Some(look()).filter(|look| *look != Look::Nothing);
            match pace.spin(deadline, glance, found) {
                Spun::Glanced => return Look::Ready,
                Spun::Found(look) => return look,
                Spun::InVain => {}
            }
        }
        while !deadline.has_passed() {
            let prepared = condvar.prepare();
            let found = look();
            if found != Look::Nothing {
                return found;
            }
            patience.slept = true;
            condvar.sleep(prepared, deadline.within(LONGEST_SLICE));
        }
    }
    // One last look: what came while the time ran out is not left lying.
    patience.over = true;
    look()
}
