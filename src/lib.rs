//! A queue between processes, in shared memory, that a crash cannot break.
//!
//! See [`Queue`] for a first program, `docs/design.md` for how it works.

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
