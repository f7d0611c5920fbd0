//! What users may rely on, tested from outside: through the public interface, with real processes.
//!
//! Each module is one subject. `harness` is how a test gets child processes that cannot outlive it,
//! names that nobody else uses, and a deadline.

#[cfg(test)]
mod broken;
#[cfg(test)]
mod death;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fire;
#[cfg(test)]
mod fork;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod looking;
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
#[cfg(test)]
mod storm;
#[cfg(test)]
mod stress;

/// What a child process does, by name: the table from which `harness::child` picks.
#[cfg(test)]
const ROLES: &[&[(&str, harness::Role)]] = &[
    broken::ROLES,
    death::ROLES,
    fire::ROLES,
    fork::ROLES,
    limits::ROLES,
    names::ROLES,
    processes::ROLES,
    semantics::ROLES,
    small_shm::ROLES,
    storm::ROLES,
    stress::ROLES,
];
