//! `shmq`: looking after the queues of this machine from a terminal.
//!
//! It sees what every user of the library sees. Looking (`ls`, `stat`, `peek`, `watch`) takes no lease; who puts or
//! gets attaches as a guest, whose leaving removes nothing.

mod arguments;
mod failure;
mod flow;
mod keep;
mod look;
mod sink;
mod text;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use arguments::{Action, Arguments};
use failure::{Failure, Outcome};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(action: Action) -> Outcome {
    match action {
        Action::Create(create) => keep::create(&create),
        Action::Ls(ls) => look::ls(&ls),
        Action::Stat(stat) => look::stat(&stat),
        Action::Peek(peek) => look::peek(&peek),
        Action::Watch(watch) => watch::watch(&watch),
        Action::Put(put) => flow::put(&put),
        Action::Get(get) => flow::get(&get),
        Action::Drain(drain) => flow::drain(&drain),
        Action::Rm(rm) => keep::rm(&rm),
        Action::Gc(gc) => keep::gc(&gc),
        Action::Completions { shell } => completions(shell),
    }
}

fn completions(shell: clap_complete::Shell) -> Outcome {
    // Through memory: the generator panics when its reader has gone.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "shmq", &mut script);
    std::io::stdout().write_all(&script).map_err(Failure::from)
}
