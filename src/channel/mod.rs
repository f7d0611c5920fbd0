//! Blocking put and get of bytes: a ring, a mutex for each end, and two condition variables.
//!
//! This file has what both directions share: looking, waiting, closing, and putting right what a dead owner
//! left. `put` and `get` have the calls. What each step of theirs leaves behind when the process is killed
//! there is a table in `docs/design.md`; the states of the words are described where the words are declared.

mod get;
mod put;

use std::io;

use crate::atomic::Ordering;
use crate::attachment::Attachment;
use crate::deadline::Deadline;
use crate::error::{GetError, PutError};
use crate::layout::{Ends, Lane, Place};
use crate::membership;
use crate::ring::{Ring, Shape};
use crate::sync::condvar::Condvar;
use crate::sync::holds::Key;
use crate::sync::mutex::{Refused, Taken, Word};
use crate::sync::pace::{Pace, Spun};
use crate::sys::lease::{Identity, Lease};
use crate::sys::ofd::Class;

/// A handle's own side of a channel: what it is like, and what the handle has learnt about waiting.
pub(crate) struct Port {
    lane: Lane,
    place: Place,
    pub(crate) shape: Shape,
    /// Of a pipe: the classes of those who put and of those who get. When one ends, so does the channel.
    classes: Option<Classes>,
    put_pace: Pace,
    get_pace: Pace,
}

/// The two ends of a channel of a pipe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Classes {
    pub(crate) put: Class,
    pub(crate) get: Class,
}

impl Port {
    /// Of one of the channels of a segment. Only those of a pipe have classes.
    pub(crate) fn new(segment: &Attachment, lane: Lane, classes: Option<Classes>) -> Self {
        let geometry = segment.geometry();
        let (place, shape) = (geometry.place(lane), geometry.shape);
        Self { lane, place, shape, classes, put_pace: Pace::new(), get_pace: Pace::new() }
    }
}

/// A channel of an attached segment, as one handle sees it. Made for each call, and of two words: what has more is
/// passed through memory to each of the slow ways.
#[derive(Clone, Copy)]
pub(crate) struct Channel<'a> {
    segment: &'a Attachment,
    port: &'a Port,
}

/// How the caller has the end that it works on. A type, so that each way has a fast path of its own.
pub(crate) trait Turn: Copy {
    /// Whether it holds the end, for this call and more; else the call locks the end and unlocks it again.
    const HELD: bool;

    /// Under which identity the call acts. `None` in a forked child that has to join the segment first; an end that
    /// its parent holds is none of its own, and it must not touch the ring with it.
    fn known(self, segment: &Attachment) -> Option<Identity>;

    /// Where no identity is known: joins the segment, or says why the call cannot be made.
    fn join(self, segment: &Attachment) -> io::Result<Identity>;

    #[inline]
    fn identity(self, segment: &Attachment) -> io::Result<Identity> {
        match self.known(segment) {
            Some(me) => Ok(me),
            None => self.join(segment),
        }
    }
}

/// The call locks the end, and unlocks it again.
#[derive(Clone, Copy)]
pub(crate) struct Once;

/// The caller holds the end under this identity.
#[derive(Clone, Copy)]
pub(crate) struct Held(pub(crate) Identity);

impl Turn for Once {
    const HELD: bool = false;

    #[inline]
    fn known(self, segment: &Attachment) -> Option<Identity> {
        segment.lease().identity()
    }

    #[cold]
    fn join(self, segment: &Attachment) -> io::Result<Identity> {
        segment.identity()
    }
}

impl Turn for Held {
    const HELD: bool = true;

    #[inline]
    fn known(self, _: &Attachment) -> Option<Identity> {
        self.0.is_current().then_some(self.0)
    }

    #[cold]
    fn join(self, _: &Attachment) -> io::Result<Identity> {
        Err(forked())
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

/// Why the handle cannot wait for an end that another process owns.
#[cold]
fn lost(lease: &Lease) -> io::Error {
    lease.verified_fd().err().unwrap_or_else(forked)
}

/// The process was forked in the middle of the call, and this is the child.
fn forked() -> io::Error {
    io::Error::other(
        "the process forked in the middle of this call or while it held the end; in the child it has done nothing: \
         make the call again, with an end of the child's own",
    )
}

impl<'a> Channel<'a> {
    #[inline]
    pub(crate) fn new(segment: &'a Attachment, port: &'a Port) -> Self {
        Self { segment, port }
    }

    #[inline]
    fn ends(self) -> &'a Ends {
        self.segment.channel(self.port.place).0
    }

    #[inline]
    pub(crate) fn ring(self) -> Ring<'a> {
        let (ends, bytes) = self.segment.channel(self.port.place);
        Ring { shape: self.port.shape, bytes, put: &ends.put.side, get: &ends.get.side }
    }

    fn put_key(self) -> Key {
        Key { nonce: self.segment.nonce(), lock: 2 * self.port.lane as u32 }
    }

    fn get_key(self) -> Key {
        Key { nonce: self.segment.nonce(), lock: 2 * self.port.lane as u32 + 1 }
    }

    /// Whether nobody will ever get from this channel again. Never of a queue.
    pub(crate) fn is_deserted(self) -> bool {
        self.port.classes.is_some_and(|classes| membership::has_ended(self.segment, classes.get))
    }

    /// Whether nobody will ever put into this channel again. Never of a queue.
    fn is_abandoned(self) -> bool {
        self.port.classes.is_some_and(|classes| membership::has_ended(self.segment, classes.put))
    }

    fn lock_put(self, me: Identity, deadline: Deadline) -> Result<(), Refused> {
        let lease = self.segment.lease();
        if self.ends().put.mutex.lock(self.put_key(), lease, me, deadline)? == Taken::FromTheDead {
            self.ring().refresh_put();
            if self.port.shape.is_sparse() {
                self.give_back(me);
            }
            self.recover();
        }
        Ok(())
    }

    fn lock_get(self, me: Identity, deadline: Deadline) -> Result<(), Refused> {
        let lease = self.segment.lease();
        if self.ends().get.mutex.lock(self.get_key(), lease, me, deadline)? == Taken::FromTheDead {
            self.ring().refresh_get();
            if self.port.shape.is_sparse() {
                self.shrink(me);
            }
            self.recover();
        }
        Ok(())
    }

    /// After a take-over: the dead owner may have committed and not said so.
    ///
    /// Killed before the count: the next one to take over counts one for both. After it: whoever sleeps
    /// looks for itself at the end of its slice.
    #[cold]
    fn recover(self) {
        self.segment.live().recoveries.fetch_add(1, Ordering::Relaxed);
        self.ends().not_empty.0.notify_all();
        self.ends().not_full.0.notify_all();
    }

    #[inline(always)]
    fn unlock_put(self, me: Identity) {
        if me.is_current() && !self.ends().put.mutex.try_unlock(me) {
            self.unlock_put_slowly(me);
        }
    }

    #[cold]
    #[inline(never)]
    fn unlock_put_slowly(self, me: Identity) {
        if self.ends().put.mutex.unlock(me) {
            // Those who wait for the last put to leave may now find the end.
            self.ends().not_empty.0.notify_all();
        }
    }

    #[inline(always)]
    fn unlock_get(self, me: Identity) {
        if me.is_current() && !self.ends().get.mutex.try_unlock(me) {
            self.unlock_get_slowly(me);
        }
    }

    #[cold]
    #[inline(never)]
    fn unlock_get_slowly(self, me: Identity) {
        self.ends().get.mutex.unlock(me);
    }

    /// In a child that was forked in the middle of it, it is `Ready` at once: the caller finds out.
    #[inline(never)]
    fn wait_for_room(self, me: Identity, deadline: Deadline, patience: &mut Patience) -> Look {
        let glance = || !self.ring().looks_full();
        let look = || if me.is_current() { self.look_for_room() } else { Look::Ready };
        wait(&self.ends().not_full.0, &self.port.put_pace, deadline, patience, glance, look)
    }

    /// Likewise.
    #[inline(never)]
    fn wait_for_message(self, me: Identity, deadline: Deadline, patience: &mut Patience) -> Look {
        let glance = || !self.ring().looks_empty();
        let look = || if me.is_current() { self.look_for_message() } else { Look::Ready };
        wait(&self.ends().not_empty.0, &self.port.get_pace, deadline, patience, glance, look)
    }

    /// Whether a put can go on. The order of the loads matters: see `sync::condvar`.
    pub(crate) fn look_for_room(self) -> Look {
        if self.ends().put.mutex.look().is_closed() || self.is_deserted() {
            return Look::Closed;
        }
        self.ends().get.mutex.look();
        if self.ring().looks_full() { Look::Nothing } else { Look::Ready }
    }

    /// Whether a get can go on. The order of the loads matters: see `sync::condvar`.
    ///
    /// `Closed` is said only once nothing can come any more: the lock word was closed, no put that got
    /// in before was still inside (a dead one is not), and *after that* the ring was still empty. Of a pipe: the
    /// last one who could put was gone, and *after that* the ring was still empty.
    pub(crate) fn look_for_message(self) -> Look {
        let put = self.ends().put.mutex.look();
        if !self.ring().looks_empty() {
            return Look::Ready;
        }
        if put.is_closed() {
            self.end_held_puts(put);
            if put.caller_inside().is_some_and(|owner| self.is_alive(owner)) {
                return Look::Nothing;
            }
        } else if !self.is_abandoned() {
            return Look::Nothing;
        }
        if self.ring().looks_empty() { Look::Closed } else { Look::Ready }
    }

    fn is_alive(self, owner: u32) -> bool {
        let lease = self.segment.lease();
        // Our own id: another thread of this handle. The kernel does not show us our own lease.
        lease.identity().is_some_and(|me| me.id() == owner) || lease.is_alive(owner)
    }

    /// Hands a wake-up on, if there is something to be had for it.
    #[cold]
    pub(crate) fn pass_on_message(self) {
        if self.look_for_message() != Look::Nothing {
            self.ends().not_empty.0.notify(1);
        }
    }

    #[cold]
    fn pass_on_room(self) {
        if self.look_for_room() != Look::Nothing {
            self.ends().not_full.0.notify(1);
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
        let ends = self.ends();
        let put = ends.put.mutex.close();
        self.end_held_puts(put);
        ends.put.mutex.wake_all();
        ends.get.mutex.wake_all();
        ends.not_empty.0.notify_all();
        ends.not_full.0.notify_all();
    }

    /// Who holds the put end commits without looking at the lock word, so the closed bit is set in the tail
    /// as well. Only then: the tail of an ordinary put is stored by its owner alone.
    fn end_held_puts(self, put: Word) {
        if put.is_held() {
            self.ends().put.side.close();
        }
    }

    /// What those who wait for a message sleep on.
    pub(crate) fn not_empty(self) -> &'a Condvar {
        &self.ends().not_empty.0
    }

    /// Whether the cursors make no sense together.
    pub(crate) fn is_corrupt(self) -> bool {
        self.ring().check().is_err()
    }

    /// Waits for a message or the end, and takes neither. False at the deadline.
    pub(crate) fn poll(self, deadline: Deadline) -> io::Result<bool> {
        let me = Once.identity(self.segment)?;
        let mut patience = Patience::default();
        let look = self.wait_for_message(me, deadline, &mut patience);
        if patience.slept {
            self.pass_on_message();
        }
        if !me.is_current() {
            return Err(forked());
        }
        Ok(look != Look::Nothing)
    }

    /// After the last one at an end has gone: those who wait for it at the other one look again.
    pub(crate) fn wake_all(self) {
        self.ends().not_empty.0.notify_all();
        self.ends().not_full.0.notify_all();
    }

    pub(crate) fn is_closed(self) -> bool {
        self.ends().put.mutex.look().is_closed()
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
    let found = || Some(look()).filter(|look| *look != Look::Nothing);
    if !deadline.has_passed() && !patience.slept {
        match pace.spin(deadline, glance, found) {
            Spun::Glanced => return Look::Ready,
            Spun::Found(look) => return look,
            Spun::InVain => {}
        }
    }
    let (found, slept) = condvar.wait(deadline, found);
    patience.slept |= slept;
    patience.over = deadline.has_passed();
    found.unwrap_or(Look::Nothing)
}

/// What a run ended with that could not be finished: how many messages went through before the error.
pub(crate) type Partly<E> = (usize, E);
