//! The limit for those who sleep: one message that two processes hand to and fro on one futex word.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::raw::{Segment, futex_wait, futex_wake};

/// How often the message has changed hands. Even: the maker has it.
const TURN: usize = 0;
const MESSAGE: usize = 8;
/// The message's length.
const LEN: usize = 64;

/// One message of 64 bytes that two processes hand to and fro, sleeping meanwhile.
///
/// The object in /dev/shm is called `shmq-pingpong-<name>`; the drop of the handle that made it deletes it.
pub struct PingPong {
    segment: Segment,
    /// What is left of the turn, divided by 2, while it is ours.
    parity: u32,
}

impl PingPong {
    /// Makes one; the maker serves.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system says.
    pub fn create(name: &str) -> io::Result<Self> {
        Ok(Self { segment: Segment::create(&object(name), MESSAGE + LEN)?, parity: 0 })
    }

    /// Attaches to the one of this name, as the other side.
    ///
    /// # Errors
    /// `NotFound`, or what the system says.
    pub fn open(name: &str) -> io::Result<Self> {
        Ok(Self { segment: Segment::open(&object(name))?, parity: 1 })
    }

    /// Hands the message over. For the one whose turn it is.
    #[inline]
    pub fn send(&mut self, message: &[u8; LEN]) {
        self.segment.copy_in(MESSAGE, message);
        let turn = self.segment.word(TURN);
        turn.fetch_add(1, Release);
        futex_wake(turn);
    }

    /// Sleeps until it is our turn.
    #[inline]
    pub fn receive(&mut self, message: &mut [u8; LEN]) {
        let turn = self.segment.word(TURN);
        loop {
            let now = turn.load(Acquire);
            if now % 2 == self.parity {
                break;
            }
            futex_wait(turn, now);
        }
        self.segment.copy_out(MESSAGE, message);
    }

    /// Deletes the name now; those who are attached go on.
    ///
    /// # Errors
    /// What the system says.
    pub fn unlink(&mut self) -> io::Result<()> {
        self.segment.unlink()
    }
}

impl fmt::Debug for PingPong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PingPong").finish_non_exhaustive()
    }
}

fn object(name: &str) -> String {
    format!("shmq-pingpong-{name}")
}
