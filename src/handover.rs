//! Ends of a pipe on their way to another process.
//!
//! Serialising an end makes a duplicate of it: an attachment of its own and a ticket (see `membership`), kept
//! here until somebody has claimed it. While an item is encoded for a put, its duplicates belong to that put
//! and go with it if it fails. After that, or if an end is serialised by other means, they belong to the process.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::attachment::Attachment;
use crate::error::OpenError;
use crate::membership::{self, Ticket};
use crate::sys::ofd::Class;
use crate::sys::shared::{Shared, at_exit};

/// A duplicate that nobody may have claimed yet.
struct Kept {
    segment: Attachment,
    ticket: Ticket,
}

impl Drop for Kept {
    fn drop(&mut self) {
        // In a forked child the ticket is the parent's.
        if self.segment.lease().identity().is_some() {
            membership::withdraw(&self.segment, self.ticket);
        }
    }
}

/// The duplicates of this process that are under way.
static KEPT: Shared<Vec<Kept>> = Shared::new(Vec::new());
/// How many those are, so that nobody takes the lock for nothing. A forked child may have one too many.
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How many puts this thread is in the middle of: one inside of the encoding of the other.
    static PUTS: Cell<usize> = const { Cell::new(0) };
    /// The duplicates that belong to those puts.
    static PACKED: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    /// How many those are: every put asks, and this one needs no destructor.
    static PACKED_COUNT: Cell<usize> = const { Cell::new(0) };
}

/// A put that is encoding and sending items. What is packed meanwhile goes with it, unless it is told that the
/// items have been sent.
pub(crate) struct Sending {
    before: usize,
}

impl Sending {
    #[inline]
    pub(crate) fn begin() -> Self {
        sweep();
        PUTS.set(PUTS.get() + 1);
        Self { before: packed() }
    }

    /// How many ends have been packed so far.
    #[inline]
    pub(crate) fn packed(&self) -> usize {
        packed() - self.before
    }

    /// The first `count` of the ends are under way.
    #[inline]
    pub(crate) fn sent(self, count: usize) {
        if count > 0 {
            self.keep(count);
        }
    }

    #[cold]
    fn keep(&self, count: usize) {
        let sent = with_packed(|packed| packed.drain(self.before..self.before + count).collect());
        keep(sent.unwrap_or_default());
    }
}

impl Drop for Sending {
    #[inline]
    fn drop(&mut self) {
        PUTS.set(PUTS.get().saturating_sub(1));
        if packed() > self.before {
            drop(with_packed(|packed| packed.split_off(self.before)));
        }
    }
}

#[inline]
fn packed() -> usize {
    PACKED_COUNT.get()
}

/// `None` while the thread ends: there is no list any more.
fn with_packed<R>(with: impl FnOnce(&mut Vec<Kept>) -> R) -> Option<R> {
    let with = |packed: &RefCell<Vec<Kept>>| {
        let mut packed = packed.borrow_mut();
        let result = with(&mut packed);
        PACKED_COUNT.set(packed.len());
        result
    };
    PACKED.try_with(with).ok()
}

/// Sends a duplicate of an end of this class on its way.
pub(crate) fn pack(end: &Attachment, class: Class) -> Result<Ticket, OpenError> {
    sweep();
    let segment = end.again()?;
    let ticket = membership::send(&segment, class).map_err(OpenError::Io)?;
    let kept = Kept { segment, ticket };
    let mut kept = Some(kept);
    if PUTS.get() > 0 {
        with_packed(|packed| packed.extend(kept.take()));
    }
    if let Some(kept) = kept {
        keep(vec![kept]);
    }
    Ok(ticket)
}

/// The duplicate will not be sent after all.
#[cold]
pub(crate) fn call_back(ticket: Ticket) {
    let remove = |all: &mut Vec<Kept>| {
        let at = all.iter().rposition(|kept| kept.ticket == ticket);
        at.map(|at| all.remove(at))
    };
    let removed = with_packed(remove).flatten().or_else(|| with_kept(remove).flatten());
    drop(removed);
}

fn keep(sent: Vec<Kept>) {
    let first = with_kept(|kept| {
        let first = kept.capacity() == 0;
        kept.extend(sent);
        first
    });
    if first == Some(true) {
        at_exit(let_go);
    }
}

/// Lets go of the duplicates that have been claimed. As long as they are kept, so is their segment.
#[inline]
pub(crate) fn sweep() {
    if COUNT.load(Relaxed) > 0 {
        sweep_some();
    }
}

#[cold]
fn sweep_some() {
    let claimed = with_kept(|kept| {
        let claimed = |kept: &mut Kept| !membership::is_waiting(&kept.segment, kept.ticket);
        kept.extract_if(.., claimed).collect::<Vec<_>>()
    });
    drop(claimed);
}

fn with_kept<R>(with: impl FnOnce(&mut Vec<Kept>) -> R) -> Option<R> {
    KEPT.with(Vec::new, |kept| {
        let result = with(kept);
        COUNT.store(kept.len(), Relaxed);
        result
    })
}

/// The process ends, and with it what it has not handed over.
extern "C" fn let_go() {
    let all = with_kept(std::mem::take);
    drop(all);
}
