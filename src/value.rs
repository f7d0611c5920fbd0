//! Shared state: one value, or an array of them, behind an interprocess mutex.

mod array;
mod state;

use std::fmt;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::deadline::Deadline;
use crate::error::OpenError;
use crate::layout::Kind;
use crate::sync::locked::Locked;

pub use array::{Array, ArrayGuard};
use state::State;

/// A value that processes share, of a plain type: integers, floats, and structs of them ([`bytemuck::Pod`]).
///
/// A handle may be cloned, used by any number of threads, inherited by `fork`, and sent to another process by its
/// name or by serde. The value goes with its last handle. Values of up to 8 bytes are read and written in one piece
/// without the lock; longer ones under it.
///
/// If a process died while it held the guard, the value is what it had written by then, and the next
/// [`lock`](Self::lock) says so once: see [`ValueGuard::recovered`].
///
/// ```
/// let counter = shmq::Value::new(0_u64)?;
/// let there = shmq::Value::<u64>::open(counter.name())?; // as another process does
/// *there.lock() += 1;
/// assert_eq!(counter.get(), 1);
/// counter.set(7);
/// assert_eq!(there.get(), 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Value<T> {
    state: Arc<State>,
    value: PhantomData<fn(T) -> T>,
}

/// Exclusive access to a [`Value`]: a copy that is written back when this is dropped, if it was borrowed mutably.
///
/// It keeps other guards away. A [`set`](Value::set) of a value of up to 8 bytes does not wait for it: who uses both on one
/// value overwrites one with the other.
///
/// ```
/// let position = shmq::Value::new([0.0_f64; 2])?;
/// let mut guard = position.lock();
/// guard[0] += 1.5;
/// guard[1] += 2.5;
/// drop(guard); // now others see both
/// assert_eq!(position.get(), [1.5, 2.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the lock is held only as long as this lives"]
pub struct ValueGuard<'a, T: Pod> {
    copy: T,
    changed: bool,
    recovered: bool,
    state: &'a State,
    locked: Locked<'a>,
    /// Bound to the thread that holds the lock.
    thread: PhantomData<*const ()>,
}

impl<T: Pod> Value<T> {
    /// Makes a value under a fresh unique name.
    ///
    /// # Errors
    /// As [`create`](Self::create), but never `InvalidName` or `AlreadyExists`.
    ///
    /// ```
    /// let total = shmq::Value::new(0.0_f64)?;
    /// let there = shmq::Value::<f64>::open(total.name())?; // as another process does
    /// there.set(21.5);
    /// assert_eq!(total.get(), 21.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(initial: T) -> Result<Self, OpenError> {
        let bytes = bytemuck::bytes_of(&initial);
        State::create(None, Kind::Value, size_of::<T>(), 1, bytes).map(Self::attached)
    }

    /// Makes a value of this name.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is in use, `InvalidName`, `InvalidOptions` (a type of more than 1 GiB),
    /// `NoSpace`, `PermissionDenied`, or `Io`.
    ///
    /// ```
    /// let name = format!("total-{}", std::process::id());
    /// let total = shmq::Value::create(&name, 0_u64)?;
    /// assert_eq!(total.name(), name);
    /// let again = shmq::Value::create(&name, 0_u64);
    /// assert!(matches!(again, Err(shmq::OpenError::AlreadyExists { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(name: &str, initial: T) -> Result<Self, OpenError> {
        let bytes = bytemuck::bytes_of(&initial);
        State::create(Some(name), Kind::Value, size_of::<T>(), 1, bytes).map(Self::attached)
    }

    /// Attaches to the value of this name.
    ///
    /// # Errors
    /// `NotFound` if there is none, `NotShmq` or `Mismatch` if there is something else or a value of another size,
    /// `InvalidName`, `PermissionDenied`, or `Io`.
    ///
    /// ```
    /// let total = shmq::Value::new(7_u64)?;
    /// assert_eq!(shmq::Value::<u64>::open(total.name())?.get(), 7);
    /// // The size is compared, the type is not recorded.
    /// let other = shmq::Value::<u32>::open(total.name());
    /// assert!(matches!(other, Err(shmq::OpenError::Mismatch { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(name: &str) -> Result<Self, OpenError> {
        State::open(name, Kind::Value, size_of::<T>()).map(Self::attached)
    }

    fn attached(state: State) -> Self {
        Self { state: Arc::new(state), value: PhantomData }
    }

    /// The value. Blocks only if it is longer than 8 bytes and somebody has it locked.
    ///
    /// ```
    /// let counter = shmq::Value::new(7_u64)?;
    /// let guard = counter.lock();
    /// assert_eq!(counter.get(), 7); // 8 bytes: it does not wait for the guard
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self) -> T {
        let mut value = T::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut value);
        if bytes.len() <= 8 {
            self.state.load(bytes);
        } else {
            let locked = self.state.lock_for_ever();
            bytes.copy_from_slice(&locked.bytes()[..bytes.len()]);
        }
        value
    }

    /// Changes the value. Blocks only if it is longer than 8 bytes and somebody has it locked.
    ///
    /// ```
    /// let limit = shmq::Value::new(10_u32)?;
    /// limit.set(20);
    /// assert_eq!(limit.get(), 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set(&self, value: T) {
        let bytes = bytemuck::bytes_of(&value);
        if bytes.len() <= 8 {
            self.state.store(bytes);
        } else {
            let mut locked = self.state.lock_for_ever();
            locked.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Locks the value until the guard is dropped. Blocks while somebody else has it locked; if that is the
    /// calling thread itself, for ever.
    ///
    /// ```
    /// let counter = shmq::Value::new(0_u64)?;
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         // Nobody else's change can come between the reading and the writing.
    ///         scope.spawn(|| *counter.lock() += 1);
    ///     }
    /// });
    /// assert_eq!(counter.get(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock(&self) -> ValueGuard<'_, T> {
        self.guard(self.state.lock_for_ever())
    }

    /// Like [`lock`](Self::lock), but blocks for at most `timeout`. `None` if somebody still has it locked then,
    /// and at once if that is the calling thread itself.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let counter = shmq::Value::new(0_u64)?;
    /// let guard = counter.lock();
    /// assert!(counter.lock_timeout(Duration::from_millis(10)).is_none());
    /// drop(guard);
    /// assert!(counter.lock_timeout(Duration::from_millis(10)).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> Option<ValueGuard<'_, T>> {
        let locked = self.state.lock(Deadline::after(timeout))?;
        Some(self.guard(locked))
    }

    fn guard<'a>(&'a self, locked: Locked<'a>) -> ValueGuard<'a, T> {
        let mut copy = T::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut copy);
        if bytes.len() <= 8 {
            // Others may be writing it just now: those do not ask for the lock.
            self.state.load(bytes);
        } else {
            bytes.copy_from_slice(&locked.bytes()[..bytes.len()]);
        }
        let recovered = self.state.take_recovered();
        ValueGuard { copy, changed: false, recovered, state: &self.state, locked, thread: PhantomData }
    }
}

impl<T> Value<T> {
    /// The name, with which other processes can [`open`](Self::open) it.
    ///
    /// ```
    /// let counter = shmq::Value::new(0_u64)?;
    /// let there = shmq::Value::<u64>::open(counter.name())?; // as another process does
    /// assert_eq!(there.name(), counter.name());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn name(&self) -> &str {
        self.state.name()
    }
}

impl<T: Pod> ValueGuard<'_, T> {
    /// Whether a process died while it held the guard, since the last guard said so: a value longer than 8 bytes may
    /// then be a mixture of an old and a new one.
    ///
    /// ```
    /// let span = shmq::Value::new([0_u64, 10])?;
    /// let mut guard = span.lock();
    /// if guard.recovered() {
    ///     *guard = [0, 10]; // half of it may be from before the crash
    /// }
    /// guard[1] += 1;
    /// drop(guard);
    /// assert_eq!(span.get(), [0, 11]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recovered(&self) -> bool {
        self.recovered
    }
}

impl<T: Pod> Deref for ValueGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.copy
    }
}

impl<T: Pod> DerefMut for ValueGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        &mut self.copy
    }
}

impl<T: Pod> Drop for ValueGuard<'_, T> {
    /// Writes the copy back, if it may have changed; the lock is given back after it. In a forked child it does neither.
    fn drop(&mut self) {
        if !self.changed || !self.locked.is_ours() {
            return;
        }
        let bytes = bytemuck::bytes_of(&self.copy);
        if bytes.len() <= 8 {
            self.state.store(bytes);
        } else {
            self.locked.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ValueGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueGuard").field("value", &self.copy).field("recovered", &self.recovered).finish()
    }
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), value: PhantomData }
    }
}

impl<T> fmt::Debug for Value<T> {
    /// The name. Never blocks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("name", &self.name()).finish()
    }
}

impl<T> Serialize for Value<T> {
    /// The handle travels by name. Keep one until the other side has opened its own.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.name(), self.state.nonce()).serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Value<T> {
    /// Attaches to the value that was serialised; fails if it is gone, even if its name was used again.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let state = receive(deserializer, Kind::Value, size_of::<T>())?;
        Ok(Self { state: Arc::new(state), value: PhantomData })
    }
}

fn receive<'de, D: Deserializer<'de>>(
    deserializer: D,
    kind: Kind,
    element: usize,
) -> Result<State, D::Error> {
    let (name, nonce) = <(String, u64)>::deserialize(deserializer)?;
    State::open_sent(&name, nonce, kind, element).map_err(D::Error::custom)
}
