//! What can go wrong, one enum for each kind of call.

use std::error::Error;
use std::fmt;
use std::io;

/// Said of a link, a directory, a FIFO, a socket or a device: it can be no segment, and is not ours to delete.
pub(crate) const NOT_A_FILE: &str = "it is not a regular file";

/// Why a queue could not be created, opened or removed.
///
/// ```
/// use shmq::OpenError;
///
/// let name = format!("service-{}", std::process::id());
/// let status = match shmq::Queue::<u32>::open(&name) {
///     Ok(_) => "running".to_owned(),
///     Err(OpenError::NotFound { .. }) => "not running".to_owned(),
///     Err(OpenError::Mismatch { expected, found, .. }) => format!("{found}, not {expected}"),
///     Err(error) => Err(error)?,
/// };
/// assert_eq!(status, "not running");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
pub enum OpenError {
    /// The name breaks the rules for names.
    InvalidName {
        /// The name as it was given.
        name: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// The options contradict a limit.
    InvalidOptions {
        /// Which option, what was given, and what is allowed.
        reason: String,
    },
    /// `create` found the name in use: by attached processes, by a persistent queue, or by an
    /// object that is not ours.
    AlreadyExists {
        /// The name as it was given.
        name: String,
    },
    /// `open` found no queue of that name.
    NotFound {
        /// The name as it was given.
        name: String,
    },
    /// There is an object of that name, but it is not a whole segment of this library.
    NotShmq {
        /// The name as it was given.
        name: String,
        /// What gave it away.
        reason: String,
    },
    /// The segment is ours and whole, but not what was asked for.
    Mismatch {
        /// `"format version"`, `"schema"`, `"kind"`, or of a value or an array `"size of the type"`.
        field: &'static str,
        /// What this process asked for.
        expected: String,
        /// What the segment says.
        found: String,
    },
    /// Shared memory is full: the segment is allocated whole when it is created. If there were bytes
    /// enough, it has no inode left for one more file.
    NoSpace {
        /// Bytes that the segment needs.
        needed: u64,
        /// Bytes that were free after it had failed.
        available: u64,
    },
    /// The segment exists and its mode does not let this user read and write it, or shared memory
    /// itself may not be written.
    PermissionDenied {
        /// The name as it was given.
        name: String,
    },
    /// The kernel refused something else; the text says what.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidName { name, reason } => write!(
                f,
                "invalid name {name:?}: {reason}; a name is 1 to 200 bytes of A-Z a-z 0-9 . _ - and does \
                 not begin with a dot"
            ),
            Self::InvalidOptions { reason } => write!(f, "invalid options: {reason}"),
            Self::AlreadyExists { name } => write!(
                f,
                "{name:?} already exists; attach to it with open or open_or_create, or delete it first with \
                 shmq::remove({name:?}); the second end of a pipe is taken once, so each peer needs a pipe of its own"
            ),
            Self::NotFound { name } => write!(
                f,
                "there is nothing named {name:?}; make it with create or open_or_create, and keep a handle: it goes \
                 with its last handle unless it is persistent"
            ),
            Self::NotShmq { name, reason } => {
                let path = format!("/dev/shm/shmq.{name}");
                write!(f, "{path} is not a usable segment of this library: {reason}; ")?;
                if reason == NOT_A_FILE {
                    write!(
                        f,
                        "shmq::remove leaves such things alone: if nothing else needs it, delete it with the \
                         command rm -r {path}"
                    )
                } else {
                    write!(f, "if nothing else needs it, delete it with shmq::remove({name:?})")
                }
            }
            Self::Mismatch { field, expected, found } => {
                write!(f, "{field} mismatch: expected {expected}, found {found}; ")?;
                match *field {
                    "format version" => f.write_str(
                        "the segment was made by another version of shmq: restart its users together",
                    ),
                    "schema" => f.write_str(
                        "both sides must give the same label in QueueOptions::schema; if nobody uses it any more, create \
                         replaces it, and its messages are lost",
                    ),
                    _ => f.write_str("open it as what it was created as"),
                }
            }
            Self::NoSpace { needed, available } if available >= needed => write!(
                f,
                "no space in shared memory for one more file: {needed} bytes are needed and {available} are free in \
                 /dev/shm, so it is not the bytes but the inodes (df -i /dev/shm); delete what nobody needs there, or \
                 mount it with a larger nr_inodes"
            ),
            Self::NoSpace { needed, available } => write!(
                f,
                "no space in shared memory: {needed} bytes are needed and {available} are free in /dev/shm; make \
                 the queue smaller (capacity, max_message or ring_bytes), or /dev/shm larger (in a container: \
                 docker run --shm-size, or an emptyDir with medium Memory)"
            ),
            Self::PermissionDenied { name } => write!(
                f,
                "no permission to read and write /dev/shm/shmq.{name}; whoever creates it can admit others with \
                 QueueOptions::mode (default 0600: the same user only)"
            ),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<OpenError> for io::Error {
    /// `NotFound`, `AlreadyExists` and `PermissionDenied` keep their names; the error itself is inside.
    ///
    /// ```
    /// fn attach(name: &str) -> std::io::Result<shmq::Queue<u32>> {
    ///     Ok(shmq::Queue::open(name)?)
    /// }
    ///
    /// let nothing = attach(&format!("nothing-{}", std::process::id()));
    /// assert!(nothing.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::InvalidName { .. } | OpenError::InvalidOptions { .. } => io::ErrorKind::InvalidInput,
            OpenError::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
            OpenError::NotFound { .. } => io::ErrorKind::NotFound,
            OpenError::NotShmq { .. } | OpenError::Mismatch { .. } => io::ErrorKind::InvalidData,
            OpenError::NoSpace { .. } => io::ErrorKind::StorageFull,
            OpenError::PermissionDenied { .. } => io::ErrorKind::PermissionDenied,
            OpenError::Io(inner) => inner.kind(),
        };
        Self::new(kind, error)
    }
}

/// Why a message was not put. It was borrowed, so nothing is lost.
///
/// ```
/// use shmq::PutError;
///
/// let readings = shmq::Queue::new(1)?;
/// readings.put(&20.5)?;
/// let taken = match readings.put_nowait(&21.0) {
///     Ok(()) => true,
///     Err(PutError::Full | PutError::Closed) => false, // nobody wants it later
///     Err(error) => Err(error)?,
/// };
/// assert!(!taken);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
pub enum PutError {
    /// The queue was full, or its put end taken, until the deadline.
    Full,
    /// The queue was closed.
    Closed,
    /// The encoded message is longer than the queue carries.
    TooLong {
        /// Bytes of the encoded message.
        len: usize,
        /// The longest message that this queue carries.
        max: usize,
    },
    /// The item could not be encoded.
    Encode(EncodeError),
    /// Shared memory ended while an unbounded queue was growing.
    NoSpace,
    /// The shared state makes no sense: something outside this library wrote into it.
    Corrupt {
        /// What makes no sense.
        reason: &'static str,
    },
    /// The kernel refused something, or the handle cannot be used here; the text says what.
    Io(io::Error),
}

impl fmt::Display for PutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str(
                "the queue or pipe is full, or somebody else holds its end; wait longer, take messages faster, or create it \
                 with more capacity or ring_bytes",
            ),
            Self::Closed => f.write_str("the queue or pipe is closed: no more messages can be put"),
            Self::TooLong { len, max } => write!(
                f,
                "message of {len} bytes is longer than max_message {max}; raise it with QueueOptions::max_message, or \
                 PipeOptions::max_message, when it is created"
            ),
            Self::Encode(error) => write!(f, "cannot encode the item: {error}"),
            Self::NoSpace => f.write_str(
                "no space left in /dev/shm for this queue to grow; take messages faster, or make /dev/shm larger \
                 (in a container: docker run --shm-size)",
            ),
            Self::Corrupt { reason } => write_corrupt(f, reason),
            Self::Io(error) => write_io(f, error),
        }
    }
}

impl Error for PutError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Encode(error) => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<PutError> for io::Error {
    /// `Full` is `WouldBlock`, `Closed` is `BrokenPipe`; the error itself is inside.
    ///
    /// ```
    /// let queue = shmq::Queue::new(1)?;
    /// queue.put(&1)?;
    /// let full = queue.put_nowait(&2).map_err(std::io::Error::from);
    /// assert!(full.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn from(error: PutError) -> Self {
        let kind = match &error {
            PutError::Full => io::ErrorKind::WouldBlock,
            PutError::Closed => io::ErrorKind::BrokenPipe,
            PutError::TooLong { .. } => io::ErrorKind::InvalidInput,
            PutError::Encode(_) | PutError::Corrupt { .. } => io::ErrorKind::InvalidData,
            PutError::NoSpace => io::ErrorKind::StorageFull,
            PutError::Io(inner) => inner.kind(),
        };
        Self::new(kind, error)
    }
}

/// Why no message was returned.
///
/// ```
/// use shmq::GetError;
///
/// let flags = shmq::Queue::<bool>::new(8)?;
/// flags.bytes().put(b"neither")?;
/// let strange = match flags.get_nowait() {
///     Ok(_) | Err(GetError::Empty | GetError::Closed) => None,
///     Err(GetError::Decode { message, .. }) => Some(message), // no longer in the queue
///     Err(error) => Err(error)?,
/// };
/// assert_eq!(strange.as_deref(), Some(&b"neither"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
pub enum GetError {
    /// The queue was empty, or its get end taken, until the deadline.
    Empty,
    /// The queue was closed and everything put before that has been taken.
    Closed,
    /// The message is longer than the caller allowed; it is still there.
    TooLong {
        /// Bytes of the message.
        len: usize,
        /// The longest that the caller allowed.
        max: usize,
    },
    /// The message did not fit the caller's buffer. It was removed and is returned here, whole.
    BufferTooShort {
        /// The whole message.
        message: Vec<u8>,
    },
    /// The message is not an encoded item of this type. It was removed and is returned here, whole.
    Decode {
        /// The whole message.
        message: Vec<u8>,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The shared state makes no sense: something outside this library wrote into it.
    Corrupt {
        /// What makes no sense.
        reason: &'static str,
    },
    /// The kernel refused something, or the handle cannot be used here; the text says what.
    Io(io::Error),
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(
                "the queue or pipe is empty, or somebody else holds its end; wait longer, or try again",
            ),
            Self::Closed => f.write_str("the queue or pipe is closed, and everything in it has been taken"),
            Self::TooLong { len, max } => write!(
                f,
                "message of {len} bytes is longer than the {max} that the caller allowed; it is still there: \
                 receive it with a larger limit"
            ),
            Self::BufferTooShort { message } => write!(
                f,
                "message of {} bytes does not fit the buffer; it is in this error, and max_message bytes always fit",
                message.len()
            ),
            Self::Decode { message, error } => write!(
                f,
                "message of {} bytes is not an item of this type: {error}; its bytes are in this error",
                message.len()
            ),
            Self::Corrupt { reason } => write_corrupt(f, reason),
            Self::Io(error) => write_io(f, error),
        }
    }
}

impl Error for GetError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Decode { error, .. } => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<GetError> for io::Error {
    /// `Empty` is `WouldBlock`, `Closed` is `UnexpectedEof`; the error itself is inside.
    ///
    /// ```
    /// let queue = shmq::Queue::<u32>::new(1)?;
    /// queue.close();
    /// let closed = queue.get().map_err(std::io::Error::from);
    /// assert!(closed.is_err_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn from(error: GetError) -> Self {
        let kind = match &error {
            GetError::Empty => io::ErrorKind::WouldBlock,
            GetError::Closed => io::ErrorKind::UnexpectedEof,
            GetError::TooLong { .. } | GetError::BufferTooShort { .. } => io::ErrorKind::InvalidInput,
            GetError::Decode { .. } | GetError::Corrupt { .. } => io::ErrorKind::InvalidData,
            GetError::Io(inner) => inner.kind(),
        };
        Self::new(kind, error)
    }
}

/// `Debug` is what a program shows whose `main` returns an error, or that unwraps one: it is the name and the text.
macro_rules! debug_tells {
    ($($error:ident { $($variant:ident),* })*) => {
        $(impl fmt::Debug for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let variant = match self {
                    $(Self::$variant { .. } => stringify!($variant),)*
                };
                write!(f, "{variant}: {self}")
            }
        })*
    };
}

debug_tells! {
    OpenError {
        InvalidName, InvalidOptions, AlreadyExists, NotFound, NotShmq, Mismatch, NoSpace, PermissionDenied, Io
    }
    PutError { Full, Closed, TooLong, Encode, NoSpace, Corrupt, Io }
    GetError { Empty, Closed, TooLong, BufferTooShort, Decode, Corrupt, Io }
}

/// How far a [`put_many`](crate::Queue::put_many) came, and what stopped it.
///
/// ```
/// use std::time::Duration;
///
/// let queue = shmq::Queue::new(2)?;
/// let mut rest = &[1, 2, 3][..];
/// if let Err(error) = queue.put_many_timeout(rest, Duration::from_millis(10)) {
///     rest = &rest[error.put..];
/// }
/// assert_eq!(rest, [3]); // to be put later
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PutManyError {
    /// Exactly `items[..put]` are in the queue.
    pub put: usize,
    /// Why the next one is not.
    pub error: PutError,
}

impl fmt::Display for PutManyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items were put, the next one was not: {}", self.put, self.error)
    }
}

impl Error for PutManyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// What a [`get_many`](crate::Queue::get_many) took before one could not be decoded, and what it took besides.
/// All of it has been removed from the queue, and nothing is lost.
///
/// ```
/// let flags = shmq::Queue::<bool>::new(8)?;
/// flags.bytes().put_many(&[b"\x01", b"neither", b"\x00"])?;
/// let got = flags.get_many(8);
/// assert!(got.is_err_and(|error| error.got == [true] && error.rest == [b"\x00"]));
/// assert!(flags.empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GetManyError<T> {
    /// The items before the one that could not be decoded.
    pub got: Vec<T>,
    /// Why there are no more: `Decode` with the message's bytes, or why nothing was taken.
    pub error: GetError,
    /// The bytes of the messages after it.
    pub rest: Vec<Vec<u8>>,
}

impl<T> From<GetError> for GetManyError<T> {
    /// Nothing was taken.
    fn from(error: GetError) -> Self {
        Self { got: Vec::new(), error, rest: Vec::new() }
    }
}

impl<T> fmt::Debug for GetManyError<T> {
    /// The items themselves are counted, not shown: they need not be `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetManyError")
            .field("got", &self.got.len())
            .field("error", &self.error)
            .field("rest", &self.rest)
            .finish()
    }
}

impl<T> fmt::Display for GetManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { got, error, rest } = self;
        if got.is_empty() && rest.is_empty() {
            return error.fmt(f);
        }
        let (got, rest) = (got.len(), rest.len());
        write!(
            f,
            "after {got} items (in this error) {error}; the {rest} messages after it are in this error too"
        )
    }
}

impl<T> Error for GetManyError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// `task_done` was called more often than there were items.
///
/// ```
/// let queue = shmq::Queue::new(8)?;
/// queue.put(&"work".to_owned())?;
/// queue.get()?;
/// queue.task_done()?;
/// let again = queue.task_done(); // nothing is left to be done
/// assert!(again.is_err_and(|error| error.to_string().contains("once for each item")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskDoneError {
    pub(crate) done: u64,
}

impl fmt::Display for TaskDoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "as many items have been reported as done as were put ({}): call task_done once for each item got",
            self.done
        )
    }
}

impl Error for TaskDoneError {}

fn write_io(f: &mut fmt::Formatter<'_>, error: &io::Error) -> fmt::Result {
    if error.kind() == io::ErrorKind::Deadlock {
        return f.write_str(
            "this thread holds that end already, with a guard or inside of a closure, and would wait for itself: use \
             what holds it, or let it go first (EDEADLK)",
        );
    }
    write!(f, "{error}")
}

fn write_corrupt(f: &mut fmt::Formatter<'_>, reason: &str) -> fmt::Result {
    write!(
        f,
        "the shared state makes no sense ({reason}): something other than this library wrote into the segment; \
         delete it with shmq::remove, then create it again"
    )
}

/// Why an item could not be encoded; the text names the serde feature at fault where there is one.
///
/// ```
/// use std::collections::BTreeMap;
///
/// #[derive(serde::Serialize)]
/// struct Reading {
///     #[serde(flatten)]
///     more: BTreeMap<String, f64>,
/// }
///
/// let put = shmq::Queue::new(8)?.put(&Reading { more: BTreeMap::new() });
/// assert!(matches!(put, Err(shmq::PutError::Encode(error)) if error.to_string().contains("flatten")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError(pub(crate) String);

/// Why a message could not be decoded; the text names the serde feature at fault where there is one.
///
/// ```
/// let flags = shmq::Queue::<bool>::new(8)?;
/// flags.bytes().put(b"neither")?;
/// let got = flags.get();
/// assert!(matches!(got, Err(shmq::GetError::Decode { error, .. }) if error.to_string().contains("another type")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(pub(crate) String);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for EncodeError {}
impl Error for DecodeError {}

/// Words of the shared state that contradict each other, found while running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt(pub(crate) &'static str);

impl From<Corrupt> for PutError {
    fn from(Corrupt(reason): Corrupt) -> Self {
        Self::Corrupt { reason }
    }
}

impl From<Corrupt> for Box<GetError> {
    #[cold]
    fn from(corrupt: Corrupt) -> Self {
        Self::new(corrupt.into())
    }
}

impl From<Corrupt> for GetError {
    fn from(Corrupt(reason): Corrupt) -> Self {
        Self::Corrupt { reason }
    }
}
