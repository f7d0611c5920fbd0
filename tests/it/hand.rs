//! A hand in the bytes of a queue: its object, mapped and written by somebody who is no user of it, and the
//! harm that it can do there.
//!
//! It maps, as the users of the queue do, so that they see every store at once and half of a store as well.

#![expect(unsafe_code, reason = "a mapping: what std does not offer")]

use std::fs;
use std::hint::spin_loop;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::broken::{
    CAPACITY, CLOSED, FLAGS, GET_LOCK, HEAD, LIVE, MAX_MESSAGE, NOT_EMPTY, NOT_FULL, PUT_LOCK, RING,
    RING_LEN, SCHEMA_LEN, TAIL, TOMB,
};
use crate::harness::{Random, object};

const PAGE: usize = 4096;
/// The end of the fields of the header; the rest of its 512 bytes means nothing.
const FIELDS: usize = 128;
/// What the owner of an end knows of the other, behind the lock.
const SEEN: u64 = 8;
/// The owner in a lock word.
const OWNER: u32 = TOMB;

/// The mapped bytes of one object.
pub(crate) struct Hand {
    base: NonNull<u8>,
    len: usize,
    inode: u64,
}

impl Hand {
    /// `None` if there is nothing of that name, or nothing that could be a queue.
    pub(crate) fn reach(name: &str) -> Option<Self> {
        let file = fs::OpenOptions::new().read(true).write(true).open(object(name)).ok()?;
        let metadata = file.metadata().ok()?;
        let len = usize::try_from(metadata.len()).ok()?;
        if len <= at(RING) {
            return None;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice. Nobody truncates the file.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(base, libc::MAP_FAILED, "it cannot be mapped");
        let base = NonNull::new(base.cast()).expect("no mapping begins at 0");
        Some(Self { base, len, inode: metadata.ino() })
    }

    /// Whether the name is still this object's.
    pub(crate) fn bears(&self, name: &str) -> bool {
        fs::symlink_metadata(object(name)).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn byte(&self, place: usize) -> &AtomicU8 {
        assert!(place < self.len);
        // SAFETY: just checked to lie in the mapping.
        let byte = unsafe { self.base.add(place) };
        // SAFETY: mapped for as long as `self` lives, and an atomic, since others write there too.
        unsafe { byte.cast().as_ref() }
    }

    fn word(&self, place: usize) -> &AtomicU32 {
        assert!(place + 4 <= self.len && place.is_multiple_of(4));
        // SAFETY: just checked to lie in the mapping.
        let word = unsafe { self.base.add(place) };
        // SAFETY: as in `byte`; aligned, as just checked.
        unsafe { word.cast().as_ref() }
    }

    fn long(&self, place: usize) -> &AtomicU64 {
        assert!(place + 8 <= self.len && place.is_multiple_of(8));
        // SAFETY: just checked to lie in the mapping.
        let long = unsafe { self.base.add(place) };
        // SAFETY: as in `byte`; aligned, as just checked.
        unsafe { long.cast().as_ref() }
    }

    pub(crate) fn u32(&self, place: u64) -> u32 {
        self.word(at(place)).load(Relaxed)
    }

    pub(crate) fn u64(&self, place: u64) -> u64 {
        self.long(at(place)).load(Relaxed)
    }

    pub(crate) fn set_u32(&self, place: u64, value: u32) {
        self.word(at(place)).store(value, Relaxed);
    }

    fn set_u64(&self, place: u64, value: u64) {
        self.long(at(place)).store(value, Relaxed);
    }

    pub(crate) fn read(&self, range: Range<usize>) -> Vec<u8> {
        range.map(|place| self.byte(place).load(Relaxed)).collect()
    }

    /// Byte by byte: others see any part of it.
    pub(crate) fn write(&self, place: usize, bytes: &[u8]) {
        for (place, byte) in (place..).zip(bytes) {
            self.byte(place).store(*byte, Relaxed);
        }
    }

    /// The bytes behind the end of the segment that are mapped with it, since a mapping consists of pages.
    /// The kernel has set them to 0, and nobody has any business there.
    pub(crate) fn behind(&self) -> Vec<u8> {
        let behind = self.len..self.len.next_multiple_of(PAGE);
        let byte = |place| {
            // SAFETY: the last page of the mapping is mapped whole.
            let byte = unsafe { self.base.add(place) };
            // SAFETY: as above.
            unsafe { byte.read_volatile() }
        };
        behind.map(byte).collect()
    }

    /// The words of both ends, for whoever has to find out why something hangs.
    pub(crate) fn words(&self) -> String {
        let words = [PUT_LOCK, GET_LOCK, NOT_EMPTY, NOT_FULL].map(|place| self.u32(place));
        let longs = [PUT_LOCK + SEEN, TAIL, GET_LOCK + SEEN, HEAD].map(|place| self.u64(place));
        format!(
            "put and get lock, not_empty, not_full: {words:08x?}; head seen, tail, tail seen, head: {longs:x?}"
        )
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and what a hand does there is atomic.
unsafe impl Send for Hand {}

impl Drop for Hand {
    fn drop(&mut self) {
        // SAFETY: mapped by `reach` with this length; nothing borrowed from it is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn at(place: u64) -> usize {
    usize::try_from(place).expect("64-bit")
}

/// A part of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Header,
    Locks,
    Cursors,
    /// What each end has seen of the other, and the totals.
    Owners,
    Sleepers,
    Slots,
    /// All that changes but the ring, whatever it is.
    Words,
    Anything,
}

impl Part {
    pub(crate) const ALL: [Self; 8] = [
        Self::Header,
        Self::Locks,
        Self::Cursors,
        Self::Owners,
        Self::Sleepers,
        Self::Slots,
        Self::Words,
        Self::Anything,
    ];

    pub(crate) fn any(random: &mut Random) -> Self {
        Self::ALL[random.index(Self::ALL.len())]
    }

    /// Whether harm to it can reach the header.
    pub(crate) fn has_header(self) -> bool {
        matches!(self, Self::Header | Self::Anything)
    }

    /// Some place in it, a multiple of 8.
    fn place(self, hand: &Hand, random: &mut Random) -> u64 {
        let one_of = |random: &mut Random, places: &[u64]| places[random.index(places.len())];
        let within = |random: &mut Random, from: u64, to: u64| from + random.below((to - from) / 8) * 8;
        let end = hand.len() as u64 / 8 * 8;
        match self {
            Self::Header => within(random, 0, FIELDS as u64),
            Self::Locks => one_of(random, &[PUT_LOCK, GET_LOCK]),
            Self::Cursors => one_of(random, &[TAIL, HEAD]),
            Self::Owners => one_of(random, &[PUT_LOCK, GET_LOCK]) + SEEN + random.below(3) * 8,
            Self::Sleepers => one_of(random, &[NOT_EMPTY, NOT_FULL]),
            // Most lengths stand at the beginning of a ring of short messages.
            Self::Slots if random.below(2) == 0 => within(random, RING, end.min(RING + 256)),
            Self::Slots => within(random, RING, end),
            Self::Words => within(random, LIVE.start, RING),
            Self::Anything => within(random, 0, end),
        }
    }
}

/// Somebody who does harm to one object, by chance.
pub(crate) struct Vandal {
    pub(crate) hand: Hand,
    pub(crate) random: Random,
    /// What the bytes were at first.
    whole: Vec<u8>,
    /// What they were at some earlier moments.
    past: Vec<Vec<u8>>,
    /// Ids seen in lock words: most are of somebody alive.
    owners: Vec<u32>,
}

impl Vandal {
    /// To be made while the object is whole.
    pub(crate) fn new(hand: Hand, random: Random) -> Self {
        let whole = hand.read(0..hand.len());
        Self { hand, random, past: vec![whole.clone()], whole, owners: Vec::new() }
    }

    /// Puts everything back as it was at first.
    pub(crate) fn restore(&self) {
        self.hand.write(0, &self.whole);
    }

    /// Puts the header back as it was at first.
    pub(crate) fn restore_header(&self) {
        self.hand.write(0, &self.whole[..at(LIVE.start)]);
    }

    pub(crate) fn header_is_whole(&self) -> bool {
        let header = 0..at(LIVE.start);
        self.hand.read(header.clone()) == self.whole[header]
    }

    /// Looks at the queue, for later.
    pub(crate) fn remember(&mut self) {
        const MOMENTS: usize = 8;
        let now = self.hand.read(0..self.hand.len());
        if self.past.len() < MOMENTS {
            self.past.push(now);
        } else {
            let place = self.random.index(MOMENTS);
            self.past[place] = now;
        }
        self.look_at_owners();
    }

    /// Remembers who owns a lock now.
    pub(crate) fn look_at_owners(&mut self) {
        const OWNERS: usize = 8;
        for lock in [PUT_LOCK, GET_LOCK] {
            let owner = self.hand.u32(lock) & OWNER;
            if owner != 0 && !self.owners.contains(&owner) {
                if self.owners.len() == OWNERS {
                    self.owners.remove(0);
                }
                self.owners.push(owner);
            }
        }
    }

    /// Does one thing to one place.
    pub(crate) fn harm(&mut self, part: Part) {
        let place = part.place(&self.hand, &mut self.random);
        // Either half of the place: some words are of 4 bytes.
        let word = place + self.random.below(2) * 4;
        let value = self.value(part);
        let low = u32::try_from(value & 0xffff_ffff).expect("just cut to 32 bits");
        match self.random.below(8) {
            // Flipped.
            0 => {
                let byte = self.hand.byte(at(place) + self.random.index(8));
                byte.fetch_xor(1 << self.random.below(8), Relaxed);
            }
            // Torn: as much of a word as was written when somebody stopped, from either side.
            1 => {
                let bytes = value.to_ne_bytes();
                let cut = self.random.index(8);
                let (from, to) = if self.random.below(2) == 0 { (0, cut) } else { (cut, 8) };
                self.hand.write(at(place) + from, &bytes[from..to]);
            }
            2 | 3 => self.hand.set_u32(word, low),
            // A lock word, or a word to sleep on, is the first half of its place.
            4 => self.hand.set_u32(place, low),
            5 => self.hand.set_u64(place, value),
            // As it was once, by itself or with its neighbours.
            6 => {
                let moment = &self.past[self.random.index(self.past.len())];
                let len = [4, 8, 8, 64, 256, moment.len()][self.random.index(6)];
                let (from, to) = (at(place), (at(place) + len).min(moment.len()));
                self.hand.write(from, &moment[from..to]);
            }
            // One word in the place of another.
            _ => {
                let other = part.place(&self.hand, &mut self.random);
                self.hand.set_u64(place, self.hand.u64(other));
            }
        }
        if part == Part::Header && self.random.below(8) == 0 {
            self.lie();
        }
    }

    /// Changes one word for a moment only: all around it makes sense, before and after, so that calls come as
    /// far as to look at it twice.
    pub(crate) fn flicker(&mut self, part: Part) {
        let place = part.place(&self.hand, &mut self.random);
        let value = self.value(part);
        let before = self.hand.long(at(place)).swap(value, Relaxed);
        for _ in 0..self.random.below(64) {
            spin_loop();
        }
        self.hand.set_u64(place, before);
    }

    /// A header that is not true but adds up.
    fn lie(&mut self) {
        self.restore_header();
        let (max_message, ring_len) = (self.whole_u64(MAX_MESSAGE), self.whole_u64(RING_LEN));
        let all = max_message.next_multiple_of(8) + ring_len;
        let other = self.random.below(all / 16 + 1) * 8;
        self.hand.set_u64(MAX_MESSAGE as u64, other);
        self.hand.set_u64(RING_LEN as u64, all - other);
        self.hand.set_u64(CAPACITY as u64, self.random.next() >> self.random.below(64));
        self.hand.set_u32(FLAGS as u64, u32::from(self.random.below(2) == 0));
        self.hand.set_u32(SCHEMA_LEN as u64, 0);
    }

    fn whole_u64(&self, place: usize) -> u64 {
        u64::from_ne_bytes(self.whole[place..place + 8].try_into().expect("8 bytes"))
    }

    /// A value that is more likely to do harm than any.
    fn value(&mut self, part: Part) -> u64 {
        if part == Part::Locks && self.random.below(2) == 0 {
            return self.lock_word().into();
        }
        let [capacity, max_message, ring_len] =
            [CAPACITY, MAX_MESSAGE, RING_LEN].map(|place| self.whole_u64(place));
        let near = |random: &mut Random, value: u64| value.wrapping_add(random.below(5)).wrapping_sub(2);
        let random = &mut self.random;
        let small = random.below(64);
        match random.below(12) {
            0 => 0,
            1 => u64::MAX - small,
            2 => small,
            3 => small << 32 | random.below(32),
            4 => 1 << small,
            5 => random.next() & 0xffff_ffff,
            6 => random.next(),
            // What the limits are, nearly.
            7 => near(random, capacity),
            8 => near(random, max_message),
            9 => near(random, ring_len / 8) | small << 32,
            // A cursor, nearly.
            10 => {
                let cursor = self.hand.u64(if small < 32 { TAIL } else { HEAD });
                near(random, cursor)
            }
            _ => {
                let cursor = self.hand.u64(if small < 32 { TAIL } else { HEAD });
                near(random, cursor >> 32) << 32 | cursor & 0xffff_ffff
            }
        }
    }

    /// Some owner, dead, alive or nobody, and any flags.
    pub(crate) fn lock_word(&mut self) -> u32 {
        let random = &mut self.random;
        let flags = u32::try_from(random.below(16)).expect("small") << 28;
        // The closed mark is never cleared from a put end, so that hardly anything else would be seen.
        let flags = if random.below(4) == 0 { flags } else { flags & !CLOSED };
        let owner = match random.below(6) {
            0 => 0,
            1 => TOMB,
            2 => u32::try_from(random.below(4)).expect("small"),
            3 => u32::try_from(random.below(u64::from(TOMB))).expect("28 bits"),
            _ => match self.owners.as_slice() {
                [] => 0,
                owners => owners[random.index(owners.len())],
            },
        };
        flags | owner
    }
}
