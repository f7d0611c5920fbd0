//! A channel in ordinary memory, and processes that are threads of the model.

use std::ptr::NonNull;

use loom::model::Builder;
use loom::sync::{Arc, Mutex};

use crate::atomic::AtomicU64;
use crate::channel::{Channel, Paces};
use crate::deadline::Deadline;
use crate::error::{GetError, PutError};
use crate::layout::Ends;
use crate::ring::{Ring, Shape};
use crate::sys::futex::let_time_pass;
use crate::sys::lease::{Lease, Locks};
use crate::sys::region::Region;

/// Explores `model` with at most this many preemptions in one execution: the bugs of this kind that
/// are known need two.
pub(crate) fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    explore_in_time(preemptions, false, model);
}

/// The same, where sleeps end by themselves.
pub(crate) fn explore_with_deaths(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    explore_in_time(preemptions, true, model);
}

fn explore_in_time(preemptions: usize, time_passes: bool, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || {
        let_time_pass(time_passes);
        model();
    });
}

/// The shared memory and the kernel.
pub(crate) struct Segment {
    pub(crate) ends: Ends,
    recoveries: AtomicU64,
    ring: NonNull<u8>,
    shape: Shape,
    pub(crate) locks: Locks,
}

// The ring is raw memory that the channel's own locks guard.
unsafe impl Send for Segment {}
unsafe impl Sync for Segment {}

impl Segment {
    pub(crate) fn new(capacity: u32) -> Arc<Self> {
        let shape = Shape { capacity, max_message: 8, ring_len: 16 * capacity as usize };
        let ring = Box::leak(vec![0_u64; shape.room() / 8].into_boxed_slice());
        Arc::new(Self {
            ends: Ends::new(),
            recoveries: AtomicU64::new(0),
            ring: NonNull::from(ring).cast(),
            shape,
            locks: Arc::new(Mutex::default()),
        })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let words = NonNull::slice_from_raw_parts(self.ring.cast::<u64>(), self.shape.room() / 8);
        // SAFETY: leaked by `new` with this length; the last user is gone.
        drop(unsafe { Box::from_raw(words.as_ptr()) });
    }
}

/// An attached process. Its threads share it.
pub(crate) struct Process {
    pub(crate) segment: Arc<Segment>,
    pub(crate) lease: Lease,
    paces: Paces,
}

impl Process {
    /// A process with this lease id, which nobody has.
    pub(crate) fn attach(segment: &Arc<Segment>, id: u32) -> Arc<Self> {
        Self::try_attach(segment, id, id).expect("a free id")
    }

    pub(crate) fn try_attach(segment: &Arc<Segment>, description: u32, id: u32) -> Option<Arc<Self>> {
        let lease = Lease::join(&segment.locks, description, id, |id| Channel::bury(&segment.ends, id))?;
        Some(Arc::new(Self { segment: segment.clone(), lease, paces: Paces::new() }))
    }

    pub(crate) fn channel(&self) -> Channel<'_> {
        let Segment { ends, recoveries, ring, shape, .. } = &*self.segment;
        // SAFETY: allocated with `room` bytes, aligned to 8, freed after the last process is gone.
        let bytes = unsafe { Region::new(*ring, shape.room()) };
        let ring = Ring { shape: *shape, bytes, put: &ends.put.side, get: &ends.get.side };
        Channel { lease: &self.lease, ends, recoveries, ring, paces: &self.paces }
    }

    pub(crate) fn put(&self, message: u8) -> Result<(), PutError> {
        self.channel().put(self.lease.identity().unwrap(), &[message], Deadline::Never)
    }

    pub(crate) fn get(&self) -> Result<u8, GetError> {
        self.channel().get(self.lease.identity().unwrap(), Deadline::Never, |message| {
            let mut byte = [0];
            message.copy_to(&mut byte)?;
            Ok(byte[0])
        })
    }

    /// Locks the put end, puts a message or does not come so far, and dies with the lock. Whether there is
    /// a message of it; there is none if the channel was closed before.
    pub(crate) fn die_in_put(&self, message: Option<u8>) -> Option<u8> {
        let me = self.lease.identity().unwrap();
        let inside = self.segment.ends.put.mutex.lock(&self.lease, me, Deadline::Never).is_ok();
        let message = message.filter(|_| inside);
        if let Some(message) = message {
            let ring = self.channel().ring;
            ring.refresh_put();
            ring.commit_put(ring.write(&[message]).unwrap());
        }
        self.lease.die();
        message
    }

    /// Locks the get end, takes a message or does not come so far, and dies with the lock. What it took.
    pub(crate) fn die_in_get(&self, takes: bool) -> Option<u8> {
        let me = self.lease.identity().unwrap();
        self.segment.ends.get.mutex.lock(&self.lease, me, Deadline::Never).unwrap();
        let ring = self.channel().ring;
        ring.refresh_get();
        let taken = ring.look_for_first().unwrap().filter(|_| takes).map(|message| {
            let mut byte = [0];
            message.copy_to(&mut byte).unwrap();
            ring.commit_get(&message);
            byte[0]
        });
        self.lease.die();
        taken
    }

    /// Dies in the middle of taking over from `owner`: it holds the byte and has not changed the word.
    pub(crate) fn die_in_take_over(&self, owner: u32) {
        let seized = self.lease.seize(owner);
        self.lease.die();
        std::mem::forget(seized);
    }

    pub(crate) fn close(&self) {
        self.channel().close();
    }
}
