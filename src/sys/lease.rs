//! The lease: a byte of the segment's file, locked for as long as a handle lives.
//!
//! Whether somebody is alive is asked of the kernel alone. It drops the locks of an open file
//! description when the last descriptor of it is closed, which no death can prevent, and it does not
//! care about process ids, namespaces or clocks. A description does not see its own locks.
//!
//! | byte             | locked by                                                              |
//! | ---------------- | ---------------------------------------------------------------------- |
//! | 0, the *door*    | whoever may take the file's name away                                  |
//! | 1 to TOMB - 1    | the handle of that lease id, or for a moment who takes over from it; a |
//! |                  | guest from 2^27 on                                                     |
//! | TOMB             | for a moment, who takes over from an owner whose id was given away     |
//! | 2^32 to 2^36 - 1 | the members of the classes (the ends of a pipe), 2^32 bytes for each    |
//! | a whole class    | for a moment and shared, those who find it empty and say so for good   |
//! | all of them      | for a moment, who knows that nobody is attached and lets nobody attach |
//! | all but guests'  | for a moment, the last one to leave who is not a guest                 |
//!
//! These numbers are the same in every format version: any version can tell whether a segment is in use.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::fork::{self, Descriptor, LocalLock};
use super::ofd::{self, BYTES, Class, DOOR};

/// A handle's proof of life and its name in lock words.
pub(crate) struct Lease {
    descriptor: Descriptor,
    mark: &'static AtomicU32,
    guest: bool,
    /// Generation and id, in one word: an id counts only for the process that locked it.
    held: AtomicU64,
    /// Held by the one thread that locks other bytes than its own: the locks of one description do
    /// not exclude each other.
    alone: LocalLock,
}

/// Under which id, and in which process, a call runs. Two words, which fit into registers.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    /// Generation and id, as in [`Lease`].
    held: u64,
    mark: &'static AtomicU32,
}

impl Identity {
    #[inline]
    pub(crate) fn id(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half of the word")]
        let id = self.held as u32;
        id
    }

    #[inline]
    fn generation(self) -> u32 {
        (self.held >> 32) as u32
    }

    /// False in a child that was forked in the middle of the call: it must commit and unlock nothing.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self.mark.load(Ordering::Relaxed) == self.generation()
    }
}

/// What became of the attempt to lock an id.
pub(crate) enum Joined {
    As(Identity),
    /// Every id tried was locked: somebody holds the whole range for a moment.
    Refused,
}

impl Lease {
    /// A lease that holds no byte yet.
    pub(crate) fn new(descriptor: Descriptor) -> io::Result<Self> {
        let (held, alone) = (AtomicU64::new(0), LocalLock::new());
        Ok(Self { descriptor, mark: fork::mark()?, guest: false, held, alone })
    }

    /// The same for a guest: its ids are such as do not count for who is the last one to leave.
    pub(crate) fn of_guest(descriptor: Descriptor) -> io::Result<Self> {
        Ok(Self { guest: true, ..Self::new(descriptor)? })
    }

    pub(crate) fn is_guest(&self) -> bool {
        self.guest
    }

    /// The identity of this process; `None` in a child that has not joined yet.
    #[inline]
    pub(crate) fn identity(&self) -> Option<Identity> {
        let identity = Identity { held: self.held.load(Ordering::Acquire), mark: self.mark };
        // Nobody is of generation 0: a lease that holds no id yet, or no more, is never current.
        (identity.is_current() && identity.held != 0).then_some(identity)
    }

    /// Locks an id that nobody has and calls `bury` with it before it is used: the id may still stand
    /// as owner in a lock word, left by a dead process that had it before.
    #[cold]
    pub(crate) fn join(&self, bury: impl FnOnce(u32)) -> io::Result<Joined> {
        let generation = fork::generation(self.mark);
        self.alone.lock(generation);
        let joined = self.join_alone(generation, bury);
        self.alone.unlock();
        joined
    }

    fn join_alone(&self, generation: u32, bury: impl FnOnce(u32)) -> io::Result<Joined> {
        if let Some(identity) = self.identity() {
            return Ok(Joined::As(identity));
        }
        let fd = self.descriptor.verified()?;
        let Some(id) = ofd::lock_some_id(fd, self.guest)? else { return Ok(Joined::Refused) };
        bury(id);
        let held = (u64::from(generation) << 32) | u64::from(id);
        self.held.store(held, Ordering::Release);
        Ok(Joined::As(Identity { held, mark: self.mark }))
    }

    /// Locks a byte of the class, for as long as the lease's file is open. A forked child has one of its own from
    /// the start. False if somebody holds the whole class for a moment.
    pub(crate) fn enter(&self, class: Class) -> io::Result<bool> {
        let entered = ofd::enter(self.descriptor.verified()?, class)?;
        if entered {
            self.descriptor.set_class(class);
        }
        Ok(entered)
    }

    /// Whether another handle is in the class. Cannot tell: yes.
    pub(crate) fn is_entered(&self, class: Class) -> bool {
        self.descriptor.verified().and_then(|fd| ofd::is_entered(fd, class)).unwrap_or(true)
    }

    /// Whether another handle has this one byte of the class. Cannot tell: yes.
    pub(crate) fn is_member(&self, class: Class, member: u32) -> bool {
        let holder = self.descriptor.verified().and_then(|fd| ofd::first_holder(fd, class.byte(member), 1));
        holder.map_or(true, |holder| holder.is_some())
    }

    /// Locks some byte of the class, for as long as the lease's file is open, and says which. A forked child has
    /// nothing of it. `None` if somebody holds the whole class for a moment.
    pub(crate) fn enter_alone(&self, class: Class) -> io::Result<Option<u32>> {
        ofd::enter_some(self.descriptor.verified()?, class)
    }

    /// Locks this one byte of the class, if nobody has it, for as long as the lease's file is open.
    pub(crate) fn enter_as(&self, class: Class, member: u32) -> io::Result<bool> {
        ofd::lock(self.descriptor.verified()?, class.byte(member), 1)
    }

    /// Calls `found` while it is certain that nobody is in the class and nobody can enter it. False if somebody
    /// is, or if that cannot be told.
    ///
    /// Others may do the same at the same time, so that each finds the truth and none waits for another one.
    /// Stopped in `found`: nobody can enter meanwhile.
    pub(crate) fn if_nobody_enters(&self, class: Class, found: impl FnOnce() -> bool) -> bool {
        /// How long to wait for another thread of this handle, which needs some microseconds.
        const PATIENCE: Duration = Duration::from_millis(10);
        let generation = fork::generation(self.mark);
        // Two threads share a description, and one of them would lift the other's bar.
        if self.alone.lock_for(generation, PATIENCE).is_none() {
            return false;
        }
        let fd = self.descriptor.verified();
        let barred = fd.as_ref().is_ok_and(|fd| ofd::bar(*fd, class).unwrap_or(false));
        let found = barred && found();
        if let (true, Ok(fd)) = (barred, fd) {
            ofd::unbar(fd, class);
        }
        self.alone.unlock();
        found
    }

    /// Closes the lease's file, and gives back with it what it still holds. The handle must not be used
    /// afterwards.
    pub(crate) fn close(&self) {
        self.descriptor.close();
    }

    /// Gives back the id, and the place in a class. The handle must not be used afterwards.
    ///
    /// If the process has forked, the place in the class goes with the last descriptor of the file, not here: a child
    /// forked a moment ago may have nothing else yet that shows that it is in the class.
    pub(crate) fn leave(&self) {
        let verified = self.descriptor.verified();
        let joined = self.identity();
        self.held.store(0, Ordering::Release);
        if !self.descriptor.unlock()
            && let (Some(identity), Ok(fd)) = (joined, verified)
        {
            ofd::unlock(fd, u64::from(identity.id()), 1);
        }
    }

    /// Locks everything at once, if nobody else holds anything. Lasts as long as the lease.
    pub(crate) fn close_to_all(&self) -> io::Result<bool> {
        ofd::lock(self.descriptor.verified()?, DOOR, BYTES)
    }

    /// Locks everything but the ids of guests, if nobody else holds any of that. Lasts as long as the lease.
    pub(crate) fn close_to_all_but_guests(&self) -> io::Result<bool> {
        ofd::lock_but_guests(self.descriptor.verified()?)
    }

    /// Whether another handle is attached that is no guest's.
    pub(crate) fn is_used(&self) -> io::Result<bool> {
        ofd::is_used(self.descriptor.verified()?)
    }

    /// Locks the door, if nobody else holds it. Lasts as long as the lease.
    pub(crate) fn take_door(&self) -> io::Result<bool> {
        ofd::lock(self.descriptor.verified()?, DOOR, 1)
    }

    /// Whether `owner` is alive. Cannot tell: alive. Asks nothing about the handle's own id.
    pub(crate) fn is_alive(&self, owner: u32) -> bool {
        // Verified, because a number that is another file's by now would show everybody dead.
        let holder = self.descriptor.verified().and_then(|fd| ofd::first_holder(fd, u64::from(owner), 1));
        holder.map_or(true, |holder| holder.is_some())
    }

    /// Whether some handle is attached, as far as can be seen: not while somebody holds the door, or
    /// everything, for a moment.
    pub(crate) fn somebody_attached(&self) -> io::Result<bool> {
        let holder = ofd::first_holder(self.descriptor.verified()?, DOOR, BYTES)?;
        Ok(holder.is_some_and(|(start, _)| start != DOOR))
    }

    /// How many handles are attached, this one included.
    pub(crate) fn count(&self) -> io::Result<usize> {
        let others = ofd::count_ids(self.descriptor.verified()?)?;
        Ok(others + usize::from(self.identity().is_some()))
    }

    /// The right to act for `owner`, who is dead: no newcomer can get its id while this lives.
    /// `None` if it is alive, if that cannot be told, or if somebody else is at it.
    pub(crate) fn seize(&self, owner: u32) -> Option<Seized<'_>> {
        let identity = self.identity()?;
        if owner == 0 || owner == identity.id() || !self.alone.try_lock(identity.generation()) {
            return None;
        }
        let seized = self.descriptor.verified().and_then(|fd| ofd::lock(fd, u64::from(owner), 1));
        if seized.unwrap_or(false) {
            return Some(Seized { lease: self, owner });
        }
        self.alone.unlock();
        None
    }

    /// Whether the lease's file is still open: a program may have closed it by number.
    pub(crate) fn is_intact(&self) -> bool {
        self.descriptor.verified().is_ok()
    }

    /// The open file, if it still is the lease's.
    pub(crate) fn verified_fd(&self) -> io::Result<RawFd> {
        self.descriptor.verified()
    }

    /// The open file itself, for what `segment` reads and compares.
    pub(crate) fn fd(&self) -> RawFd {
        self.descriptor.fd()
    }
}

/// See [`Lease::seize`].
pub(crate) struct Seized<'a> {
    lease: &'a Lease,
    owner: u32,
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        if let Ok(fd) = self.lease.descriptor.verified() {
            ofd::unlock(fd, u64::from(self.owner), 1);
        }
        self.lease.alone.unlock();
    }
}
