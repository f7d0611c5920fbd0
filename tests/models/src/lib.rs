//! Models of the mutex, the condition variable and the channel, explored by loom.
//!
//! The files under test are the library's own, compiled here with loom's atomics; only what talks to the
//! kernel has a twin (`futex.rs`, `lease.rs`), and what talks to the file system (`attachment.rs`). Run with `cargo test --release -p shmq-models`.
#![cfg(test)]
#![allow(dead_code, reason = "the models use a part of each file")]
#![allow(clippy::reversed_empty_ranges, reason = "no spinning here")]

#[path = "../../../src/atomic.rs"]
mod atomic;
mod attachment;
#[path = "../../../src/channel/mod.rs"]
mod channel;
#[path = "../../../src/deadline.rs"]
mod deadline;
#[path = "../../../src/error.rs"]
mod error;
#[path = "../../../src/layout.rs"]
mod layout;
mod membership;
#[path = "../../../src/ring.rs"]
mod ring;
#[path = "../../../src/sync/mod.rs"]
mod sync;
mod sys;

mod close;
mod close_over_the_dead;
mod exclusion;
mod harness;
mod held;
mod take_over;
mod wake_ups;
