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
    pub fn producer(&self) -> Result<Producer<'_, T>, PutError> {
        Ok(Producer { end: self.bytes().producer()?, queue: self })
    }

    /// Like [`producer`](Self::producer), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Full` if somebody else still has the end at the deadline, and those of [`producer`](Self::producer).
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
    pub fn consumer(&self) -> Result<Consumer<'_, T>, GetError> {
        Ok(Consumer { end: self.bytes().consumer()?, queue: self })
    }

    /// Like [`consumer`](Self::consumer), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` if somebody else still has the end at the deadline, and those of [`consumer`](Self::consumer).
    pub fn consumer_timeout(&self, timeout: Duration) -> Result<Consumer<'_, T>, GetError> {
        Ok(Consumer { end: self.bytes().consumer_timeout(timeout)?, queue: self })
    }
}

impl<T: Serialize> Producer<'_, T> {
    /// Puts an item. Blocks while the queue is full.
    ///
    /// # Errors
    /// As [`Queue::put`].
    pub fn put(&self, item: &T) -> Result<(), PutError> {
        self.items().put(item, Deadline::Never)
    }

    /// Like [`put`](Self::put), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Queue::put_timeout`].
    pub fn put_timeout(&self, item: &T, timeout: Duration) -> Result<(), PutError> {
        self.items().put(item, Deadline::after(timeout))
    }

    /// Like [`put`](Self::put), but never blocks.
    ///
    /// # Errors
    /// As [`Queue::put_nowait`].
    #[doc(alias = "try_send")]
    pub fn put_nowait(&self, item: &T) -> Result<(), PutError> {
        self.items().put(item, Deadline::Now)
    }

    /// Puts items with one commit for each run that there is room for.
    ///
    /// # Errors
    /// As [`Queue::put_many`].
    pub fn put_many(&self, items: &[T]) -> Result<(), PutManyError> {
        self.items().put_many(items, Deadline::Never)
    }

    /// Like [`put_many`](Self::put_many), but blocks for at most `timeout` in all.
    ///
    /// # Errors
    /// As [`Queue::put_many_timeout`].
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
    pub fn get(&self) -> Result<T, GetError> {
        self.items().get(Deadline::Never)
    }

    /// Like [`get`](Self::get), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Queue::get_timeout`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.items().get(Deadline::after(timeout))
    }

    /// Like [`get`](Self::get), but never blocks.
    ///
    /// # Errors
    /// As [`Queue::get_nowait`].
    #[doc(alias = "try_recv")]
    pub fn get_nowait(&self) -> Result<T, GetError> {
        self.items().get(Deadline::Now)
    }

    /// Gets up to `max` items with one commit. Blocks while the queue is empty.
    ///
    /// # Errors
    /// As [`Queue::get_many`].
    pub fn get_many(&self, max: usize) -> Result<Vec<T>, GetManyError<T>> {
        self.items().get_many(max, Deadline::Never)
    }

    /// Like [`get_many`](Self::get_many), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// As [`Queue::get_many_timeout`].
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
