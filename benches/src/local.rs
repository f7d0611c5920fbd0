//! What calls cost where nobody else is there: no contention, nobody to wake.

use std::hint::black_box;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use shmq::{ByteQueue, QueueOptions};

use crate::payload::{Checks, Payload};
use crate::raw::Segment;
use crate::spinning::SpinningRing;

type Message = [u8; 64];

/// The limit for a put and a get that lock: one lock and unlock of a word for each end, by compare-and-swap,
/// and a copy in and out.
pub struct BareLocks {
    segment: Segment,
}

impl BareLocks {
    const PUT_LOCK: usize = 0;
    const GET_LOCK: usize = 128;
    const MESSAGE: usize = 256;
    const OWNER: u32 = 77;

    /// Makes the words, in shared memory.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        let name = format!("shmq-bare-locks-{}", std::process::id());
        let mut segment = Segment::create(&name, Self::MESSAGE + size_of::<Message>())?;
        segment.unlink()?;
        Ok(Self { segment })
    }

    fn lock(&self, word: usize) -> io::Result<()> {
        let locked = self.segment.word(word).compare_exchange(0, Self::OWNER, Acquire, Relaxed);
        locked.map(drop).map_err(|_| io::ErrorKind::Deadlock.into())
    }

    fn unlock(&self, word: usize) -> io::Result<()> {
        let unlocked = self.segment.word(word).compare_exchange(Self::OWNER, 0, Release, Relaxed);
        unlocked.map(drop).map_err(|_| io::ErrorKind::Deadlock.into())
    }

    /// A copy in and out, each inside of its lock.
    ///
    /// # Errors
    /// Never, unless somebody else has the lock.
    pub fn put_and_get(&self, message: &Message, got: &mut Message) -> io::Result<()> {
        self.lock(Self::PUT_LOCK)?;
        self.segment.copy_in(Self::MESSAGE, message);
        self.unlock(Self::PUT_LOCK)?;
        self.lock(Self::GET_LOCK)?;
        self.segment.copy_out(Self::MESSAGE, got);
        self.unlock(Self::GET_LOCK)
    }
}

impl std::fmt::Debug for BareLocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareLocks").finish_non_exhaustive()
    }
}

/// How long `count` pairs of a put and a get take, each message checked.
///
/// # Errors
/// Those of `pair`, and a message that is not as it was put.
pub fn time_pairs(
    count: u64,
    mut pair: impl FnMut(&Message, &mut Message) -> io::Result<()>,
) -> io::Result<Duration> {
    let (mut message, mut got) = (Message::blank(), Message::blank());
    let start = Instant::now();
    for number in 0..count {
        message.set_number(number);
        pair(black_box(&message), &mut got)?;
        if !got.is_whole(number) {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(start.elapsed())
}

/// A queue with so many messages waiting, which goes round: one is put, one is got.
///
/// # Errors
/// Those of the queue, and a message that is not as it was put.
#[derive(Debug)]
pub struct Deep<Q> {
    queue: Q,
    next: u64,
    checks: Checks,
}

/// A queue that [`Deep`] fills.
pub trait DeepQueue: Sized {
    /// For so many messages of 64 bytes.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn with_room_for(messages: usize) -> io::Result<Self>;
    /// Puts one.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn put(&mut self, message: &[u8; 64]) -> io::Result<()>;
    /// Gets one.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn get(&mut self, message: &mut [u8; 64]) -> io::Result<()>;
}

impl DeepQueue for ByteQueue {
    fn with_room_for(messages: usize) -> io::Result<Self> {
        let mut options = QueueOptions::new();
        options.capacity(messages).max_message(64).ring_bytes(messages * 72);
        Ok(options.anonymous::<()>()?.into())
    }

    fn put(&mut self, message: &[u8; 64]) -> io::Result<()> {
        Ok(ByteQueue::put(self, message)?)
    }

    fn get(&mut self, message: &mut [u8; 64]) -> io::Result<()> {
        Ok(self.get_into(message).map(drop)?)
    }
}

impl DeepQueue for SpinningRing {
    fn with_room_for(messages: usize) -> io::Result<Self> {
        use std::sync::atomic::AtomicU32;
        static RINGS: AtomicU32 = AtomicU32::new(0);
        let name = format!("deep-{}-{}", std::process::id(), RINGS.fetch_add(1, Relaxed));
        let mut ring = Self::create(&name, messages.next_power_of_two(), 64)?;
        ring.unlink()?;
        Ok(ring)
    }

    fn put(&mut self, message: &[u8; 64]) -> io::Result<()> {
        SpinningRing::put(self, message);
        Ok(())
    }

    fn get(&mut self, message: &mut [u8; 64]) -> io::Result<()> {
        self.get_into(message);
        Ok(())
    }
}

impl<Q: DeepQueue> Deep<Q> {
    /// With `waiting` messages in a queue of `capacity`.
    ///
    /// # Errors
    /// Those of the queue.
    pub fn new(capacity: usize, waiting: usize) -> io::Result<Self> {
        let mut deep = Self { queue: Q::with_room_for(capacity)?, next: 0, checks: Checks::new(1, true) };
        let mut message = Message::blank();
        // Once around, so that all of its memory has been touched.
        let mut got = Message::blank();
        for _ in 0..capacity {
            deep.put(&mut message)?;
            deep.get(&mut got)?;
        }
        for _ in 1..waiting {
            deep.put(&mut message)?;
        }
        Ok(deep)
    }

    #[inline]
    fn put(&mut self, message: &mut Message) -> io::Result<()> {
        message.set_number(self.next);
        self.next += 1;
        self.queue.put(message)
    }

    #[inline]
    fn get(&mut self, got: &mut Message) -> io::Result<()> {
        self.queue.get(got)?;
        self.checks.see(got)
    }

    /// How long `count` pairs of a put and a get take.
    ///
    /// # Errors
    /// Those of the queue, and a message that is not as it was put.
    pub fn time(&mut self, count: u64) -> io::Result<Duration> {
        let (mut message, mut got) = (Message::blank(), Message::blank());
        let start = Instant::now();
        for _ in 0..count {
            self.put(&mut message)?;
            self.get(&mut got)?;
        }
        Ok(start.elapsed())
    }
}
