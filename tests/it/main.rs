//! What users may rely on, tested from outside: through the public interface, with real processes.
//!
//! Each module is one subject. `harness` is how a test gets child processes that cannot outlive it,
//! names that nobody else uses, and a deadline.

#[cfg(test)]
mod any_bytes;
#[cfg(test)]
mod batches;
#[cfg(test)]
mod broken;
#[cfg(test)]
mod death;
#[cfg(test)]
mod faces;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fire;
#[cfg(test)]
mod fork;
#[cfg(test)]
mod hand;
#[cfg(test)]
mod handing_over;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod held;
#[cfg(test)]
mod holders;
#[cfg(test)]
mod in_place;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod instants;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod instants_basin;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod instants_calls;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod instants_court;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod instants_names;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod instants_pipes;
#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod instants_sparse;
#[cfg(test)]
mod joinable;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod lock_words;
#[cfg(test)]
mod looking;
#[cfg(test)]
mod names;
#[cfg(test)]
mod pipe_names;
#[cfg(test)]
mod pipes;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod rooms;
#[cfg(test)]
mod semantics;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod shared_state;
#[cfg(test)]
mod small_shm;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod stress;
#[cfg(test)]
mod textbook;
#[cfg(test)]
mod unbounded;
#[cfg(test)]
mod waiting;

/// What a child process does, by name: the table from which `harness::child` picks.
#[cfg(test)]
const ROLES: &[&[(&str, harness::Role)]] = &[
    any_bytes::ROLES,
    batches::ROLES,
    broken::ROLES,
    death::ROLES,
    fire::ROLES,
    fork::ROLES,
    held::ROLES,
    holders::ROLES,
    in_place::ROLES,
    joinable::ROLES,
    #[cfg(target_arch = "x86_64")]
    instants_basin::ROLES,
    #[cfg(target_arch = "x86_64")]
    instants_calls::ROLES,
    #[cfg(target_arch = "x86_64")]
    instants_names::ROLES,
    #[cfg(target_arch = "x86_64")]
    instants_pipes::ROLES,
    handing_over::ROLES,
    #[cfg(target_arch = "x86_64")]
    instants_sparse::ROLES,
    limits::ROLES,
    lock_words::ROLES,
    names::ROLES,
    pipe_names::ROLES,
    pipes::ROLES,
    processes::ROLES,
    semantics::ROLES,
    shared_state::ROLES,
    small_shm::ROLES,
    storm::ROLES,
    stress::ROLES,
    waiting::ROLES,
    unbounded::ROLES,
];
