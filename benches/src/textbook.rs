//! The textbook design: one process-shared mutex and two process-shared condition variables around an
//! array of slots. Correct as long as nobody dies.
#![expect(unsafe_code, reason = "pthread objects in shared memory")]

use std::fmt;
use std::io;
use std::mem::{MaybeUninit, forget};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use raw_sync::locks::{LockImpl, LockInit, Mutex};

use crate::raw::{Segment, wall_clock_after};

const MAGIC: u32 = 0x7465_7874;

/// Set last: everything else is in place.
const READY: usize = 0;
const CAPACITY: usize = 8;
const MAX_MESSAGE: usize = 16;
/// The lock and what it guards share a cache line: whoever gets the one gets the other.
const MUTEX: usize = 64;
const FIRST: usize = 104;
const COUNT: usize = 112;
const NOT_EMPTY: usize = 128;
const NOT_FULL: usize = 192;
const SLOTS: usize = 256;

const _: () = assert!(MUTEX + size_of::<libc::pthread_mutex_t>() <= FIRST);
const _: () = assert!(NOT_EMPTY + size_of::<libc::pthread_cond_t>() <= NOT_FULL);
const _: () = assert!(NOT_FULL + size_of::<libc::pthread_cond_t>() <= SLOTS);

/// The prefix of a slot, its message's length.
const PREFIX: usize = 8;

/// A bounded queue of messages between processes as a textbook would write it, from `shared_memory`,
/// `raw_sync`'s mutex and two pthread condition variables.
///
/// It neither loses nor reorders messages while every process that uses it lives. A process that is
/// killed while it holds the mutex, or waits on a condition variable, stops all others for ever. Its
/// purpose is to be measured against, and to show that.
///
/// The object in /dev/shm is called `shmq-textbook-<name>`; the drop of the handle that made it deletes
/// it. A handle is for one thread; others open their own.
pub struct Textbook {
    segment: Segment,
    mutex: Box<dyn LockImpl>,
    capacity: u64,
    max_message: usize,
}

/// The mutex, held until this is dropped.
struct Locked<'a>(&'a dyn LockImpl);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // It fails only for a mutex that is not held, or of a kind that this one is not.
        _ = self.0.release();
    }
}

impl Textbook {
    /// Makes a queue for up to `capacity` messages of up to `max_message` bytes.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidInput` (capacity 0), or what the system says.
    pub fn create(name: &str, capacity: usize, max_message: usize) -> io::Result<Self> {
        let slots = slot_len(max_message).checked_mul(capacity).filter(|len| *len > 0);
        let len = slots.and_then(|len| len.checked_add(SLOTS)).ok_or(io::ErrorKind::InvalidInput)?;
        let segment = Segment::create(&object(name), len)?;
        segment.long(CAPACITY).store(capacity as u64, Relaxed);
        segment.long(MAX_MESSAGE).store(max_message as u64, Relaxed);
        for condvar in [NOT_EMPTY, NOT_FULL] {
            init_condvar(segment.address(condvar, size_of::<libc::pthread_cond_t>()).cast())?;
        }
        let (at, data) = mutex_address(&segment);
        // SAFETY: `at` is aligned, has room for a mutex, and nobody uses it yet; `data` is only handed out.
        let (mutex, _) = unsafe { Mutex::new(at, data) }.map_err(other)?;
        segment.word(READY).store(MAGIC, Release);
        Ok(Self { segment, mutex, capacity: capacity as u64, max_message })
    }

    /// Attaches to the queue of this name. Waits up to a second for its maker to be done.
    ///
    /// # Errors
    /// `NotFound`, `TimedOut` if it was never done, `InvalidData` if it is something else, or what the
    /// system says.
    pub fn open(name: &str) -> io::Result<Self> {
        let segment = Segment::open(&object(name))?;
        let deadline = Instant::now() + Duration::from_secs(1);
        while segment.word(READY).load(Acquire) != MAGIC {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::yield_now();
        }
        let capacity = segment.long(CAPACITY).load(Relaxed);
        let max_message = usize::try_from(segment.long(MAX_MESSAGE).load(Relaxed)).map_err(other)?;
        let slots =
            usize::try_from(capacity).ok().and_then(|capacity| slot_len(max_message).checked_mul(capacity));
        if slots.and_then(|len| len.checked_add(SLOTS)) != Some(segment.len()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (at, data) = mutex_address(&segment);
        // SAFETY: there is a mutex at `at`: its maker has set READY since.
        let (mutex, _) = unsafe { Mutex::from_existing(at, data) }.map_err(other)?;
        Ok(Self { segment, mutex, capacity, max_message })
    }

    /// Puts a message. Blocks while the queue is full.
    ///
    /// # Errors
    /// `InvalidInput` if the message is too long, or what pthread says.
    #[inline]
    pub fn put(&self, message: &[u8]) -> io::Result<()> {
        self.put_until(message, None)
    }

    /// Like [`put`](Self::put), but blocks for at most `timeout`, by the wall clock.
    ///
    /// # Errors
    /// `TimedOut`, and those of [`put`](Self::put).
    pub fn put_timeout(&self, message: &[u8], timeout: Duration) -> io::Result<()> {
        self.put_until(message, Some(wall_clock_after(timeout)))
    }

    /// Gets the oldest message into `buffer` and returns its length. Blocks while the queue is empty.
    ///
    /// # Errors
    /// `InvalidInput` if the buffer is too short (the message stays), or what pthread says.
    #[inline]
    pub fn get_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.get_into_until(buffer, None)
    }

    /// Like [`get_into`](Self::get_into), but blocks for at most `timeout`, by the wall clock.
    ///
    /// # Errors
    /// `TimedOut`, and those of [`get_into`](Self::get_into).
    pub fn get_into_timeout(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        self.get_into_until(buffer, Some(wall_clock_after(timeout)))
    }

    /// Deletes the name now; those who are attached go on.
    ///
    /// # Errors
    /// What the system says.
    pub fn unlink(&mut self) -> io::Result<()> {
        self.segment.unlink()
    }

    #[inline]
    fn put_until(&self, message: &[u8], until: Option<libc::timespec>) -> io::Result<()> {
        if message.len() > self.max_message {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let locked = self.lock(until.as_ref())?;
        let mut count = self.segment.long(COUNT).load(Relaxed);
        while count == self.capacity {
            self.wait(NOT_FULL, until.as_ref())?;
            count = self.segment.long(COUNT).load(Relaxed);
        }
        let slot = self.slot(self.segment.long(FIRST).load(Relaxed) + count);
        self.segment.long(slot).store(message.len() as u64, Relaxed);
        self.segment.copy_in(slot + PREFIX, message);
        self.segment.long(COUNT).store(count + 1, Relaxed);
        drop(locked);
        self.signal(NOT_EMPTY)
    }

    #[inline]
    fn get_into_until(&self, buffer: &mut [u8], until: Option<libc::timespec>) -> io::Result<usize> {
        let locked = self.lock(until.as_ref())?;
        let mut count = self.segment.long(COUNT).load(Relaxed);
        while count == 0 {
            self.wait(NOT_EMPTY, until.as_ref())?;
            count = self.segment.long(COUNT).load(Relaxed);
        }
        let first = self.segment.long(FIRST).load(Relaxed);
        let slot = self.slot(first);
        let len = usize::try_from(self.segment.long(slot).load(Relaxed)).map_err(other)?;
        let Some(buffer) = buffer.get_mut(..len) else {
            drop(locked);
            self.signal(NOT_EMPTY)?;
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.segment.copy_out(slot + PREFIX, buffer);
        let next = if first + 1 == self.capacity { 0 } else { first + 1 };
        self.segment.long(FIRST).store(next, Relaxed);
        self.segment.long(COUNT).store(count - 1, Relaxed);
        drop(locked);
        self.signal(NOT_FULL)?;
        Ok(len)
    }

    /// Where slot `number` begins, which may be one lap ahead.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the number of a slot, in a 64-bit process")]
    fn slot(&self, number: u64) -> usize {
        let number = if number >= self.capacity { number - self.capacity } else { number };
        SLOTS + number as usize * slot_len(self.max_message)
    }

    /// `raw_sync`'s own timed lock adds nanoseconds without a carry, so that it fails at random: the
    /// timed one here is pthread's, on the same mutex.
    #[inline]
    fn lock(&self, until: Option<&libc::timespec>) -> io::Result<Locked<'_>> {
        match until {
            None => forget(self.mutex.lock().map_err(other)?),
            Some(until) => {
                // SAFETY: the mutex is initialised and mapped as long as `self` lives.
                check(unsafe { libc::pthread_mutex_timedlock(self.mutex.as_raw().cast(), until) })?;
            }
        }
        Ok(Locked(&*self.mutex))
    }

    /// Gives the mutex away, sleeps until somebody signals (or for no reason), and takes it back, also
    /// when it fails. The caller holds it.
    #[cold]
    fn wait(&self, condvar: usize, until: Option<&libc::timespec>) -> io::Result<()> {
        let condvar = self.condvar(condvar);
        let mutex = self.mutex.as_raw().cast();
        check(match until {
            // SAFETY: both are initialised and mapped, and the caller holds the mutex.
            None => unsafe { libc::pthread_cond_wait(condvar, mutex) },
            // SAFETY: as above.
            Some(until) => unsafe { libc::pthread_cond_timedwait(condvar, mutex, until) },
        })
    }

    #[inline]
    fn signal(&self, condvar: usize) -> io::Result<()> {
        // SAFETY: it is initialised, and mapped as long as `self` lives.
        check(unsafe { libc::pthread_cond_signal(self.condvar(condvar)) })
    }

    #[inline]
    fn condvar(&self, offset: usize) -> *mut libc::pthread_cond_t {
        self.segment.address(offset, size_of::<libc::pthread_cond_t>()).cast()
    }
}

impl fmt::Debug for Textbook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Textbook")
            .field("capacity", &self.capacity)
            .field("max_message", &self.max_message)
            .finish_non_exhaustive()
    }
}

fn object(name: &str) -> String {
    format!("shmq-textbook-{name}")
}

const fn slot_len(max_message: usize) -> usize {
    PREFIX + max_message.next_multiple_of(8)
}

/// The mutex's place, and the data that `raw_sync` wants to know it to guard.
fn mutex_address(segment: &Segment) -> (*mut u8, *mut u8) {
    (segment.address(MUTEX, size_of::<libc::pthread_mutex_t>()), segment.address(FIRST, 0))
}

fn init_condvar(condvar: *mut libc::pthread_cond_t) -> io::Result<()> {
    let mut attributes = MaybeUninit::<libc::pthread_condattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: ours to initialise.
    check(unsafe { libc::pthread_condattr_init(attributes) })?;
    // SAFETY: initialised just now.
    check(unsafe { libc::pthread_condattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
    // SAFETY: in a new segment that nobody else uses yet, aligned and with room for it.
    let made = check(unsafe { libc::pthread_cond_init(condvar, attributes) });
    // SAFETY: initialised above, and not used again.
    unsafe { libc::pthread_condattr_destroy(attributes) };
    made
}

/// pthread's calls return the error itself.
#[inline]
fn check(returned: i32) -> io::Result<()> {
    match returned {
        0 => Ok(()),
        libc::ETIMEDOUT => Err(io::ErrorKind::TimedOut.into()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// `raw_sync`'s errors are texts.
#[cold]
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn other(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn name(what: &str) -> String {
        format!("test-{what}-{}", std::process::id())
    }

    #[test]
    fn two_producers_and_two_consumers_lose_nothing() {
        const EACH: u64 = 20_000;
        let name = name("many");
        let _owner = Textbook::create(&name, 8, 8).unwrap();
        let total: u64 = std::thread::scope(|scope| {
            for producer in 0..2 {
                let name = &name;
                scope.spawn(move || {
                    let queue = Textbook::open(name).unwrap();
                    for number in 0..EACH {
                        queue.put(&(producer * EACH + number).to_ne_bytes()).unwrap();
                    }
                });
            }
            let consumers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let queue = Textbook::open(&name).unwrap();
                        let mut message = [0; 8];
                        (0..EACH)
                            .map(|_| {
                                assert_eq!(queue.get_into(&mut message).unwrap(), 8);
                                u64::from_ne_bytes(message)
                            })
                            .sum::<u64>()
                    })
                })
                .collect();
            consumers.into_iter().map(|consumer| consumer.join().unwrap()).sum()
        });
        assert_eq!(total, (0..2 * EACH).sum());
    }

    #[test]
    fn messages_come_in_order_and_keep_their_lengths() {
        let queue = Textbook::create(&name("order"), 3, 20).unwrap();
        let mut buffer = [0; 20];
        for round in 0..10_u8 {
            for len in [0, 20, 7] {
                queue.put(&vec![round; len]).unwrap();
            }
            for len in [0, 20, 7] {
                assert_eq!(queue.get_into(&mut buffer).unwrap(), len);
                assert!(buffer[..len].iter().all(|byte| *byte == round));
            }
        }
    }

    #[test]
    fn timeouts_end_in_time_and_not_before() {
        let timeout = Duration::from_millis(30);
        let queue = Textbook::create(&name("timeout"), 1, 8).unwrap();
        let start = Instant::now();
        let kind = queue.get_into_timeout(&mut [0; 8], timeout).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::TimedOut);
        queue.put(b"full").unwrap();
        assert_eq!(queue.put_timeout(b"", timeout).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= 2 * timeout);
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let queue = Textbook::create(&name("fit"), 2, 8).unwrap();
        assert!(queue.put(&[1; 9]).is_err());
        queue.put(&[1; 8]).unwrap();
        assert!(queue.get_into(&mut [0; 7]).is_err());
        assert_eq!(queue.get_into(&mut [0; 8]).unwrap(), 8);
    }

    #[test]
    fn the_makers_drop_deletes_the_object() {
        let name = name("drop");
        let path = format!("/dev/shm/shmq-textbook-{name}");
        let queue = Textbook::create(&name, 2, 8).unwrap();
        assert_eq!(Textbook::create(&name, 2, 8).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(Textbook::open(&name).unwrap());
        assert!(Path::new(&path).exists());
        drop(queue);
        assert!(!Path::new(&path).exists());
        assert_eq!(Textbook::open(&name).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
