//! A ring without a limit: as long as there could ever be use for, with memory only where messages lie.
//!
//! It begins with the *basin*, which keeps its memory, and is used as a ring of its own while consumers keep up. When it
//! is full, messages go on behind it, in chunks that are given memory as the tail comes to them, and lose it as
//! the head leaves them; and when the head has been through the basin and left it, they go into it again.

use std::cmp::Ordering::{Equal, Greater, Less};

use super::{CHUNK, Cursor, PREFIX, Ring, Run, Shape, UNBOUNDED, UNIT, slot_len};
use crate::atomic::{AtomicU64, Ordering};
use crate::error::Corrupt;
use crate::sys::region::{Region, Span};

/// The first bytes of a sparse ring, its *basin*, keep their memory: while consumers keep up, messages go round in it as
/// in a ring with a limit.
pub(crate) const BASIN: usize = if cfg!(test) { 4 * CHUNK } else { 1 << 20 };
/// In place of the length of a message, in a sparse ring: the message is elsewhere, where the second number says, in
/// units of 8 bytes.
pub(super) const ELSEWHERE: u32 = u32::MAX;

/// Whether a ring has a basin: a sparse one, unless its messages may be so long that few would fit.
pub(super) const fn has_basin(capacity: u32, max_message: usize) -> bool {
    capacity == UNBOUNDED && slot_len(max_message) <= BASIN / 4
}

impl Shape {
    /// How long the basin is; 0 if there is none.
    #[inline]
    pub(super) fn basin_len(&self) -> usize {
        if has_basin(self.capacity, self.max_message) { BASIN } else { 0 }
    }

    /// Where the part of a sparse ring begins that is behind the basin.
    pub(super) fn origin(&self) -> usize {
        match self.basin_len() {
            0 => 0,
            // A slot may run past the end of the basin.
            len => (len + slot_len(self.max_message)).next_multiple_of(CHUNK),
        }
    }

    /// Whether such a ring is long enough to be used.
    pub(crate) fn is_long_enough(&self) -> bool {
        self.ring_len >= self.origin() + CHUNK
    }

    /// Whether the longest message fits in the basin behind `tail`, and behind that a word that says where the next one
    /// is: the tail never comes to the head from behind.
    #[inline]
    fn has_room_in_basin(&self, head: Cursor, tail: Cursor) -> bool {
        let pending = tail.number().wrapping_sub(head.number());
        let (from, end) = (head.offset(), tail.offset() + slot_len(self.max_message));
        let fits = match tail.offset().cmp(&from) {
            Less => end < from,
            Equal => pending == 0,
            // At the end of the basin the tail begins again at 0.
            Greater => from > 0 || end < self.basin_len(),
        };
        fits && pending < self.capacity
    }

    /// Where the messages in the basin begin, as far as who puts there is concerned: at its beginning, when the head has not
    /// come to it yet.
    pub(super) fn head_in_basin(&self, head: Cursor) -> Cursor {
        if head.offset() < self.basin_len() { head } else { Cursor::new(head.number(), 0) }
    }

    /// Whether the longest message fits behind `tail` in a sparse ring, as far as can be told without looking. In the
    /// basin, by where its messages were last seen to begin; elsewhere, if the slot ends inside a chunk that has memory. So
    /// the owner of the put end looks before each new chunk, while it can still leave this one.
    #[inline]
    pub(super) fn has_room_nearby(&self, head: Cursor, tail: Cursor) -> bool {
        if tail.offset() < self.basin_len() {
            return self.has_room_in_basin(head, tail);
        }
        let in_chunk = tail.offset() % CHUNK;
        in_chunk > 0 && in_chunk + slot_len(self.max_message) < CHUNK && tail.offset() < self.ring_len
    }

    /// Whether the longest message fits at `offset` behind the basin. `extent` is where the allocated chunks begin; the last
    /// one before that is left alone, so that they never meet.
    fn has_room_beyond(&self, offset: usize, extent: usize, is_empty: bool) -> bool {
        let gap = extent.wrapping_sub(offset);
        let fits =
            offset > extent || gap >= PREFIX + self.max_message + CHUNK || (is_empty && offset == extent);
        fits && offset < self.ring_len
    }

    /// Where a ring goes on behind a slot from `offset` to `end`, which is not before the end of its first part.
    pub(super) fn after_first(&self, offset: usize, end: usize) -> usize {
        if offset < self.basin_len() {
            return 0;
        }
        if end < self.ring_len { end } else { self.origin() }
    }
}

impl Ring<'_> {
    /// Where the longest message fits that would go to `next`: out of the basin when that is full, if it `may_leave`; into it
    /// again when the head has been through it and left it behind.
    ///
    /// What goes elsewhere leaves a word at the tail of where to. Killed after that: no message is there, and the next put
    /// writes over it.
    #[cold]
    pub(super) fn look_around(
        &self,
        head: Cursor,
        next: Cursor,
        may_leave: bool,
    ) -> Result<Option<Cursor>, Corrupt> {
        let shape = &self.shape;
        let basin = shape.basin_len();
        let seen = shape.head_in_basin(head);
        self.put.other_seen.store(seen.0, Ordering::Relaxed);
        if next.offset() < basin {
            if shape.has_room_in_basin(seen, next) {
                return Ok(Some(next));
            }
            let beyond = self.beyond();
            if !may_leave || !shape.has_room_beyond(beyond, self.extent(), head.offset() < basin) {
                return Ok(None);
            }
            self.put.basin_end.store(next.number().into(), Ordering::Relaxed);
            return self.go_on_elsewhere(next, beyond).map(Some);
        }
        // Here the tail's chunk has memory, so that the word can be written, if a part of it has been used.
        if basin > 0 && !next.offset().is_multiple_of(CHUNK) && self.has_left_basin(head) {
            let end = next.offset() + PREFIX;
            let beyond = if end < shape.ring_len { end } else { shape.origin() };
            self.put.beyond.store(beyond as u64, Ordering::Relaxed);
            return self.go_on_elsewhere(next, 0).map(Some);
        }
        let is_empty = head == next;
        Ok(shape.has_room_beyond(next.offset(), self.extent(), is_empty).then_some(next))
    }

    /// Whether a head behind the basin has been through all that was put there: it is past the message after that.
    fn has_left_basin(&self, head: Cursor) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "it is the number of a message")]
        let end = self.put.basin_end.load(Ordering::Relaxed) as u32;
        head.offset() >= self.shape.basin_len() && head.number().wrapping_sub(end).cast_signed() > 0
    }

    fn go_on_elsewhere(&self, next: Cursor, offset: usize) -> Result<Cursor, Corrupt> {
        let place = u32::try_from(offset / UNIT).map_err(|_| Corrupt("an offset outside the ring"))?;
        self.bytes.set_numbers(next.offset(), (ELSEWHERE, place))?;
        Ok(Cursor::new(next.number(), offset))
    }

    /// Where the chunks of a sparse ring that have memory begin, the basin aside.
    fn extent(&self) -> usize {
        self.behind_basin(&self.get.extent)
    }

    /// Where messages go when the basin is full.
    fn beyond(&self) -> usize {
        self.behind_basin(&self.put.beyond)
    }

    fn behind_basin(&self, word: &AtomicU64) -> usize {
        let offset = usize::try_from(word.load(Ordering::Acquire)).unwrap_or(0) / UNIT * UNIT;
        offset.clamp(self.shape.origin(), self.shape.room())
    }

    /// What of a sparse ring has to be given memory before a message of `len` bytes can be written behind `run`: offset
    /// and length. For the owner of the put end.
    ///
    /// Behind the basin, a chunk that the last slot ends in has memory, and keeps it until the head has left it, so nobody
    /// needs to write down what has been allocated. Killed after allocating: the next put does it again, which changes
    /// nothing. The basin keeps its memory, and `extent` of the put end says how far it has some: up to the word behind
    /// each slot, because where the next message is may have to be written there.
    #[inline]
    pub(crate) fn unallocated(&self, run: &Run, len: usize) -> Option<(usize, usize)> {
        if !self.shape.is_sparse() {
            return None;
        }
        let (start, room) = (run.next.offset(), self.shape.room());
        let end = start + slot_len(len);
        let (from, to) = if start < self.shape.basin_len() {
            (self.basin_memory(), (end + PREFIX).next_multiple_of(CHUNK))
        } else {
            (start.next_multiple_of(CHUNK), end.next_multiple_of(CHUNK))
        };
        let to = to.min(room);
        (to > from).then(|| (from, to - from))
    }

    /// What `unallocated` named has been given memory.
    pub(crate) fn allocated(&self, (from, len): (usize, usize)) {
        if from < self.shape.origin() {
            self.put.extent.store((from + len) as u64, Ordering::Relaxed);
        }
    }

    /// Whether there is so much room in the basin behind the tail, where the owner of the put end has just found some, that
    /// it need not look again soon.
    pub(crate) fn has_much_room_in_basin(&self) -> bool {
        let (seen, tail) = (Cursor(self.put.other_seen.load(Ordering::Relaxed)), self.put.own());
        // None at all between the two is all of it: there is room.
        seen.offset().wrapping_sub(tail.offset() + UNIT) % BASIN >= BASIN / 16
    }

    /// How far the basin has memory.
    #[inline]
    fn basin_memory(&self) -> usize {
        usize::try_from(self.put.extent.load(Ordering::Relaxed)).unwrap_or(0) / CHUNK * CHUNK
    }

    /// Whether chunks may have memory that lie behind the head since the commit of this run. That of the basin stays. What a
    /// dead owner did not free is freed by whoever leaves the next chunk, or takes over.
    #[inline]
    pub(crate) fn leaves_memory(&self, run: &Run) -> bool {
        let (from, to) = (run.first.offset(), run.next.offset());
        from / CHUNK != to / CHUNK && from.max(to) >= self.shape.basin_len()
    }

    /// The chunks behind the head that still have memory: up to two ranges of offset and length. For the owner of the
    /// get end of a sparse ring.
    ///
    /// A run that goes once around, for which only a ring of nearly its least length is short enough, is not seen here:
    /// its memory stays until the next lap. It must not be freed afterwards either, because producers take an empty ring
    /// whose chunks begin at its tail for free.
    pub(crate) fn reclaimable(&self) -> Option<[(usize, usize); 2]> {
        let (from, to) = (self.extent(), self.first_kept());
        (from != to).then(|| self.behind_basin_between(from, to))
    }

    /// What `reclaimable` named has been freed.
    pub(crate) fn reclaimed(&self) {
        self.get.extent.store(self.first_kept() as u64, Ordering::Release);
    }

    /// The chunks behind the tail that may have memory although no message has come to them: up to two ranges of offset and
    /// length. For a new owner of the put end, after the death of one that was in the middle of a run.
    ///
    /// They would get messages, and lose their memory behind those, only when the basin is full for the next time, which
    /// may be never. The head may come closer meanwhile, and what it leaves is freed by the owner of the get end.
    pub(crate) fn unused(&self) -> [(usize, usize); 2] {
        let (head, tail) = (self.get.load(), self.put.own());
        let is_in_basin = |cursor: Cursor| cursor.offset() < self.shape.basin_len();
        let next = if is_in_basin(tail) { self.beyond() } else { tail.offset() };
        let (from, to) = (next.next_multiple_of(CHUNK).min(self.shape.room()), self.extent());
        let is_empty = head == tail || (is_in_basin(head) && is_in_basin(tail));
        if from == to && !is_empty { [(0, 0); 2] } else { self.behind_basin_between(from, to) }
    }

    /// What lies behind the basin from one offset on to another, around the end of the ring if need be: all of it if they
    /// are the same. Up to two ranges of offset and length.
    fn behind_basin_between(&self, from: usize, to: usize) -> [(usize, usize); 2] {
        let (origin, room) = (self.shape.origin(), self.shape.room());
        if from < to { [(from, to - from), (0, 0)] } else { [(from, room - from), (origin, to - origin)] }
    }

    /// The chunk behind the basin that the head is in, or comes to when it leaves the basin.
    fn first_kept(&self) -> usize {
        let head = self.get.own().offset();
        // While the head is in the basin nobody stores `beyond`.
        let offset = if head < self.shape.basin_len() { self.beyond() } else { head };
        (offset - offset % CHUNK).clamp(self.shape.origin(), self.shape.room())
    }
}

/// Where the message is if it is not at `next`, where its slot begins with these numbers. For a sparse ring.
pub(super) fn elsewhere(next: Cursor, (first, second): (u32, u32), ring_len: usize) -> Option<Cursor> {
    let offset = second as usize * UNIT;
    (first == ELSEWHERE && offset < ring_len).then(|| Cursor::new(next.number(), offset))
}

/// The message that is elsewhere, and where. Of as little as it needs, so that all of it is passed in registers.
#[cold]
#[inline(never)]
pub(super) fn message_elsewhere(
    bytes: Region<'_>,
    next: Cursor,
    ring_len: usize,
    max: usize,
) -> Option<(Cursor, Span<'_>)> {
    let next = elsewhere(next, bytes.numbers(next.offset()).ok()?, ring_len)?;
    Some((next, bytes.message(next.offset(), max).ok()?))
}
