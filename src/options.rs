//! What a queue is to be when it is created.

use crate::attachment::Plan;
use crate::error::OpenError;
use crate::layout::{Expected, Geometry, Kind, LARGEST_CAPACITY, LONGEST_MESSAGE, LONGEST_SCHEMA};
use crate::ring::{LONGEST_RING, Shape, slot_len};

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
    /// The defaults: no capacity yet, messages of up to 8 KiB, not persistent, mode 0600, no label.
    #[must_use]
    pub fn new() -> Self {
        Self { settings: Settings::new(0, DEFAULT_MESSAGE) }
    }

    /// How many messages the queue holds at most: 1 to 2^31 - 1.
    ///
    /// The default is 0, which is reserved for queues without a limit and not to be had yet: creating
    /// one fails with [`OpenError::InvalidOptions`].
    pub fn capacity(&mut self, messages: usize) -> &mut Self {
        self.settings.capacity = messages;
        self
    }

    /// The longest encoded message in bytes, up to 1 GiB. The default is 8 KiB.
    ///
    /// A put waits until the longest message would fit, so this also bounds how much of the ring is
    /// kept free.
    pub fn max_message(&mut self, bytes: usize) -> &mut Self {
        self.settings.max_message = bytes;
        self
    }

    /// How many bytes of shared memory to use for messages.
    ///
    /// Each takes its length, rounded up to 8, and 8 more. The default is room for `capacity` longest
    /// messages, but at most 16 MiB; it is never less than one longest message, and more than `capacity`
    /// longest messages is never used. When the ring is full before `capacity` is reached, the queue is
    /// full. All of it is allocated when the queue is created.
    pub fn ring_bytes(&mut self, bytes: usize) -> &mut Self {
        self.settings.ring_bytes = Some(bytes);
        self
    }

    /// A label of up to 64 bytes for what the messages mean.
    ///
    /// The type of the items is not recorded in the queue. With a label, opening a queue that was created
    /// with another one fails with [`OpenError::Mismatch`]; without one, nothing is compared.
    pub fn schema(&mut self, label: &str) -> &mut Self {
        label.clone_into(&mut self.settings.schema);
        self
    }

    /// Whether the queue stays when its last handle goes; then only [`remove`](crate::remove) deletes it.
    pub fn persistent(&mut self, yes: bool) -> &mut Self {
        self.settings.persistent = yes;
        self
    }

    /// The permissions of the object in /dev/shm, whatever the umask. The default is 0600.
    ///
    /// Who may use the queue needs read *and* write permission, its own user too: a mode without 0600 is for
    /// root only, and a forked child cannot use what it inherited.
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
        if capacity == 0 && kind != Kind::Array {
            return Err(invalid(
                "capacity 0 (a queue without a limit) is not to be had yet; give a capacity of 1 or more"
                    .to_owned(),
            ));
        }
        let capacity = match u32::try_from(capacity) {
            Ok(small) if capacity <= LARGEST_CAPACITY => small,
            _ => return Err(invalid(format!("capacity {capacity} is more than {LARGEST_CAPACITY}"))),
        };
        if max_message > LONGEST_MESSAGE {
            return Err(invalid(format!("max_message {max_message} is more than {LONGEST_MESSAGE} (1 GiB)")));
        }
        let slot = slot_len(max_message);
        // A ring of that length holds `capacity` messages whatever their lengths.
        let whole = slot.saturating_mul(capacity as usize);
        let wanted = self.ring_bytes.unwrap_or(DEFAULT_RING).clamp(slot, whole.max(slot));
        if wanted > LONGEST_RING {
            return Err(invalid(format!("ring_bytes {wanted} is more than {LONGEST_RING} (16 GiB)")));
        }
        Ok(Shape { capacity, max_message, ring_len: wanted.next_multiple_of(8).min(LONGEST_RING) })
    }
}

fn invalid(reason: String) -> OpenError {
    OpenError::InvalidOptions { reason }
}
