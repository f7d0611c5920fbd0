//! Everything that talks to the kernel, and the raw bytes of a mapping.

pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod lease;
pub(crate) mod ofd;
pub(crate) mod region;
pub(crate) mod segment;
pub(crate) mod shared;

use std::io;

/// A random number from the kernel.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    loop {
        // SAFETY: the buffer is ours, writable, and as long as we say.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if got == 8 {
            return Ok(u64::from_ne_bytes(bytes));
        }
        let error = io::Error::last_os_error();
        if got < 0 && error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// The result of a call that returns -1 and sets errno.
pub(crate) fn check(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// The result of a call that returns the error number itself and leaves errno alone.
pub(crate) fn check_code(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// The calling thread would wait for itself.
pub(crate) fn deadlock() -> io::Error {
    io::Error::from_raw_os_error(libc::EDEADLK)
}

/// Asks the processor to fetch the cache line at this address for writing.
#[inline]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "no such request is known there"))]
pub(crate) fn expect_write(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that a program can see, and never faults. Processors that do not know this
    // one take it for a no-op.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
}
