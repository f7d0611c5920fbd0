//! Waiting on many.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::bytes::ByteQueue;
use crate::channel::{Channel, Look};
use crate::deadline::Deadline;
use crate::pipe::{Connection, Receiver};
use crate::queue::Queue;
use crate::sync::condvar::{LONGEST_SLICE, sleep_on_any};
use crate::sys::futex::MOST_WORDS;

/// Something that messages come from: [`Queue`], [`ByteQueue`], [`Connection`] or [`Receiver`].
///
/// It cannot be implemented outside this crate.
///
/// ```
/// let jobs = shmq::Queue::<u32>::new(8)?;
/// let (control, sender) = shmq::simplex::<String>()?;
/// let sources: [&dyn shmq::Source; 2] = [&jobs, &control];
/// sender.send(&"reload".to_owned())?;
/// assert_eq!(shmq::wait(&sources, None)?, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Source: sealed::Watched + Send + Sync {}

mod sealed {
    use crate::channel::Channel;

    pub trait Watched {
        #[doc(hidden)]
        #[expect(private_interfaces, reason = "nobody outside can call it")]
        fn watched(&self) -> Channel<'_>;
    }
}

/// Why [`wait`] did not wait.
///
/// ```
/// let queue = shmq::Queue::<u32>::new(8)?;
/// let sources = vec![&queue as &dyn shmq::Source; 129];
/// let many = shmq::wait(&sources, None);
/// assert!(matches!(many, Err(shmq::WaitError::TooMany { given: 129, max: 128 })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum WaitError {
    /// More sources were given than the kernel can wait on at once.
    TooMany {
        /// How many were given.
        given: usize,
        /// How many can be.
        max: usize,
    },
    /// The shared state of a source makes no sense: a get from it says what.
    Corrupt,
    /// The kernel refused something.
    Io(io::Error),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { given, max } => write!(
                f,
                "cannot wait on {given} sources at once, {max} is the most; use several threads, or one queue for \
                 several producers"
            ),
            Self::Corrupt => f.write_str(
                "the shared state of a source makes no sense: something other than this library wrote into it; a get \
                 from it says what is wrong",
            ),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl Error for WaitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Waits until at least one of the sources has a message, is closed, or is at end of file.
///
/// Returns the indices of all that have, are or are at, in ascending order; none at the timeout. `None` waits for
/// ever; an empty list of sources returns at once. It sleeps once for all of them, and takes nothing: another
/// process may be quicker, so get with a `nowait` form. Up to 128 sources.
///
/// # Errors
/// `TooMany`; `Corrupt` if the shared state of a source makes no sense; `Io`.
///
/// ```
/// use std::time::Duration;
///
/// let first = shmq::Queue::<u32>::new(8)?;
/// let second = shmq::ByteQueue::new(8)?;
/// let (receiver, sender) = shmq::simplex::<String>()?;
///
/// second.put(b"here")?;
/// assert_eq!(shmq::wait(&[&first, &second, &receiver], None)?, [1]);
/// drop(sender);
/// assert_eq!(shmq::wait(&[&first, &second, &receiver], None)?, [1, 2]);
/// assert!(shmq::wait(&[&first], Some(Duration::from_millis(1)))?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait(sources: &[&dyn Source], timeout: Option<Duration>) -> Result<Vec<usize>, WaitError> {
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    if sources.len() > MOST_WORDS {
        return Err(WaitError::TooMany { given: sources.len(), max: MOST_WORDS });
    }
    let deadline = timeout.map_or(Deadline::Never, Deadline::after);
    let channels: Vec<_> = sources.iter().map(|source| source.watched()).collect();
    // Who has something to take announces no sleep, which would cost the next notifier of each source dearly.
    let ready = ready(&channels);
    let ready = if ready.is_empty() && !deadline.has_passed() { sleep(&channels, deadline)? } else { ready };
    if ready.iter().any(|at| channels[*at].is_corrupt()) {
        return Err(WaitError::Corrupt);
    }
    Ok(ready)
}

/// The indices of those that have a message, or have ended.
fn ready(channels: &[Channel<'_>]) -> Vec<usize> {
    (0..channels.len()).filter(|at| channels[*at].look_for_message() != Look::Nothing).collect()
}

/// Sleeps until one is ready, or the deadline has passed: which are ready then.
fn sleep(channels: &[Channel<'_>], deadline: Deadline) -> Result<Vec<usize>, WaitError> {
    let mut slept = None;
    loop {
        let over = matches!(slept, Some(Err(_))) || deadline.has_passed();
        // Announced before the look, as every sleeper is: what comes after it ends the sleep.
        let prepared: Vec<_> = channels.iter().map(|channel| channel.not_empty().prepare()).collect();
        let ready = ready(channels);
        if over || !ready.is_empty() {
            if slept.is_some() {
                // Each may have been woken in place of somebody who would take a message.
                for channel in channels {
                    channel.pass_on_message();
                }
            }
            return slept.unwrap_or(Ok(())).map(|()| ready).map_err(WaitError::Io);
        }
        let words = channels.iter().map(|channel| channel.not_empty()).zip(prepared);
        slept = Some(sleep_on_any(words, deadline.within(LONGEST_SLICE)));
    }
}

macro_rules! sources {
    ($([$($parameter:ident),*] $source:ty: $this:ident => $channel:expr;)*) => {
        $(impl<$($parameter),*> sealed::Watched for $source {
            #[expect(private_interfaces, reason = "nobody outside can call it")]
            fn watched(&self) -> Channel<'_> {
                let $this = self;
                $channel
            }
        }

        impl<$($parameter),*> Source for $source {})*
    };
}

sources! {
    [] ByteQueue: queue => queue.channel();
    [T] Queue<T>: queue => queue.bytes().channel();
    [T] Receiver<T>: receiver => receiver.half().channel();
    [S, R] Connection<S, R>: connection => connection.receiver().half().channel();
}
