//! The ring: where messages lie, and which of them exist. A pure algorithm: no waiting, no locks.
//!
//! Whoever calls holds the lock of the end that it changes; the other end may move meanwhile.

use std::collections::TryReserveError;

use crate::atomic::{AtomicU64, Ordering};
use crate::error::Corrupt;
use crate::sys::region::Region;

/// Offsets are counted in these, so that 31 bits reach 16 GiB.
const UNIT: usize = 8;
/// The prefix of a slot: a `u32` length and a spare `u32`.
const PREFIX: usize = 8;
/// The longest ring, in bytes.
pub(crate) const LONGEST_RING: usize = ((1 << 31) - 1) * UNIT;

/// Bytes that a slot takes for a message of `len` bytes.
pub(crate) const fn slot_len(len: usize) -> usize {
    PREFIX + len.next_multiple_of(UNIT)
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
/// | word         | written by                   | ordering                                       |
/// | ------------ | ---------------------------- | ---------------------------------------------- |
/// | `cursor`     | the owner of this end's lock | Release: publishes the slot (or its emptiness) |
/// | `other_seen` | the owner of this end's lock | Relaxed: only the owner reads it               |
/// | totals       | the owner of this end's lock | Relaxed: for the curious                       |
///
/// Others load the cursor with Acquire; `sync::condvar` says why a sleeper's look needs no more.
/// Stopped for an hour or killed before the store of `cursor`: the message is not there (not removed),
/// and the bytes written meanwhile are nobody's. After it: it is there (removed), and only the totals
/// may lack it. `other_seen` is what the other cursor once was: an older queue that was legal then,
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
    /// Up to the next pair of cache lines, where a side begins 8 bytes after one (asserted in `layout`).
    apart: [u64; 12],
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
            apart: [0; 12],
            cursor: AtomicU64::new(0),
        }
    }

    /// Messages and bytes that went through this end.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    #[inline]
    fn load(&self) -> Cursor {
        Cursor(self.cursor.load(Ordering::Acquire) & !CLOSED)
    }

    #[inline]
    fn own(&self) -> Cursor {
        Cursor(self.cursor.load(Ordering::Relaxed) & !CLOSED)
    }

    /// The commit of one message of `len` bytes.
    #[inline]
    fn commit(&self, next: Cursor, len: usize) {
        self.cursor.store(next.0, Ordering::Release);
        self.messages.store(self.messages.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.bytes.store(self.bytes.load(Ordering::Relaxed).wrapping_add(len as u64), Ordering::Relaxed);
    }

    /// Marks a tail as closed: the commits of a held producer fail from here on.
    pub(crate) fn close(&self) {
        self.cursor.fetch_or(CLOSED, Ordering::SeqCst);
    }
}

/// The numbers of a ring. Private to the process: never read from the segment again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) capacity: u32,
    pub(crate) max_message: usize,
    /// Bytes within which a slot may begin; a multiple of 8.
    pub(crate) ring_len: usize,
}

impl Shape {
    /// Bytes that the ring takes: a slot may run past the end by all but its first 8 bytes.
    #[inline]
    pub(crate) const fn room(&self) -> usize {
        self.ring_len + slot_len(self.max_message) - UNIT
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

    /// Whether the longest message fits behind `tail`.
    #[inline]
    fn has_room(&self, head: Cursor, tail: Cursor) -> Result<bool, Corrupt> {
        let pending = self.pending(head, tail)?;
        if pending == 0 {
            return Ok(true);
        }
        if pending == self.capacity {
            return Ok(false);
        }
        let (head, tail) = (head.offset(), tail.offset());
        Ok(tail > head || head - tail >= slot_len(self.max_message))
    }

    #[inline]
    fn after(&self, cursor: Cursor, len: usize) -> Cursor {
        let end = cursor.offset() + slot_len(len);
        Cursor::new(cursor.number().wrapping_add(1), if end < self.ring_len { end } else { 0 })
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

/// A message in the ring, owned by whoever holds the get end's lock.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    bytes: Region<'a>,
    offset: usize,
    len: usize,
    next: Cursor,
    /// How many messages there are at least, this one included.
    pub(crate) pending: u32,
}

impl Message<'_> {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first `to.len()` bytes.
    #[inline]
    pub(crate) fn copy_to(&self, to: &mut [u8]) -> Result<(), Corrupt> {
        self.bytes.copy_out(self.offset, to)
    }

    #[inline]
    pub(crate) fn append_to(&self, to: &mut Vec<u8>) -> Result<Result<(), TryReserveError>, Corrupt> {
        self.bytes.append_to(self.offset, self.len, to)
    }
}

impl<'a> Ring<'a> {
    /// Whether the longest message fits, as far as the owner of the put end knows. A hint to others.
    #[inline]
    pub(crate) fn room_is_known(&self) -> bool {
        let seen = Cursor(self.put.other_seen.load(Ordering::Relaxed));
        self.shape.has_room(seen, self.put.own()) == Ok(true)
    }

    /// Whether the longest message fits, by a look at the other side. For the owner of the put end.
    #[inline]
    pub(crate) fn look_for_room(&self) -> Result<bool, Corrupt> {
        let head = self.get.load();
        let room = self.shape.has_room(head, self.put.own())?;
        self.put.other_seen.store(head.0, Ordering::Relaxed);
        Ok(room)
    }

    /// The number of the oldest message when the owner of the put end last looked.
    pub(crate) fn head_seen(&self) -> u32 {
        Cursor(self.put.other_seen.load(Ordering::Relaxed)).number()
    }

    /// Writes a message behind the tail, where there is room, without committing it.
    #[inline]
    pub(crate) fn write(&self, message: &[u8]) -> Result<Written, Corrupt> {
        let tail = self.put.own();
        let len = u32::try_from(message.len()).map_err(|_| Corrupt("a message longer than a slot"))?;
        self.bytes.store(tail.offset(), len)?;
        self.bytes.copy_in(tail.offset() + PREFIX, message)?;
        Ok(Written { next: self.shape.after(tail, message.len()), len: message.len() })
    }

    /// From here on the message exists, whoever dies.
    #[inline]
    pub(crate) fn commit_put(&self, written: Written) {
        self.put.commit(written.next, written.len);
    }

    /// Whether the owner of the get end knows of a message. A hint to others.
    pub(crate) fn first_is_known(&self) -> bool {
        let seen = Cursor(self.get.other_seen.load(Ordering::Relaxed));
        matches!(self.shape.pending(self.get.own(), seen), Ok(1..))
    }

    /// The oldest message, as far as the owner of the get end knows. For that owner.
    #[inline]
    pub(crate) fn first_known(&self) -> Option<Message<'a>> {
        let head = self.get.own();
        let seen = Cursor(self.get.other_seen.load(Ordering::Relaxed));
        match self.shape.pending(head, seen) {
            Ok(pending) if pending > 0 => self.message(head, pending).ok(),
            _ => None,
        }
    }

    /// The oldest message, by a look at the other side. For the owner of the get end.
    #[inline]
    pub(crate) fn look_for_first(&self) -> Result<Option<Message<'a>>, Corrupt> {
        let head = self.get.own();
        let tail = self.put.load();
        let pending = self.shape.pending(head, tail)?;
        self.get.other_seen.store(tail.0, Ordering::Relaxed);
        if pending == 0 { Ok(None) } else { self.message(head, pending).map(Some) }
    }

    #[inline]
    fn message(&self, head: Cursor, pending: u32) -> Result<Message<'a>, Corrupt> {
        let len = self.bytes.load(head.offset())? as usize;
        if len > self.shape.max_message {
            return Err(Corrupt("a message is longer than the longest"));
        }
        let (next, offset) = (self.shape.after(head, len), head.offset() + PREFIX);
        Ok(Message { bytes: self.bytes, offset, len, next, pending })
    }

    /// From here on the message is gone, whoever dies.
    #[inline]
    pub(crate) fn commit_get(&self, message: &Message<'_>) {
        self.get.commit(message.next, message.len);
    }

    /// Forgets what a dead owner of the put end had seen of the other side.
    pub(crate) fn refresh_put(&self) {
        self.put.other_seen.store(self.get.load().0, Ordering::Relaxed);
    }

    /// Forgets what a dead owner of the get end had seen of the other side.
    pub(crate) fn refresh_get(&self) {
        self.get.other_seen.store(self.put.load().0, Ordering::Relaxed);
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
        let tail = self.put.load();
        let head = self.get.load();
        self.shape.has_room(head, tail) == Ok(false)
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

/// A message that has been written but does not exist yet.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct Written {
    next: Cursor,
    len: usize,
}

#[cfg(all(test, not(loom)))]
#[path = "ring/tests.rs"]
mod tests;
