//! What a queue is to be when it is created.

use crate::attachment::Plan;
use crate::error::OpenError;
use crate::layout::{Expected, Geometry, Kind, LARGEST_CAPACITY, LONGEST_MESSAGE, LONGEST_SCHEMA, RING};
use crate::ring::sparse::BASIN;
use crate::ring::{CHUNK, LONGEST_RING, Shape, UNBOUNDED, slot_len};
use crate::sys::segment;

const DEFAULT_MESSAGE: usize = 8 << 10;
const DEFAULT_MODE: u32 = 0o600;
/// The default ring holds `capacity` longest messages, but is no longer than this.
const DEFAULT_RING: usize = 16 << 20;

/// Options for creating or opening a queue, in the manner of [`std::fs::OpenOptions`].
///
/// They describe a queue that is made. When an existing one is opened, its own capacity, `max_message`,
/// `ring_bytes`, mode and persistence stand, and only the schema label is compared.
///
/// ```
/// let queue = shmq::QueueOptions::new()
///     .capacity(1000)
///     .max_message(256)
///     .schema("readings, version 2")
///     .anonymous::<(u32, f64)>()?;
/// queue.put(&(7, 21.5))?;
/// assert_eq!(queue.get()?, (7, 21.5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct QueueOptions {
    settings: Settings,
}

/// What can be set for anything that has a ring.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) capacity: usize,
    pub(crate) max_message: usize,
    pub(crate) ring_bytes: Option<usize>,
    pub(crate) schema: String,
    pub(crate) persistent: bool,
    pub(crate) mode: u32,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl QueueOptions {
    /// The defaults: no limit, messages of up to 8 KiB, not persistent, mode 0600, no label.
    ///
    /// ```
    /// let queue = shmq::QueueOptions::new().anonymous::<String>()?;
    /// let info = shmq::inspect(queue.name())?;
    /// assert_eq!((info.capacity, info.max_message), (None, 8192));
    /// assert_eq!((info.persistent, info.mode, &*info.schema), (false, 0o600, ""));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { settings: Settings::new(0, DEFAULT_MESSAGE) }
    }

    /// How many messages the queue holds at most: 1 to 2^31 - 1, or 0 for no limit but memory, the default.
    ///
    /// A queue without a limit grows while its consumers are behind and gives the memory back as they catch up;
    /// when /dev/shm is full, a put fails with [`PutError::NoSpace`](crate::PutError::NoSpace). It holds up to
    /// 16 GiB.
    ///
    /// ```
    /// let mut options = shmq::QueueOptions::new();
    /// assert_eq!(options.anonymous::<u32>()?.capacity(), None);
    /// assert_eq!(options.capacity(1000).anonymous::<u32>()?.capacity(), Some(1000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capacity(&mut self, messages: usize) -> &mut Self {
        self.settings.capacity = messages;
        self
    }

    /// The longest encoded message in bytes, up to 1 GiB. The default is 8 KiB.
    ///
    /// A put waits until the longest message would fit, so this also bounds how much of the ring is
    /// kept free.
    ///
    /// ```
    /// let queue = shmq::QueueOptions::new().max_message(4).anonymous::<String>()?;
    /// queue.put(&"abc".to_owned())?; // takes a byte for its length
    /// let long = queue.put(&"abcd".to_owned());
    /// assert!(matches!(long, Err(shmq::PutError::TooLong { len: 5, max: 4 })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_message(&mut self, bytes: usize) -> &mut Self {
        self.settings.max_message = bytes;
        self
    }

    /// How many bytes of shared memory to use for messages.
    ///
    /// Each takes its length, rounded up to 8, and 8 more. The default is room for `capacity` longest
    /// messages, but at most 16 MiB; it is never less than one longest message, and more than `capacity`
    /// longest messages is never used. When the ring is full before `capacity` is reached, the queue is
    /// full. All of it is allocated when the queue is created. A queue without a limit has no use for this.
    ///
    /// ```
    /// let mut options = shmq::QueueOptions::new();
    /// options.capacity(100).max_message(24).ring_bytes(64);
    /// let queue = shmq::ByteQueue::from(options.anonymous::<()>()?);
    /// queue.put(&[0; 24])?;
    /// queue.put(&[0; 24])?;
    /// // Each takes 32 bytes, so the ring is full long before there are 100.
    /// assert!(queue.full());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ring_bytes(&mut self, bytes: usize) -> &mut Self {
        self.settings.ring_bytes = Some(bytes);
        self
    }

    /// A label of up to 64 bytes for what the messages mean.
    ///
    /// The type of the items is not recorded in the queue. With a label, opening a queue that was created
    /// with another one fails with [`OpenError::Mismatch`]; without one, nothing is compared.
    ///
    /// ```
    /// let name = format!("readings-{}", std::process::id());
    /// let queue = shmq::QueueOptions::new().schema("celsius").create::<f64>(&name)?;
    /// let other = shmq::QueueOptions::new().schema("fahrenheit").open::<f64>(&name);
    /// assert!(matches!(other, Err(shmq::OpenError::Mismatch { field: "schema", .. })));
    /// // Without a label nothing is compared.
    /// shmq::Queue::<f64>::open(&name)?.put(&21.5)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schema(&mut self, label: &str) -> &mut Self {
        label.clone_into(&mut self.settings.schema);
        self
    }

    /// Whether the queue stays when its last handle goes; then only [`remove`](crate::remove) deletes it.
    ///
    /// ```
    /// let name = format!("kept-jobs-{}", std::process::id());
    /// let queue = shmq::QueueOptions::new().persistent(true).create(&name)?;
    /// queue.put(&"resize".to_owned())?;
    /// drop(queue);
    /// assert_eq!(shmq::Queue::<String>::open(&name)?.get()?, "resize");
    /// shmq::remove(&name)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn persistent(&mut self, yes: bool) -> &mut Self {
        self.settings.persistent = yes;
        self
    }

    /// The permissions of the object in /dev/shm, whatever the umask. The default is 0600.
    ///
    /// Who may use the queue needs read *and* write permission, its own user too: a mode without 0600 is for
    /// root only, and a forked child cannot use what it inherited.
    ///
    /// ```
    /// // Readable and writable for the group too.
    /// let queue = shmq::QueueOptions::new().mode(0o660).anonymous::<u32>()?;
    /// assert_eq!(shmq::inspect(queue.name())?.mode, 0o660);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.settings.mode = mode;
        self
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl Settings {
    pub(crate) fn new(capacity: usize, max_message: usize) -> Self {
        Self {
            capacity,
            max_message,
            ring_bytes: None,
            schema: String::new(),
            persistent: false,
            mode: DEFAULT_MODE,
        }
    }

    /// What to look for when something is opened.
    pub(crate) fn expected(&self, kind: Kind) -> Result<Expected<'_>, OpenError> {
        if self.schema.len() > LONGEST_SCHEMA {
            return Err(invalid(format!(
                "the schema label is {} bytes long; at most {LONGEST_SCHEMA} are allowed",
                self.schema.len()
            )));
        }
        Ok(Expected { kind, schema: &self.schema, nonce: None })
    }

    /// What to make.
    pub(crate) fn plan(&self, kind: Kind, made_up: bool) -> Result<Plan, OpenError> {
        self.expected(kind)?;
        let mode = self.mode;
        if mode & !0o777 != 0 {
            return Err(invalid(format!("mode 0{mode:o} has bits beyond 0777")));
        }
        let geometry = Geometry {
            kind,
            persistent: self.persistent,
            anonymous: made_up,
            nonce: 0,
            schema: self.schema.clone(),
            shape: self.shape(kind)?,
        };
        Ok(Plan { geometry, mode })
    }

    fn shape(&self, kind: Kind) -> Result<Shape, OpenError> {
        let Self { capacity, max_message, .. } = *self;
        if capacity == 0 && !matches!(kind, Kind::Array | Kind::Queue) {
            return Err(no_capacity(kind));
        }
        let capacity = match u32::try_from(capacity) {
            Ok(small) if capacity <= LARGEST_CAPACITY => small,
            _ => return Err(invalid(format!("capacity {capacity} is more than {LARGEST_CAPACITY}"))),
        };
        if max_message > LONGEST_MESSAGE {
            return Err(invalid(format!("max_message {max_message} is more than {LONGEST_MESSAGE} (1 GiB)")));
        }
        let slot = slot_len(max_message);
        if capacity == 0 && kind == Kind::Queue {
            return Ok(Shape::new(UNBOUNDED, max_message, sparse_len(slot)?));
        }
        // A ring of that length holds `capacity` messages whatever their lengths.
        let whole = slot.saturating_mul(capacity as usize);
        let wanted = self.ring_bytes.unwrap_or(DEFAULT_RING).clamp(slot, whole.max(slot));
        if wanted > LONGEST_RING {
            return Err(invalid(format!("ring_bytes {wanted} is more than {LONGEST_RING} (16 GiB)")));
        }
        Ok(Shape::new(capacity, max_message, wanted.next_multiple_of(8).min(LONGEST_RING)))
    }
}

/// The ring of a queue without a limit takes no memory for itself, so it may be as long as there could ever be use
/// for: twice the memory that there is.
fn sparse_len(slot: usize) -> Result<usize, OpenError> {
    let least = BASIN + 5 * CHUNK + 3 * slot;
    let whole = usize::try_from(segment::whole_space()).unwrap_or(usize::MAX);
    let limit = segment::file_size_limit().map_err(OpenError::Io)?;
    let file = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RING + slot);
    let wanted = whole.saturating_mul(2).max(least).min(LONGEST_RING - CHUNK).min(file);
    if wanted < least {
        return Err(invalid(format!(
            "the limit on file size is {limit} bytes, a queue without a limit needs {} with this max_message; raise it \
             (ulimit -f, RLIMIT_FSIZE) or give a capacity",
            RING + slot + least
        )));
    }
    Ok(wanted - wanted % 8)
}

pub(crate) fn no_capacity(kind: Kind) -> OpenError {
    let unlimited = match kind {
        Kind::Queue => ", or make a queue without a limit with unbounded() or with QueueOptions",
        _ => "",
    };
    invalid(format!("capacity 0; give a capacity of 1 or more{unlimited}"))
}

fn invalid(reason: String) -> OpenError {
    OpenError::InvalidOptions { reason }
}
