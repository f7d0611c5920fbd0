//! An end of a queue of bytes, held for longer than a call.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use super::ByteQueue;
use crate::access::Access;
use crate::channel::Held;
use crate::deadline::Deadline;
use crate::error::{GetError, PutError, PutManyError};
use crate::sync::holds::Hold;
use crate::sys::deadlock;
use crate::sys::lease::Identity;

/// Whether a closure of the user's has bytes of the ring right now.
///
/// A held end takes no lock for a call, so nothing else would stop a call on the same guard inside of the closure:
/// it would write into the very bytes that are lent, or give them away to the other side.
#[derive(Default)]
struct Lent(Cell<bool>);

impl Lent {
    #[inline]
    fn check(&self) -> io::Result<()> {
        if self.0.get() { Err(deadlock()) } else { Ok(()) }
    }

    fn during<R>(&self, call: impl FnOnce() -> R) -> R {
        struct Over<'a>(&'a Cell<bool>);

        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }

        self.0.set(true);
        let _over = Over(&self.0);
        call()
    }
}

/// The put end of a queue, held by this thread alone: each put is that of a lock-free ring with one producer.
///
/// Made by [`ByteQueue::producer`]; [`Producer`](crate::Producer) is the same for items. Other producers, in
/// this process and others, wait within their own timeouts until it is dropped; if this process dies, the end
/// is free again. [`close`](ByteQueue::close) ends it like any other. A put of the queue's own on this thread
/// is an error meanwhile (`Io`, `EDEADLK`). In a forked child it is void: its calls fail, and its drop does
/// nothing. If it is leaked, the end stays held until this process's handle goes.
///
/// ```
/// let queue = shmq::ByteQueue::new(100)?;
/// let producer = queue.producer()?;
/// for number in 0..10_u8 {
///     producer.put(&[number])?;
/// }
/// drop(producer);
/// assert_eq!(queue.qsize(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the end is held only as long as this lives"]
pub struct ByteProducer<'a> {
    access: Access<'a, Held>,
    me: Identity,
    hold: Option<Hold>,
    lent: Lent,
    queue: &'a ByteQueue,
    /// Bound to the thread that holds the end.
    thread: PhantomData<*const ()>,
}

/// The get end of a queue, held by this thread alone: each get is that of a lock-free ring with one consumer.
///
/// Made by [`ByteQueue::consumer`]; [`Consumer`](crate::Consumer) is the same for items. What is said of
/// [`ByteProducer`] holds here for consumers.
///
/// ```
/// let queue = shmq::ByteQueue::new(100)?;
/// queue.put(b"one")?;
/// queue.put(b"two")?;
/// let consumer = queue.consumer()?;
/// assert_eq!(consumer.get()?, b"one");
/// assert_eq!(consumer.get_with(|bytes| bytes.len())?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the end is held only as long as this lives"]
pub struct ByteConsumer<'a> {
    access: Access<'a, Held>,
    me: Identity,
    hold: Option<Hold>,
    lent: Lent,
    queue: &'a ByteQueue,
    /// Bound to the thread that holds the end.
    thread: PhantomData<*const ()>,
}

impl ByteQueue {
    /// Holds the put end until the returned guard is dropped. Blocks while somebody else has it.
    ///
    /// # Errors
    /// `Closed`, or `Io`.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let producer = queue.producer()?;
    /// producer.put(b"first")?;
    /// // This thread has the end already, and would wait for itself.
    /// assert!(matches!(queue.put(b"second"), Err(shmq::PutError::Io(_))));
    /// drop(producer);
    /// queue.put(b"second")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn producer(&self) -> Result<ByteProducer<'_>, PutError> {
        ByteProducer::hold(self, Deadline::Never)
    }

    /// Like [`producer`](Self::producer), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Full` if somebody else still has the end at the deadline, and those of [`producer`](Self::producer).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let producer = queue.producer()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         let late = queue.producer_timeout(Duration::from_millis(10));
    ///         assert!(matches!(late, Err(shmq::PutError::Full)));
    ///     });
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn producer_timeout(&self, timeout: Duration) -> Result<ByteProducer<'_>, PutError> {
        ByteProducer::hold(self, Deadline::after(timeout))
    }

    /// Holds the get end until the returned guard is dropped. Blocks while somebody else has it.
    ///
    /// # Errors
    /// `Io`, or `Closed` if somebody else has the end of a queue that is closed and empty. If nobody has it, such a
    /// queue has a consumer too, whose calls say `Closed`.
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// queue.put_many(&[b"first", b"second"])?;
    /// let consumer = queue.consumer()?;
    /// assert_eq!(consumer.get()?, b"first");
    /// // This thread has the end already, and would wait for itself.
    /// assert!(matches!(queue.get(), Err(shmq::GetError::Io(_))));
    /// drop(consumer);
    /// assert_eq!(queue.get()?, b"second");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn consumer(&self) -> Result<ByteConsumer<'_>, GetError> {
        ByteConsumer::hold(self, Deadline::Never)
    }

    /// Like [`consumer`](Self::consumer), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` if somebody else still has the end at the deadline, and those of [`consumer`](Self::consumer).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         let late = queue.consumer_timeout(Duration::from_millis(10));
    ///         assert!(matches!(late, Err(shmq::GetError::Empty)));
    ///     });
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn consumer_timeout(&self, timeout: Duration) -> Result<ByteConsumer<'_>, GetError> {
        ByteConsumer::hold(self, Deadline::after(timeout))
    }
}

impl<'a> ByteProducer<'a> {
    fn hold(queue: &'a ByteQueue, deadline: Deadline) -> Result<Self, PutError> {
        let access = queue.access();
        let (me, hold) = access.channel.hold_put(deadline)?;
        let access = Access { channel: access.channel, turn: Held(me) };
        Ok(Self { access, me, hold: Some(hold), lent: Lent::default(), queue, thread: PhantomData })
    }

    /// For the typed end, which lends nothing.
    #[inline]
    pub(crate) fn access(&self) -> Access<'a, Held> {
        self.access
    }

    /// For one call. An error inside of a closure that one of this guard's own calls runs.
    #[inline]
    fn turn(&self) -> Result<Access<'a, Held>, PutError> {
        self.lent.check().map_err(PutError::Io)?;
        Ok(self.access)
    }

    /// Puts a message. Blocks while the queue is full.
    ///
    /// # Errors
    /// As [`ByteQueue::put`].
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let producer = queue.producer()?;
    /// producer.put(b"message")?;
    /// queue.close();
    /// assert!(matches!(producer.put(b"late"), Err(shmq::PutError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put(&self, message: &[u8]) -> Result<(), PutError> {
        self.turn()?.put(message, Deadline::Never)
    }

    /// Like [`put`](Self::put), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`ByteQueue::put_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(1)?;
    /// let producer = queue.producer()?;
    /// producer.put(b"first")?;
    /// let late = producer.put_timeout(b"second", Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_timeout(&self, message: &[u8], timeout: Duration) -> Result<(), PutError> {
        self.turn()?.put(message, Deadline::after(timeout))
    }

    /// Like [`put`](Self::put), but never blocks.
    ///
    /// # Errors
    /// As [`ByteQueue::put_nowait`].
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(1)?;
    /// let producer = queue.producer()?;
    /// producer.put_nowait(b"first")?;
    /// assert!(matches!(producer.put_nowait(b"second"), Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "try_send")]
    pub fn put_nowait(&self, message: &[u8]) -> Result<(), PutError> {
        self.turn()?.put(message, Deadline::Now)
    }

    /// Puts messages with one commit for each run that there is room for.
    ///
    /// # Errors
    /// As [`ByteQueue::put_many`].
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let producer = queue.producer()?;
    /// producer.put_many(&[b"one", b"two", b"three"])?;
    /// assert_eq!(queue.get_many(8)?, [&b"one"[..], b"two", b"three"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_many(&self, messages: &[&[u8]]) -> Result<(), PutManyError> {
        let access = self.turn().map_err(|error| PutManyError { put: 0, error })?;
        access.put_many(messages.len(), |at| messages[at], Deadline::Never)
    }

    /// Like [`put_many`](Self::put_many), but blocks for at most `timeout` in all.
    ///
    /// # Errors
    /// As [`ByteQueue::put_many_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(2)?;
    /// let producer = queue.producer()?;
    /// let late = producer.put_many_timeout(&[b"one", b"two", b"three"], Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutManyError { put: 2, error: shmq::PutError::Full })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_many_timeout(&self, messages: &[&[u8]], timeout: Duration) -> Result<(), PutManyError> {
        let access = self.turn().map_err(|error| PutManyError { put: 0, error })?;
        access.put_many(messages.len(), |at| messages[at], Deadline::after(timeout))
    }

    /// Puts a message of `len` bytes that `fill` writes in place.
    ///
    /// # Errors
    /// As [`ByteQueue::put_with`].
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let producer = queue.producer()?;
    /// producer.put_with(4, |bytes| bytes.copy_from_slice(&7_u32.to_le_bytes()))?;
    /// assert_eq!(queue.get()?, 7_u32.to_le_bytes());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_with(&self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), PutError> {
        let access = self.turn()?;
        self.lent.during(|| access.put_with(len, Deadline::Never, fill))
    }

    /// Like [`put_with`](Self::put_with), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`ByteQueue::put_with_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(1)?;
    /// let producer = queue.producer()?;
    /// producer.put_with_timeout(4, Duration::from_millis(10), |bytes| bytes.fill(1))?;
    /// let late = producer.put_with_timeout(4, Duration::from_millis(10), |bytes| bytes.fill(2));
    /// assert!(matches!(late, Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_with_timeout(
        &self,
        len: usize,
        timeout: Duration,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), PutError> {
        let access = self.turn()?;
        self.lent.during(|| access.put_with(len, Deadline::after(timeout), fill))
    }
}

impl Drop for ByteProducer<'_> {
    fn drop(&mut self) {
        // The thread's own record goes first: it must not outlive the lock.
        self.hold = None;
        self.access.channel.release_put(self.me);
    }
}

impl<'a> ByteConsumer<'a> {
    fn hold(queue: &'a ByteQueue, deadline: Deadline) -> Result<Self, GetError> {
        let access = queue.access();
        let (me, hold) = access.channel.hold_get(deadline)?;
        let access = Access { channel: access.channel, turn: Held(me) };
        Ok(Self { access, me, hold: Some(hold), lent: Lent::default(), queue, thread: PhantomData })
    }

    /// For the typed end, which lends nothing.
    #[inline]
    pub(crate) fn access(&self) -> Access<'a, Held> {
        self.access
    }

    /// For one call. An error inside of a closure that one of this guard's own calls runs.
    #[inline]
    fn turn(&self) -> Result<Access<'a, Held>, GetError> {
        self.lent.check().map_err(GetError::Io)?;
        Ok(self.access)
    }

    /// Gets the oldest message. Blocks while the queue is empty.
    ///
    /// # Errors
    /// As [`ByteQueue::get`].
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// queue.put(b"last")?;
    /// queue.close();
    /// assert_eq!(consumer.get()?, b"last");
    /// assert!(matches!(consumer.get(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self) -> Result<Vec<u8>, GetError> {
        self.turn()?.get(Deadline::Never)
    }

    /// Like [`get`](Self::get), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`ByteQueue::get_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// let late = consumer.get_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_timeout(&self, timeout: Duration) -> Result<Vec<u8>, GetError> {
        self.turn()?.get(Deadline::after(timeout))
    }

    /// Like [`get`](Self::get), but never blocks.
    ///
    /// # Errors
    /// As [`ByteQueue::get_nowait`].
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// queue.put(b"message")?;
    /// assert_eq!(consumer.get_nowait()?, b"message");
    /// assert!(matches!(consumer.get_nowait(), Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "try_recv")]
    pub fn get_nowait(&self) -> Result<Vec<u8>, GetError> {
        self.turn()?.get(Deadline::Now)
    }

    /// Gets the oldest message into `buffer` and returns its length. Blocks while the queue is empty.
    ///
    /// # Errors
    /// As [`ByteQueue::get_into`].
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// queue.put(b"message")?;
    /// let mut buffer = [0; 16];
    /// let len = consumer.get_into(&mut buffer)?;
    /// assert_eq!(&buffer[..len], b"message");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_into(&self, buffer: &mut [u8]) -> Result<usize, GetError> {
        self.turn()?.get_into(buffer, Deadline::Never)
    }

    /// Like [`get_into`](Self::get_into), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`ByteQueue::get_into_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// let mut buffer = [0; 16];
    /// let late = consumer.get_into_timeout(&mut buffer, Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_into_timeout(&self, buffer: &mut [u8], timeout: Duration) -> Result<usize, GetError> {
        self.turn()?.get_into(buffer, Deadline::after(timeout))
    }

    /// Gets up to `max` messages with one commit. Blocks while the queue is empty.
    ///
    /// # Errors
    /// As [`ByteQueue::get_many`].
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// queue.put_many(&[b"one", b"two", b"three"])?;
    /// assert_eq!(consumer.get_many(2)?, [b"one", b"two"]);
    /// assert_eq!(consumer.get_many(2)?, [b"three"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many(&self, max: usize) -> Result<Vec<Vec<u8>>, GetError> {
        self.turn()?.get_many(max, Deadline::Never)
    }

    /// Like [`get_many`](Self::get_many), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`ByteQueue::get_many_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// let late = consumer.get_many_timeout(100, Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many_timeout(&self, max: usize, timeout: Duration) -> Result<Vec<Vec<u8>>, GetError> {
        self.turn()?.get_many(max, Deadline::after(timeout))
    }

    /// Reads the oldest message in place and removes it after `read` has returned.
    ///
    /// # Errors
    /// As [`ByteQueue::get_with`].
    ///
    /// ```
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// queue.put(&[1; 1000])?;
    /// let sum = consumer.get_with(|bytes| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>())?;
    /// assert_eq!((sum, queue.qsize()), (1000, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_with<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, GetError> {
        let access = self.turn()?;
        self.lent.during(|| access.get_with(Deadline::Never, read))
    }

    /// Like [`get_with`](Self::get_with), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`ByteQueue::get_with_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::ByteQueue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// let late = consumer.get_with_timeout(Duration::from_millis(10), |bytes| bytes.len());
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_with_timeout<R>(
        &self,
        timeout: Duration,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, GetError> {
        let access = self.turn()?;
        self.lent.during(|| access.get_with(Deadline::after(timeout), read))
    }
}

impl Drop for ByteConsumer<'_> {
    fn drop(&mut self) {
        self.hold = None;
        self.access.channel.release_get(self.me);
    }
}

impl fmt::Debug for ByteProducer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteProducer").field("queue", self.queue).finish()
    }
}

impl fmt::Debug for ByteConsumer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteConsumer").field("queue", self.queue).finish()
    }
}
