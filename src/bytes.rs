//! The queue of raw messages, which the typed queue is a coat of.

mod ends;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::access::Access;
use crate::attachment::{self, Attachment};
use crate::channel::{Channel, Once, Port};
use crate::deadline::Deadline;
use crate::error::{GetError, OpenError, PutError, PutManyError, TaskDoneError};
use crate::handover;
use crate::layout::{Expected, Kind, Lane};
use crate::options::{QueueOptions, no_capacity};
use crate::tasks::Tasks;

pub use ends::{ByteConsumer, ByteProducer};

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
    port: Port,
}

impl Drop for Handle {
    /// Who is done with the queue that ends of pipes were sent through may never call us again.
    fn drop(&mut self) {
        handover::sweep();
    }
}

/// Counters of a queue since it was created, over all processes.
///
/// They are read one after the other while the queue goes on: `gets` may be ahead of `puts` for a moment.
///
/// ```
/// let queue = shmq::ByteQueue::new(8)?;
/// queue.put(b"one")?;
/// queue.put(b"two")?;
/// queue.get()?;
/// let stats = queue.stats();
/// assert_eq!((stats.puts, stats.put_bytes, stats.gets, stats.get_bytes), (2, 6, 1, 3));
/// // Got or not, neither has been reported as done.
/// assert_eq!((stats.unfinished, stats.recoveries, stats.attached), (2, 0, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// Messages put that have not had their `task_done`.
    pub unfinished: u64,
    /// How often an end was taken over from a process that had died holding it. For each time the
    /// bytes above may be short by one call.
    pub recoveries: u64,
    /// Handles attached now, this one included; clones of one handle count once.
    pub attached: u64,
}

impl ByteQueue {
    /// Makes a queue for up to `capacity` messages under a fresh unique name.
    ///
    /// # Errors
    /// As [`create`](Self::create), but never `InvalidName` or `AlreadyExists`.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let there = shmq::ByteQueue::open(queue.name())?; // as another process does
    /// there.put(b"message")?;
    /// assert_eq!(queue.get()?, b"message");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(capacity: usize) -> Result<Self, OpenError> {
        Self::with(&bounded(capacity)?)
    }

    /// Makes a queue without a limit but memory, under a fresh unique name.
    ///
    /// See [`QueueOptions::capacity`].
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// ```
    /// let queue = shmq::ByteQueue::unbounded()?;
    /// for _ in 0..1000 {
    ///     queue.put(&[0; 1000])?;
    /// }
    /// assert_eq!((queue.qsize(), queue.capacity(), queue.full()), (1000, None, false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// let name = format!("frames-{}", std::process::id());
    /// let queue = shmq::ByteQueue::create(&name, 8)?;
    /// assert_eq!(queue.name(), name);
    /// let again = shmq::ByteQueue::create(&name, 8);
    /// assert!(matches!(again, Err(shmq::OpenError::AlreadyExists { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(name: &str, capacity: usize) -> Result<Self, OpenError> {
        Self::create_with(&bounded(capacity)?, name)
    }

    /// Attaches to the queue of this name.
    ///
    /// # Errors
    /// `NotFound` if there is none, `NotShmq` or `Mismatch` if there is something else, `InvalidName`,
    /// `PermissionDenied`, or `Io`.
    ///
    /// ```
    /// let name = format!("opened-frames-{}", std::process::id());
    /// let early = shmq::ByteQueue::open(&name);
    /// assert!(matches!(early, Err(shmq::OpenError::NotFound { .. })));
    /// let queue = shmq::ByteQueue::create(&name, 8)?;
    /// shmq::ByteQueue::open(&name)?.put(b"frame")?;
    /// assert_eq!(queue.get()?, b"frame");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(name: &str) -> Result<Self, OpenError> {
        Self::open_with(&QueueOptions::new(), name)
    }

    /// Attaches to the queue of this name, or makes it; any number of processes may race.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`create`](Self::create), but for `NotFound` and
    /// `AlreadyExists`.
    ///
    /// ```
    /// let name = format!("shared-frames-{}", std::process::id());
    /// let made = shmq::ByteQueue::open_or_create(&name, 8)?;
    /// let opened = shmq::ByteQueue::open_or_create(&name, 100)?;
    /// made.put(b"frame")?;
    /// // The capacity is that of whoever came first.
    /// assert_eq!((opened.capacity(), opened.qsize()), (Some(8), 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_or_create(name: &str, capacity: usize) -> Result<Self, OpenError> {
        Self::open_or_create_with(&bounded(capacity)?, name)
    }

    /// Attaches as the command `shmq` does: leaving never removes the queue, and being attached does not keep it
    /// from going with the last of its users. Not part of the stable interface.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    #[doc(hidden)]
    pub fn open_as_guest(name: &str) -> Result<Self, OpenError> {
        let expected = Expected { kind: Kind::Queue, schema: "", nonce: None };
        attachment::open_as_guest(name, expected).map(Self::attached)
    }

    /// Whether the queue has gone and nobody but guests is attached any more. Not part of the stable interface.
    #[doc(hidden)]
    pub fn is_abandoned(&self) -> bool {
        self.handle.attachment.is_abandoned()
    }

    pub(crate) fn with(options: &QueueOptions) -> Result<Self, OpenError> {
        attachment::create_made_up(&options.settings().plan(Kind::Queue, true)?).map(Self::attached)
    }

    pub(crate) fn create_with(options: &QueueOptions, name: &str) -> Result<Self, OpenError> {
        attachment::create(name, &options.settings().plan(Kind::Queue, false)?).map(Self::attached)
    }

    pub(crate) fn open_with(options: &QueueOptions, name: &str) -> Result<Self, OpenError> {
        attachment::open(name, options.settings().expected(Kind::Queue)?).map(Self::attached)
    }

    pub(crate) fn open_or_create_with(options: &QueueOptions, name: &str) -> Result<Self, OpenError> {
        attachment::open_or_create(
            name,
            options.settings().expected(Kind::Queue)?,
            &options.settings().plan(Kind::Queue, false)?,
        )
        .map(Self::attached)
    }

    fn attached(attachment: Attachment) -> Self {
        let port = Port::new(&attachment, Lane::First, None);
        Self { handle: Arc::new(Handle { attachment, port }) }
    }

    /// The name, with which other processes can [`open`](Self::open) the queue.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let there = shmq::ByteQueue::open(queue.name())?; // as another process does
    /// assert_eq!(there.name(), queue.name());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn name(&self) -> &str {
        self.handle.attachment.name()
    }

    /// The most messages that the queue holds; `None` for a queue without a limit.
    ///
    /// ```
    /// assert_eq!(shmq::ByteQueue::new(8)?.capacity(), Some(8));
    /// assert_eq!(shmq::ByteQueue::unbounded()?.capacity(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capacity(&self) -> Option<usize> {
        self.handle.attachment.geometry().capacity().map(|capacity| capacity as usize)
    }

    /// How many messages there are: exact at one instant during the call. Takes no lock.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"one")?;
    /// queue.put(b"")?;
    /// assert_eq!(queue.qsize(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "len")]
    pub fn qsize(&self) -> usize {
        self.channel().ring().len()
    }

    /// Whether there is no message at one instant during the call. Takes no lock.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// assert!(queue.empty());
    /// queue.put(b"")?;
    /// assert!(!queue.empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "is_empty")]
    pub fn empty(&self) -> bool {
        self.channel().ring().looks_empty()
    }

    /// Whether a put would have to wait at one instant during the call. Takes no lock.
    ///
    /// A put waits until there is room for the longest message, so this does not depend on the message.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(1)?;
    /// assert!(!queue.full());
    /// queue.put(b"")?;
    /// assert!(queue.full());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "is_full")]
    pub fn full(&self) -> bool {
        self.channel().ring().looks_full()
    }

    /// Closes the queue for every process, for ever: put fails, get takes what is there and then fails,
    /// and those who wait are woken. Never blocks.
    ///
    /// Every put that returned `Ok` is delivered before any get says `Closed`.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"last")?;
    /// queue.close();
    /// assert!(matches!(queue.put(b"late"), Err(shmq::PutError::Closed)));
    /// assert_eq!(queue.get()?, b"last");
    /// assert!(matches!(queue.get(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        self.channel().close();
    }

    /// Whether somebody has closed the queue. There may still be messages in it.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let there = shmq::ByteQueue::open(queue.name())?; // as another process does
    /// queue.put(b"last")?;
    /// queue.close();
    /// assert!(there.is_closed() && !there.empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.channel().is_closed()
    }

    /// The queue's counters. Never blocks.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"message")?;
    /// queue.get()?;
    /// assert_eq!((queue.stats().get_bytes, queue.stats().unfinished), (7, 1));
    /// queue.task_done()?;
    /// assert_eq!(queue.stats().unfinished, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        let attachment = &self.handle.attachment;
        let ends = attachment.ends(Lane::First);
        let (puts, put_bytes) = ends.put.side.totals();
        let (gets, get_bytes) = ends.get.side.totals();
        let recoveries = attachment.live().recoveries.load(std::sync::atomic::Ordering::Relaxed);
        let attached = attachment.lease().count().map_or(0, |count| count as u64);
        let unfinished = self.tasks().unfinished();
        Stats { puts, gets, put_bytes, get_bytes, unfinished, recoveries, attached }
    }

    /// Says that one item that was got has been dealt with; for [`join`](Self::join).
    ///
    /// A consumer that dies between `get` and `task_done` leaves its item unfinished: it stays in
    /// `stats().unfinished`. To have such an item come again, use [`get_with`](Self::get_with) and call this
    /// after it.
    ///
    /// # Errors
    /// It was called more often than there were items.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"work")?;
    /// queue.get()?;
    /// queue.task_done()?;
    /// queue.join();
    /// assert!(queue.task_done().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task_done(&self) -> Result<(), TaskDoneError> {
        self.tasks().done()
    }

    /// Blocks until every item put before this call has had its [`task_done`](Self::task_done).
    ///
    /// It waits for ever for an item whose consumer died: see [`join_timeout`](Self::join_timeout).
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"work")?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| queue.get().map(|_| queue.task_done()));
    ///     queue.join();
    /// });
    /// assert_eq!(queue.stats().unfinished, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(&self) {
        self.tasks().join(Deadline::Never);
    }

    /// Like [`join`](Self::join), but blocks for at most `timeout`. False if items were left by then.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"work")?;
    /// queue.get()?;
    /// assert!(!queue.join_timeout(Duration::from_millis(10)));
    /// queue.task_done()?;
    /// assert!(queue.join_timeout(Duration::from_millis(10)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        self.tasks().join(Deadline::after(timeout))
    }

    /// Puts a message, of zero bytes or more. Blocks while the queue is full.
    ///
    /// # Errors
    /// `Closed`, `TooLong`, `Corrupt` or `Io`. After an error the message is not in the queue.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"message")?;
    /// let long = queue.put(&[0; 10_000]);
    /// assert!(matches!(long, Err(shmq::PutError::TooLong { len: 10_000, max: 8192 })));
    /// assert_eq!(queue.qsize(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "send")]
    pub fn put(&self, message: &[u8]) -> Result<(), PutError> {
        self.put_until(message, Deadline::Never)
    }

    /// Like [`put`](Self::put), but blocks for at most `timeout`. Zero is
    /// [`put_nowait`](Self::put_nowait), [`Duration::MAX`] is for ever.
    ///
    /// # Errors
    /// `Full` at the deadline, and those of [`put`](Self::put).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(1)?;
    /// queue.put(b"first")?;
    /// let late = queue.put_timeout(b"second", Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PutError> {
        self.put_until(message, Deadline::after(timeout))
    }

    /// Like [`put`](Self::put), but does not wait for room. It waits up to 1 ms for another process that
    /// is in the middle of a put.
    ///
    /// # Errors
    /// `Full`, and those of [`put`](Self::put).
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(1)?;
    /// queue.put_nowait(b"first")?;
    /// assert!(matches!(queue.put_nowait(b"second"), Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "try_send")]
    pub fn put_nowait(&self, message: &[u8]) -> Result<(), PutError> {
        self.put_until(message, Deadline::Now)
    }

    /// Puts messages in runs, each as long as there is room for. Blocks while the queue is full.
    ///
    /// A run is committed at once: if this process dies, all of it is in the queue or none. Other producers may
    /// come between two runs.
    ///
    /// # Errors
    /// Those of [`put`](Self::put). `TooLong` for any of them means that none was put; after any other error
    /// exactly the first `put` of them are in the queue.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put_many(&[b"one", b"two", b"three"])?;
    /// assert_eq!(queue.get_many(2)?, [b"one", b"two"]);
    /// assert_eq!(queue.get_many(2)?, [b"three"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_many(&self, messages: &[&[u8]]) -> Result<(), PutManyError> {
        self.put_many_until(messages, Deadline::Never)
    }

    /// Like [`put_many`](Self::put_many), but blocks for at most `timeout` in all.
    ///
    /// # Errors
    /// `Full` at the deadline, and those of [`put_many`](Self::put_many).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(2)?;
    /// let late = queue.put_many_timeout(&[b"one", b"two", b"three"], Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutManyError { put: 2, error: shmq::PutError::Full })));
    /// assert_eq!(queue.get_many(3)?, [b"one", b"two"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_many_timeout(&self, messages: &[&[u8]], timeout: Duration) -> Result<(), PutManyError> {
        self.put_many_until(messages, Deadline::after(timeout))
    }

    /// Puts a message of `len` bytes that `fill` writes where it is to lie, without a copy. Blocks while the
    /// queue is full.
    ///
    /// The bytes that `fill` is given hold unspecified old content. While it runs, other producers wait: it
    /// should only write. If it panics, or this process dies in it, nothing was put.
    ///
    /// # Errors
    /// Those of [`put`](Self::put). Another put on the same queue inside of `fill` is `Io` (`EDEADLK`).
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put_with(4, |bytes| bytes.copy_from_slice(b"data"))?;
    /// assert_eq!(queue.get_with(|bytes| bytes.len())?, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_with(&self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), PutError> {
        self.access().put_with(len, Deadline::Never, fill)
    }

    /// Like [`put_with`](Self::put_with), but blocks for at most `timeout`, `fill` not counted.
    ///
    /// # Errors
    /// `Full` at the deadline, and those of [`put_with`](Self::put_with).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(1)?;
    /// queue.put_with_timeout(4, Duration::from_millis(10), |bytes| bytes.fill(1))?;
    /// let late = queue.put_with_timeout(4, Duration::from_millis(10), |bytes| bytes.fill(2));
    /// assert!(matches!(late, Err(shmq::PutError::Full)));
    /// assert_eq!(queue.get()?, [1; 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_with_timeout(
        &self,
        len: usize,
        timeout: Duration,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), PutError> {
        self.access().put_with(len, Deadline::after(timeout), fill)
    }

    /// Gets the oldest message. Blocks while the queue is empty.
    ///
    /// The message is the caller's alone from then on: if the caller dies, it is lost with it
    /// (at-most-once delivery; [`get_with`](Self::get_with) is at-least-once).
    ///
    /// # Errors
    /// `Closed`, `Corrupt` or `Io`. After an error no message has been taken.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"last")?;
    /// queue.close();
    /// assert_eq!(queue.get()?, b"last");
    /// assert!(matches!(queue.get(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "recv")]
    pub fn get(&self) -> Result<Vec<u8>, GetError> {
        self.get_until(Deadline::Never)
    }

    /// Like [`get`](Self::get), but blocks for at most `timeout`. Zero is
    /// [`get_nowait`](Self::get_nowait), [`Duration::MAX`] is for ever.
    ///
    /// # Errors
    /// `Empty` at the deadline, and those of [`get`](Self::get).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let late = queue.get_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_timeout(&self, timeout: Duration) -> Result<Vec<u8>, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    /// Like [`get`](Self::get), but does not wait for a message. It waits up to 1 ms for another process
    /// that is in the middle of a get.
    ///
    /// # Errors
    /// `Empty`, and those of [`get`](Self::get).
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"message")?;
    /// assert_eq!(queue.get_nowait()?, b"message");
    /// assert!(matches!(queue.get_nowait(), Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "try_recv")]
    pub fn get_nowait(&self) -> Result<Vec<u8>, GetError> {
        self.get_until(Deadline::Now)
    }

    /// Gets the oldest message into `buffer` and returns its length. Blocks while the queue is empty.
    ///
    /// # Errors
    /// `BufferTooShort` with the whole message, which is no longer in the queue, and those of
    /// [`get`](Self::get).
    ///
    /// ```
    /// use shmq::GetError::BufferTooShort;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put_many(&[b"four", b"too long"])?;
    /// let mut buffer = [0; 4];
    /// let len = queue.get_into(&mut buffer)?;
    /// assert_eq!(&buffer[..len], b"four");
    /// let short = queue.get_into(&mut buffer);
    /// assert!(matches!(short, Err(BufferTooShort { message }) if message == b"too long"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_into(&self, buffer: &mut [u8]) -> Result<usize, GetError> {
        self.access().get_into(buffer, Deadline::Never)
    }

    /// Like [`get_into`](Self::get_into), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` at the deadline, and those of [`get_into`](Self::get_into).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"four")?;
    /// let mut buffer = [0; 16];
    /// assert_eq!(queue.get_into_timeout(&mut buffer, Duration::from_millis(10))?, 4);
    /// let late = queue.get_into_timeout(&mut buffer, Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_into_timeout(&self, buffer: &mut [u8], timeout: Duration) -> Result<usize, GetError> {
        self.access().get_into(buffer, Deadline::after(timeout))
    }

    /// Gets up to `max` messages at once. Blocks while the queue is empty, then takes what is there; 0 is none, at
    /// once.
    ///
    /// If this process dies in the call, all of them are lost with it or none.
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put_many(&[b"one", b"two", b"three"])?;
    /// assert_eq!(queue.get_many(2)?, [b"one", b"two"]);
    /// // It does not wait for the other 99.
    /// assert_eq!(queue.get_many(100)?, [b"three"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many(&self, max: usize) -> Result<Vec<Vec<u8>>, GetError> {
        self.access().get_many(max, Deadline::Never)
    }

    /// Like [`get_many`](Self::get_many), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` at the deadline, and those of [`get_many`](Self::get_many).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"one")?;
    /// assert_eq!(queue.get_many_timeout(100, Duration::from_millis(10))?, [b"one"]);
    /// let late = queue.get_many_timeout(100, Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many_timeout(&self, max: usize, timeout: Duration) -> Result<Vec<Vec<u8>>, GetError> {
        self.access().get_many(max, Deadline::after(timeout))
    }

    /// Reads the oldest message where it lies, without a copy, and removes it after `read` has returned. Blocks
    /// while the queue is empty.
    ///
    /// At-least-once delivery: if `read` panics, or this process dies in it or right after it, the message
    /// stays at the head and the next one gets it again. While `read` runs, other consumers wait.
    ///
    /// `read` sees shared memory. The library's own calls, in any process, leave it alone meanwhile; a process
    /// that writes there without the library could change it under the reader.
    ///
    /// # Errors
    /// Those of [`get`](Self::get). Another get on the same queue inside of `read` is `Io` (`EDEADLK`).
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"a long message")?;
    /// let spaces = queue.get_with(|bytes| bytes.iter().filter(|byte| **byte == b' ').count())?;
    /// assert_eq!(spaces, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_with<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, GetError> {
        self.access().get_with(Deadline::Never, read)
    }

    /// Like [`get_with`](Self::get_with), but blocks for at most `timeout`, `read` not counted.
    ///
    /// # Errors
    /// `Empty` at the deadline, and those of [`get_with`](Self::get_with).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put(b"message")?;
    /// assert_eq!(queue.get_with_timeout(Duration::from_millis(10), |bytes| bytes.len())?, 7);
    /// let late = queue.get_with_timeout(Duration::from_millis(10), |bytes| bytes.len());
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_with_timeout<R>(
        &self,
        timeout: Duration,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, GetError> {
        self.access().get_with(Deadline::after(timeout), read)
    }

    #[inline(always)]
    fn put_until(&self, message: &[u8], deadline: Deadline) -> Result<(), PutError> {
        self.access().put(message, deadline)
    }

    fn put_many_until(&self, messages: &[&[u8]], deadline: Deadline) -> Result<(), PutManyError> {
        self.access().put_many(messages.len(), |at| messages[at], deadline)
    }

    #[inline(always)]
    fn get_until(&self, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        self.access().get(deadline)
    }

    /// The longest message that the queue carries.
    #[inline]
    pub(crate) fn max_message(&self) -> usize {
        self.handle.port.shape.max_message
    }

    #[inline]
    pub(crate) fn channel(&self) -> Channel<'_> {
        Channel::new(&self.handle.attachment, &self.handle.port)
    }

    #[inline]
    pub(crate) fn access(&self) -> Access<'_, Once> {
        Access { channel: self.channel(), turn: Once }
    }

    fn tasks(&self) -> Tasks<'_> {
        let attachment = &self.handle.attachment;
        Tasks::new(attachment.live(), &attachment.ends(Lane::First).put.side)
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

/// Whoever names a capacity wants one.
fn bounded(capacity: usize) -> Result<QueueOptions, OpenError> {
    if capacity == 0 {
        return Err(no_capacity(Kind::Queue));
    }
    let mut options = QueueOptions::new();
    options.capacity(capacity);
    Ok(options)
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
        attachment::open(&name, expected).map(Self::attached).map_err(D::Error::custom)
    }
}
