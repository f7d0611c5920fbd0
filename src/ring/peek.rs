//! A look at the messages of a ring that others may be using.

use std::io;

use super::sparse::elsewhere;
use super::{Cursor, PREFIX, Ring};
use crate::error::Corrupt;

/// See [`Ring::peek`].
pub(crate) struct Peeked {
    pub(crate) messages: Vec<Vec<u8>>,
    /// Why there are no more.
    pub(crate) end: End,
}

/// What a peek ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There are no more, or no more were asked for.
    Reached,
    /// The window was too small.
    Window,
    /// All that was there had been taken before it could be copied.
    Moved,
    Corrupt(Corrupt),
}

/// Why there is no copy of a slot.
enum Stop {
    Unread(io::Error),
    End(End),
}

impl Ring<'_> {
    /// Copies of up to `max` of the oldest messages. For anybody: `read` copies from the ring's bytes, which may be
    /// written meanwhile.
    ///
    /// Up to `window` bytes are copied first, slot by slot from the head on, and then the head is loaded again. Nobody
    /// writes where a message lies before the head has passed it, so if the head is now at a slot that was copied, what
    /// was copied from there on is whole, and was what there was at that moment: however fast others get messages,
    /// those that they have left are found.
    pub(crate) fn peek(
        &self,
        max: usize,
        window: usize,
        read: impl Fn(usize, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Peeked> {
        let (head, tail) = (self.get.load(), self.put.load());
        let Ok(pending) = self.shape.pending(head, tail) else {
            // The head was loaded first, and others have put and got since.
            return Ok(Peeked { messages: Vec::new(), end: End::Moved });
        };
        let mut copies = Copies { room: self.shape.room(), window, pieces: Vec::new(), read };
        let mut slots = Vec::new();
        let mut next = head;
        let mut end = End::Reached;
        for _ in 0..pending {
            match self.copied(next, &mut copies) {
                Ok((at, message)) => {
                    slots.push((next, message));
                    next = self.shape.after(at, message.2);
                }
                Err(Stop::End(why)) => {
                    end = why;
                    break;
                }
                Err(Stop::Unread(error)) => return Err(error),
            }
        }
        let now = self.get.load();
        let gone = now.number().wrapping_sub(head.number());
        if pending > 0 && gone >= pending {
            return Ok(Peeked { messages: Vec::new(), end: End::Moved });
        }
        let Some(left) = slots.get(gone as usize..) else {
            return Ok(Peeked {
                messages: Vec::new(),
                end: if end == End::Window { end } else { End::Moved },
            });
        };
        // What was read before may be anything, and with it where the next slot was thought to be.
        if left.first().map_or(next, |(cursor, _)| *cursor) != now {
            return Ok(Peeked { messages: Vec::new(), end: End::Moved });
        }
        if left.len() >= max {
            end = End::Reached;
        }
        let messages = left.iter().take(max).map(|(_, message)| copies.message(*message).to_vec()).collect();
        Ok(Peeked { messages, end })
    }

    /// Where the message at `next` lies in the ring and in the copies.
    fn copied(
        &self,
        next: Cursor,
        copies: &mut Copies<impl Fn(usize, &mut [u8]) -> io::Result<()>>,
    ) -> Result<(Cursor, Copied), Stop> {
        let mut at = next;
        let mut numbers = copies.numbers(at.offset())?;
        if let Some(there) = elsewhere(at, numbers, self.shape.ring_len).filter(|_| self.shape.is_sparse()) {
            at = there;
            numbers = copies.numbers(at.offset())?;
        }
        let len = numbers.0 as usize;
        if len > self.shape.max_message {
            return Err(Stop::End(End::Corrupt(Corrupt("a message is longer than the longest"))));
        }
        let (piece, offset) = copies.find(at.offset() + PREFIX, len)?;
        Ok((at, (piece, offset, len)))
    }
}

/// A message in the copies: of which piece, from where on, how long.
type Copied = (usize, usize, usize);

/// Private copies of parts of a ring, which grow as more is asked for.
struct Copies<R> {
    room: usize,
    /// How many bytes more may be copied.
    window: usize,
    /// Where each begins in the ring.
    pieces: Vec<(usize, Vec<u8>)>,
    read: R,
}

impl<R: Fn(usize, &mut [u8]) -> io::Result<()>> Copies<R> {
    /// The numbers that a slot begins with.
    fn numbers(&mut self, offset: usize) -> Result<(u32, u32), Stop> {
        let (piece, at) = self.find(offset, PREFIX)?;
        let number = |at| {
            let bytes = self.message((piece, at, 4)).first_chunk();
            bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        Ok((number(at), number(at + 4)))
    }

    fn message(&self, (piece, offset, len): Copied) -> &[u8] {
        self.pieces.get(piece).and_then(|(_, bytes)| bytes.get(offset..)?.get(..len)).unwrap_or(&[])
    }

    /// In which piece these bytes of the ring are, and where.
    fn find(&mut self, offset: usize, len: usize) -> Result<(usize, usize), Stop> {
        /// One call copies half of the window, but not less than this, or a longer message whole.
        const LEAST: usize = 4 << 10;
        let lies_in = |(start, bytes): &(usize, Vec<u8>)| {
            let from = offset.checked_sub(*start)?;
            (len <= bytes.len().checked_sub(from)?).then_some(from)
        };
        if let Some(at) = self.pieces.last().and_then(lies_in) {
            return Ok((self.pieces.len() - 1, at));
        }
        let Some(rest) = self.room.checked_sub(offset).filter(|rest| len <= *rest) else {
            return Err(Stop::End(End::Corrupt(Corrupt("the messages run past the last one"))));
        };
        let piece = (self.window / 2).max(LEAST).max(len).min(rest);
        let Some(window) = self.window.checked_sub(piece) else { return Err(Stop::End(End::Window)) };
        self.window = window;
        let mut bytes = vec![0; piece];
        (self.read)(offset, &mut bytes).map_err(Stop::Unread)?;
        self.pieces.push((offset, bytes));
        Ok((self.pieces.len() - 1, 0))
    }
}
