//! The one place that turns a range of a ring into bytes.

use std::collections::TryReserveError;
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

const OUTSIDE: Corrupt = Corrupt("a message lies outside the ring");

impl Region<'_> {
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

    #[inline]
    fn word(&self, offset: usize) -> Result<&core::sync::atomic::AtomicU32, Corrupt> {
        if !offset.is_multiple_of(4) {
            return Err(OUTSIDE);
        }
        let at = self.range(offset, 4)?;
        // SAFETY: in range (just checked), aligned (the base to 8, the offset to 4), and an atomic,
        // so that writes of other processes are no data race.
        Ok(unsafe { at.cast().as_ref() })
    }

    /// The number at `offset`, read once: a peer that changes it afterwards changes nothing here.
    #[inline]
    pub(crate) fn load(&self, offset: usize) -> Result<u32, Corrupt> {
        Ok(self.word(offset)?.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn store(&self, offset: usize, value: u32) -> Result<(), Corrupt> {
        self.word(offset)?.store(value, Ordering::Relaxed);
        Ok(())
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

    #[inline]
    pub(crate) fn copy_in(&self, offset: usize, from: &[u8]) -> Result<(), Corrupt> {
        let to = self.range(offset, from.len())?;
        // SAFETY: both ranges are valid for this length, and do not overlap: `from` is private
        // memory, since nobody ever gets a reference into the mapping.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) };
        Ok(())
    }

    #[inline]
    pub(crate) fn copy_out(&self, offset: usize, to: &mut [u8]) -> Result<(), Corrupt> {
        let from = self.range(offset, to.len())?;
        // SAFETY: as in `copy_in`. The lock of this end keeps honest peers from writing meanwhile;
        // a hostile one can make the copied bytes arbitrary, which any bytes may be.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Lends `len` bytes at `offset` to `read`.
    ///
    /// The lock of this end keeps honest peers from changing them meanwhile. A hostile one can: `read` may
    /// then see any bytes, changing ones too, as the documentation of `get_with` says.
    #[inline]
    pub(crate) fn lend<R>(
        &self,
        offset: usize,
        len: usize,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Corrupt> {
        let from = self.range(offset, len)?;
        // SAFETY: in range and mapped (just checked) until `read` has returned; nobody of ours writes there
        // before this end's lock is unlocked or the message removed, which the caller does afterwards.
        Ok(read(unsafe { std::slice::from_raw_parts(from.as_ptr(), len) }))
    }

    /// Lends `len` bytes at `offset` to `fill`, to be written.
    #[inline]
    pub(crate) fn lend_mut(
        &self,
        offset: usize,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Corrupt> {
        let to = self.range(offset, len)?;
        // SAFETY: in range and mapped (just checked) until `fill` has returned; the bytes lie behind the
        // tail, where only the owner of the put end, the caller, reads or writes.
        fill(unsafe { std::slice::from_raw_parts_mut(to.as_ptr(), len) });
        Ok(())
    }

    /// Appends `len` bytes at `offset` to `to`, without zeroing them first.
    #[inline]
    pub(crate) fn append_to(
        &self,
        offset: usize,
        len: usize,
        to: &mut Vec<u8>,
    ) -> Result<Result<(), TryReserveError>, Corrupt> {
        let from = self.range(offset, len)?;
        if let Err(error) = to.try_reserve_exact(len) {
            return Ok(Err(error));
        }
        let end = to.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY: as in `copy_out`; the vector has room for `len` more bytes, just reserved.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), end, len) };
        // SAFETY: those `len` bytes after the old end have just been written.
        unsafe { to.set_len(to.len() + len) };
        Ok(Ok(()))
    }
}
