//! The one place that turns a range of a ring into bytes.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::atomic::Ordering;
use crate::error::Corrupt;

/// Bytes that other processes write too. They are copied with raw pointers, and lengths are read by one
/// atomic load; a reference to them is formed only to be lent to a closure of the user's.
#[derive(Clone, Copy)]
pub(crate) struct Region<'a> {
    base: NonNull<u8>,
    len: usize,
    mapping: PhantomData<&'a ()>,
}

/// The bytes of a message, which lie in a region.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    start: NonNull<u8>,
    len: usize,
    mapping: PhantomData<&'a ()>,
}

/// Bytes before the bytes of a message.
const PREFIX: usize = 8;
const OUTSIDE: Corrupt = Corrupt("a message lies outside the ring");

impl<'a> Region<'a> {
    /// # Safety
    /// `base` to `base + len` must stay mapped readable and writable for `'a`, `base` aligned to 8.
    #[inline]
    pub(crate) unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len, mapping: PhantomData }
    }

    /// Where it lies and how long it is, for who can say when it may be a reference.
    pub(crate) fn raw(&self) -> (NonNull<u8>, usize) {
        (self.base, self.len)
    }

    /// The first `len` bytes, or all if there are fewer.
    pub(crate) fn up_to(self, len: usize) -> Self {
        Self { len: len.min(self.len), ..self }
    }

    /// Writes `from` from the first byte on.
    pub(crate) fn fill(&self, from: &[u8]) -> Result<(), Corrupt> {
        let to = self.range(0, from.len())?;
        // SAFETY: as in `copy_in`.
        unsafe { copy(from.as_ptr(), to.as_ptr(), from.len()) };
        Ok(())
    }

    /// The first 8 bytes. No region is shorter.
    pub(crate) fn first_word(&self) -> &core::sync::atomic::AtomicU64 {
        assert!(self.len >= 8, "every region holds at least one slot");
        // SAFETY: in range (just asserted), aligned to 8, and an atomic, so that writes of other processes are no
        // data race.
        unsafe { self.base.cast().as_ref() }
    }

    #[inline]
    fn range(&self, offset: usize, len: usize) -> Result<NonNull<u8>, Corrupt> {
        if offset > self.len || len > self.len - offset {
            return Err(OUTSIDE);
        }
        // SAFETY: the offset was just checked to lie inside the mapped range.
        Ok(unsafe { self.base.add(offset) })
    }

    /// The message in the slot at `offset`, where one of `max` bytes would lie inside. The length is read once: a peer
    /// that changes it afterwards changes nothing here.
    #[inline]
    pub(crate) fn message(&self, offset: usize, max: usize) -> Result<Span<'a>, Corrupt> {
        let start = self.prefix(offset, max)?;
        // SAFETY: `prefix` says so.
        let len = unsafe { start.cast::<core::sync::atomic::AtomicU32>().as_ref() }.load(Ordering::Relaxed);
        let len = len as usize;
        if len > max {
            return Err(Corrupt("a message is longer than the longest"));
        }
        // SAFETY: the slot is longer than its prefix.
        Ok(Span { start: unsafe { start.add(PREFIX) }, len, mapping: PhantomData })
    }

    /// The two numbers that a slot at `offset` begins with.
    pub(crate) fn numbers(&self, offset: usize) -> Result<(u32, u32), Corrupt> {
        let [first, second] = self.number_words(offset)?;
        Ok((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)))
    }

    /// Writes them.
    pub(crate) fn set_numbers(&self, offset: usize, (first, second): (u32, u32)) -> Result<(), Corrupt> {
        let words = self.number_words(offset)?;
        words[0].store(first, Ordering::Relaxed);
        words[1].store(second, Ordering::Relaxed);
        Ok(())
    }

    fn number_words(&self, offset: usize) -> Result<&[core::sync::atomic::AtomicU32; 2], Corrupt> {
        let start = self.prefix(offset, 0)?;
        // SAFETY: `prefix` says so; a prefix is two words long.
        Ok(unsafe { start.cast().as_ref() })
    }

    /// Where a slot for `len` bytes begins: in range with all of them, and aligned to 8, so that an atomic word can lie
    /// there, of which writes of other processes are no data race.
    #[inline]
    fn prefix(&self, offset: usize, len: usize) -> Result<NonNull<u8>, Corrupt> {
        if offset.is_multiple_of(8) { self.range(offset, PREFIX + len) } else { Err(OUTSIDE) }
    }

    /// Asks the processor for the cache line at `offset`, to be written soon. Past the end it does nothing.
    #[inline]
    pub(crate) fn expect_write(&self, offset: usize) {
        if offset < self.len {
            // SAFETY: the offset was just checked to lie inside the mapped range.
            let line = unsafe { self.base.add(offset) };
            super::expect_write(line.as_ptr());
        }
    }

    /// Writes a slot: a prefix of 8 bytes that begins with `prefix`, and `from`.
    #[inline]
    pub(crate) fn copy_in(&self, offset: usize, prefix: u32, from: &[u8]) -> Result<(), Corrupt> {
        let to = self.slot(offset, prefix, from.len())?;
        // SAFETY: both ranges are valid for this length, and do not overlap: `from` is private
        // memory, since nobody ever gets a reference into the mapping that outlives a closure of the user's.
        unsafe { copy(from.as_ptr(), to.as_ptr(), from.len()) };
        Ok(())
    }

    /// Writes the prefix of a slot, and says where the `len` bytes behind it go.
    #[inline]
    fn slot(&self, offset: usize, prefix: u32, len: usize) -> Result<NonNull<u8>, Corrupt> {
        let start = self.prefix(offset, len)?;
        // SAFETY: `prefix` says so.
        unsafe { start.cast::<core::sync::atomic::AtomicU32>().as_ref() }.store(prefix, Ordering::Relaxed);
        // SAFETY: the range is that long.
        Ok(unsafe { start.add(PREFIX) })
    }

    /// Writes the prefix of a slot, and lends the `len` bytes behind it to `fill`, to be written.
    #[inline]
    pub(crate) fn lend_mut(
        &self,
        offset: usize,
        prefix: u32,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Corrupt> {
        let to = self.slot(offset, prefix, len)?;
        // SAFETY: in range and mapped (just checked) until `fill` has returned; the bytes lie behind the
        // tail, where only the owner of the put end, the caller, reads or writes.
        fill(unsafe { std::slice::from_raw_parts_mut(to.as_ptr(), len) });
        Ok(())
    }
}

/// Made by [`Region::message`], so that its bytes lie in the region. The lock of the get end keeps honest peers from
/// writing there meanwhile.
impl Span<'_> {
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Copies the first bytes, or all if `to` is longer.
    #[inline]
    pub(crate) fn copy_to(self, to: &mut [u8]) {
        let len = self.len.min(to.len());
        // SAFETY: both ranges are valid for this length and do not overlap, as in `copy_in`. A hostile peer can make the
        // copied bytes arbitrary, which any bytes may be.
        unsafe { copy(self.start.as_ptr(), to.as_mut_ptr(), len) };
    }

    /// Appends all bytes to `to`, without zeroing them first. Who has to be told when there is no memory has made room
    /// before.
    #[inline]
    pub(crate) fn append_to(self, to: &mut Vec<u8>) {
        to.reserve(self.len);
        let end = to.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY: as in `copy_to`; the vector has room for `len` more bytes, just reserved.
        unsafe { copy(self.start.as_ptr(), end, self.len) };
        // SAFETY: those `len` bytes after the old end have just been written.
        unsafe { to.set_len(to.len() + self.len) };
    }

    /// Lends the bytes to `read`. A hostile peer can change them meanwhile: `read` may then see any bytes, changing ones
    /// too, as the documentation of `get_with` says.
    #[inline]
    pub(crate) fn lend<R>(self, read: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: in range and mapped until `read` has returned; nobody of ours writes there before this end's lock is
        // unlocked or the message removed, which the caller does afterwards.
        read(unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) })
    }
}

/// The longest piece that glibc never copies with `rep movsb`. With that some processors (AMD's from Zen 3 on) take each
/// byte for itself where the target begins up to 63 bytes behind the source, their pages aside: 3 instead of 50 GB/s,
/// measured. Two large buffers often lie like that, because both begin with a page.
const PIECE: usize = 2048;
const PAGE: usize = 4096;

/// # Safety
/// As `std::ptr::copy_nonoverlapping`.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    if len > PIECE && to.addr().wrapping_sub(from.addr()) % PAGE < 64 {
        // SAFETY: as the caller's.
        return unsafe { copy_in_pieces(from, to, len) };
    }
    // SAFETY: as the caller's.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}

/// # Safety
/// As `std::ptr::copy_nonoverlapping`.
#[cold]
unsafe fn copy_in_pieces(mut from: *const u8, mut to: *mut u8, mut len: usize) {
    while len > 0 {
        // The compiler would make one copy of the loop, if it could see that.
        let piece = std::hint::black_box(PIECE).min(len);
        // SAFETY: the rest of both ranges is `len` bytes long.
        unsafe { std::ptr::copy_nonoverlapping(from, to, piece) };
        len -= piece;
        // SAFETY: up to their ends.
        from = unsafe { from.add(piece) };
        // SAFETY: likewise.
        to = unsafe { to.add(piece) };
    }
}
