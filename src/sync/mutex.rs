//! A mutex between processes that outlives its owner.

use std::time::{Duration, Instant};

use crate::atomic::{AtomicU32, Ordering, loom_fence, pause};
use crate::deadline::{Deadline, now};
use crate::sync::holds::{self, Key};
use crate::sys::futex;
use crate::sys::lease::{Identity, Lease};
use crate::sys::ofd::TOMB;

/// Somebody sleeps on the word, or did: the unlock must wake one.
const WAITERS: u32 = 1 << 31;
/// The channel is closed. Set for ever, on the lock of a put end only.
const CLOSED: u32 = 1 << 30;
/// The owner keeps the lock for longer than a call: nobody waits out of politeness.
const HELD: u32 = 1 << 29;
/// A sleeper has waited too long: newcomers let it go first.
const STARVED: u32 = 1 << 28;
/// The lease id of the owner; 0 is free, whatever else is set.
const OWNER: u32 = (1 << 28) - 1;
const _: () = assert!(TOMB <= OWNER);

/// Looks before sleeping. A critical section takes some tens of nanoseconds, a pause about as long.
const SPINS: u32 = if cfg!(loom) { 0 } else { 64 };
/// The first sleep, after which the owner's life is asked for; doubled each time.
const FIRST_SLICE: Duration = Duration::from_micros(300);
/// No sleep on a lock is longer. Two of them are within the 100 ms that a waiter behind a dead owner may take:
/// the first question can meet somebody who is just taking over the other end from the same owner.
const LONGEST_LOCK_SLICE: Duration = Duration::from_millis(20);
/// Who has waited this long is starved.
const STARVING: Duration = Duration::from_millis(1);
/// How long a newcomer lets a free word lie for the starved one.
const POLITENESS: Duration = Duration::from_micros(50);
/// How long a call past its deadline still waits for an owner who is in the middle of a call.
const GRACE: Duration = Duration::from_millis(1);

/// A lock word: who owns the lock, and what the others are to know.
///
/// | owner | flags   | meaning                                                                          |
/// | ----- | ------- | -------------------------------------------------------------------------------- |
/// | 0     | any     | free                                                                             |
/// | id    | none    | owned, by a thread of the handle with that lease id; nobody waits                |
/// | id    | WAITERS | owned; its unlock wakes one                                                      |
/// | id    | HELD    | owned for long; a `nowait` call gives up at once                                 |
/// | 0, id | STARVED | a sleeper is starved; unlock leaves the mark and wakes one                       |
/// | 0, id | CLOSED  | (put end) the channel is closed: no call gets in any more, the owner's put counts |
/// | TOMB  | any     | the owner is dead, and its id is somebody else's now                             |
///
/// # Killed here, the others see that
///
/// * before the lock is taken, or asleep: nothing, or a WAITERS too many (one wake-up of nobody), or a
///   STARVED too many (one newcomer waits 50 us in vain and clears it).
/// * while it is owned: the kernel drops the lease; a waiter finds out after a slice, or at its
///   deadline, and takes the lock over while it holds the dead owner's byte, so that nobody can come
///   to bear that id. Killed in the take-over: before the exchange nothing happened (the byte is free
///   again), after it the taker is the dead owner.
/// * between the unlock and its wake-up: a sleeper looks for itself at the end of its slice.
///
/// Stopped for an hour at any of these instants: the lock stays owned, others wait within their own
/// deadlines.
///
/// # Orderings
///
/// | access                   | ordering | why                                                          |
/// | ------------------------ | -------- | ------------------------------------------------------------ |
/// | lock, take-over          | Acquire  | sees what the last owner wrote; of a dead one, through the kernel's release of its byte |
/// | unlock                   | `SeqCst` | publishes; and it is U in the argument of `condvar`          |
/// | hold                     | `SeqCst` | like close: whichever of the two is second sees the first    |
/// | `look`                   | `SeqCst` | it is L in that argument                                     |
/// | close                    | `SeqCst` | like an unlock: sleepers that prepared before are woken after |
/// | everything else          | Relaxed  | only decides whether to try an exchange or to sleep          |
///
/// The word is changed by read-modify-write only: that is what makes the release sequence.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Mutex {
    word: AtomicU32,
}

/// Why the lock was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    TimedOut,
    Closed,
    /// The process forked meanwhile, and this is the child: the identity is its parent's.
    Forked,
    /// The calling thread keeps the lock itself.
    Deadlock,
    /// The handle has lost what it would need to tell whether the owner lives.
    Lost,
}

/// How the lock was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Free,
    /// From an owner who died with it: what it was doing is for the caller to put right.
    FromTheDead,
}

/// A lock word as it was at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Word(u32);

impl Word {
    pub(crate) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    pub(crate) fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    fn owner(self) -> u32 {
        self.0 & OWNER
    }

    /// Who is in the middle of a call, if anybody; not who merely holds the end.
    pub(crate) fn caller_inside(self) -> Option<u32> {
        (self.owner() != 0 && !self.is_held()).then_some(self.owner())
    }
}

impl Mutex {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// Takes the lock if it is free and nobody is to be considered.
    #[inline]
    pub(crate) fn try_lock(&self, me: Identity) -> bool {
        self.word.compare_exchange(0, me.id(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock. A free lock is taken whatever the deadline.
    ///
    /// A deadline that passes while a live owner is in the middle of a call is stretched by up to
    /// 1 ms; not for one who holds the lock for long.
    ///
    /// `key` is what the lock is recorded under where user code runs while it is kept.
    pub(crate) fn lock(
        &self,
        key: Key,
        lease: &Lease,
        me: Identity,
        deadline: Deadline,
    ) -> Result<Taken, Refused> {
        if self.try_lock(me) {
            return Ok(Taken::Free);
        }
        if holds::is_own(key, self.look().owner()) {
            return Err(Refused::Deadlock);
        }
        Waiter::new(self, lease, me, deadline).lock()
    }

    /// Marks a lock that the caller owns as kept for longer than a call. True if the channel is closed.
    ///
    /// Killed before it: an ordinary owner died. After it: an owner that held the end.
    pub(crate) fn hold(&self) -> bool {
        let word = self.word.fetch_or(HELD, Ordering::SeqCst);
        loom_fence();
        word & CLOSED != 0
    }

    /// Frees the lock if nobody waits for it and nothing else has been marked.
    #[inline]
    pub(crate) fn try_unlock(&self, me: Identity) -> bool {
        let freed = self.word.compare_exchange(me.id(), 0, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        loom_fence();
        freed
    }

    /// Frees the lock and wakes a sleeper. True if the channel has been closed meanwhile.
    ///
    /// It can never free somebody else's lock: it exchanges the caller's own id only.
    #[cold]
    pub(crate) fn unlock(&self, me: Identity) -> bool {
        let freed = self
            .change(Ordering::SeqCst, |word| (word & OWNER == me.id()).then_some(word & (CLOSED | STARVED)));
        loom_fence();
        let Ok(word) = freed else { return false };
        if word & (WAITERS | STARVED) != 0 {
            futex::wake(&self.word, 1);
        }
        word & CLOSED != 0
    }

    /// Lets nobody in any more. Takes no lock, waits for nobody; whoever is inside stays inside.
    pub(crate) fn close(&self) -> Word {
        let word = self.word.fetch_or(CLOSED, Ordering::SeqCst);
        loom_fence();
        Word(word | CLOSED)
    }

    /// Clears a closed mark where none can be: something outside this library wrote it.
    pub(crate) fn reopen(&self) {
        self.word.fetch_and(!CLOSED, Ordering::Relaxed);
    }

    /// The word now.
    #[inline]
    pub(crate) fn look(&self) -> Word {
        let word = self.word.load(Ordering::SeqCst);
        loom_fence();
        Word(word)
    }

    /// Makes a lock still owned by `id` one of the unknown dead: `id` is about to get a new bearer.
    pub(crate) fn bury(&self, id: u32) {
        let buried =
            self.change(Ordering::Relaxed, |word| (word & OWNER == id).then_some(word & !OWNER | TOMB));
        if buried.is_ok() {
            self.wake_all();
        }
    }

    pub(crate) fn wake_all(&self) {
        futex::wake(&self.word, u32::MAX);
    }

    /// Changes the word as long as `next` says to what; the old word, or the one it refused.
    fn change(&self, order: Ordering, next: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        self.word.fetch_update(order, Ordering::Relaxed, next)
    }
}

/// One contended call of `lock`.
struct Waiter<'a> {
    mutex: &'a Mutex,
    lease: &'a Lease,
    me: Identity,
    start: Instant,
    /// When to give up, if the owner is alive and holds the lock for long, or is not to be told apart.
    end: Option<Instant>,
    slept: bool,
    slice: Duration,
    /// When to ask next whether the owner lives, however often a signal ends the sleep before.
    ask_at: Instant,
}

impl<'a> Waiter<'a> {
    #[cold]
    fn new(mutex: &'a Mutex, lease: &'a Lease, me: Identity, deadline: Deadline) -> Self {
        let start = now();
        let end = match deadline {
            Deadline::Now => Some(start),
            Deadline::At(at) => Some(at),
            Deadline::Never => None,
        };
        Self { mutex, lease, me, start, end, slept: false, slice: FIRST_SLICE, ask_at: start + FIRST_SLICE }
    }

    #[cold]
    fn lock(mut self) -> Result<Taken, Refused> {
        loop {
            // A signal handler may have forked while we slept.
            if !self.me.is_current() {
                return Err(Refused::Forked);
            }
            let word = self.spin()?;
            if word & OWNER == 0 {
                if let Some(taken) = self.take(word) {
                    return Ok(taken);
                }
                continue;
            }
            let ask = self.sleep(word);
            let word = self.mutex.word.load(Ordering::Relaxed);
            let late = self.is_late(word);
            if ask || late {
                if self.take_over(word) {
                    return Ok(Taken::FromTheDead);
                }
                if !self.lease.is_intact() {
                    self.give_up();
                    return Err(Refused::Lost);
                }
            }
            if late && self.mutex.word.load(Ordering::Relaxed) & OWNER != 0 {
                self.give_up();
                return Err(Refused::TimedOut);
            }
        }
    }

    /// The word, once it is free, or after it has been looked at for long enough.
    fn spin(&self) -> Result<u32, Refused> {
        let mut word = self.mutex.word.load(Ordering::Relaxed);
        for _ in 0..SPINS {
            if word & CLOSED != 0 || word & OWNER == 0 {
                break;
            }
            pause();
            word = self.mutex.word.load(Ordering::Relaxed);
        }
        if word & CLOSED != 0 {
            // Whoever else sleeps here is woken by the one who closed.
            return Err(Refused::Closed);
        }
        Ok(word)
    }

    /// Tries to take a free word.
    fn take(&self, word: u32) -> Option<Taken> {
        let mut flags = word & !OWNER & !HELD;
        if self.slept {
            // Others may sleep behind us, and the wake-up that we had was the only one.
            flags |= WAITERS;
            if self.is_starved() {
                flags &= !STARVED;
            }
        } else if word & STARVED != 0 {
            self.be_polite();
            flags &= !STARVED;
        }
        let taken = self.mutex.word.compare_exchange(
            word,
            flags | self.me.id(),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        taken.is_ok().then_some(Taken::Free)
    }

    fn is_starved(&self) -> bool {
        now() - self.start >= STARVING
    }

    /// Lets a starved sleeper go first, but not for ever: it may have died.
    fn be_polite(&self) {
        let word = self.mutex.word.load(Ordering::Relaxed);
        let end = now() + POLITENESS;
        while cfg!(not(loom)) && now() < end && self.mutex.word.load(Ordering::Relaxed) == word {
            pause();
        }
    }

    /// Sleeps on an owned word. True if it is time to ask whether the owner lives.
    fn sleep(&mut self, word: u32) -> bool {
        let starved = if self.is_starved() { STARVED } else { 0 };
        let marked = word | WAITERS | starved;
        if marked != word
            && self.mutex.word.compare_exchange(word, marked, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return false;
        }
        let until = self.end_for(word).map_or(self.ask_at, |end| end.min(self.ask_at));
        self.slept = true;
        let ran_out = futex::wait(&self.mutex.word, marked, until);
        let now = now();
        let ask = ran_out || now >= self.ask_at;
        if ask {
            self.slice = (self.slice * 2).min(LONGEST_LOCK_SLICE);
            self.ask_at = now + self.slice;
        }
        ask
    }

    fn is_late(&self, word: u32) -> bool {
        self.end_for(word).is_some_and(|end| now() >= end)
    }

    /// When to give up on an owner like this; `None` also where the end of time is nearer than that.
    fn end_for(&self, word: u32) -> Option<Instant> {
        let grace = if word & HELD == 0 { GRACE } else { Duration::ZERO };
        self.end?.checked_add(grace)
    }

    /// Takes the lock from an owner who is dead. The owner's byte is ours meanwhile: the id in the
    /// word can be nobody's but the dead one's.
    fn take_over(&self, word: u32) -> bool {
        let owner = word & OWNER;
        let Some(seized) = self.lease.seize(owner) else { return false };
        // Not a closed one: whoever found it closed, its owner dead and the ring empty has said so.
        let taken = self.mutex.change(Ordering::Acquire, |word| {
            (word & (OWNER | CLOSED) == owner).then_some(word & STARVED | WAITERS | self.me.id())
        });
        drop(seized);
        taken.is_ok()
    }

    /// Passes on a wake-up that may have been meant for whoever waits behind us.
    fn give_up(&self) {
        if self.slept {
            let passed =
                self.mutex.change(Ordering::Relaxed, |word| (word & OWNER != 0).then_some(word | WAITERS));
            if passed.is_err() {
                futex::wake(&self.mutex.word, 1);
            }
        }
    }
}
