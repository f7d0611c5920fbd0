//! The typed queue.

mod ends;

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::bytes::{ByteQueue, Stats};
use crate::channel::Once;
use crate::deadline::Deadline;
use crate::error::{GetError, GetManyError, OpenError, PutError, PutManyError, TaskDoneError};
use crate::items::Items;
use crate::options::QueueOptions;

pub use ends::{Consumer, Producer};

/// A queue of items between processes: bounded, many producers, many consumers, each item to exactly one
/// consumer, first in, first out.
///
/// A handle may be cloned (clones share one attachment), used by any number of threads, inherited by
/// `fork`, and sent to another process, by its name or by serde.
///
/// # Lifetime
///
/// The queue goes when its last handle goes, **unread messages with it**. Keep a handle for as long as it
/// is to live, or make it [`persistent`](QueueOptions::persistent). An exit without drops
/// (`std::process::exit`, a signal) counts as a crash: if everybody attached crashed, the queue stays, with
/// its messages, for whoever opens it, and [`create`](Self::create) replaces it.
///
/// A handle that a forked child inherits counts from the child's first put or get on. If the parent may go
/// before that, let the child [`open`](Self::open) the queue by name.
///
/// # Crashes
///
/// A process killed at any instruction loses at most the item in its own hands. The others go on: an end
/// that it held is taken over within a millisecond, and nobody has to clean up.
///
/// # Types
///
/// Items are encoded with postcard. The type is not recorded in the queue: both sides must use the same
/// one; give them a [`schema`](QueueOptions::schema) label to be told when they do not. A number without a type is an
/// `i32`, also in `put(&7)`: as a `u32` it would be got as another number.
///
/// postcard writes fields without names and lengths before elements, so a few serde features cannot be carried:
/// `untagged`, internally tagged, `flatten` and `skip_serializing_if` are errors (`Encode` or `Decode`) that say
/// so. Three cannot be seen from outside and may come back as another value; do not use them: a field or variant
/// that is left out on one side only (`skip_serializing` with `default`), `skip_serializing_if` in a tuple
/// struct, and `skip` on an enum variant that has others after it. A recursive type is decoded recursively:
/// bytes from an untrusted peer can nest it until the stack ends.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// enum Job {
///     Resize { path: String, width: u32 },
///     Quit,
/// }
///
/// let name = format!("jobs-{}", std::process::id());
/// let here = shmq::Queue::create(&name, 100)?;
/// let there = shmq::Queue::<Job>::open(&name)?; // as another process does
///
/// here.put(&Job::Resize { path: "a.png".into(), width: 640 })?;
/// here.put(&Job::Quit)?;
/// assert_eq!(there.get()?, Job::Resize { path: "a.png".into(), width: 640 });
/// assert_eq!(there.get()?, Job::Quit);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Queue<T> {
    bytes: ByteQueue,
    item: PhantomData<fn(T) -> T>,
}

impl<T> Queue<T> {
    /// Makes a queue for up to `capacity` items under a fresh unique name.
    ///
    /// # Errors
    /// As [`create`](Self::create), but never `InvalidName` or `AlreadyExists`.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// let there = shmq::Queue::<String>::open(queue.name())?; // as another process does
    /// queue.put(&"hello".to_owned())?;
    /// assert_eq!(there.get()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(capacity: usize) -> Result<Self, OpenError> {
        ByteQueue::new(capacity).map(Self::from)
    }

    /// Makes a queue without a limit but memory, under a fresh unique name.
    ///
    /// It grows while its consumers are behind, and gives the memory back as they catch up; see
    /// [`QueueOptions::capacity`].
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// ```
    /// let queue = shmq::Queue::unbounded()?;
    /// for number in 0..10_000 {
    ///     queue.put(&number)?;
    /// }
    /// assert_eq!(queue.qsize(), 10_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unbounded() -> Result<Self, OpenError> {
        ByteQueue::unbounded().map(Self::from)
    }

    /// Makes a queue of this name for up to `capacity` items.
    ///
    /// A queue of that name that a crash of everybody left behind is replaced.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is in use, `InvalidName`, `InvalidOptions` (capacity 0), `NoSpace` if
    /// /dev/shm is too small, `PermissionDenied`, or `Io`.
    ///
    /// ```
    /// let name = format!("created-{}", std::process::id());
    /// let queue = shmq::Queue::<u32>::create(&name, 8)?;
    /// assert_eq!(queue.name(), name);
    /// let again = shmq::Queue::<u32>::create(&name, 8);
    /// assert!(matches!(again, Err(shmq::OpenError::AlreadyExists { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(name: &str, capacity: usize) -> Result<Self, OpenError> {
        ByteQueue::create(name, capacity).map(Self::from)
    }

    /// Attaches to the queue of this name.
    ///
    /// # Errors
    /// `NotFound` if there is none, `NotShmq` or `Mismatch` if there is something else, `InvalidName`,
    /// `PermissionDenied`, or `Io`.
    ///
    /// ```
    /// let name = format!("opened-{}", std::process::id());
    /// let early = shmq::Queue::<u32>::open(&name);
    /// assert!(matches!(early, Err(shmq::OpenError::NotFound { .. })));
    /// let queue = shmq::Queue::<u32>::create(&name, 8)?;
    /// queue.put(&7)?;
    /// assert_eq!(shmq::Queue::<u32>::open(&name)?.get()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(name: &str) -> Result<Self, OpenError> {
        ByteQueue::open(name).map(Self::from)
    }

    /// Attaches to the queue of this name, or makes it; any number of processes may race.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`create`](Self::create), but for `NotFound` and
    /// `AlreadyExists`.
    ///
    /// ```
    /// let name = format!("shared-{}", std::process::id());
    /// let made = shmq::Queue::<u32>::open_or_create(&name, 8)?;
    /// let opened = shmq::Queue::<u32>::open_or_create(&name, 100)?;
    /// made.put(&7)?;
    /// // The capacity is that of whoever came first.
    /// assert_eq!((opened.capacity(), opened.get()?), (Some(8), 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_or_create(name: &str, capacity: usize) -> Result<Self, OpenError> {
        ByteQueue::open_or_create(name, capacity).map(Self::from)
    }

    /// The name, with which other processes can [`open`](Self::open) the queue.
    ///
    /// ```
    /// let queue = shmq::Queue::<u32>::new(8)?;
    /// let there = shmq::Queue::<u32>::open(queue.name())?; // as another process does
    /// assert_eq!(there.name(), queue.name());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn name(&self) -> &str {
        self.bytes.name()
    }

    /// The most items that the queue holds; `None` for a queue without a limit.
    ///
    /// ```
    /// assert_eq!(shmq::Queue::<u32>::new(8)?.capacity(), Some(8));
    /// assert_eq!(shmq::Queue::<u32>::unbounded()?.capacity(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capacity(&self) -> Option<usize> {
        self.bytes.capacity()
    }

    /// How many items there are: exact at one instant during the call. Takes no lock.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put_many(&[1, 2, 3])?;
    /// assert_eq!(queue.qsize(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "len")]
    pub fn qsize(&self) -> usize {
        self.bytes.qsize()
    }

    /// Whether there is no item at one instant during the call. Takes no lock.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// assert!(queue.empty());
    /// queue.put(&1)?;
    /// assert!(!queue.empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "is_empty")]
    pub fn empty(&self) -> bool {
        self.bytes.empty()
    }

    /// Whether a put would have to wait at one instant during the call. Takes no lock.
    ///
    /// A put waits until there is room for the longest message, so this does not depend on the item.
    ///
    /// ```
    /// let queue = shmq::Queue::new(1)?;
    /// assert!(!queue.full());
    /// queue.put(&1)?;
    /// assert!(queue.full());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "is_full")]
    pub fn full(&self) -> bool {
        self.bytes.full()
    }

    /// Closes the queue for every process, for ever: put fails, get takes what is there and then fails,
    /// and those who wait are woken. Never blocks.
    ///
    /// Every put that returned `Ok` is delivered before any get says `Closed`.
    ///
    /// ```
    /// let queue = shmq::Queue::new(4)?;
    /// queue.put(&1)?;
    /// queue.close();
    /// assert!(matches!(queue.put(&2), Err(shmq::PutError::Closed)));
    /// assert_eq!(queue.get()?, 1);
    /// assert!(matches!(queue.get(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        self.bytes.close();
    }

    /// Whether somebody has closed the queue. There may still be items in it.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// let there = shmq::Queue::<u32>::open(queue.name())?; // as another process does
    /// queue.put(&1)?;
    /// queue.close();
    /// assert!(there.is_closed() && !there.empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.bytes.is_closed()
    }

    /// The queue's counters. Never blocks.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put_many(&[1, 2, 3])?;
    /// queue.get()?;
    /// queue.task_done()?;
    /// let stats = queue.stats();
    /// assert_eq!((stats.puts, stats.gets, stats.unfinished), (3, 1, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.bytes.stats()
    }

    /// Says that one item that was got has been dealt with; for [`join`](Self::join).
    ///
    /// A consumer that dies between `get` and `task_done` leaves its item unfinished: it stays in
    /// `stats().unfinished`. To have such an item come again, use [`ByteQueue::get_with`] and call this after it.
    ///
    /// # Errors
    /// It was called more often than there were items.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put(&"work".to_owned())?;
    /// queue.get()?;
    /// queue.task_done()?;
    /// queue.join();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task_done(&self) -> Result<(), TaskDoneError> {
        self.bytes.task_done()
    }

    /// Blocks until every item put before this call has had its [`task_done`](Self::task_done).
    ///
    /// It counts: a `task_done` for a later item stands in for an earlier one that is still in work. While others keep
    /// putting, it finds its end up to 75 ms late. It waits for ever for an item whose consumer died: see
    /// [`join_timeout`](Self::join_timeout).
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put(&"work".to_owned())?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| queue.get().map(|_| queue.task_done()));
    ///     queue.join();
    /// });
    /// assert_eq!(queue.stats().unfinished, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(&self) {
        self.bytes.join();
    }

    /// Like [`join`](Self::join), but blocks for at most `timeout`. False if items were left by then.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put(&"work".to_owned())?;
    /// queue.get()?;
    /// assert!(!queue.join_timeout(Duration::from_millis(10)));
    /// queue.task_done()?;
    /// assert!(queue.join_timeout(Duration::from_millis(10)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        self.bytes.join_timeout(timeout)
    }

    #[inline]
    fn items(&self) -> Items<'_, T, Once> {
        Items::new(self.bytes.access(), self.bytes.max_message())
    }

    /// The same queue, raw messages.
    ///
    /// ```
    /// let queue = shmq::Queue::<String>::new(8)?;
    /// queue.put(&"hi".to_owned())?;
    /// // As it is encoded: the length, then the text.
    /// assert_eq!(queue.bytes().get()?, b"\x02hi");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bytes(&self) -> &ByteQueue {
        &self.bytes
    }
}

impl<T: Serialize> Queue<T> {
    /// Puts an item. Blocks while the queue is full.
    ///
    /// # Errors
    /// `Closed`, `TooLong`, `Encode`, `Corrupt` or `Io`. After an error the item is not in the queue.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put(&(7, "seven".to_owned()))?;
    /// let long = queue.put(&(8, "eight".repeat(2000)));
    /// assert!(matches!(long, Err(shmq::PutError::TooLong { max: 8192, .. })));
    /// assert_eq!(queue.qsize(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "send")]
    pub fn put(&self, item: &T) -> Result<(), PutError> {
        self.put_until(item, Deadline::Never)
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
    /// let queue = shmq::Queue::new(1)?;
    /// queue.put(&"first")?;
    /// let late = queue.put_timeout(&"second", Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_timeout(&self, item: &T, timeout: Duration) -> Result<(), PutError> {
        self.put_until(item, Deadline::after(timeout))
    }

    /// Like [`put`](Self::put), but does not wait for room. It waits up to 1 ms for another process that
    /// is in the middle of a put.
    ///
    /// # Errors
    /// `Full`, and those of [`put`](Self::put).
    ///
    /// ```
    /// let queue = shmq::Queue::new(1)?;
    /// queue.put_nowait(&"first")?;
    /// assert!(matches!(queue.put_nowait(&"second"), Err(shmq::PutError::Full)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "try_send")]
    pub fn put_nowait(&self, item: &T) -> Result<(), PutError> {
        self.put_until(item, Deadline::Now)
    }

    /// Puts items in runs, each as long as there is room for. Blocks while the queue is full.
    ///
    /// All items are encoded first. A run is committed at once: if this process dies, all of it is in the queue
    /// or none. Other producers may come between two runs.
    ///
    /// # Errors
    /// Those of [`put`](Self::put). `Encode` or `TooLong` for any of them means that none was put; after any other
    /// error exactly `items[..put]` are in the queue.
    ///
    /// ```
    /// let queue = shmq::Queue::new(100)?;
    /// queue.put_many(&[1, 2, 3])?;
    /// assert_eq!(queue.get_many(100)?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_many(&self, items: &[T]) -> Result<(), PutManyError> {
        self.put_many_until(items, Deadline::Never)
    }

    /// Like [`put_many`](Self::put_many), but blocks for at most `timeout` in all.
    ///
    /// # Errors
    /// `Full` at the deadline, and those of [`put_many`](Self::put_many).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::Queue::new(2)?;
    /// let late = queue.put_many_timeout(&[1, 2, 3], Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::PutManyError { put: 2, error: shmq::PutError::Full })));
    /// assert_eq!(queue.get_many(3)?, [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_many_timeout(&self, items: &[T], timeout: Duration) -> Result<(), PutManyError> {
        self.put_many_until(items, Deadline::after(timeout))
    }

    #[inline]
    fn put_until(&self, item: &T, deadline: Deadline) -> Result<(), PutError> {
        self.items().put(item, deadline)
    }

    fn put_many_until(&self, items: &[T], deadline: Deadline) -> Result<(), PutManyError> {
        self.items().put_many(items, deadline)
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Gets the oldest item. Blocks while the queue is empty.
    ///
    /// The item is the caller's alone from then on: if the caller dies, it is lost with it
    /// (at-most-once delivery).
    ///
    /// # Errors
    /// `Closed`, `Decode` (the message is no longer in the queue but in the error), `Corrupt` or `Io`.
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put(&"last".to_owned())?;
    /// queue.close();
    /// assert_eq!(queue.get()?, "last");
    /// assert!(matches!(queue.get(), Err(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "recv")]
    pub fn get(&self) -> Result<T, GetError> {
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
    /// let queue = shmq::Queue::<u32>::new(1)?;
    /// let late = queue.get_timeout(Duration::from_millis(10));
    /// assert!(matches!(late, Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    /// Like [`get`](Self::get), but does not wait for an item. It waits up to 1 ms for another process
    /// that is in the middle of a get.
    ///
    /// # Errors
    /// `Empty`, and those of [`get`](Self::get).
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put(&1)?;
    /// assert_eq!(queue.get_nowait()?, 1);
    /// assert!(matches!(queue.get_nowait(), Err(shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "try_recv")]
    pub fn get_nowait(&self) -> Result<T, GetError> {
        self.get_until(Deadline::Now)
    }

    /// Gets item after item, blocking while the queue is empty, until the first error: usually, that the
    /// queue was closed and everything in it taken. It never takes more than the item it yields.
    ///
    /// ```
    /// let queue = shmq::Queue::new(4)?;
    /// queue.put(&3)?;
    /// queue.put(&4)?;
    /// queue.close();
    /// let mut items = queue.iter();
    /// assert_eq!(items.by_ref().sum::<i32>(), 7);
    /// assert!(matches!(items.error(), Some(shmq::GetError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { queue: self, error: None }
    }

    /// Gets up to `max` items at once. Blocks while the queue is empty, then takes what is there; 0 is none, at once.
    ///
    /// If this process dies in the call, all of them are lost with it or none.
    ///
    /// # Errors
    /// Those of [`get`](Self::get). If one of them cannot be decoded, the error has the items before it, its bytes,
    /// and the bytes of those after it. (A panic in `Deserialize` loses what this call took.)
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put_many(&[1, 2, 3])?;
    /// assert_eq!(queue.get_many(2)?, [1, 2]);
    /// // It does not wait for the other 99.
    /// assert_eq!(queue.get_many(100)?, [3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many(&self, max: usize) -> Result<Vec<T>, GetManyError<T>> {
        self.get_many_until(max, Deadline::Never)
    }

    /// Like [`get_many`](Self::get_many), but blocks for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` at the deadline, and those of [`get_many`](Self::get_many).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = shmq::Queue::<u32>::new(8)?;
    /// let late = queue.get_many_timeout(100, Duration::from_millis(10));
    /// assert!(late.is_err_and(|error| matches!(error.error, shmq::GetError::Empty)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many_timeout(&self, max: usize, timeout: Duration) -> Result<Vec<T>, GetManyError<T>> {
        self.get_many_until(max, Deadline::after(timeout))
    }

    #[inline]
    fn get_until(&self, deadline: Deadline) -> Result<T, GetError> {
        self.items().get(deadline)
    }

    fn get_many_until(&self, max: usize, deadline: Deadline) -> Result<Vec<T>, GetManyError<T>> {
        self.items().get_many(max, deadline)
    }
}

/// The items of a queue as they come; made by [`Queue::iter`].
///
/// ```
/// let queue = shmq::Queue::new(8)?;
/// queue.put_many(&["one".to_owned(), "two".to_owned()])?;
/// queue.close();
/// assert_eq!(queue.iter().collect::<Vec<_>>(), ["one", "two"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an iterator takes nothing until it is used"]
pub struct Iter<'a, T> {
    queue: &'a Queue<T>,
    error: Option<GetError>,
}

impl<T> Iter<'_, T> {
    /// Why it ended, once it has: `Closed` is the ordinary end.
    ///
    /// ```
    /// let flags = shmq::Queue::<bool>::new(8)?;
    /// flags.bytes().put(b"neither")?;
    /// let mut items = flags.iter();
    /// assert_eq!(items.next(), None);
    /// assert!(matches!(items.error(), Some(shmq::GetError::Decode { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn error(&self) -> Option<&GetError> {
        self.error.as_ref()
    }
}

impl<T: DeserializeOwned> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.error.is_some() {
            return None;
        }
        match self.queue.get() {
            Ok(item) => Some(item),
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

impl<T: DeserializeOwned> FusedIterator for Iter<'_, T> {}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("queue", self.queue).field("error", &self.error).finish()
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a Queue<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    /// As [`Queue::iter`].
    ///
    /// ```
    /// let queue = shmq::Queue::new(8)?;
    /// queue.put_many(&[3, 4])?;
    /// queue.close();
    /// let mut sum = 0;
    /// for number in &queue {
    ///     sum += number;
    /// }
    /// assert_eq!(sum, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl QueueOptions {
    /// Makes a queue under a fresh unique name.
    ///
    /// # Errors
    /// As [`Queue::new`].
    ///
    /// ```
    /// let queue = shmq::QueueOptions::new().capacity(8).max_message(1 << 20).anonymous::<Vec<u8>>()?;
    /// queue.put(&vec![0; 100_000])?;
    /// assert_eq!(queue.get()?.len(), 100_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn anonymous<T>(&self) -> Result<Queue<T>, OpenError> {
        ByteQueue::with(self).map(Queue::from)
    }

    /// Makes a queue of this name.
    ///
    /// # Errors
    /// As [`Queue::create`].
    ///
    /// ```
    /// let name = format!("small-jobs-{}", std::process::id());
    /// let mut options = shmq::QueueOptions::new();
    /// let queue = options.capacity(8).max_message(100).create::<u32>(&name)?;
    /// assert_eq!(queue.capacity(), Some(8));
    /// let again = options.create::<u32>(&name);
    /// assert!(matches!(again, Err(shmq::OpenError::AlreadyExists { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create<T>(&self, name: &str) -> Result<Queue<T>, OpenError> {
        ByteQueue::create_with(self, name).map(Queue::from)
    }

    /// Attaches to the queue of this name, if its label is this one (or none was given here).
    ///
    /// # Errors
    /// As [`Queue::open`].
    ///
    /// ```
    /// let name = format!("labelled-{}", std::process::id());
    /// let mut options = shmq::QueueOptions::new();
    /// options.schema("jobs, version 1");
    /// let here = options.create::<u32>(&name)?;
    /// let there = options.open::<u32>(&name)?; // as another process does
    /// here.put(&7)?;
    /// assert_eq!(there.get()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open<T>(&self, name: &str) -> Result<Queue<T>, OpenError> {
        ByteQueue::open_with(self, name).map(Queue::from)
    }

    /// Attaches to the queue of this name, or makes it.
    ///
    /// # Errors
    /// As [`Queue::open_or_create`].
    ///
    /// ```
    /// let name = format!("either-{}", std::process::id());
    /// let made = shmq::QueueOptions::new().capacity(8).open_or_create::<u32>(&name)?;
    /// // The options describe a queue that is made: this one keeps its own.
    /// let opened = shmq::QueueOptions::new().capacity(100).open_or_create::<u32>(&name)?;
    /// assert_eq!(opened.capacity(), Some(8));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open_or_create<T>(&self, name: &str) -> Result<Queue<T>, OpenError> {
        ByteQueue::open_or_create_with(self, name).map(Queue::from)
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self::from(self.bytes.clone())
    }
}

impl<T> From<ByteQueue> for Queue<T> {
    /// The same queue, its messages taken for encoded items.
    ///
    /// ```
    /// let bytes = shmq::ByteQueue::new(8)?;
    /// bytes.put(b"\x02hi")?;
    /// assert_eq!(shmq::Queue::<String>::from(bytes).get()?, "hi");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn from(bytes: ByteQueue) -> Self {
        Self { bytes, item: PhantomData }
    }
}

impl<T> From<Queue<T>> for ByteQueue {
    /// The same queue, raw messages.
    ///
    /// ```
    /// // Options make a typed queue; the type does not matter here.
    /// let queue = shmq::ByteQueue::from(shmq::QueueOptions::new().capacity(8).anonymous::<()>()?);
    /// queue.put(b"raw")?;
    /// assert_eq!(queue.get()?, b"raw");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn from(queue: Queue<T>) -> Self {
        queue.bytes
    }
}

impl<T> fmt::Debug for Queue<T> {
    /// Name, length, capacity and whether it is closed. Never blocks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes.debug("Queue", f)
    }
}

impl<T> Serialize for Queue<T> {
    /// The handle travels by name. Keep one until the other side has opened its own: the queue goes with
    /// its last handle.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    /// Attaches to the queue that was serialised; fails if it is gone, even if its name was used again.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ByteQueue::deserialize(deserializer).map(Self::from)
    }
}
