//! What users may rely on, tested from outside: through the public interface, with real processes.
//!
//! Each module is one subject. `harness` is how a test gets child processes that cannot outlive it,
//! names that nobody else uses, and a deadline.

#[cfg(test)]
mod batches;
#[cfg(test)]
mod broken;
#[cfg(test)]
mod death;
#[cfg(test)]
mod fork;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod held;
#[cfg(test)]
mod holders;
#[cfg(test)]
mod in_place;
#[cfg(test)]
mod joinable;
#[cfg(test)]
mod names;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod rooms;
#[cfg(test)]
mod semantics;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod small_shm;

/// What a child process does, by name: the table from which `harness::child` picks.
#[cfg(test)]
const ROLES: &[&[(&str, harness::Role)]] = &[
    batches::ROLES,
    broken::ROLES,
    death::ROLES,
    fork::ROLES,
    held::ROLES,
    holders::ROLES,
    in_place::ROLES,
    joinable::ROLES,
    names::ROLES,
    processes::ROLES,
    semantics::ROLES,
    small_shm::ROLES,
];
