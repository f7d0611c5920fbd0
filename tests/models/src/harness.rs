//! A channel in ordinary memory, and processes that are threads of the model.

use std::ops::Deref;

use loom::model::Builder;
use loom::sync::Arc;

use crate::attachment::Attachment;
pub(crate) use crate::attachment::Segment;
use crate::channel::{Channel, Held, Once, Port};
use crate::deadline::Deadline;
use crate::error::{GetError, PutError};
use crate::layout::Lane;
use crate::sync::holds::Key;
use crate::sync::mutex::{Mutex, Refused, Taken};
use crate::sys::futex::let_time_pass;
use crate::sys::lease::{Identity, Lease};
use crate::sys::region::Span;

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

/// An attached process. Its threads share it.
pub(crate) struct Process {
    attachment: Attachment,
    port: Port,
}

impl Deref for Process {
    type Target = Attachment;

    fn deref(&self) -> &Attachment {
        &self.attachment
    }
}

impl Process {
    /// A process with this lease id, which nobody has.
    pub(crate) fn attach(segment: &Arc<Segment>, id: u32) -> Arc<Self> {
        Self::try_attach(segment, id, id).expect("a free id")
    }

    pub(crate) fn try_attach(segment: &Arc<Segment>, description: u32, id: u32) -> Option<Arc<Self>> {
        let lease = Lease::join(&segment.locks, description, id, |id| segment.ends.bury(id))?;
        let attachment = Attachment { segment: segment.clone(), lease };
        let port = Port::new(&attachment, Lane::First, None);
        Some(Arc::new(Self { attachment, port }))
    }

    pub(crate) fn channel(&self) -> Channel<'_> {
        Channel::new(&self.attachment, &self.port)
    }

    pub(crate) fn me(&self) -> Identity {
        self.lease.identity().unwrap()
    }

    /// Locks the get end as a get does. How it got the lock.
    pub(crate) fn lock_get(&self) -> Taken {
        self.lock(&self.segment.ends.get.mutex).unwrap()
    }

    /// Locks one of the segment's locks.
    pub(crate) fn lock(&self, mutex: &Mutex) -> Result<Taken, Refused> {
        mutex.lock(Key { nonce: 0, lock: 0 }, &self.lease, self.me(), Deadline::Never)
    }

    pub(crate) fn put(&self, message: u8) -> Result<(), PutError> {
        self.channel().put(Once, &[message], Deadline::Never)
    }

    pub(crate) fn get(&self) -> Result<u8, GetError> {
        self.channel().get(Once, Deadline::Never, byte)
    }

    /// Locks the put end, puts a message or does not come so far, and dies with the lock. Whether there is
    /// a message of it; there is none if the channel was closed before.
    pub(crate) fn die_in_put(&self, message: Option<u8>) -> Option<u8> {
        let inside = self.lock(&self.segment.ends.put.mutex).is_ok();
        let message = message.filter(|_| inside);
        if let Some(message) = message {
            let ring = self.channel().ring();
            ring.refresh_put();
            ring.commit_put(ring.write(ring.tail(), &[message]).unwrap());
        }
        self.lease.die();
        message
    }

    /// Locks the get end, takes a message or does not come so far, and dies with the lock. What it took.
    pub(crate) fn die_in_get(&self, takes: bool) -> Option<u8> {
        self.lock_get();
        let ring = self.channel().ring();
        ring.refresh_get();
        let taken = ring.look_for_first().unwrap().filter(|_| takes).map(|message| {
            let taken = byte(message.bytes).unwrap();
            ring.commit_get(message.run());
            taken
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

    /// Holds the put end, under an identity of this process; `None` if the channel is closed.
    pub(crate) fn hold_put(&self) -> Option<Held> {
        match self.channel().hold_put(Deadline::Never) {
            Ok((me, _)) => Some(Held(me)),
            Err(PutError::Closed) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Holds the get end.
    pub(crate) fn hold_get(&self) -> Held {
        let (me, _) = self.channel().hold_get(Deadline::Never).unwrap();
        Held(me)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as what a get is given")]
pub(crate) fn byte(message: Span<'_>) -> Result<u8, Box<GetError>> {
    let mut byte = [0];
    message.copy_to(&mut byte);
    Ok(byte[0])
}
