//! The ring: where messages lie, and which of them exist. A pure algorithm: no waiting, no locks.
//!
//! Whoever calls holds the lock of the end that it changes; the other end may move meanwhile.

#[path = "ring/peek.rs"]
pub(crate) mod peek;
#[path = "ring/sparse.rs"]
pub(crate) mod sparse;

use sparse::message_elsewhere;

use crate::atomic::{AtomicU64, Ordering, loom_fence};
use crate::error::Corrupt;
use crate::sys::region::{Region, Span};

/// Offsets are counted in these, so that 31 bits reach 16 GiB.
const UNIT: usize = 8;
/// The prefix of a slot: a `u32` length and a spare `u32`.
const PREFIX: usize = 8;
/// The longest ring, in bytes.
pub(crate) const LONGEST_RING: usize = ((1 << 31) - 1) * UNIT;
/// The capacity of a ring without a limit. Such a ring is *sparse*: as long as it can be, and only the chunks that
/// hold messages have memory.
pub(crate) const UNBOUNDED: u32 = 1 << 31;
/// How far behind the slot being written the processor is told to fetch; measured, see `docs/design.md`.
const AHEAD: usize = 512;
/// Memory comes and goes in pieces of this. The tests of this file are about rings of a few chunks.
pub(crate) const CHUNK: usize = if cfg!(test) { 64 } else { 256 << 10 };

/// Bytes that a slot takes for a message of `len` bytes.
pub(crate) const fn slot_len(len: usize) -> usize {
    PREFIX + ((len + (UNIT - 1)) & !(UNIT - 1))
}

/// What stands before a message of `len` bytes.
#[inline]
fn prefix(len: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "no longer than the longest message, which is 1 GiB")]
    let prefix = len as u32;
    prefix
}

/// How far one end has come: which message is next, and where its slot begins.
///
/// | bits     | meaning                                                     |
/// | -------- | ----------------------------------------------------------- |
/// | 63 to 32 | number of the message, wrapping                             |
/// | 31       | in a tail: closed, so that a held producer's commit fails   |
/// | 30 to 0  | offset of its slot in the ring, in units of 8 bytes         |
///
/// Storing a cursor is the only commit there is: before that store a message does not exist (or has not
/// been removed), after it it does (or has).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor(u64);

const CLOSED: u64 = 1 << 31;
const OFFSET: u64 = CLOSED - 1;

impl Cursor {
    const fn new(number: u32, offset: usize) -> Self {
        Self((number as u64) << 32 | (offset / UNIT) as u64)
    }

    #[inline]
    pub(crate) const fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    const fn offset(self) -> usize {
        (self.0 & OFFSET) as usize * UNIT
    }
}

/// One side's words in the segment.
///
/// | word         | written by                   | ordering                                              |
/// | ------------ | ---------------------------- | ----------------------------------------------------- |
/// | `cursor`     | the owner of this end's lock | Release: publishes the slot (or its emptiness)        |
/// | `cursor`     | who *holds* this end         | `SeqCst` read-modify-write: it is U of `sync::condvar` |
/// | `other_seen` | the owner of this end's lock | Relaxed: only the owner reads it                      |
/// | totals       | the owner of this end's lock | Relaxed: for the curious                              |
/// | `extent`     | the owner of this end's lock | Release: what was freed may be allocated again        |
/// | `basin_end`  | the owner of this end's lock | Relaxed: only the owner reads it                      |
/// | `beyond`     | the owner of this end's lock | Relaxed: published by the commit that follows         |
///
/// The last three are of use in a sparse ring only. `extent`, of the get end, is where the chunks that have memory begin,
/// the basin aside. Killed before its store: chunks were freed and nobody says so; the next owner frees them again, which
/// changes nothing, because producers keep clear of what is not said to be free. After it: it is said. Of the put end it is
/// how far the basin has memory. Killed before its store: what is there already is allocated again.
///
/// `basin_end`, of the put end, is the number of the first message that was put elsewhere when the basin was full, and
/// `beyond` where to put messages when it will be full again. Each is stored just before messages are written
/// elsewhere. Killed between that and the commit: the tail is where it was, and there the other word is of no use yet.
///
/// Others load the cursor with `SeqCst` (an Acquire that is also L of `sync::condvar` for an end that is held).
/// Stopped for an hour or killed before the store of `cursor`: the messages are not there (not removed),
/// and the bytes written meanwhile are nobody's. After it: they are there (removed), and only the totals
/// may lack them. `other_seen` is what the other cursor once was: an older queue that was legal then,
/// fuller (emptier) than now, so a wrong "no" costs one more look and a wrong "yes" cannot be.
///
/// The cursor lies apart: the other side spins on it, and would otherwise take the line with the lock
/// and the owner's own words away in the middle of each call.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Side {
    other_seen: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    extent: AtomicU64,
    basin_end: AtomicU64,
    beyond: AtomicU64,
    /// Up to the next pair of cache lines, where a side begins 8 bytes after one (asserted in `layout`).
    apart: [u64; 9],
    cursor: AtomicU64,
}

/// Where the cursor of a side lies.
#[cfg(not(loom))]
pub(crate) const CURSOR: usize = std::mem::offset_of!(Side, cursor);

impl Side {
    #[cfg(any(test, loom))]
    pub(crate) fn new() -> Self {
        Self {
            other_seen: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            extent: AtomicU64::new(0),
            basin_end: AtomicU64::new(0),
            beyond: AtomicU64::new(0),
            apart: [0; 9],
            cursor: AtomicU64::new(0),
        }
    }

    /// How many messages went through this end, and their bytes.
    ///
    /// The count is exact: the cursor has its last 32 bits, the total lags behind it at most by what
    /// processes were in the middle of when they died.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let messages = self.messages.load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "the last 32 bits")]
        let lag = self.load().number().wrapping_sub(messages as u32).cast_signed();
        (messages.wrapping_add_signed(lag.into()), self.bytes.load(Ordering::Relaxed))
    }

    #[inline]
    fn load(&self) -> Cursor {
        let cursor = self.cursor.load(Ordering::SeqCst);
        loom_fence();
        Cursor(cursor & !CLOSED)
    }

    #[inline]
    fn own(&self) -> Cursor {
        Cursor(self.cursor.load(Ordering::Relaxed) & !CLOSED)
    }

    /// The commit of a run, by who owns the lock for one call.
    #[inline]
    fn commit(&self, run: Run) {
        self.cursor.store(run.next.0, Ordering::Release);
        self.count(run);
    }

    /// The commit of a run, by who holds the put end. False if the tail has been marked as closed.
    #[inline]
    fn commit_unless_closed(&self, run: Run) -> bool {
        let committed = self
            .cursor
            .compare_exchange(run.first.0, run.next.0, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok();
        loom_fence();
        if committed {
            self.count(run);
        }
        committed
    }

    /// The commit of a run, by who holds the get end.
    #[inline]
    fn commit_held(&self, run: Run) {
        self.cursor.swap(run.next.0, Ordering::SeqCst);
        loom_fence();
        self.count(run);
    }

    #[inline]
    fn count(&self, run: Run) {
        let (messages, bytes) = (u64::from(run.messages()), run.bytes as u64);
        self.messages.store(self.messages.load(Ordering::Relaxed).wrapping_add(messages), Ordering::Relaxed);
        self.bytes.store(self.bytes.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }

    /// After the death of an owner, who may have committed and not counted. For the new owner.
    fn recount(&self) {
        self.messages.store(self.totals().0, Ordering::Relaxed);
    }

    /// Marks a tail as closed: the commits of a held producer fail from here on.
    pub(crate) fn close(&self) {
        self.cursor.fetch_or(CLOSED, Ordering::SeqCst);
        loom_fence();
    }

    /// Clears the closed mark of a channel that is not closed: something outside this library wrote it.
    pub(crate) fn reopen(&self) {
        self.cursor.fetch_and(!CLOSED, Ordering::SeqCst);
    }
}

/// Messages that have been written but do not exist yet, or been read but not been removed yet. Nothing of
/// it is in the segment.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct Run {
    first: Cursor,
    next: Cursor,
    messages: u32,
    bytes: usize,
}

impl Run {
    fn at(cursor: Cursor) -> Self {
        Self { first: cursor, next: cursor, messages: 0, bytes: 0 }
    }

    /// How many messages.
    #[inline]
    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// Where the next message goes.
    #[inline]
    pub(crate) fn next(&self) -> Cursor {
        self.next
    }

    /// The next message goes, or is, elsewhere in a sparse ring.
    #[inline]
    pub(crate) fn go_on_at(&mut self, next: Cursor) {
        self.next = next;
    }
}

/// The numbers of a ring. Private to the process: never read from the segment again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) capacity: u32,
    pub(crate) max_message: usize,
    /// Bytes within which a slot may begin; a multiple of 8.
    pub(crate) ring_len: usize,
    /// Where its first part ends: of a sparse ring the basin, else all of it.
    first_end: usize,
}

impl Shape {
    pub(crate) const fn new(capacity: u32, max_message: usize, ring_len: usize) -> Self {
        let first_end = if sparse::has_basin(capacity, max_message) { sparse::BASIN } else { ring_len };
        Self { capacity, max_message, ring_len, first_end }
    }

    /// Bytes that the ring takes: a slot may run past the end by all but its first 8 bytes.
    #[inline]
    pub(crate) const fn room(&self) -> usize {
        self.ring_len + slot_len(self.max_message) - UNIT
    }

    /// Whether there is no limit to the messages but memory.
    #[inline]
    pub(crate) const fn is_sparse(&self) -> bool {
        self.capacity == UNBOUNDED
    }

    /// How many messages lie between two cursors, which must make sense together.
    #[inline]
    fn pending(&self, head: Cursor, tail: Cursor) -> Result<u32, Corrupt> {
        if head.offset() >= self.ring_len || tail.offset() >= self.ring_len {
            return Err(Corrupt("a cursor lies outside the ring"));
        }
        let pending = tail.number().wrapping_sub(head.number());
        if pending > self.capacity {
            return Err(Corrupt("there are more messages than the capacity"));
        }
        if pending == 0 && head.offset() != tail.offset() {
            return Err(Corrupt("the queue is empty but its cursors differ"));
        }
        Ok(pending)
    }

    /// Whether the longest message fits behind `tail`. Not if the cursors make no sense together, as far as
    /// that can be told in passing.
    #[inline]
    fn has_room(&self, head: Cursor, tail: Cursor) -> bool {
        let pending = tail.number().wrapping_sub(head.number());
        // Where the tail is past the head the difference wraps, and is longer than any slot.
        let gap = head.offset().wrapping_sub(tail.offset());
        // Gaps are multiples of 8: it need not be rounded up.
        let need = PREFIX + self.max_message;
        // Nothing but the tail's offset is left to be asked where there are some messages and a gap behind them.
        if pending.wrapping_sub(1) < self.capacity.wrapping_sub(1) && gap >= need {
            return tail.offset() < self.ring_len;
        }
        pending == 0 && gap == 0 && self.capacity > 0 && tail.offset() < self.ring_len
    }

    #[inline]
    fn after(&self, cursor: Cursor, len: usize) -> Cursor {
        let end = cursor.offset() + slot_len(len);
        let number = cursor.number().wrapping_add(1);
        // The end of the first part is nearly always far.
        let next = if end < self.first_end { end } else { self.after_first(cursor.offset(), end) };
        Cursor::new(number, next)
    }
}

/// A ring in shared bytes.
#[derive(Clone, Copy)]
pub(crate) struct Ring<'a> {
    pub(crate) shape: Shape,
    pub(crate) bytes: Region<'a>,
    pub(crate) put: &'a Side,
    pub(crate) get: &'a Side,
}

/// A message in the ring, owned by whoever owns the get end's lock.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) bytes: Span<'a>,
    /// From the head up to this message and with it.
    run: Run,
    /// How many messages there are from the head on, at least.
    pub(crate) pending: u32,
}

impl Message<'_> {
    /// The messages from the head up to this one and with it.
    #[inline]
    pub(crate) fn run(&self) -> Run {
        self.run
    }
}

impl<'a> Ring<'a> {
    /// Nothing yet, behind the tail. For the owner of the put end.
    #[inline]
    pub(crate) fn tail(&self) -> Run {
        Run::at(self.put.own())
    }

    /// Whether the longest message fits behind `run`, as far as the owner of the put end knows.
    #[inline]
    pub(crate) fn has_room_after(&self, run: &Run) -> bool {
        let seen = Cursor(self.put.other_seen.load(Ordering::Relaxed));
        if self.shape.is_sparse() {
            return self.shape.has_room_nearby(seen, run.next);
        }
        self.shape.has_room(seen, run.next)
    }

    /// Whether the longest message fits, as far as the owner of the put end knows. A hint to others.
    #[inline]
    pub(crate) fn room_is_known(&self) -> bool {
        self.has_room_after(&self.tail())
    }

    /// Where the longest message fits that would go to `next`, by a look at the other side: in a sparse ring that may be
    /// elsewhere, but outside of a full basin only with `may_leave`. For the owner of the put end.
    pub(crate) fn look_for_room(&self, next: Cursor, may_leave: bool) -> Result<Option<Cursor>, Corrupt> {
        let head = self.get.load();
        self.shape.pending(head, next)?;
        if self.shape.is_sparse() {
            return self.look_around(head, next, may_leave);
        }
        self.put.other_seen.store(head.0, Ordering::Relaxed);
        Ok(self.shape.has_room(head, next).then_some(next))
    }

    /// How many bytes of messages have been taken, as far as whoever did has counted them.
    pub(crate) fn bytes_taken(&self) -> u64 {
        self.get.bytes.load(Ordering::Relaxed)
    }

    /// The number of the oldest message when the owner of the put end last looked.
    pub(crate) fn head_seen(&self) -> u32 {
        Cursor(self.put.other_seen.load(Ordering::Relaxed)).number()
    }

    /// Writes a message behind `run`, where there is room, without committing it; the run with it.
    #[inline]
    pub(crate) fn write(&self, run: Run, message: &[u8]) -> Result<Run, Corrupt> {
        let slot = run.next.offset();
        self.bytes.copy_in(slot, prefix(message.len()), message)?;
        // A lock or unlock waits until all stores before it are done, and those to the slot wait for lines that the
        // consumer still caches. Asked for some slots ahead, they are here by then.
        self.bytes.expect_write(slot + AHEAD);
        Ok(self.extend(run, message.len()))
    }

    /// The same for a message of `len` bytes that `fill` writes where it is to lie.
    #[inline]
    pub(crate) fn write_with(
        &self,
        run: Run,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Run, Corrupt> {
        let slot = run.next.offset();
        self.bytes.lend_mut(slot, prefix(len), len, fill)?;
        Ok(self.extend(run, len))
    }

    #[inline]
    fn extend(&self, run: Run, len: usize) -> Run {
        let next = self.shape.after(run.next, len);
        Run { first: run.first, next, messages: run.messages + 1, bytes: run.bytes + len }
    }

    /// From here on the messages exist, whoever dies.
    #[inline]
    pub(crate) fn commit_put(&self, run: Run) {
        self.put.commit(run);
    }

    /// The same, by who holds the end. False, and nothing exists, if the channel is closed.
    #[inline]
    pub(crate) fn commit_held_put(&self, run: Run) -> bool {
        self.put.commit_unless_closed(run)
    }

    /// Whether the owner of the get end knows of a message. A hint to others.
    pub(crate) fn first_is_known(&self) -> bool {
        let seen = Cursor(self.get.other_seen.load(Ordering::Relaxed));
        matches!(self.shape.pending(self.get.own(), seen), Ok(1..))
    }

    /// The oldest message. Where the owner of the get end, who calls, knows of none, `may_look` says whether to look at
    /// the other side.
    #[inline(always)]
    pub(crate) fn first(&self, may_look: impl FnOnce() -> bool) -> Result<Option<Message<'a>>, Corrupt> {
        let head = self.get.own();
        let seen = Cursor(self.get.other_seen.load(Ordering::Relaxed));
        let mut pending = seen.number().wrapping_sub(head.number());
        // Other words that make no sense together are found by the look at the other side.
        if pending == 0 || pending > self.shape.capacity {
            if !may_look() {
                return Ok(None);
            }
            let tail = self.put.load();
            pending = self.shape.pending(head, tail)?;
            self.get.other_seen.store(tail.0, Ordering::Relaxed);
            if pending == 0 {
                return Ok(None);
            }
        }
        self.message(Run::at(head), pending).map(Some)
    }

    /// The oldest message, as far as the owner of the get end knows. For that owner.
    pub(crate) fn first_known(&self) -> Option<Message<'a>> {
        self.first(|| false).ok().flatten()
    }

    /// The oldest message, by a look at the other side. For the owner of the get end. It first forgets what it knew: the
    /// tail has been where the head is.
    pub(crate) fn look_for_first(&self) -> Result<Option<Message<'a>>, Corrupt> {
        self.get.other_seen.store(self.get.own().0, Ordering::Relaxed);
        self.first(|| true)
    }

    /// The message behind this one, if the owner of the get end knows of one.
    #[inline(always)]
    pub(crate) fn following(&self, message: &Message<'a>) -> Result<Option<Message<'a>>, Corrupt> {
        if message.run.messages() >= message.pending {
            return Ok(None);
        }
        self.message(message.run, message.pending).map(Some)
    }

    /// The message behind `run`.
    #[inline(always)]
    fn message(&self, run: Run, pending: u32) -> Result<Message<'a>, Corrupt> {
        // A slot that begins inside the ring has room for the longest message, and no other has.
        let mut run = run;
        let bytes = match self.bytes.message(run.next.offset(), self.shape.max_message) {
            Ok(bytes) => bytes,
            Err(error) => {
                let Shape { max_message, ring_len, .. } = self.shape;
                let elsewhere = message_elsewhere(self.bytes, run.next, ring_len, max_message);
                let Some((next, bytes)) = elsewhere.filter(|_| self.shape.is_sparse()) else {
                    return Err(error);
                };
                run.go_on_at(next);
                bytes
            }
        };
        Ok(Message { bytes, run: self.extend(run, bytes.len()), pending })
    }

    /// From here on the messages are gone, whoever dies.
    #[inline]
    pub(crate) fn commit_get(&self, run: Run) {
        self.get.commit(run);
    }

    /// The same, by who holds the end.
    #[inline]
    pub(crate) fn commit_held_get(&self, run: Run) {
        self.get.commit_held(run);
    }

    /// Forgets what a dead owner of the put end had seen of the other side, and counts what it had not.
    pub(crate) fn refresh_put(&self) {
        let head = self.get.load();
        let seen = if self.shape.is_sparse() { self.shape.head_in_basin(head) } else { head };
        self.put.other_seen.store(seen.0, Ordering::Relaxed);
        self.put.recount();
    }

    /// Forgets what a dead owner of the get end had seen of the other side, and counts what it had not.
    pub(crate) fn refresh_get(&self) {
        self.get.other_seen.store(self.put.load().0, Ordering::Relaxed);
        self.get.recount();
    }

    /// Whether there is nothing to get. Exact at the moment of the second load, for anybody: the head
    /// moves only up to the tail. Cursors that make no sense are something: a get says what is wrong.
    #[inline]
    pub(crate) fn looks_empty(&self) -> bool {
        let head = self.get.load();
        let tail = self.put.load();
        self.shape.pending(head, tail) == Ok(0)
    }

    /// Whether a put would have to wait. Exact at the moment of the second load, for anybody: the tail
    /// does not move while there is no room.
    #[inline]
    pub(crate) fn looks_full(&self) -> bool {
        if self.shape.is_sparse() {
            return false;
        }
        let tail = self.put.load();
        let head = self.get.load();
        self.shape.pending(head, tail).is_ok() && !self.shape.has_room(head, tail)
    }

    /// Whether the cursors make sense together, as far as they hold still to be looked at.
    pub(crate) fn check(&self) -> Result<(), Corrupt> {
        for _ in 0..1000 {
            let head = self.get.load();
            let tail = self.put.load();
            if self.get.load() == head {
                return self.shape.pending(head, tail).map(drop);
            }
        }
        Ok(())
    }

    /// How many messages there are. Exact at one moment, unless a thousand gets go by in vain.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let mut head = self.get.load();
        for _ in 0..1000 {
            let tail = self.put.load();
            let again = self.get.load();
            if again == head {
                return tail.number().wrapping_sub(head.number()).min(self.shape.capacity) as usize;
            }
            head = again;
        }
        self.put.load().number().wrapping_sub(head.number()).min(self.shape.capacity) as usize
    }
}

#[cfg(all(test, not(loom)))]
#[path = "ring/tests.rs"]
mod tests;

#[cfg(all(test, not(loom)))]
#[path = "ring/sparse_tests.rs"]
mod sparse_tests;
