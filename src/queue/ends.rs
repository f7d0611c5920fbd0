//! An end of a typed queue, held for longer than a call.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::ser::Serialize;

use super::Queue;
use crate::bytes::{ByteConsumer, ByteProducer};
use crate::channel::Held;
use crate::deadline::Deadline;
use crate::error::{GetError, GetManyError, PutError, PutManyError};
use crate::items::Items;

/// The put end of a queue, held by this thread alone: each put is that of a lock-free ring with one producer.
///
/// Made by [`Queue::producer`]. Other producers, in this process and others, wait within their own timeouts until
/// it is dropped; if this process dies, the end is free again. [`close`](Queue::close) ends it like any other. A
/// put of the queue's own on this thread is an error meanwhile (`Io`, `EDEADLK`). In a forked child it is void:
/// its calls fail, and its drop does nothing. If it is leaked, the end stays held until this process's handle
/// goes.
///
/// ```
/// let queue = shmq::Queue::new(100)?;
/// let producer = queue.producer()?;
/// for number in 0..10 {
///     producer.put(&number)?;
/// }
/// drop(producer);
/// assert_eq!(queue.get()?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the end is held only as long as this lives"]
pub struct Producer<'a, T> {
    end: ByteProducer<'a>,
    queue: &'a Queue<T>,
}

/// The get end of a queue, held by this thread alone: each get is that of a lock-free ring with one consumer.
///
/// Made by [`Queue::consumer`]. What is said of [`Producer`] holds here for consumers.
///
/// ```
/// let queue = shmq::Queue::new(100)?;
/// queue.put_many(&[1, 2, 3])?;
/// let consumer = queue.consumer()?;
/// assert_eq!(consumer.get()?, 1);
/// assert_eq!(consumer.get_many(10)?, [2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the end is held only as long as this lives"]
pub struct Consumer<'a, T> {
    end: ByteConsumer<'a>,
    queue: &'a Queue<T>,
}

impl<T: Serialize> Queue<T> {
    /// Holds the put end until the returned guard is dropped. Blocks while somebody else has it.
    ///
    /// # Errors
    /// `Closed`, or `Io`.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// let producer = queue.producer()?;
    /// producer.put(&1)?;
    /// // This thread has the end already, and would wait for itself.
    /// assert!(matches!(queue.put(&2), Err(shmq::PutError::Io(_))));
    /// drop(producer);
    /// queue.put(&2)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn producer(&self) -> Result<Producer<'_, T>, PutError> {
        Ok(Producer { end: self.bytes().producer()?, queue: self })
    }

    /// Like [`producer`](Self::producer), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Full` if somebody else still has the end at the deadline, and those of [`producer`](Self::producer).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::Queue::<u32>::new(8)?;
    /// let producer = queue.producer()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         let late = queue.producer_timeout(Duration::from_millis(10));
    ///         assert!(matches!(late, Err(shmq::PutError::Full)));
    ///     });
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn producer_timeout(&self, timeout: Duration) -> Result<Producer<'_, T>, PutError> {
        Ok(Producer { end: self.bytes().producer_timeout(timeout)?, queue: self })
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Holds the get end until the returned guard is dropped. Blocks while somebody else has it.
    ///
    /// # Errors
    /// `Io`, or `Closed` if somebody else has the end of a queue that is closed and empty. If nobody has it, such a
    /// queue has a consumer too, whose calls say `Closed`.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put_many(&[1, 2])?;
    /// let consumer = queue.consumer()?;
    /// assert_eq!(consumer.get()?, 1);
    /// // This thread has the end already, and would wait for itself.
    /// assert!(matches!(queue.get(), Err(shmq::GetError::Io(_))));
    /// drop(consumer);
    /// assert_eq!(queue.get()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn consumer(&self) -> Result<Consumer<'_, T>, GetError> {
        Ok(Consumer { end: self.bytes().consumer()?, queue: self })
    }

    /// Like [`consumer`](Self::consumer), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` if somebody else still has the end at the deadline, and those of [`consumer`](Self::consumer).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::Queue::<u32>::new(8)?;
    /// let consumer = queue.consumer()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         let late = queue.consumer_timeout(Duration::from_millis(10));
    ///         assert!(matches!(late, Err(shmq::GetError::Empty)));
    ///     });
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn consumer_timeout(&self, timeout: Duration) -> Result<Consumer<'_, T>, GetError> {
        Ok(Consumer { end: self.bytes().consumer_timeout(timeout)?, queue: self })
    }
}

impl<T: Serialize> Producer<'_, T> {
    /// Puts an item. Blocks while the queue is full.
    ///
    /// # Errors
    /// As [`Queue::put`].
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// let producer = queue.producer()?;
    /// producer.put(&1)?;
    /// queue.close();
    /// assert!(matches!(producer.put(&2), Err(shmq::PutError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put(&self, item: &T) -> Result<(), PutError> {
        self.items().put(item, Deadline::Never)
    }

    /// Like [`put`](Self::put), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Queue::put_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::Queue::new(1)?;
    /// let producer = queue.producer()?;
    /// producer.put(&1)?;
    /// let late = producer.put_timeout(&2, Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_timeout(&self, item: &T, timeout: Duration) -> Result<(), PutError> {
        self.items().put(item, Deadline::after(timeout))
    }

    /// Like [`put`](Self::put), but never blocks.
    ///
    /// # Errors
    /// As [`Queue::put_nowait`].
    ///
    /// ```
    /// let queue = shmq::Queue::new(1)?;
    /// let producer = queue.producer()?;
    /// producer.put_nowait(&1)?;
    /// assert!(matches!(producer.put_nowait(&2), Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "try_send")]
    pub fn put_nowait(&self, item: &T) -> Result<(), PutError> {
        self.items().put(item, Deadline::Now)
    }

    /// Puts items with one commit for each run that there is room for.
    ///
    /// # Errors
    /// As [`Queue::put_many`].
    ///
    /// ```
    /// let queue = shmq::Queue::new(100)?;
    /// let producer = queue.producer()?;
    /// producer.put_many(&[1, 2, 3])?;
    /// assert_eq!(queue.get_many(100)?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_many(&self, items: &[T]) -> Result<(), PutManyError> {
        self.items().put_many(items, Deadline::Never)
    }

    /// Like [`put_many`](Self::put_many), but blocks for at most `timeout` in all.
    ///
    /// # Errors
    /// As [`Queue::put_many_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::Queue::new(2)?;
    /// let producer = queue.producer()?;
    /// let late = producer.put_many_timeout(&[1, 2, 3], Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutManyError { put: 2, error: shmq::PutError::Full })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_many_timeout(&self, items: &[T], timeout: Duration) -> Result<(), PutManyError> {
        self.items().put_many(items, Deadline::after(timeout))
    }

    #[inline]
    fn items(&self) -> Items<'_, T, Held> {
        Items::new(self.end.access(), self.queue.bytes().max_message())
    }
}

impl<T: DeserializeOwned> Consumer<'_, T> {
    /// Gets the oldest item. Blocks while the queue is empty.
    ///
    /// # Errors
    /// As [`Queue::get`].
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// queue.put(&"last".to_owned())?;
    /// queue.close();
    /// assert_eq!(consumer.get()?, "last");
    /// assert!(matches!(consumer.get(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self) -> Result<T, GetError> {
        self.items().get(Deadline::Never)
    }

    /// Like [`get`](Self::get), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Queue::get_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::Queue::<u32>::new(8)?;
    /// let consumer = queue.consumer()?;
    /// let late = consumer.get_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.items().get(Deadline::after(timeout))
    }

    /// Like [`get`](Self::get), but never blocks.
    ///
    /// # Errors
    /// As [`Queue::get_nowait`].
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// queue.put(&1)?;
    /// assert_eq!(consumer.get_nowait()?, 1);
    /// assert!(matches!(consumer.get_nowait(), Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "try_recv")]
    pub fn get_nowait(&self) -> Result<T, GetError> {
        self.items().get(Deadline::Now)
    }

    /// Gets up to `max` items with one commit. Blocks while the queue is empty.
    ///
    /// # Errors
    /// As [`Queue::get_many`].
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// let consumer = queue.consumer()?;
    /// queue.put_many(&[1, 2, 3])?;
    /// assert_eq!(consumer.get_many(2)?, [1, 2]);
    /// assert_eq!(consumer.get_many(2)?, [3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many(&self, max: usize) -> Result<Vec<T>, GetManyError<T>> {
        self.items().get_many(max, Deadline::Never)
    }

    /// Like [`get_many`](Self::get_many), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Queue::get_many_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::Queue::<u32>::new(8)?;
    /// let consumer = queue.consumer()?;
    /// let late = consumer.get_many_timeout(100, Duration::from_millis(10));
    /// assert!(late.is_err_and(|error| matches!(error.error, shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many_timeout(&self, max: usize, timeout: Duration) -> Result<Vec<T>, GetManyError<T>> {
        self.items().get_many(max, Deadline::after(timeout))
    }

    #[inline]
    fn items(&self) -> Items<'_, T, Held> {
        Items::new(self.end.access(), self.queue.bytes().max_message())
    }
}

impl<T> fmt::Debug for Producer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("queue", self.queue).finish()
    }
}

impl<T> fmt::Debug for Consumer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("queue", self.queue).finish()
    }
}
