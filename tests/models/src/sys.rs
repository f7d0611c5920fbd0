//! The twins of what talks to the kernel, and the one file of `sys` that does not.

#[path = "futex.rs"]
pub(crate) mod futex;
#[path = "lease.rs"]
pub(crate) mod lease;
#[path = "../../../src/sys/region.rs"]
pub(crate) mod region;

pub(crate) mod ofd {
    /// As in `src/sys/ofd.rs`.
    pub(crate) const TOMB: u32 = (1 << 28) - 1;

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Class;
}

pub(crate) fn deadlock() -> std::io::Error {
    unreachable!("no model keeps a lock while it waits for it")
}

pub(crate) fn expect_write(_: *const u8) {}
