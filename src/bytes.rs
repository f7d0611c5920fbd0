//! The queue of raw messages, which the typed queue is a coat of.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::attachment::{self, Attachment};
use crate::channel::{Channel, Paces};
use crate::deadline::Deadline;
use crate::error::{GetError, OpenError, PutError};
use crate::layout::{Expected, Kind};
use crate::options::QueueOptions;
use crate::ring::{Message, Ring};

/// A queue of raw messages between processes: bounded, many producers, many consumers, each message to
/// exactly one consumer, first in, first out.
///
/// It is the same queue that [`Queue<T>`](crate::Queue) is, without the encoding; `ByteQueue::from` and
/// `Queue::from` turn one into the other. A handle may be cloned (clones share one attachment) and used
/// by any number of threads. See [`Queue`](crate::Queue) for names, lifetime and close.
///
/// ```
/// let queue = shmq::ByteQueue::new(8)?;
/// queue.put(b"to be")?;
/// queue.put(b"")?;
/// assert_eq!(queue.get()?, b"to be");
/// assert_eq!(queue.get()?, b"");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ByteQueue {
    handle: Arc<Handle>,
}

/// What all clones share.
struct Handle {
    attachment: Attachment,
    paces: Paces,
}

/// Counters of a queue since it was created, over all processes.
///
/// They are read one after the other while the queue goes on: `gets` may be ahead of `puts` for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages put.
    pub puts: u64,
    /// Messages got.
    pub gets: u64,
    /// Bytes of the messages put.
    pub put_bytes: u64,
    /// Bytes of the messages got.
    pub get_bytes: u64,
    /// How often an end was taken over from a process that had died holding it. For each time the
    /// totals above may be short by one call.
    pub recoveries: u64,
    /// Handles attached now, this one included; clones of one handle count once.
    pub attached: u64,
}

impl ByteQueue {
    /// Makes a queue for up to `capacity` messages under a fresh unique name.
    ///
    /// # Errors
    /// As [`create`](Self::create), but never `InvalidName` or `AlreadyExists`.
    pub fn new(capacity: usize) -> Result<Self, OpenError> {
        Self::with(QueueOptions::new().capacity(capacity))
    }

    /// Makes a queue without a limit. Not to be had yet.
    ///
    /// # Errors
    /// [`OpenError::InvalidOptions`], always.
    pub fn unbounded() -> Result<Self, OpenError> {
        Self::with(&QueueOptions::new())
    }

    /// Makes a queue of this name for up to `capacity` messages.
    ///
    /// A queue of that name that a crash of everybody left behind is replaced.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is in use, `InvalidName`, `InvalidOptions` (capacity 0), `NoSpace` if
    /// /dev/shm is too small, `PermissionDenied`, or `Io`.
    pub fn create(name: &str, capacity: usize) -> Result<Self, OpenError> {
        Self::create_with(QueueOptions::new().capacity(capacity), name)
    }

    /// Attaches to the queue of this name.
    ///
    /// # Errors
    /// `NotFound` if there is none, `NotShmq` or `Mismatch` if there is something else, `InvalidName`,
    /// `PermissionDenied`, or `Io`.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        Self::open_with(&QueueOptions::new(), name)
    }

    /// Attaches to the queue of this name, or makes it; any number of processes may race.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`create`](Self::create), but for `NotFound` and
    /// `AlreadyExists`.
    pub fn open_or_create(name: &str, capacity: usize) -> Result<Self, OpenError> {
        Self::open_or_create_with(QueueOptions::new().capacity(capacity), name)
    }

    pub(crate) fn with(options: &QueueOptions) -> Result<Self, OpenError> {
        attachment::create_made_up(&options.plan(true)?).map(Self::attached)
    }

    pub(crate) fn create_with(options: &QueueOptions, name: &str) -> Result<Self, OpenError> {
        attachment::create(name, &options.plan(false)?).map(Self::attached)
    }

    pub(crate) fn open_with(options: &QueueOptions, name: &str) -> Result<Self, OpenError> {
        attachment::open(name, options.expected()?, Channel::bury).map(Self::attached)
    }

    pub(crate) fn open_or_create_with(options: &QueueOptions, name: &str) -> Result<Self, OpenError> {
        attachment::open_or_create(name, options.expected()?, &options.plan(false)?).map(Self::attached)
    }

    fn attached(attachment: Attachment) -> Self {
        Self { handle: Arc::new(Handle { attachment, paces: Paces::new() }) }
    }

    /// The name, with which other processes can [`open`](Self::open) the queue.
    pub fn name(&self) -> &str {
        self.handle.attachment.name()
    }

    /// The most messages that the queue holds; `None` for a queue without a limit.
    pub fn capacity(&self) -> Option<usize> {
        Some(self.handle.attachment.geometry().shape.capacity as usize)
    }

    /// How many messages there are: exact at one instant during the call. Takes no lock.
    #[doc(alias = "len")]
    pub fn qsize(&self) -> usize {
        self.channel().ring.len()
    }

    /// Whether there is no message at one instant during the call. Takes no lock.
    #[doc(alias = "is_empty")]
    pub fn empty(&self) -> bool {
        self.channel().ring.looks_empty()
    }

    /// Whether a put would have to wait at one instant during the call. Takes no lock.
    ///
    /// A put waits until there is room for the longest message, so this does not depend on the message.
    #[doc(alias = "is_full")]
    pub fn full(&self) -> bool {
        self.channel().ring.looks_full()
    }

    /// Closes the queue for every process, for ever: put fails, get takes what is there and then fails,
    /// and those who wait are woken. Never blocks.
    ///
    /// Every put that returned `Ok` is delivered before any get says `Closed`.
    pub fn close(&self) {
        self.channel().close();
    }

    /// Whether somebody has closed the queue. There may still be messages in it.
    pub fn is_closed(&self) -> bool {
        self.channel().is_closed()
    }

    /// The queue's counters. Never blocks.
    pub fn stats(&self) -> Stats {
        let attachment = &self.handle.attachment;
        let ends = attachment.ends();
        let (puts, put_bytes) = ends.put.side.totals();
        let (gets, get_bytes) = ends.get.side.totals();
        let recoveries = attachment.live().recoveries.load(std::sync::atomic::Ordering::Relaxed);
        let attached = attachment.lease().count().map_or(0, |count| count as u64);
        Stats { puts, gets, put_bytes, get_bytes, recoveries, attached }
    }

    /// Puts a message, of zero bytes or more. Blocks while the queue is full.
    ///
    /// # Errors
    /// `Closed`, `TooLong`, `Corrupt` or `Io`. After an error the message is not in the queue.
    #[doc(alias = "send")]
    pub fn put(&self, message: &[u8]) -> Result<(), PutError> {
        self.put_until(message, Deadline::Never)
    }

    /// Like [`put`](Self::put), but blocks for at most `timeout`. Zero is
    /// [`put_nowait`](Self::put_nowait), [`Duration::MAX`] is for ever.
    ///
    /// # Errors
    /// `Full` at the deadline, and those of [`put`](Self::put).
    pub fn put_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PutError> {
        self.put_until(message, Deadline::after(timeout))
    }

    /// Like [`put`](Self::put), but does not wait for room. It waits up to 1 ms for another process that
    /// is in the middle of a put.
    ///
    /// # Errors
    /// `Full`, and those of [`put`](Self::put).
    #[doc(alias = "try_send")]
    pub fn put_nowait(&self, message: &[u8]) -> Result<(), PutError> {
        self.put_until(message, Deadline::Now)
    }

    /// Gets the oldest message. Blocks while the queue is empty.
    ///
    /// The message is the caller's alone from then on: if the caller dies, it is lost with it
    /// (at-most-once delivery).
    ///
    /// # Errors
    /// `Closed`, `Corrupt` or `Io`. After an error no message has been taken.
    #[doc(alias = "recv")]
    pub fn get(&self) -> Result<Vec<u8>, GetError> {
        self.get_until(Deadline::Never)
    }

    /// Like [`get`](Self::get), but blocks for at most `timeout`. Zero is
    /// [`get_nowait`](Self::get_nowait), [`Duration::MAX`] is for ever.
    ///
    /// # Errors
    /// `Empty` at the deadline, and those of [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Vec<u8>, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    /// Like [`get`](Self::get), but does not wait for a message. It waits up to 1 ms for another process
    /// that is in the middle of a get.
    ///
    /// # Errors
    /// `Empty`, and those of [`get`](Self::get).
    #[doc(alias = "try_recv")]
    pub fn get_nowait(&self) -> Result<Vec<u8>, GetError> {
        self.get_until(Deadline::Now)
    }

    /// Gets the oldest message into `buffer` and returns its length. Blocks while the queue is empty.
    ///
    /// # Errors
    /// `BufferTooShort` with the whole message, which is no longer in the queue, and those of
    /// [`get`](Self::get).
    pub fn get_into(&self, buffer: &mut [u8]) -> Result<usize, GetError> {
        self.get_into_until(buffer, Deadline::Never)
    }

    /// Like [`get_into`](Self::get_into), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` at the deadline, and those of [`get_into`](Self::get_into).
    pub fn get_into_timeout(&self, buffer: &mut [u8], timeout: Duration) -> Result<usize, GetError> {
        self.get_into_until(buffer, Deadline::after(timeout))
    }

    #[inline]
    pub(crate) fn put_until(&self, message: &[u8], deadline: Deadline) -> Result<(), PutError> {
        let me = self.handle.attachment.identity().map_err(PutError::Io)?;
        self.channel().put(me, message, deadline)
    }

    #[inline]
    fn get_until(&self, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        let mut message = Vec::new();
        self.append_until(&mut message, deadline)?;
        Ok(message)
    }

    /// Gets the oldest message behind what is in `buffer`.
    #[inline]
    pub(crate) fn append_until(&self, buffer: &mut Vec<u8>, deadline: Deadline) -> Result<(), GetError> {
        let me = self.handle.attachment.identity().map_err(GetError::Io)?;
        self.channel().get(me, deadline, |message| append(message, buffer))
    }

    #[inline]
    fn get_into_until(&self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, GetError> {
        let me = self.handle.attachment.identity().map_err(GetError::Io)?;
        let taken = self.channel().get(me, deadline, |message| {
            if let Some(buffer) = buffer.get_mut(..message.len()) {
                message.copy_to(buffer)?;
                return Ok(Ok(buffer.len()));
            }
            let mut whole = Vec::new();
            append(message, &mut whole)?;
            Ok(Err(whole))
        })?;
        taken.map_err(|message| GetError::BufferTooShort { message })
    }

    /// The longest message that the queue carries.
    #[inline]
    pub(crate) fn max_message(&self) -> usize {
        self.handle.attachment.geometry().shape.max_message
    }

    #[inline]
    fn channel(&self) -> Channel<'_> {
        let Handle { attachment, paces } = &*self.handle;
        let ends = attachment.ends();
        let ring = Ring {
            shape: attachment.geometry().shape,
            bytes: attachment.ring(),
            put: &ends.put.side,
            get: &ends.get.side,
        };
        Channel { lease: attachment.lease(), ends, recoveries: &attachment.live().recoveries, ring, paces }
    }

    pub(crate) fn debug(&self, type_name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(type_name)
            .field("name", &self.name())
            .field("len", &self.qsize())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish()
    }
}

#[inline]
fn append(message: &Message<'_>, buffer: &mut Vec<u8>) -> Result<(), GetError> {
    message
        .append_to(buffer)?
        .map_err(|error| GetError::Io(io::Error::new(io::ErrorKind::OutOfMemory, error)))
}

impl fmt::Debug for ByteQueue {
    /// Name, length, capacity and whether it is closed. Never blocks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.debug("ByteQueue", f)
    }
}

impl Serialize for ByteQueue {
    /// The handle travels by name. Keep one until the other side has opened its own: the queue goes with
    /// its last handle.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.name(), self.handle.attachment.geometry().nonce).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ByteQueue {
    /// Attaches to the queue that was serialised; fails if it is gone, even if its name was used again.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (name, nonce) = <(String, u64)>::deserialize(deserializer)?;
        let expected = Expected { kind: Kind::Queue, schema: "", nonce: Some(nonce) };
        attachment::open(&name, expected, Channel::bury).map(Self::attached).map_err(D::Error::custom)
    }
}
