//! What lies where in a segment. `docs/design.md` has the byte tables.
//!
//! | bytes                  | what                                        |
//! | ---------------------- | ------------------------------------------- |
//! | 0 to 511               | the header, written once before the segment has a name |
//! | 512 to 1023            | words that are not on a hot path            |
//! | 1024 to 1791           | the channel                                 |
//! | 1792 to 2559           | the second channel of a pipe                |
//! | 4096 on                | the ring, and behind it the second channel's |

use std::fmt;
use std::mem::{offset_of, size_of};

use crate::atomic::{AtomicU32, AtomicU64};
use crate::error::OpenError;
#[cfg(not(loom))]
use crate::ring::CURSOR;
use crate::ring::{LONGEST_RING, Shape, Side, UNBOUNDED, slot_len};
use crate::sync::condvar::Condvar;
use crate::sync::mutex::Mutex;

/// One end of a channel, on cache lines of its own (128: processors fetch them in pairs): the lock and
/// the owner's words on one pair, the cursor on the next.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) mutex: Mutex,
    spare: u32,
    pub(crate) side: Side,
}

/// A value on cache lines of its own.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Apart<T>(pub(crate) T);

/// The words of a channel: two ends, each with its lock, and two condition variables.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) put: End,
    pub(crate) get: End,
    pub(crate) not_empty: Apart<Condvar>,
    pub(crate) not_full: Apart<Condvar>,
}

impl Ends {
    /// Every lock word still owned by `id` is made one of the unknown dead.
    pub(crate) fn bury(&self, id: u32) {
        for End { mutex, .. } in [&self.put, &self.get] {
            mutex.bury(id);
        }
    }
}

/// Words that are not on a hot path.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Live {
    /// Locks taken over from the dead.
    pub(crate) recoveries: AtomicU64,
    /// Items reported as done.
    pub(crate) done: AtomicU64,
    /// Notified when as many are done as were put.
    pub(crate) all_done: Condvar,
    /// Not 0: an owner of a value's or an array's lock died, and nobody has been told yet.
    pub(crate) recovered: AtomicU32,
    /// A bit for each class of a pipe that has had a member.
    pub(crate) opened: AtomicU32,
    /// A bit for each class of a pipe that will never have one again.
    pub(crate) ended: AtomicU32,
    /// Ends of a pipe on their way to another process: see `handover`.
    pub(crate) tickets: [AtomicU64; TICKETS],
}

/// How many ends of one pipe may be on their way at a time.
pub(crate) const TICKETS: usize = 32;

/// One of the channels of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    First,
    Second,
}

/// Where a channel lies in its segment: offsets of its words and its ring, and the bytes that the ring takes. Made by
/// `Geometry::place`, so that it lies in every segment of that geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) ends: usize,
    pub(crate) ring: usize,
    pub(crate) room: usize,
}

#[cfg(loom)]
impl Ends {
    pub(crate) fn new() -> Self {
        let end = || End { mutex: Mutex::new(), spare: 0, side: Side::new() };
        Self { put: end(), get: end(), not_empty: Apart(Condvar::new()), not_full: Apart(Condvar::new()) }
    }
}

#[cfg(loom)]
impl Live {
    pub(crate) fn new() -> Self {
        Self {
            recoveries: AtomicU64::new(0),
            done: AtomicU64::new(0),
            all_done: Condvar::new(),
            recovered: AtomicU32::new(0),
            opened: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            tickets: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

pub(crate) const LIVE: usize = 512;
pub(crate) const CHANNEL: usize = 1024;
pub(crate) const RING: usize = 4096;

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Ends>() == 768);
    assert!(offset_of!(Ends, put) == 0 && offset_of!(Ends, get) == 256);
    assert!(offset_of!(Ends, not_empty) == 512 && offset_of!(Ends, not_full) == 640);
    assert!(offset_of!(End, mutex) == 0 && offset_of!(End, side) == 8);
    assert!(offset_of!(End, side) + CURSOR == 128);
    assert!(size_of::<Live>() <= CHANNEL - LIVE);
    assert!(CHANNEL.is_multiple_of(align_of::<Ends>()) && LIVE.is_multiple_of(align_of::<Live>()));
    assert!(CHANNEL + 2 * size_of::<Ends>() <= RING);
    assert!(size_of::<Ends>().is_multiple_of(align_of::<Ends>()));
};

const MAGIC: [u8; 8] = *b"shmq seg";
pub(crate) const VERSION: u32 = 1;
/// Bytes of the header.
pub(crate) const HEADER: usize = 512;
pub(crate) const LONGEST_SCHEMA: usize = 64;
pub(crate) const LARGEST_CAPACITY: usize = (1 << 31) - 1;
pub(crate) const LONGEST_MESSAGE: usize = 1 << 30;

/// Only `remove` takes the name away.
const PERSISTENT: u32 = 1;
/// The name was made up: nobody will ask for it after a crash.
const ANONYMOUS: u32 = 2;
/// The queue has no limit: its ring is sparse, and its capacity says 0.
const SPARSE: u32 = 4;

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Queue = 1,
    /// Two channels, one each way.
    Pipe = 2,
    /// A pipe of one channel.
    Simplex = 3,
    /// No ring, but one value behind a lock.
    Value = 4,
    /// No ring, but elements behind a lock.
    Array = 5,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Queue, Self::Pipe, Self::Simplex, Self::Value, Self::Array];

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Pipe => "pipe",
            Self::Simplex => "one-way pipe",
            Self::Value => "value",
            Self::Array => "array",
        }
    }

    /// Whether it holds messages.
    pub(crate) fn has_ring(self) -> bool {
        matches!(self, Self::Queue | Self::Pipe | Self::Simplex)
    }
}

/// The header as bytes. The first five fields stand there in every format version: any version can
/// tell whether a segment is ours, in use, and to be kept.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Raw {
    magic: [u8; 8],
    version: u32,
    flags: u32,
    nonce: u64,
    kind: u32,
    schema_len: u32,
    capacity: u64,
    max_message: u64,
    ring_offset: u64,
    ring_len: u64,
    schema: [u8; LONGEST_SCHEMA],
}

const _: () = {
    assert!(size_of::<Raw>() == 128 && size_of::<Raw>() <= HEADER);
    assert!(offset_of!(Raw, version) == 8 && offset_of!(Raw, flags) == 12 && offset_of!(Raw, nonce) == 16);
};

/// What a segment is, once its header has been checked, or before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) kind: Kind,
    pub(crate) persistent: bool,
    pub(crate) anonymous: bool,
    pub(crate) nonce: u64,
    pub(crate) schema: String,
    pub(crate) shape: Shape,
}

/// What the caller of `open` insists on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) kind: Kind,
    /// Empty: any.
    pub(crate) schema: &'a str,
    /// The very segment that a handle was sent of; another one of the same name will not do.
    pub(crate) nonce: Option<u64>,
}

impl Geometry {
    /// Bytes of the whole segment.
    pub(crate) fn segment_len(&self) -> usize {
        self.lanes().last().map_or(RING, |lane| self.ring_offset(*lane) + self.shape.room())
    }

    /// Bytes that must have memory from the start.
    pub(crate) fn allocated_len(&self) -> usize {
        if self.shape.is_sparse() { RING } else { self.segment_len() }
    }

    /// How many messages or elements it holds at most; `None` without a limit.
    pub(crate) fn capacity(&self) -> Option<u32> {
        (!self.shape.is_sparse()).then_some(self.shape.capacity)
    }

    /// The channels that there are.
    pub(crate) fn lanes(&self) -> &'static [Lane] {
        match self.kind {
            Kind::Queue | Kind::Simplex | Kind::Value | Kind::Array => &[Lane::First],
            Kind::Pipe => &[Lane::First, Lane::Second],
        }
    }

    /// Where a channel lies.
    pub(crate) fn place(&self, lane: Lane) -> Place {
        let ends = match lane {
            Lane::First => CHANNEL,
            Lane::Second => CHANNEL + size_of::<Ends>(),
        };
        Place { ends, ring: self.ring_offset(lane), room: self.shape.room() }
    }

    /// Where a channel's ring begins: on cache lines of its own.
    #[inline]
    pub(crate) fn ring_offset(&self, lane: Lane) -> usize {
        match lane {
            Lane::First => RING,
            Lane::Second => RING + self.shape.room().next_multiple_of(128),
        }
    }

    pub(crate) fn to_bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        let flags = (u32::from(self.persistent) * PERSISTENT)
            | (u32::from(self.anonymous) * ANONYMOUS)
            | (u32::from(self.shape.is_sparse()) * SPARSE);
        let schema_len = u32::try_from(self.schema.len()).unwrap_or(0);
        put(&MAGIC);
        put(&VERSION.to_ne_bytes());
        put(&flags.to_ne_bytes());
        put(&self.nonce.to_ne_bytes());
        put(&(self.kind as u32).to_ne_bytes());
        put(&schema_len.to_ne_bytes());
        put(&u64::from(self.capacity().unwrap_or(0)).to_ne_bytes());
        put(&(self.shape.max_message as u64).to_ne_bytes());
        put(&(RING as u64).to_ne_bytes());
        put(&(self.shape.ring_len as u64).to_ne_bytes());
        put(self.schema.as_bytes());
        bytes
    }
}

/// A header read from a file, believed by nobody yet.
pub(crate) struct UncheckedHeader(Raw);

/// Why a header is not believed, before the name of the segment is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Disbelief {
    NotShmq(String),
    Mismatch { field: &'static str, expected: String, found: String },
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotShmq(reason) => f.write_str(reason),
            Self::Mismatch { field, expected, found } => {
                write!(f, "its {field} is {found}, this version of shmq expects {expected}")
            }
        }
    }
}

impl Disbelief {
    pub(crate) fn about(self, name: &str) -> OpenError {
        match self {
            Self::NotShmq(reason) => OpenError::NotShmq { name: name.to_owned(), reason },
            Self::Mismatch { field, expected, found } => OpenError::Mismatch { field, expected, found },
        }
    }
}

impl UncheckedHeader {
    /// `None` if this is no segment of ours, of any version.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.get(..size_of::<Raw>())?;
        let raw = Raw {
            magic: take(&mut rest)?,
            version: u32::from_ne_bytes(take(&mut rest)?),
            flags: u32::from_ne_bytes(take(&mut rest)?),
            nonce: u64::from_ne_bytes(take(&mut rest)?),
            kind: u32::from_ne_bytes(take(&mut rest)?),
            schema_len: u32::from_ne_bytes(take(&mut rest)?),
            capacity: u64::from_ne_bytes(take(&mut rest)?),
            max_message: u64::from_ne_bytes(take(&mut rest)?),
            ring_offset: u64::from_ne_bytes(take(&mut rest)?),
            ring_len: u64::from_ne_bytes(take(&mut rest)?),
            schema: take(&mut rest)?,
        };
        (raw.magic == MAGIC).then_some(Self(raw))
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.0.kind)
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.0.flags & PERSISTENT != 0
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.0.flags & ANONYMOUS != 0
    }

    /// Believes nothing that contradicts itself, the length of the file, or what is expected.
    pub(crate) fn check(&self, file_len: u64, expected: Expected<'_>) -> Result<Geometry, Disbelief> {
        let raw = &self.0;
        if raw.version != VERSION {
            return Err(Disbelief::Mismatch {
                field: "format version",
                expected: VERSION.to_string(),
                found: raw.version.to_string(),
            });
        }
        if raw.kind != expected.kind as u32 {
            return Err(Disbelief::Mismatch {
                field: "kind",
                expected: expected.kind.name().to_owned(),
                found: self
                    .kind()
                    .map_or_else(|| format!("unknown kind {}", raw.kind), |kind| kind.name().to_owned()),
            });
        }
        if raw.flags & !(PERSISTENT | ANONYMOUS | SPARSE) != 0 {
            return Err(nonsense("flags", raw.flags.into()));
        }
        let shape = self.check_shape()?;
        let schema = usize::try_from(raw.schema_len).ok().and_then(|len| raw.schema.get(..len));
        let Some(Ok(schema)) = schema.map(str::from_utf8) else {
            return Err(Disbelief::NotShmq("its schema label is not a text of at most 64 bytes".to_owned()));
        };
        let geometry = Geometry {
            kind: expected.kind,
            persistent: self.is_persistent(),
            anonymous: self.is_anonymous(),
            nonce: raw.nonce,
            schema: schema.to_owned(),
            shape,
        };
        if file_len != geometry.segment_len() as u64 {
            let reason = format!("it is {file_len} bytes long instead of {}", geometry.segment_len());
            return Err(Disbelief::NotShmq(reason));
        }
        if !expected.schema.is_empty() && expected.schema != schema {
            return Err(Disbelief::Mismatch {
                field: "schema",
                expected: format!("{:?}", expected.schema),
                found: if schema.is_empty() { "no label".to_owned() } else { format!("{schema:?}") },
            });
        }
        Ok(geometry)
    }

    fn check_shape(&self) -> Result<Shape, Disbelief> {
        let raw = &self.0;
        let within = |field, value: u64, from: usize, to: usize| match usize::try_from(value) {
            Ok(value) if (from..=to).contains(&value) => Ok(value),
            _ => Err(nonsense(field, value)),
        };
        let sparse = raw.flags & SPARSE != 0;
        let (least, most) = match self.kind() {
            Some(Kind::Queue) if sparse => (0, 0),
            _ if sparse => return Err(nonsense("flags", raw.flags.into())),
            Some(Kind::Array) => (0, LARGEST_CAPACITY),
            _ => (1, LARGEST_CAPACITY),
        };
        let capacity = within("capacity", raw.capacity, least, most)?;
        let max_message = within("max_message", raw.max_message, 0, LONGEST_MESSAGE)?;
        let ring_len = within("ring length", raw.ring_len, slot_len(max_message), LONGEST_RING)?;
        within("ring offset", raw.ring_offset, RING, RING)?;
        if !ring_len.is_multiple_of(8) {
            return Err(nonsense("ring length", raw.ring_len));
        }
        let capacity = u32::try_from(if sparse { UNBOUNDED as usize } else { capacity })
            .map_err(|_| nonsense("capacity", raw.capacity))?;
        let shape = Shape::new(capacity, max_message, ring_len);
        if sparse && !shape.is_long_enough() {
            return Err(nonsense("ring length", raw.ring_len));
        }
        Ok(shape)
    }
}

fn nonsense(field: &str, value: u64) -> Disbelief {
    Disbelief::NotShmq(format!("its header is damaged ({field} {value})"))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*field)
}

#[cfg(all(test, not(loom)))]
#[path = "layout/tests.rs"]
mod tests;
