//! What shmq is measured with, and what it is measured against.
//!
//! * [`Textbook`]: the design that shmq is to beat: one mutex, two condition variables.
//! * [`SpinningRing`] and [`PingPong`]: the bare limits, without sleeping and without spinning.
//! * [`Payload`]: messages that know whether they are whole and in order.
//! * [`Session`]: two processes, each on its core, that do one piece of [`Work`] over one [`Contender`].
//!
//! `benches/throughput.rs` and `benches/latency.rs` measure with Criterion; `src/bin/compare.rs` is the quick
//! table. All three begin with [`play_role`]: the other process of a session is the same program again.

mod link;
mod payload;
mod pingpong;
mod raw;
mod session;
mod spinning;
mod textbook;
mod watch;

pub use link::{Contender, Work};
pub use payload::{Payload, Reading};
pub use pingpong::PingPong;
pub use session::{Cores, Session, play_role};
pub use spinning::SpinningRing;
pub use textbook::Textbook;
