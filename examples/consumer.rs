//! Prints the messages of a named queue as they come. Its other half is `producer.rs`, which says what to
//! type in which terminal, and what to try.
//!
//! ```text
//! cargo run --example consumer [-- NAME [COUNT]]
//! ```
//!
//! Kill it at any moment (`kill -9`) and start it again: it attaches to the queue as it is and goes on with
//! the next message. There is nothing to clean up or to repair.

use std::error::Error;
use std::io::{self, Write};
use std::{env, process};

use shmq::{GetError, Queue, QueueOptions};

fn main() {
    if let Err(error) = run() {
        eprintln!("consumer: {error}");
        process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let name = args.next().unwrap_or_else(|| "demo".to_owned());
    let count = args.next().map_or(Ok(u64::MAX), |count| count.parse());
    let (Ok(count), None, false) = (count, args.next(), name.starts_with('-')) else {
        return Err("usage: consumer [NAME [COUNT]]".into());
    };
    let queue: Queue<(u64, String)> =
        QueueOptions::new().capacity(10).schema("numbered messages").open_or_create(&name)?;
    let mut out = io::stdout();
    writeln!(out, "process {}: {} messages wait in {name:?}", process::id(), queue.qsize())?;
    for _ in 0..count {
        match queue.get() {
            Ok((number, text)) => writeln!(out, "{number}: {text}")?,
            Err(GetError::Closed) => {
                writeln!(out, "the queue is closed, and everything in it has been taken")?;
                break;
            }
            // Something else put it there. It is out of the queue now.
            Err(error @ GetError::Decode { .. }) => eprintln!("consumer: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
