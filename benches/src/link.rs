//! The contenders under one face.

use std::io;

use shmq::{ByteQueue, Queue, QueueOptions};

use crate::payload::{Payload, Reading};
use crate::pingpong::PingPong;
use crate::spinning::SpinningRing;
use crate::textbook::Textbook;

/// The longest message of all contenders, but where the default is measured.
const MESSAGE: usize = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One process puts, the other gets.
    OneWay,
    /// One process asks, the other answers: one queue there, one back.
    RoundTrip,
}

impl Work {
    /// How many messages each queue holds.
    pub fn capacity(self) -> usize {
        match self {
            Self::OneWay => 1024,
            Self::RoundTrip => 2,
        }
    }

    pub(crate) const ALL: [Self; 2] = [Self::OneWay, Self::RoundTrip];
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// `ByteQueue::put` and `get_into`, made for messages of 64 bytes.
    Shmq,
    /// The same, made with the default `max_message`.
    ShmqDefault,
    /// `Queue<Reading>::put` and `get`, default options.
    ShmqTyped,
    /// The textbook design.
    Textbook,
    /// The lock-free ring that spins.
    Spinning,
    /// The same, looking away for a while before each look at the other side; one way only.
    SpinningPaced,
    /// The bare futex ping-pong; round trips only.
    PingPong,
}

impl Contender {
    pub(crate) const ALL: [(Self, &'static str); 7] = [
        (Self::Shmq, "shmq"),
        (Self::ShmqDefault, "shmq, default max_message"),
        (Self::ShmqTyped, "shmq, typed"),
        (Self::Textbook, "textbook"),
        (Self::Spinning, "spinning ring"),
        (Self::SpinningPaced, "spinning ring, paced"),
        (Self::PingPong, "futex ping-pong"),
    ];

    /// Its name in tables.
    pub fn label(self) -> &'static str {
        Self::ALL.iter().find(|(contender, _)| *contender == self).map_or("", |(_, label)| label)
    }
}

/// One end of a connection between two processes, one way or both.
pub(crate) trait Link: Sized {
    type Item: Payload;

    fn create(name: &str, capacity: usize) -> io::Result<Self>;
    fn open(name: &str) -> io::Result<Self>;
    /// Deletes the name, once both sides are there.
    fn unlink(&mut self) -> io::Result<()>;
    fn send(&mut self, item: &Self::Item) -> io::Result<()>;
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()>;
}

fn too_short(len: usize) -> io::Error {
    io::Error::other(format!("a message of {len} bytes where one of {MESSAGE} was expected"))
}

#[inline]
fn whole(len: usize) -> io::Result<()> {
    if len == MESSAGE { Ok(()) } else { Err(too_short(len)) }
}

/// A `ByteQueue`; `MAX` is its longest message, 0 the default.
pub(crate) struct Bytes<const MAX: usize>(ByteQueue);

impl<const MAX: usize> Link for Bytes<MAX> {
    type Item = [u8; MESSAGE];

    fn create(name: &str, capacity: usize) -> io::Result<Self> {
        if MAX == 0 {
            return Ok(Self(ByteQueue::create(name, capacity)?));
        }
        let queue = QueueOptions::new().capacity(capacity).max_message(MAX).create::<()>(name)?;
        Ok(Self(queue.into()))
    }

    fn open(name: &str) -> io::Result<Self> {
        Ok(Self(ByteQueue::open(name)?))
    }

    fn unlink(&mut self) -> io::Result<()> {
        Ok(shmq::remove(self.0.name())?)
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        Ok(self.0.put(item)?)
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        whole(self.0.get_into(item)?)
    }
}

pub(crate) struct Typed(Queue<Reading>);

impl Link for Typed {
    type Item = Reading;

    fn create(name: &str, capacity: usize) -> io::Result<Self> {
        Ok(Self(Queue::create(name, capacity)?))
    }

    fn open(name: &str) -> io::Result<Self> {
        Ok(Self(Queue::open(name)?))
    }

    fn unlink(&mut self) -> io::Result<()> {
        Ok(shmq::remove(self.0.name())?)
    }

    #[inline]
    fn send(&mut self, item: &Reading) -> io::Result<()> {
        Ok(self.0.put(item)?)
    }

    #[inline]
    fn receive(&mut self, item: &mut Reading) -> io::Result<()> {
        *item = self.0.get()?;
        Ok(())
    }
}

impl Link for Textbook {
    type Item = [u8; MESSAGE];

    fn create(name: &str, capacity: usize) -> io::Result<Self> {
        Self::create(name, capacity, MESSAGE)
    }

    fn open(name: &str) -> io::Result<Self> {
        Self::open(name)
    }

    fn unlink(&mut self) -> io::Result<()> {
        self.unlink()
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.put(item)
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        whole(self.get_into(item)?)
    }
}

/// A `SpinningRing`; `PACED` looks away while an eighth of the ring could be filled.
pub(crate) struct Spinning<const PACED: bool>(SpinningRing);

impl<const PACED: bool> Spinning<PACED> {
    fn new(mut ring: SpinningRing) -> Self {
        if PACED {
            ring.look_away(ring.capacity() / 8);
        }
        Self(ring)
    }
}

impl<const PACED: bool> Link for Spinning<PACED> {
    type Item = [u8; MESSAGE];

    fn create(name: &str, capacity: usize) -> io::Result<Self> {
        SpinningRing::create(name, capacity, MESSAGE).map(Self::new)
    }

    fn open(name: &str) -> io::Result<Self> {
        SpinningRing::open(name).map(Self::new)
    }

    fn unlink(&mut self) -> io::Result<()> {
        self.0.unlink()
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.0.put(item);
        Ok(())
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        whole(self.0.get_into(item))
    }
}

impl Link for PingPong {
    type Item = [u8; MESSAGE];

    fn create(name: &str, _: usize) -> io::Result<Self> {
        Self::create(name)
    }

    fn open(name: &str) -> io::Result<Self> {
        Self::open(name)
    }

    fn unlink(&mut self) -> io::Result<()> {
        self.unlink()
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.send(item);
        Ok(())
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        self.receive(item);
        Ok(())
    }
}

/// Both ways: one link there and one back.
pub(crate) struct Pair<L> {
    out: L,
    back: L,
}

impl<L: Link> Link for Pair<L> {
    type Item = L::Item;

    fn create(name: &str, capacity: usize) -> io::Result<Self> {
        let out = L::create(&format!("{name}-out"), capacity)?;
        Ok(Self { out, back: L::create(&format!("{name}-back"), capacity)? })
    }

    /// The other side's way out is our way back.
    fn open(name: &str) -> io::Result<Self> {
        let back = L::open(&format!("{name}-out"))?;
        Ok(Self { out: L::open(&format!("{name}-back"))?, back })
    }

    fn unlink(&mut self) -> io::Result<()> {
        self.out.unlink()?;
        self.back.unlink()
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.out.send(item)
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        self.back.receive(item)
    }
}
