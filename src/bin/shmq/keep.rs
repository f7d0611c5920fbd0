//! What makes and removes segments: `create`, `rm`, `gc`.

use std::io::Write;

use shmq::{Info, QueueOptions, State};

use crate::arguments::{Create, Gc, Rm};
use crate::failure::{Failure, Outcome, complain, note};
use crate::look;
use crate::text::{bytes, counted, safe};

pub(crate) fn create(create: &Create) -> Outcome {
    let Create { name, capacity, unbounded, max_message, ring_bytes, schema, mode } = create;
    if *capacity == Some(0) && !unbounded {
        let text = "a queue holds at least 1 message; for one without a limit say --unbounded";
        return Err(Failure::Error(text.to_owned()));
    }
    let mut options = QueueOptions::new();
    options
        .capacity(capacity.unwrap_or(0))
        .max_message(*max_message)
        .schema(schema)
        .mode(*mode)
        .persistent(true);
    if let Some(bytes) = ring_bytes {
        options.ring_bytes(*bytes);
    }
    options.create::<()>(name).map_err(Failure::open)?;
    let info = shmq::inspect(name).map_err(Failure::open)?;
    let most = info.capacity.map_or_else(
        || "messages without a limit".to_owned(),
        |capacity| counted(capacity, "message", "messages"),
    );
    let mut output = std::io::stdout().lock();
    writeln!(output, "made {name} for {most} of up to {max_message} bytes; it takes {}", bytes(info.bytes))?;
    Ok(())
}

pub(crate) fn rm(rm: &Rm) -> Outcome {
    let mut failures = rm.names.iter().filter_map(|name| {
        let attached = shmq::inspect(name).map_or(0, |info| info.attached);
        match shmq::remove(name) {
            Ok(()) if attached > 0 => {
                let who = counted(attached, "handle was", "handles were");
                note(&format!("{who} attached to {name}: programs go on without the name, which is free"));
                None
            }
            Ok(()) => None,
            Err(error) => Some(Failure::open(error)),
        }
    });
    let Some(first) = failures.next() else { return Ok(()) };
    let mut last = first;
    for next in failures {
        if let Failure::Error(text) = std::mem::replace(&mut last, next) {
            complain(&text);
        }
    }
    Err(last)
}

pub(crate) fn gc(gc: &Gc) -> Outcome {
    let infos = look::list()?;
    let mut output = std::io::stdout().lock();
    let (done, names) = if gc.dry_run {
        let stale = infos.iter().filter(|info| info.state == State::Stale && may_remove(info));
        ("would remove", stale.map(|info| info.name.clone()).collect())
    } else {
        let removed = shmq::remove_stale();
        ("removed", removed.map_err(|error| Failure::Error(format!("cannot look into /dev/shm: {error}")))?)
    };
    for name in &names {
        match infos.iter().find(|info| info.name == *name) {
            Some(info) => {
                let messages = counted(info.messages, "message", "messages");
                writeln!(output, "{done} {name} ({}, {messages}, {})", info.kind, bytes(info.bytes))?;
            }
            None => writeln!(output, "{done} {name}")?,
        }
    }
    if names.is_empty() {
        note("nothing to remove: everything is used, or is to stay");
    }
    for info in &infos {
        if let State::Broken(reason) = &info.state {
            let name = &info.name;
            note(&format!("{name} is broken and stays ({}); remove it with:  shmq rm {name}", safe(reason)));
        }
    }
    Ok(())
}

/// Whether this user can: in /dev/shm only the owner of an object.
fn may_remove(info: &Info) -> bool {
    let user = rustix::process::geteuid();
    user.is_root() || user.as_raw() == info.owner
}
