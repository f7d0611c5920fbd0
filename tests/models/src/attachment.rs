//! An attached segment: ordinary memory, and a lease.

use std::ptr::NonNull;

use loom::sync::{Arc, Mutex};

use crate::layout::{Ends, Geometry, Kind, Lane, Live, Place};
use crate::ring::Shape;
use crate::sys::lease::{Identity, Lease, Locks};
use crate::sys::region::Region;

/// The shared memory and the kernel.
pub(crate) struct Segment {
    pub(crate) ends: Ends,
    live: Live,
    ring: NonNull<u8>,
    pub(crate) geometry: Geometry,
    pub(crate) locks: Locks,
}

// SAFETY: the ring is raw memory that the channel's own locks guard.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    pub(crate) fn new(capacity: u32) -> Arc<Self> {
        let shape = Shape::new(capacity, 8, 16 * capacity as usize);
        let ring = Box::leak(vec![0_u64; shape.room() / 8].into_boxed_slice());
        Arc::new(Self {
            ends: Ends::new(),
            live: Live::new(),
            ring: NonNull::from(ring).cast(),
            geometry: Geometry {
                kind: Kind::Queue,
                persistent: false,
                anonymous: false,
                nonce: 0,
                schema: String::new(),
                shape,
            },
            locks: Arc::new(Mutex::default()),
        })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let words = NonNull::slice_from_raw_parts(self.ring.cast::<u64>(), self.geometry.shape.room() / 8);
        // SAFETY: leaked by `new` with this length; the last user is gone.
        drop(unsafe { Box::from_raw(words.as_ptr()) });
    }
}

/// What the library's file of this name offers to a channel.
pub(crate) struct Attachment {
    pub(crate) segment: Arc<Segment>,
    pub(crate) lease: Lease,
}

impl Attachment {
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.segment.geometry
    }

    pub(crate) fn live(&self) -> &Live {
        &self.segment.live
    }

    pub(crate) fn channel(&self, place: Place) -> (&Ends, Region<'_>) {
        // SAFETY: allocated with `room` bytes, aligned to 8, freed after the last process is gone.
        (&self.segment.ends, unsafe { Region::new(self.segment.ring, place.room) })
    }

    pub(crate) fn identity(&self) -> std::io::Result<Identity> {
        Ok(self.lease.identity().expect("no forks here"))
    }

    pub(crate) fn allocate(&self, _: Lane, _: (usize, usize)) -> std::io::Result<()> {
        unreachable!("the rings of the models are bounded")
    }

    pub(crate) fn free(&self, _: Lane, _: (usize, usize)) -> bool {
        unreachable!("the rings of the models are bounded")
    }

    pub(crate) fn nonce(&self) -> u64 {
        0
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }
}
