//! Looking after segments: what there is, what is in it, and what nobody uses any more.
//!
//! Looking takes no lease and cannot write: it cannot delay anybody, and works on segments whose processes are all
//! dead.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use crate::attachment;
use crate::error::{Corrupt, OpenError};
use crate::glimpse::{Contents, Glimpse};
use crate::layout::{Kind, Lane};
use crate::ring::peek::{End, Peeked};
use crate::sys::segment;
use crate::tasks::Tasks;

/// What a segment is, as [`inspect`] and [`list`] found it at one moment.
///
/// ```
/// let jobs = shmq::Queue::new(10)?;
/// jobs.put_many(&["resize", "crop"])?;
/// let info = shmq::inspect(jobs.name())?;
/// let filled = info.capacity.map(|capacity| 100 * info.messages / capacity);
/// assert_eq!((filled, info.puts, info.closed), (Some(20), 2, false));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The name, without what it is prefixed with in /dev/shm.
    pub name: String,
    /// Whether it is in use, or what else there is to it.
    pub state: State,
    /// `"queue"`, `"pipe"`, `"one-way pipe"`, `"value"`, `"array"`; empty if it is broken.
    pub kind: &'static str,
    /// The label given when it was made; empty if none was.
    pub schema: String,
    /// Whether it stays when its last handle goes.
    pub persistent: bool,
    /// The most messages that it holds (each way); of an array, how many elements; `None` without a limit.
    pub capacity: Option<u64>,
    /// The longest message in bytes; of a value or array, the size of one.
    pub max_message: u64,
    /// Messages in it now (both ways).
    pub messages: u64,
    /// Messages put since it was made (both ways).
    pub puts: u64,
    /// Messages got since it was made (both ways).
    pub gets: u64,
    /// Bytes of the messages put.
    pub put_bytes: u64,
    /// Bytes of the messages got.
    pub get_bytes: u64,
    /// Items put that have not had their `task_done`.
    pub unfinished: u64,
    /// How often a lock was taken over from a process that had died with it.
    pub recoveries: u64,
    /// Whether it has been closed.
    pub closed: bool,
    /// Handles attached now.
    pub attached: u64,
    /// Bytes of shared memory that it takes.
    pub bytes: u64,
    /// When it was made, as far as the file system knows.
    pub created: Option<SystemTime>,
    /// The permissions of the object.
    pub mode: u32,
    /// The user that it belongs to.
    pub owner: u32,
}

/// What there is to a segment.
///
/// ```
/// use shmq::State;
///
/// let name = format!("idle-{}", std::process::id());
/// let queue = shmq::QueueOptions::new().persistent(true).create::<u8>(&name)?;
/// assert_eq!(shmq::inspect(&name)?.state, State::Live);
/// drop(queue);
/// // If it were not persistent it would be gone now, or `Stale` after a crash of everybody.
/// assert_eq!(shmq::inspect(&name)?.state, State::Idle);
/// shmq::remove(&name)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Somebody is attached.
    Live,
    /// Nobody is attached, and it is to be kept: it is persistent.
    Idle,
    /// Nobody is attached: a crash of everybody left it. `open` attaches to it, `create` replaces it,
    /// [`remove_stale`] removes it.
    Stale,
    /// It is no whole segment of this version of the library; the text says why.
    Broken(String),
}

/// Tells what the segment of this name is. Disturbs nobody.
///
/// # Errors
/// `NotFound`, `NotShmq` if it is no file, `InvalidName`, `PermissionDenied`, or `Io`. A damaged segment is not an
/// error but [`State::Broken`].
///
/// ```
/// let queue = shmq::Queue::new(10)?;
/// queue.put(&1)?;
/// let info = shmq::inspect(queue.name())?;
/// assert_eq!((info.kind, info.capacity, info.messages), ("queue", Some(10), 1));
/// assert_eq!(info.state, shmq::State::Live);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn inspect(name: &str) -> Result<Info, OpenError> {
    let glimpse = Glimpse::of(name)?;
    let object = glimpse.object().map_err(OpenError::Io)?;
    let mut info = Info {
        name: name.to_owned(),
        state: State::Live,
        kind: "",
        schema: String::new(),
        persistent: false,
        capacity: None,
        max_message: 0,
        messages: 0,
        puts: 0,
        gets: 0,
        put_bytes: 0,
        get_bytes: 0,
        unfinished: 0,
        recoveries: 0,
        closed: false,
        attached: glimpse.attached().map_err(OpenError::Io)?,
        bytes: object.blocks() * 512,
        // Older kernels do not record it in tmpfs. Nothing writes to the file itself after the header.
        created: object.created().or_else(|_| object.modified()).ok(),
        mode: object.mode() & 0o7777,
        owner: object.uid(),
    };
    match glimpse.contents()? {
        Ok(contents) => describe(&mut info, &contents),
        Err(reason) => info.state = State::Broken(reason),
    }
    Ok(info)
}

fn describe(info: &mut Info, contents: &Contents<'_>) {
    let geometry = contents.geometry();
    info.state = match (info.attached > 0, geometry.persistent) {
        (true, _) => State::Live,
        (false, true) => State::Idle,
        (false, false) => State::Stale,
    };
    info.kind = geometry.kind.name();
    info.schema.clone_from(&geometry.schema);
    info.persistent = geometry.persistent;
    info.capacity = geometry.capacity().map(u64::from);
    info.max_message = geometry.shape.max_message as u64;
    info.recoveries = contents.live().recoveries.load(Relaxed);
    if !geometry.kind.has_ring() {
        return;
    }
    for lane in geometry.lanes() {
        let ring = contents.ring(*lane);
        if let Err(Corrupt(reason)) = ring.check() {
            info.state = State::Broken(format!("it is corrupt: {reason}"));
        }
        let (puts, put_bytes) = ring.put.totals();
        let (gets, get_bytes) = ring.get.totals();
        info.messages += ring.len() as u64;
        info.puts += puts;
        info.put_bytes += put_bytes;
        info.gets += gets;
        info.get_bytes += get_bytes;
    }
    if geometry.kind == Kind::Queue {
        info.closed = contents.ends(Lane::First).put.mutex.look().is_closed();
        info.unfinished = Tasks::new(contents.live(), contents.ring(Lane::First).put).unfinished();
    }
}

/// Tells what segments there are, in the order of their names. Disturbs nobody.
///
/// Those that may not be read by this user are left out.
///
/// # Errors
/// /dev/shm cannot be read.
///
/// ```
/// let queue = shmq::Queue::<u32>::new(10)?;
/// assert!(shmq::list()?.iter().any(|info| info.name == queue.name()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn list() -> io::Result<Vec<Info>> {
    let mut names = segment::names()?;
    names.sort_unstable();
    let infos = names.iter().filter_map(|name| match inspect(name) {
        Ok(info) => Some(Ok(info)),
        Err(OpenError::Io(error)) => Some(Err(error)),
        // Gone since, not ours to read, no file, or a further object of a segment that has its own line.
        Err(_) => None,
    });
    infos.collect()
}

/// Copies of up to `max` of the oldest messages of a queue, without taking them. Disturbs nobody.
///
/// Of a queue from which others take messages at the same time it may be fewer than there are, but each is whole,
/// and they follow each other as they do in the queue.
///
/// # Errors
/// `NotFound`, `NotShmq`, `Mismatch` if it is no queue, `InvalidName`, `PermissionDenied`, or `Io`.
///
/// ```
/// let queue = shmq::ByteQueue::new(10)?;
/// queue.put(b"first")?;
/// queue.put(b"second")?;
/// assert_eq!(shmq::peek(queue.name(), 10)?, [&b"first"[..], b"second"]);
/// assert_eq!(queue.qsize(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn peek(name: &str, max: usize) -> Result<Vec<Vec<u8>>, OpenError> {
    /// Of a queue whose consumers keep up, all is often gone before it can be copied.
    const TRIES: usize = 1000;
    const FIRST_WINDOW: usize = 64 << 10;
    let glimpse = Glimpse::of(name)?;
    let not_shmq = |reason: String| OpenError::NotShmq { name: name.to_owned(), reason };
    let contents = glimpse.contents()?.map_err(not_shmq)?;
    let kind = contents.geometry().kind;
    if kind != Kind::Queue {
        let (expected, found) = (Kind::Queue.name().to_owned(), kind.name().to_owned());
        return Err(OpenError::Mismatch { field: "kind", expected, found });
    }
    let ring = contents.ring(Lane::First);
    let corrupt = |Corrupt(reason)| not_shmq(format!("it is corrupt: {reason}"));
    ring.check().map_err(corrupt)?;
    let read = |at, buffer: &mut [u8]| contents.read(Lane::First, at, buffer);
    let mut window = FIRST_WINDOW;
    let mut best = Vec::new();
    for _ in 0..TRIES {
        let Peeked { messages, end } = ring.peek(max, window, read).map_err(OpenError::Io)?;
        if end == End::Reached || messages.len() > best.len() {
            best = messages;
        }
        match end {
            End::Reached => break,
            End::Window => window = window.saturating_mul(4),
            End::Moved => {}
            // What can be read is worth more to who looks for the reason.
            End::Corrupt(_) if !best.is_empty() => break,
            End::Corrupt(reason) => return Err(corrupt(reason)),
        }
    }
    Ok(best)
}

/// Removes the segments that a crash of everybody left behind, and returns their names.
///
/// Those that are not persistent, that nobody is attached to, and that this user may remove; never one that is in
/// use.
///
/// # Errors
/// /dev/shm cannot be read.
///
/// ```no_run
/// for name in shmq::remove_stale()? {
///     eprintln!("removed {name}, which a crash had left behind");
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn remove_stale() -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in segment::names()? {
        if attachment::remove_if_stale(&name) {
            removed.push(name);
        }
    }
    removed.sort_unstable();
    Ok(removed)
}
