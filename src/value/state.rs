//! The segment under a value or an array.

use crate::attachment::{self, Attachment, Plan};
use crate::deadline::Deadline;
use crate::error::OpenError;
use crate::layout::{Expected, Kind, Lane};
use crate::options::Settings;
use crate::sync::holds::{Hold, Key};
use crate::sync::locked::Locked;
use crate::sync::mutex::{Refused, Taken};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// An attachment whose ring is no ring: plain bytes, behind the lock of the put end.
pub(super) struct State {
    attachment: Attachment,
    len: usize,
}

impl State {
    /// Makes it whole before anybody can see it.
    pub(super) fn create(
        name: Option<&str>,
        kind: Kind,
        element: usize,
        count: usize,
        initial: &[u8],
    ) -> Result<Self, OpenError> {
        let mut settings = Settings::new(count, element);
        settings.ring_bytes = Some(initial.len());
        let plan: Plan = settings.plan(kind, name.is_none())?;
        let write = |segment: &Attachment| {
            let region = segment.ring(Lane::First);
            let mut first = [0; 8];
            let short = initial.len().min(8);
            first[..short].copy_from_slice(&initial[..short]);
            let written = region.fill(&first).and_then(|()| region.fill(initial));
            written.map_err(|_| OpenError::InvalidOptions { reason: "the value does not fit".to_owned() })
        };
        let made = match name {
            Some(name) => attachment::create_prepared(name, &plan, write),
            None => attachment::create_made_up_prepared(&plan, write),
        };
        made.map(|(attachment, ())| Self { attachment, len: initial.len() })
    }

    pub(super) fn open(name: &str, kind: Kind, element: usize) -> Result<Self, OpenError> {
        Self::attach(name, Expected { kind, schema: "", nonce: None }, element)
    }

    /// The very segment that a handle was sent of.
    pub(super) fn open_sent(name: &str, nonce: u64, kind: Kind, element: usize) -> Result<Self, OpenError> {
        Self::attach(name, Expected { kind, schema: "", nonce: Some(nonce) }, element)
    }

    fn attach(name: &str, expected: Expected<'_>, element: usize) -> Result<Self, OpenError> {
        let attachment = attachment::open(name, expected)?;
        let shape = attachment.geometry().shape;
        if shape.max_message != element {
            return Err(OpenError::Mismatch {
                field: "size of the type",
                expected: format!("{element} bytes"),
                found: format!("{} bytes", shape.max_message),
            });
        }
        let len = shape.capacity as usize * element;
        if len > shape.room() {
            let reason = "its elements are longer than it is".to_owned();
            return Err(OpenError::NotShmq { name: name.to_owned(), reason });
        }
        Ok(Self { attachment, len })
    }

    pub(super) fn name(&self) -> &str {
        self.attachment.name()
    }

    pub(super) fn nonce(&self) -> u64 {
        self.attachment.nonce()
    }

    /// How many elements there are.
    pub(super) fn count(&self) -> usize {
        self.attachment.geometry().shape.capacity as usize
    }

    /// The first 8 bytes, read in one piece.
    pub(super) fn load(&self, to: &mut [u8]) {
        let whole = self.attachment.ring(Lane::First).first_word().load(SeqCst).to_ne_bytes();
        to.copy_from_slice(&whole[..to.len()]);
    }

    /// The first 8 bytes, written in one piece.
    pub(super) fn store(&self, from: &[u8]) {
        let mut whole = [0; 8];
        whole[..from.len()].copy_from_slice(from);
        self.attachment.ring(Lane::First).first_word().store(u64::from_ne_bytes(whole), SeqCst);
    }

    pub(super) fn lock_for_ever(&self) -> Locked<'_> {
        loop {
            // Refused without an end of time: the calling thread waits for itself, or no identity is to be had in
            // a forked child. Neither passes by itself, but a wait that has no error to give goes on.
            match self.lock(Deadline::Never) {
                Some(locked) => return locked,
                None => attachment::pause_a_while(),
            }
        }
    }

    pub(super) fn lock(&self, deadline: Deadline) -> Option<Locked<'_>> {
        let mutex = &self.attachment.ends(Lane::First).put.mutex;
        let key = Key { nonce: self.nonce(), lock: 0 };
        loop {
            let me = self.attachment.identity().ok()?;
            match mutex.lock(key, self.attachment.lease(), me, deadline) {
                Ok(Taken::Free) => {}
                Ok(Taken::FromTheDead) => {
                    // Killed before the mark: the next owner takes over from this one, and marks it.
                    self.attachment.live().recovered.store(1, SeqCst);
                    self.attachment.live().recoveries.fetch_add(1, Relaxed);
                }
                // Nobody closes a value: something else wrote there.
                Err(Refused::Closed) => {
                    mutex.reopen();
                    if deadline.has_passed() {
                        return None;
                    }
                    continue;
                }
                Err(Refused::TimedOut | Refused::Forked | Refused::Deadlock | Refused::Lost) => return None,
            }
            let region = self.attachment.ring(Lane::First).up_to(self.len);
            return Some(Locked::new(mutex, me, region, Hold::new(key, me)));
        }
    }

    /// Whether an owner died since this was last asked. For the owner of the lock.
    pub(super) fn take_recovered(&self) -> bool {
        self.attachment.live().recovered.swap(0, SeqCst) != 0
    }
}
