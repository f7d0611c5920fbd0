//! The bare limit: a lock-free ring for one producer and one consumer that spin and never sleep.

use std::fmt;
use std::hint::spin_loop;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::raw::Segment;

const CAPACITY: usize = 0;
const MAX_MESSAGE: usize = 8;
/// Messages put so far. On lines of its own, as the other: processors fetch lines in pairs.
const TAIL: usize = 128;
/// Messages taken so far.
const HEAD: usize = 256;
const SLOTS: usize = 384;
/// The prefix of a slot, its message's length.
const PREFIX: usize = 8;

/// A bounded ring between one producer and one consumer, with slots as long as the queue's.
///
/// Each side keeps its own index and its last look at the other's, and looks again only when that says
/// full or empty. There is nothing else that could cost time, and nothing that makes it safe: it spins
/// for ever, and it does not know whether anybody is there.
///
/// For answers, it looks at once. For a stream that is slow: the two sides fall into lockstep and take
/// each other's cache lines away for each message. So [`look_away`](Self::look_away) is what makes it the
/// limit for streams.
///
/// The object in /dev/shm is called `shmq-spinning-<name>`; the drop of the handle that made it deletes it.
pub struct SpinningRing {
    segment: Segment,
    mask: u64,
    slot_len: usize,
    /// The most messages that the producer lets wait.
    most: u64,
    lag: usize,
    tail: u64,
    head_seen: u64,
    head: u64,
    tail_seen: u64,
}

impl SpinningRing {
    /// Makes a ring for `capacity` messages, a power of two, of up to `max_message` bytes.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidInput`, or what the system says.
    pub fn create(name: &str, capacity: usize, max_message: usize) -> io::Result<Self> {
        if !capacity.is_power_of_two() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let slot_len = PREFIX + max_message.next_multiple_of(8);
        let segment = Segment::create(&object(name), SLOTS + capacity * slot_len)?;
        segment.long(CAPACITY).store(capacity as u64, Relaxed);
        segment.long(MAX_MESSAGE).store(max_message as u64, Relaxed);
        Self::attached(segment)
    }

    /// Attaches to the ring of this name, which must be whole.
    ///
    /// # Errors
    /// `NotFound`, `InvalidData`, or what the system says.
    pub fn open(name: &str) -> io::Result<Self> {
        Self::attached(Segment::open(&object(name))?)
    }

    fn attached(segment: Segment) -> io::Result<Self> {
        let capacity = segment.long(CAPACITY).load(Relaxed);
        let max_message =
            usize::try_from(segment.long(MAX_MESSAGE).load(Relaxed)).map_err(io::Error::other)?;
        let slot_len = PREFIX + max_message.next_multiple_of(8);
        let slots = usize::try_from(capacity).ok().and_then(|capacity| slot_len.checked_mul(capacity));
        if !capacity.is_power_of_two() || slots.and_then(|len| len.checked_add(SLOTS)) != Some(segment.len())
        {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (tail, head) = (segment.long(TAIL).load(Acquire), segment.long(HEAD).load(Acquire));
        Ok(Self {
            segment,
            mask: capacity - 1,
            slot_len,
            most: capacity,
            lag: 0,
            tail,
            head_seen: head,
            head,
            tail_seen: tail,
        })
    }

    /// Puts a message. Spins while the ring is full. For the one producer.
    ///
    /// # Panics
    /// If the message is too long.
    #[inline]
    pub fn put(&mut self, message: &[u8]) {
        assert!(message.len() <= self.slot_len - PREFIX, "the message is too long");
        if self.tail - self.head_seen >= self.most {
            self.head_seen = self.change(HEAD, self.head_seen);
        }
        let slot = self.slot(self.tail);
        self.segment.long(slot).store(message.len() as u64, Relaxed);
        self.segment.copy_in(slot + PREFIX, message);
        self.tail += 1;
        self.segment.long(TAIL).store(self.tail, Release);
    }

    /// Gets the oldest message into `buffer` and returns its length. Spins while the ring is empty. For
    /// the one consumer.
    ///
    /// # Panics
    /// If the buffer is too short.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a length, in a 64-bit process")]
    pub fn get_into(&mut self, buffer: &mut [u8]) -> usize {
        if self.head == self.tail_seen {
            self.tail_seen = self.change(TAIL, self.tail_seen);
        }
        let slot = self.slot(self.head);
        let len = self.segment.long(slot).load(Relaxed) as usize;
        self.segment.copy_out(slot + PREFIX, &mut buffer[..len]);
        self.head += 1;
        self.segment.long(HEAD).store(self.head, Release);
        len
    }

    /// How many messages it holds.
    #[expect(clippy::cast_possible_truncation, reason = "a length, in a 64-bit process")]
    pub fn capacity(&self) -> usize {
        self.mask as usize + 1
    }

    /// Lets no more messages wait than this, though there is room: in a ring that is longer than a processor's
    /// first cache, the slots to come have left the other side's. For the producer.
    pub fn hold_at_most(&mut self, messages: usize) {
        self.most = self.most.min(messages as u64);
    }

    /// Lets so many pauses go by before each look at the other side's index, while messages (or room) for
    /// many to come build up.
    pub fn look_away(&mut self, pauses: usize) {
        self.lag = pauses;
    }

    /// Spins until an index is another one than `seen`.
    #[inline]
    fn change(&self, index: usize, seen: u64) -> u64 {
        for _ in 0..self.lag {
            spin_loop();
        }
        let index = self.segment.long(index);
        loop {
            let now = index.load(Acquire);
            if now != seen {
                return now;
            }
            spin_loop();
        }
    }

    /// Deletes the name now; those who are attached go on.
    ///
    /// # Errors
    /// What the system says.
    pub fn unlink(&mut self) -> io::Result<()> {
        self.segment.unlink()
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the number of a slot, in a 64-bit process")]
    fn slot(&self, number: u64) -> usize {
        SLOTS + (number & self.mask) as usize * self.slot_len
    }
}

impl fmt::Debug for SpinningRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinningRing").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

fn object(name: &str) -> String {
    format!("shmq-spinning-{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_producer_and_one_consumer_lose_nothing() {
        const COUNT: u64 = 50_000;
        let name = format!("test-{}", std::process::id());
        let mut consumer = SpinningRing::create(&name, 4, 8).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut producer = SpinningRing::open(&name).unwrap();
                for number in 0..COUNT {
                    producer.put(&number.to_ne_bytes());
                }
            });
            let mut message = [0; 8];
            for number in 0..COUNT {
                assert_eq!(consumer.get_into(&mut message), 8);
                assert_eq!(u64::from_ne_bytes(message), number);
            }
        });
    }
}
