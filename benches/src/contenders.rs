//! shmq in all its forms, the textbook design, and the bare limits.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};
use shmq::{ByteQueue, Queue, QueueOptions};

use crate::link::{Contender, Link, Place};
use crate::payload::{Checks, Payload, Reading, write_in_place, wrong_length};
use crate::pingpong::PingPong;
use crate::spinning::SpinningRing;
use crate::textbook::Textbook;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Messages of one batch.
pub const BATCH: usize = 64;

/// Everybody who is measured here, in the order of the tables.
pub static CONTENDERS: [Contender; 37] = [
    Contender::new::<Bytes<64, 0>>("shmq"),
    Contender::new::<Bytes<64, 64>>("shmq, max_message 64"),
    Contender::new::<Typed>("shmq, typed"),
    Contender::new::<Bytes<64, 0, UNBOUNDED>>("shmq, unbounded"),
    Contender::new::<Held<64>>("shmq, exclusive ends"),
    Contender::new::<Batches<64>>("shmq, batches of 64"),
    Contender::new::<HeldBatches<64>>("shmq, exclusive ends, batches of 64"),
    Contender::new::<InPlace<64>>("shmq, in place"),
    Contender::new::<Textbook>("textbook"),
    Contender::between_threads::<Crossbeam>("crossbeam-channel between threads"),
    Contender::duplex::<PingPong>("futex ping-pong"),
    Contender::new::<Spinning<64, false>>("spinning ring"),
    Contender::new::<Spinning<64, true>>("spinning ring, paced"),
    Contender::new::<LongRing>("spinning ring, paced, as long as shmq's"),
    Contender::new::<Bytes<8, 0>>("shmq"),
    Contender::new::<Held<8>>("shmq, exclusive ends"),
    Contender::new::<Batches<8>>("shmq, batches of 64"),
    Contender::new::<InPlace<8>>("shmq, in place"),
    Contender::new::<Spinning<8, true>>("spinning ring, paced"),
    Contender::new::<Bytes<KIB, KIB>>("shmq"),
    Contender::new::<Held<KIB>>("shmq, exclusive ends"),
    Contender::new::<Batches<KIB>>("shmq, batches of 64"),
    Contender::new::<InPlace<KIB>>("shmq, in place"),
    Contender::new::<Spinning<KIB, true>>("spinning ring, paced"),
    Contender::new::<Bytes<{ 8 * KIB }, 0>>("shmq"),
    Contender::new::<Held<{ 8 * KIB }>>("shmq, exclusive ends"),
    Contender::new::<InPlace<{ 8 * KIB }>>("shmq, in place"),
    Contender::new::<Spinning<{ 8 * KIB }, false>>("spinning ring"),
    Contender::new::<Bytes<{ 64 * KIB }, { 64 * KIB }>>("shmq"),
    Contender::new::<Held<{ 64 * KIB }>>("shmq, exclusive ends"),
    Contender::new::<InPlace<{ 64 * KIB }>>("shmq, in place"),
    Contender::new::<Spinning<{ 64 * KIB }, false>>("spinning ring"),
    Contender::new::<Bytes<MIB, MIB>>("shmq"),
    Contender::new::<Held<MIB>>("shmq, exclusive ends"),
    Contender::new::<InPlace<MIB>>("shmq, in place"),
    Contender::new::<Spinning<MIB, false>>("spinning ring"),
    Contender::new::<Spinning<{ 8 * KIB }, true>>("spinning ring, paced"),
];

/// The contender of this name for messages of this size.
///
/// # Errors
/// There is none.
pub fn contender(label: &str, size: usize) -> io::Result<&'static Contender> {
    let found = CONTENDERS.iter().find(|contender| contender.label == label && contender.size == size);
    found.ok_or_else(|| io::Error::other(format!("nobody is called {label:?} and carries {size} bytes")))
}

#[inline]
fn whole<const N: usize>(len: usize) -> io::Result<()> {
    if len == N { Ok(()) } else { Err(wrong_length(len, N)) }
}

/// A queue for messages of up to `max` bytes, 0 for the default, or more if `N` is longer.
fn create<const N: usize>(place: &Place, max: usize, bounded: bool) -> io::Result<ByteQueue> {
    let mut options = QueueOptions::new();
    if bounded {
        options.capacity(place.capacity);
    }
    if max > 0 {
        options.max_message(max);
    }
    Ok(options.create::<()>(&place.name)?.into())
}

const BOUNDED: bool = true;
/// Nothing holds the producer back.
const UNBOUNDED: bool = false;

/// `ByteQueue::put` and `get_into`; `MAX` is its longest message, 0 the default.
struct Bytes<const N: usize, const MAX: usize, const LIMIT: bool = BOUNDED>(ByteQueue);

impl<const N: usize, const MAX: usize, const LIMIT: bool> Link for Bytes<N, MAX, LIMIT> {
    type Item = [u8; N];

    fn create(place: &Place) -> io::Result<Self> {
        create::<N>(place, MAX, LIMIT).map(Self)
    }

    fn open(place: &Place) -> io::Result<Self> {
        Ok(Self(ByteQueue::open(&place.name)?))
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
        whole::<N>(self.0.get_into(item)?)
    }
}

/// Longest message of the queues below: the default where that is enough.
const fn longest(size: usize) -> usize {
    if size > 8 * KIB { size } else { 0 }
}

/// A link that is [`Bytes`] but for the streams.
macro_rules! like_bytes {
    () => {
        type Item = [u8; N];

        fn create(place: &Place) -> io::Result<Self> {
            create::<N>(place, longest(N), BOUNDED).map(Self)
        }

        fn open(place: &Place) -> io::Result<Self> {
            Ok(Self(ByteQueue::open(&place.name)?))
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
            whole::<N>(self.0.get_into(item)?)
        }
    };
}

/// `ByteProducer::put` and `ByteConsumer::get_into`: both ends held for the whole stream.
struct Held<const N: usize>(ByteQueue);

impl<const N: usize> Link for Held<N> {
    like_bytes!();

    fn produce(&mut self, numbers: Range<u64>, item: &mut Self::Item) -> io::Result<()> {
        let producer = self.0.producer()?;
        for number in numbers {
            item.set_number(number);
            producer.put(item)?;
        }
        Ok(())
    }

    fn consume(&mut self, count: u64, checks: &mut Checks, item: &mut Self::Item) -> io::Result<()> {
        let consumer = self.0.consumer()?;
        for _ in 0..count {
            whole::<N>(consumer.get_into(item)?)?;
            checks.see(item)?;
        }
        Ok(())
    }
}

/// Numbers so many messages and hands over slices of them, a batch at a time.
fn in_batches<const N: usize>(
    numbers: Range<u64>,
    mut put: impl FnMut(&[&[u8]]) -> io::Result<()>,
) -> io::Result<()> {
    let mut messages: Vec<Box<[u8; N]>> = (0..BATCH).map(|_| <[u8; N]>::blank()).collect();
    let mut next = numbers.start;
    while next < numbers.end {
        let batch = usize::try_from(numbers.end - next).map_or(BATCH, |left| left.min(BATCH));
        for message in &mut messages[..batch] {
            message.set_number(next);
            next += 1;
        }
        let mut slices: [&[u8]; BATCH] = [&[]; BATCH];
        for (slice, message) in slices.iter_mut().zip(&messages) {
            *slice = &**message;
        }
        put(&slices[..batch])?;
    }
    Ok(())
}

/// Shows so many messages to `checks` that come a batch at a time.
fn from_batches<const N: usize>(
    count: u64,
    checks: &mut Checks,
    mut get: impl FnMut(usize) -> io::Result<Vec<Vec<u8>>>,
) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let batch = get(usize::try_from(left).map_or(BATCH, |left| left.min(BATCH)))?;
        for message in &batch {
            checks.see_bytes::<N>(message)?;
        }
        left -= batch.len() as u64;
    }
    Ok(())
}

/// `ByteQueue::put_many` and `get_many`.
struct Batches<const N: usize>(ByteQueue);

impl<const N: usize> Link for Batches<N> {
    like_bytes!();

    fn produce(&mut self, numbers: Range<u64>, _: &mut Self::Item) -> io::Result<()> {
        in_batches::<N>(numbers, |batch| self.0.put_many(batch).map_err(io::Error::other))
    }

    fn consume(&mut self, count: u64, checks: &mut Checks, _: &mut Self::Item) -> io::Result<()> {
        from_batches::<N>(count, checks, |max| Ok(self.0.get_many(max)?))
    }
}

/// `ByteProducer::put_many` and `ByteConsumer::get_many`.
struct HeldBatches<const N: usize>(ByteQueue);

impl<const N: usize> Link for HeldBatches<N> {
    like_bytes!();

    fn produce(&mut self, numbers: Range<u64>, _: &mut Self::Item) -> io::Result<()> {
        let producer = self.0.producer()?;
        in_batches::<N>(numbers, |batch| producer.put_many(batch).map_err(io::Error::other))
    }

    fn consume(&mut self, count: u64, checks: &mut Checks, _: &mut Self::Item) -> io::Result<()> {
        let consumer = self.0.consumer()?;
        from_batches::<N>(count, checks, |max| Ok(consumer.get_many(max)?))
    }
}

/// `ByteQueue::put_with` and `get_with`: written where it is to lie, read where it lies.
struct InPlace<const N: usize>(ByteQueue);

impl<const N: usize> Link for InPlace<N> {
    like_bytes!();

    fn produce(&mut self, numbers: Range<u64>, _: &mut Self::Item) -> io::Result<()> {
        for number in numbers {
            self.0.put_with(N, |bytes| write_in_place(bytes, number))?;
        }
        Ok(())
    }

    fn consume(&mut self, count: u64, checks: &mut Checks, _: &mut Self::Item) -> io::Result<()> {
        for _ in 0..count {
            self.0.get_with(|bytes| checks.see_bytes::<N>(bytes))??;
        }
        Ok(())
    }
}

/// `Queue<Reading>::put` and `get`, default options.
struct Typed(Queue<Reading>);

impl Link for Typed {
    type Item = Reading;

    fn create(place: &Place) -> io::Result<Self> {
        Ok(Self(Queue::create(&place.name, place.capacity)?))
    }

    fn open(place: &Place) -> io::Result<Self> {
        Ok(Self(Queue::open(&place.name)?))
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
    type Item = [u8; 64];

    fn create(place: &Place) -> io::Result<Self> {
        Self::create(&place.name, place.capacity, 64)
    }

    fn open(place: &Place) -> io::Result<Self> {
        Self::open(&place.name)
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
        whole::<64>(self.get_into(item)?)
    }
}

/// A `SpinningRing`; `PACED` looks away while an eighth of the ring could be filled.
struct Spinning<const N: usize, const PACED: bool>(SpinningRing);

impl<const N: usize, const PACED: bool> Spinning<N, PACED> {
    fn new(mut ring: SpinningRing) -> Self {
        if PACED {
            ring.look_away(ring.capacity() / 8);
        }
        Self(ring)
    }
}

impl<const N: usize, const PACED: bool> Link for Spinning<N, PACED> {
    type Item = [u8; N];

    fn create(place: &Place) -> io::Result<Self> {
        SpinningRing::create(&place.name, place.capacity, N).map(Self::new)
    }

    fn open(place: &Place) -> io::Result<Self> {
        SpinningRing::open(&place.name).map(Self::new)
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
        whole::<N>(self.0.get_into(item))
    }
}

/// A `SpinningRing` that takes as much memory as a queue with the default `max_message`, and holds no more messages than
/// the others.
struct LongRing(Spinning<64, true>);

/// A little more than 9 MiB.
const LONG_RING: usize = 1 << 17;

impl LongRing {
    fn new(mut ring: SpinningRing, place: &Place) -> Self {
        ring.hold_at_most(place.capacity);
        ring.look_away(place.capacity / 8);
        Self(Spinning(ring))
    }
}

impl Link for LongRing {
    type Item = [u8; 64];

    fn create(place: &Place) -> io::Result<Self> {
        Ok(Self::new(SpinningRing::create(&place.name, LONG_RING, 64)?, place))
    }

    fn open(place: &Place) -> io::Result<Self> {
        Ok(Self::new(SpinningRing::open(&place.name)?, place))
    }

    fn unlink(&mut self) -> io::Result<()> {
        self.0.unlink()
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.0.send(item)
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        self.0.receive(item)
    }
}

impl Link for PingPong {
    type Item = [u8; 64];

    fn create(place: &Place) -> io::Result<Self> {
        Self::create(&place.name)
    }

    fn open(place: &Place) -> io::Result<Self> {
        Self::open(&place.name)
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

/// A bounded channel of crossbeam's. Both of its ends are kept: nobody sees it closed.
struct Crossbeam {
    name: String,
    ends: Ends,
}

type Ends = (Sender<[u8; 64]>, Receiver<[u8; 64]>);

/// The channels that have a name, for the other threads.
static CHANNELS: Mutex<Option<HashMap<String, Ends>>> = Mutex::new(None);

impl Link for Crossbeam {
    type Item = [u8; 64];

    fn create(place: &Place) -> io::Result<Self> {
        let ends = crossbeam_channel::bounded(place.capacity);
        let mut channels = CHANNELS.lock().unwrap_or_else(PoisonError::into_inner);
        channels.get_or_insert_default().insert(place.name.clone(), ends.clone());
        Ok(Self { name: place.name.clone(), ends })
    }

    fn open(place: &Place) -> io::Result<Self> {
        let channels = CHANNELS.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = channels.as_ref().and_then(|channels| channels.get(&place.name));
        let ends = ends.cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { name: place.name.clone(), ends })
    }

    fn unlink(&mut self) -> io::Result<()> {
        let mut channels = CHANNELS.lock().unwrap_or_else(PoisonError::into_inner);
        channels.get_or_insert_default().remove(&self.name);
        Ok(())
    }

    #[inline]
    fn send(&mut self, item: &Self::Item) -> io::Result<()> {
        self.ends.0.send(*item).map_err(io::Error::other)
    }

    #[inline]
    fn receive(&mut self, item: &mut Self::Item) -> io::Result<()> {
        *item = self.ends.1.recv().map_err(io::Error::other)?;
        Ok(())
    }
}
