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

/// Exclusive access to a [`Value`]: a copy that is written back when this is dropped.
#[must_use = "the lock is held only as long as this lives"]
pub struct ValueGuard<'a, T: Pod> {
    copy: T,
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
    pub fn new(initial: T) -> Result<Self, OpenError> {
        let bytes = bytemuck::bytes_of(&initial);
        State::create(None, Kind::Value, size_of::<T>(), 1, bytes).map(Self::attached)
    }

    /// Makes a value of this name.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is in use, `InvalidName`, `InvalidOptions` (a type of more than 1 GiB),
    /// `NoSpace`, `PermissionDenied`, or `Io`.
    pub fn create(name: &str, initial: T) -> Result<Self, OpenError> {
        let bytes = bytemuck::bytes_of(&initial);
        State::create(Some(name), Kind::Value, size_of::<T>(), 1, bytes).map(Self::attached)
    }

    /// Attaches to the value of this name.
    ///
    /// # Errors
    /// `NotFound` if there is none, `NotShmq` or `Mismatch` if there is something else or a value of another size,
    /// `InvalidName`, `PermissionDenied`, or `Io`.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        State::open(name, Kind::Value, size_of::<T>()).map(Self::attached)
    }

    fn attached(state: State) -> Self {
        Self { state: Arc::new(state), value: PhantomData }
    }

    /// The value. Blocks only if it is longer than 8 bytes and somebody has it locked.
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
    pub fn lock(&self) -> ValueGuard<'_, T> {
        self.guard(self.state.lock_for_ever())
    }

    /// Like [`lock`](Self::lock), but blocks for at most `timeout`. `None` if somebody still has it locked then,
    /// and at once if that is the calling thread itself.
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
        ValueGuard { copy, recovered, state: &self.state, locked, thread: PhantomData }
    }
}

impl<T> Value<T> {
    /// The name, with which other processes can [`open`](Self::open) it.
    pub fn name(&self) -> &str {
        self.state.name()
    }
}

impl<T: Pod> ValueGuard<'_, T> {
    /// Whether a process died while it held the guard, since the last guard said so: a value longer than 8 bytes may
    /// then be a mixture of an old and a new one.
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
        &mut self.copy
    }
}

impl<T: Pod> Drop for ValueGuard<'_, T> {
    /// Writes the copy back; the lock is given back after it. In a forked child it does neither.
    fn drop(&mut self) {
        if !self.locked.is_ours() {
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
