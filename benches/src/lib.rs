//! What shmq is measured with, and what it is measured against.
//!
//! * [`Textbook`]: the design that shmq is to beat: one mutex, two condition variables.
//! * [`SpinningRing`] and [`PingPong`]: the bare limits, without sleeping and without spinning.
//! * [`Payload`]: messages that know whether they are whole and in order.
//! * [`Session`]: processes, each on its core, that do one piece of [`Work`] over one [`Contender`].
//! * [`local`]: what calls cost where nobody else is there.
//! * [`Report`]: rounds, medians, tables and goals.
//!
//! The files in `benches/` measure with Criterion; `src/bin/compare.rs` prints every goal and whether it is
//! reached. All begin with [`play_role`]: the other processes of a session are the same program again.

mod contenders;
mod link;
pub mod local;
mod payload;
mod pingpong;
mod raw;
mod report;
mod session;
mod spinning;
mod textbook;
mod watch;

pub use contenders::{BATCH, CONTENDERS, contender};
pub use link::{Contender, Link, Place, Work};
pub use payload::{Checks, Payload, Reading, write_in_place};
pub use pingpong::PingPong;
pub use report::{Bound, Figure, Goal, Options, Report, Series, Table, Unit, write_between_markers};
pub use session::{Cores, Session, play_role};
pub use spinning::SpinningRing;
pub use textbook::Textbook;
