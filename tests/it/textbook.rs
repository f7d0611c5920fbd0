//! The queue that one would write by the book: a process-shared robust mutex and two condition variables of
//! the C library, in shared memory. The harness of `instants` has to find that it hangs.
//!
//! The author did their homework: a lock whose owner died is made consistent, and since the ring is changed by
//! one store there is nothing to put right then.

#![expect(unsafe_code, reason = "pthread objects in shared memory")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::time::Duration;

use crate::instants_calls::{CAPACITY, Committed, Refused, Side, Subject};

const SLOTS: usize = 4;

/// What lies in the shared memory. Copied never, borrowed never: used by pointers to its fields.
#[repr(C)]
struct Shared {
    mutex: libc::pthread_mutex_t,
    not_empty: libc::pthread_cond_t,
    not_full: libc::pthread_cond_t,
    put: u64,
    got: u64,
    closed: u64,
    slots: [u64; SLOTS],
}

#[derive(Clone, Copy)]
pub(crate) struct Textbook {
    shared: NonNull<Shared>,
}

fn check(code: i32) {
    assert_eq!(code, 0, "{}", io::Error::from_raw_os_error(code));
}

/// Reads a field of the shared memory.
macro_rules! read {
    ($shared:expr, $($field:tt)+) => {{
        // SAFETY: the mapping is never unmapped, and the field lies in it.
        let field = unsafe { &raw const (*$shared.as_ptr()).$($field)+ };
        // SAFETY: as above; any bytes are a valid number, and nobody tells the compiler of a writer.
        unsafe { field.read_volatile() }
    }};
}

/// Writes a field of the shared memory.
macro_rules! write {
    ($shared:expr, $($field:tt)+) => {
        |value| {
            // SAFETY: the mapping is never unmapped, and the field lies in it.
            let field = unsafe { &raw mut (*$shared.as_ptr()).$($field)+ };
            // SAFETY: as above; who writes holds the mutex.
            unsafe { field.write_volatile(value) }
        }
    };
}

impl Textbook {
    fn mutex(self) -> *mut libc::pthread_mutex_t {
        // SAFETY: the mapping is never unmapped, and the field lies in it.
        unsafe { &raw mut (*self.shared.as_ptr()).mutex }
    }

    fn not_empty(self) -> *mut libc::pthread_cond_t {
        // SAFETY: as in `mutex`.
        unsafe { &raw mut (*self.shared.as_ptr()).not_empty }
    }

    fn not_full(self) -> *mut libc::pthread_cond_t {
        // SAFETY: as in `mutex`.
        unsafe { &raw mut (*self.shared.as_ptr()).not_full }
    }

    /// The mutex is locked, or its owner has died, and then it is locked too.
    fn locked(self, code: i32) {
        if code == libc::EOWNERDEAD {
            // SAFETY: an initialised mutex that this thread has locked.
            check(unsafe { libc::pthread_mutex_consistent(self.mutex()) });
        } else {
            check(code);
        }
    }

    fn lock(self) {
        // SAFETY: an initialised mutex.
        self.locked(unsafe { libc::pthread_mutex_lock(self.mutex()) });
    }

    fn unlock(self) {
        // SAFETY: an initialised mutex that this thread has locked.
        check(unsafe { libc::pthread_mutex_unlock(self.mutex()) });
    }

    /// Waits until `go` says what to do, and does it; then wakes one who waits for that.
    fn when<R>(
        self,
        condition: *mut libc::pthread_cond_t,
        other: *mut libc::pthread_cond_t,
        timeout: Duration,
        go: impl Fn() -> Option<Result<R, Refused>>,
    ) -> Result<R, Refused> {
        let end = after(timeout);
        self.lock();
        let done = loop {
            if let Some(done) = go() {
                break done;
            }
            // SAFETY: initialised both, the mutex is locked, and the time is ours.
            let code = unsafe { libc::pthread_cond_timedwait(condition, self.mutex(), &raw const end) };
            if code == libc::ETIMEDOUT {
                break go().unwrap_or(Err(Refused::InTime));
            }
            self.locked(code);
        };
        // SAFETY: an initialised condition variable.
        check(unsafe { libc::pthread_cond_signal(other) });
        self.unlock();
        done
    }
}

/// A time of the monotonic clock.
fn after(timeout: Duration) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is ours to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    // For ever is a year.
    let timeout = timeout.min(Duration::from_hours(365 * 24));
    let nanoseconds = now.tv_nsec + i64::from(timeout.subsec_nanos());
    libc::timespec {
        tv_sec: now.tv_sec + timeout.as_secs().cast_signed() + nanoseconds / 1_000_000_000,
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

fn slot(number: u64) -> usize {
    usize::try_from(number % CAPACITY).expect("a small number")
}

impl Subject for Textbook {
    fn make(_: &str) -> Self {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let shared = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(shared, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        let made = Self { shared: NonNull::new(shared.cast()).expect("it was mapped") };
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: ours to write to.
        check(unsafe { libc::pthread_mutexattr_init(attributes) });
        // SAFETY: initialised above.
        check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) });
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) });
        // SAFETY: a mutex that nobody uses yet, and initialised attributes.
        check(unsafe { libc::pthread_mutex_init(made.mutex(), attributes) });
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: ours to write to.
        check(unsafe { libc::pthread_condattr_init(attributes) });
        // SAFETY: initialised above.
        check(unsafe { libc::pthread_condattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) });
        // SAFETY: as above.
        check(unsafe { libc::pthread_condattr_setclock(attributes, libc::CLOCK_MONOTONIC) });
        for condition in [made.not_empty(), made.not_full()] {
            // SAFETY: a condition variable that nobody uses yet, and initialised attributes.
            check(unsafe { libc::pthread_cond_init(condition, attributes) });
        }
        made
    }

    fn attach(&self) -> Self {
        *self
    }

    fn put(&self, number: u64, timeout: Duration) -> Result<(), Refused> {
        let shared = self.shared;
        self.when(self.not_full(), self.not_empty(), timeout, || {
            let put = read!(shared, put);
            if read!(shared, closed) != 0 {
                return Some(Err(Refused::Closed));
            }
            (put - read!(shared, got) < CAPACITY).then(|| {
                write!(shared, slots[slot(put)])(number);
                write!(shared, put)(put + 1);
                Ok(())
            })
        })
    }

    fn get(&self, timeout: Duration) -> Result<u64, Refused> {
        let shared = self.shared;
        self.when(self.not_empty(), self.not_full(), timeout, || {
            let got = read!(shared, got);
            if read!(shared, put) == got {
                return (read!(shared, closed) != 0).then_some(Err(Refused::Closed));
            }
            let number = read!(shared, slots[slot(got)]);
            write!(shared, got)(got + 1);
            Some(Ok(number))
        })
    }

    fn close(&self) {
        self.lock();
        write!(self.shared, closed)(1);
        for condition in [self.not_empty(), self.not_full()] {
            // SAFETY: an initialised condition variable.
            check(unsafe { libc::pthread_cond_broadcast(condition) });
        }
        self.unlock();
    }

    fn is_closed(&self) -> bool {
        read!(self.shared, closed) != 0
    }

    fn committed(&self) -> Committed {
        Committed { put: read!(self.shared, put), got: read!(self.shared, got) }
    }

    fn is_owned(&self, _: Side) -> bool {
        // It has one lock for both ends, and does not tell.
        true
    }

    fn look(&self, bytes: &mut Vec<u8>) {
        bytes.resize(size_of::<Shared>(), 0);
        for (at, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: within the mapping.
            let shared = unsafe { self.shared.cast::<u8>().add(at) };
            // SAFETY: as above, and any byte is valid.
            *byte = unsafe { shared.read_volatile() };
        }
    }

    fn agrees(&self, _: u64) {}

    fn end(self) {
        // SAFETY: mapped by `make` with this length; no other copy of the pointer is used any more.
        unsafe { libc::munmap(self.shared.as_ptr().cast(), size_of::<Shared>()) };
    }
}
