//! Queues and pipes between processes, in shared memory, that a crash cannot break.
//!
//! What Python programmers know as `multiprocessing.Queue` and `Pipe`, for Rust services on Linux, typed by serde.
//!
//! ```
//! let jobs = shmq::Queue::<(u32, String)>::create(&format!("jobs-{}", std::process::id()), 100)?;
//! // Another process does the same with its name.
//! let worker = shmq::Queue::<(u32, String)>::open(jobs.name())?;
//!
//! jobs.put(&(1, "resize".into()))?;
//! jobs.close();
//! for (id, job) in &worker {
//!     assert_eq!((id, &*job), (1, "resize"));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What there is
//!
//! | for | use |
//! |---|---|
//! | items from many processes to many, each to one | [`Queue`]; raw bytes: [`ByteQueue`]; more to set: [`QueueOptions`] |
//! | a conversation of two | [`pipe`], [`simplex`], [`Connection`], [`Sender`], [`Receiver`] |
//! | waiting on several of them | [`wait`] |
//! | many items at once, or an end for oneself | [`Queue::put_many`], [`Queue::get_many`], [`Queue::producer`], [`Queue::consumer`] |
//! | long messages without a copy | [`ByteQueue::put_with`], [`ByteQueue::get_with`] |
//! | numbers and plain structs that processes share | [`Value`], [`Array`] |
//! | looking at what there is, live or dead | [`list`], [`inspect`], [`peek`], [`remove`], [`remove_stale`], and the command `shmq` |
//!
//! # Names and lifetime
//!
//! Everything has a name in /dev/shm, made up or given. **It goes with its last handle**, unread messages with it, unless
//! it is [`persistent`](QueueOptions::persistent). If everybody attached crashed, it stays for whoever opens it, and `create`
//! replaces it.
//!
//! # Time
//!
//! Every call that blocks has a `_timeout` form, but for the raw messages of pipes, before which one can `poll`. Zero is the
//! `_nowait` form, `Duration::MAX` is for ever. A timeout covers everything, also another process that is stopped in
//! the middle of a call; it never ends early.
//!
//! # Crashes
//!
//! A process may be killed at any instruction. Nobody else hangs; only the messages in its own hands are lost; an end that it
//! held is taken over. `get` is at-most-once delivery, [`ByteQueue::get_with`] at-least-once. An item that a process took and
//! never reported with [`Queue::task_done`] shows in [`Stats`].
//!
//! # fork
//!
//! A child may use the handles that it inherits. Guards ([`Producer`], [`Consumer`], those of [`Value`] and [`Array`]) are void in
//! it.

mod access;
mod admin;
mod atomic;
mod attachment;
mod bytes;
mod channel;
mod codec;
mod deadline;
mod error;
mod glimpse;
mod half;
mod handover;
mod items;
mod layout;
mod membership;
mod options;
mod pipe;
mod queue;
mod ring;
mod sync;
#[expect(unsafe_code, reason = "system calls, and raw copies of shared bytes")]
mod sys;
mod tasks;
mod value;
mod wait;

pub use admin::{Info, State, inspect, list, peek, remove_stale};
pub use bytemuck;
pub use bytes::{ByteConsumer, ByteProducer, ByteQueue, Stats};
pub use error::{
    DecodeError, EncodeError, GetError, GetManyError, OpenError, PutError, PutManyError, TaskDoneError,
};
pub use options::QueueOptions;
pub use pipe::{Connection, PipeOptions, Receiver, Sender, pipe, simplex};
pub use queue::{Consumer, Iter, Producer, Queue};
pub use value::{Array, ArrayGuard, Value, ValueGuard};
pub use wait::{Source, WaitError, wait};

/// Deletes a queue's name, even while it is used.
///
/// Processes that are attached go on with the queue as it is; the name is free at once. Anything else that
/// is a file and bears the queue's name in /dev/shm is deleted as well: a segment may be damaged beyond
/// recognition.
///
/// # Errors
/// `NotFound`, `InvalidName`, `NotShmq` if it is not a file, `PermissionDenied`, or `Io`.
///
/// ```
/// let name = format!("kept-{}", std::process::id());
/// drop(shmq::QueueOptions::new().capacity(4).persistent(true).create::<u8>(&name)?);
/// shmq::remove(&name)?;
/// assert!(matches!(shmq::remove(&name), Err(shmq::OpenError::NotFound { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn remove(name: &str) -> Result<(), OpenError> {
    attachment::remove(name)
}
