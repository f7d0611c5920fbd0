//! An array of shared values.

use std::fmt;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::receive;
use super::state::State;
use crate::deadline::Deadline;
use crate::error::OpenError;
use crate::layout::Kind;
use crate::sync::locked::Locked;

/// An array that processes share, of elements of a plain type ([`bytemuck::Pod`]), of a length that is fixed when it
/// is made.
///
/// A handle may be cloned, used by any number of threads, inherited by `fork`, and sent to another process by its
/// name or by serde. The array goes with its last handle. Every access takes the lock; for more than one element
/// take it once, with [`lock`](Self::lock).
///
/// ```
/// let squares = shmq::Array::new(&[0_u32; 10])?;
/// for (number, square) in (0..).zip(squares.lock().iter_mut()) {
///     *square = number * number;
/// }
/// assert_eq!(squares.get(9), Some(81));
/// assert_eq!(squares.get(10), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Array<T> {
    state: Arc<State>,
    element: PhantomData<fn(T) -> T>,
}

/// Exclusive access to an [`Array`], where it lies.
///
/// ```
/// let scores = shmq::Array::new(&[3, 1, 2])?;
/// let mut guard = scores.lock();
/// guard.sort_unstable();
/// assert_eq!(*guard, [1, 2, 3]);
/// drop(guard);
/// assert_eq!(scores.get(0), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the lock is held only as long as this lives"]
pub struct ArrayGuard<'a, T: Pod> {
    locked: Locked<'a>,
    recovered: bool,
    element: PhantomData<&'a mut T>,
    /// Bound to the thread that holds the lock.
    thread: PhantomData<*const ()>,
}

impl<T: Pod> Array<T> {
    /// Makes an array under a fresh unique name.
    ///
    /// # Errors
    /// As [`create`](Self::create), but never `InvalidName` or `AlreadyExists`.
    ///
    /// ```
    /// let readings = shmq::Array::new(&[0.0_f64; 100])?;
    /// let there = shmq::Array::<f64>::open(readings.name())?; // as another process does
    /// there.set(99, 21.5);
    /// assert_eq!(readings.get(99), Some(21.5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(initial: &[T]) -> Result<Self, OpenError> {
        Self::make(None, initial)
    }

    /// Makes an array of this name.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is in use, `InvalidName`, `InvalidOptions` (more than 2^31 - 1 elements or
    /// 16 GiB), `NoSpace`, `PermissionDenied`, or `Io`.
    ///
    /// ```
    /// let name = format!("readings-array-{}", std::process::id());
    /// let readings = shmq::Array::create(&name, &[0_u32; 100])?;
    /// assert_eq!(readings.name(), name);
    /// let again = shmq::Array::create(&name, &[0_u32; 100]);
    /// assert!(matches!(again, Err(shmq::OpenError::AlreadyExists { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(name: &str, initial: &[T]) -> Result<Self, OpenError> {
        Self::make(Some(name), initial)
    }

    /// Attaches to the array of this name.
    ///
    /// # Errors
    /// `NotFound` if there is none, `NotShmq` or `Mismatch` if there is something else or an array of elements of
    /// another size, `InvalidName`, `PermissionDenied`, or `Io`.
    ///
    /// ```
    /// let readings = shmq::Array::new(&[0_u32; 100])?;
    /// let there = shmq::Array::<u32>::open(readings.name())?; // as another process does
    /// assert_eq!(there.len(), 100); // which it need not know
    /// let other = shmq::Array::<u64>::open(readings.name());
    /// assert!(matches!(other, Err(shmq::OpenError::Mismatch { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(name: &str) -> Result<Self, OpenError> {
        State::open(name, Kind::Array, size_of::<T>()).map(Self::attached)
    }

    fn make(name: Option<&str>, initial: &[T]) -> Result<Self, OpenError> {
        let bytes = bytemuck::cast_slice(initial);
        State::create(name, Kind::Array, size_of::<T>(), initial.len(), bytes).map(Self::attached)
    }

    fn attached(state: State) -> Self {
        Self { state: Arc::new(state), element: PhantomData }
    }

    /// An element, or `None` if there is none of that index. Blocks while somebody else has the array locked.
    ///
    /// ```
    /// let squares = shmq::Array::new(&[0, 1, 4, 9])?;
    /// assert_eq!(squares.get(3), Some(9));
    /// assert_eq!(squares.get(4), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self, index: usize) -> Option<T> {
        // The length is known without the lock.
        if index >= self.len() {
            return None;
        }
        let locked = self.state.lock_for_ever();
        elements(locked.bytes()).get(index).copied()
    }

    /// Changes an element. False if there is none of that index. Blocks while somebody else has the array locked.
    ///
    /// ```
    /// let squares = shmq::Array::new(&[0, 1, 4, 0])?;
    /// assert!(squares.set(3, 9));
    /// assert!(!squares.set(4, 16));
    /// assert_eq!(*squares.lock(), [0, 1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set(&self, index: usize, value: T) -> bool {
        if index >= self.len() {
            return false;
        }
        let mut locked = self.state.lock_for_ever();
        let place = elements_mut(locked.bytes_mut()).get_mut(index);
        place.map(|place| *place = value).is_some()
    }

    /// Locks the array until the guard is dropped. Blocks while somebody else has it locked; if that is the calling
    /// thread itself, for ever.
    ///
    /// ```
    /// let slots = shmq::Array::new(&[7, 0, 0])?;
    /// // One lock for the search and the change: nobody else takes the same slot.
    /// let mut guard = slots.lock();
    /// if let Some(free) = guard.iter_mut().find(|slot| **slot == 0) {
    ///     *free = 8;
    /// }
    /// assert_eq!(*guard, [7, 8, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock(&self) -> ArrayGuard<'_, T> {
        self.guard(self.state.lock_for_ever())
    }

    /// Like [`lock`](Self::lock), but blocks for at most `timeout`. `None` if somebody still has it locked then,
    /// and at once if that is the calling thread itself.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let slots = shmq::Array::new(&[0_u32; 3])?;
    /// let guard = slots.lock();
    /// assert!(slots.lock_timeout(Duration::from_millis(10)).is_none());
    /// drop(guard);
    /// assert!(slots.lock_timeout(Duration::from_millis(10)).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> Option<ArrayGuard<'_, T>> {
        self.state.lock(Deadline::after(timeout)).map(|locked| self.guard(locked))
    }

    fn guard<'a>(&self, locked: Locked<'a>) -> ArrayGuard<'a, T> {
        let recovered = self.state.take_recovered();
        ArrayGuard { locked, recovered, element: PhantomData, thread: PhantomData }
    }
}

impl<T> Array<T> {
    /// The name, with which other processes can [`open`](Self::open) it.
    ///
    /// ```
    /// let slots = shmq::Array::new(&[0_u32; 3])?;
    /// let there = shmq::Array::<u32>::open(slots.name())?; // as another process does
    /// assert_eq!(there.name(), slots.name());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn name(&self) -> &str {
        self.state.name()
    }

    /// How many elements there are.
    ///
    /// ```
    /// assert_eq!(shmq::Array::new(&[0_u32; 3])?.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn len(&self) -> usize {
        self.state.count()
    }

    /// Whether there are none.
    ///
    /// ```
    /// assert!(!shmq::Array::new(&[0_u32; 3])?.is_empty());
    /// assert!(shmq::Array::<u32>::new(&[])?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The bytes of an array begin at a multiple of the page, and its length is that of whole elements: nothing is left
/// over. A type without a size has no bytes.
fn elements<T: Pod>(bytes: &[u8]) -> &[T] {
    bytemuck::try_cast_slice(bytes).unwrap_or(&[])
}

fn elements_mut<T: Pod>(bytes: &mut [u8]) -> &mut [T] {
    bytemuck::try_cast_slice_mut(bytes).unwrap_or(&mut [])
}

impl<T: Pod> ArrayGuard<'_, T> {
    /// Whether a process died while it held the guard, since the last guard said so: the elements may then be a
    /// mixture of old and new ones.
    ///
    /// ```
    /// let counts = shmq::Array::new(&[0_u64; 3])?;
    /// let mut guard = counts.lock();
    /// if guard.recovered() {
    ///     guard.fill(0); // some may be from before the crash: count again
    /// }
    /// guard[0] += 1;
    /// assert_eq!(*guard, [1, 0, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recovered(&self) -> bool {
        self.recovered
    }
}

impl<T: Pod> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        elements(self.locked.bytes())
    }
}

impl<T: Pod> DerefMut for ArrayGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        elements_mut(self.locked.bytes_mut())
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayGuard").field("array", &&**self).field("recovered", &self.recovered).finish()
    }
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), element: PhantomData }
    }
}

impl<T> fmt::Debug for Array<T> {
    /// Name and length. Never blocks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array").field("name", &self.name()).field("len", &self.len()).finish()
    }
}

impl<T> Serialize for Array<T> {
    /// The handle travels by name. Keep one until the other side has opened its own.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.name(), self.state.nonce()).serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Array<T> {
    /// Attaches to the array that was serialised; fails if it is gone, even if its name was used again.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let state = receive(deserializer, Kind::Array, size_of::<T>())?;
        Ok(Self { state: Arc::new(state), element: PhantomData })
    }
}
