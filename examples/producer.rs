//! Puts numbered messages into a named queue. Its other half is `consumer.rs`.
//!
//! ```text
//! terminal 1: cargo run --example producer [-- NAME [COUNT]]
//! terminal 2: cargo run --example consumer [-- NAME [COUNT]]
//! ```
//!
//! Start either first, or several of each: every message goes to one consumer. Then try this:
//!
//! - `kill -9` the consumer. The producer goes on until the queue is full, and waits. Start the consumer
//!   again: it goes on with the next message. At most the one in the hands of the dead is lost.
//! - Kill both, with Ctrl-C or `kill -9`. The queue stays, with its messages, for whoever opens it next.
//! - Give the producer a COUNT. After that many it closes the queue: the consumer takes what is left, and
//!   ends. The queue goes with the last process that ends by itself (or with `rm /dev/shm/shmq.demo`).

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;
use std::{env, process, thread};

use shmq::{PutError, Queue, QueueOptions};

fn main() {
    if let Err(error) = run() {
        eprintln!("producer: {error}");
        process::exit(1);
    }
}

#[expect(clippy::disallowed_methods, reason = "it is to be slow enough to watch")]
fn run() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let name = args.next().unwrap_or_else(|| "demo".to_owned());
    let count = args.next().map_or(Ok(u64::MAX), |count| count.parse());
    let (Ok(count), None, false) = (count, args.next(), name.starts_with('-')) else {
        return Err("usage: producer [NAME [COUNT]]".into());
    };
    let queue: Queue<(u64, String)> =
        QueueOptions::new().capacity(10).schema("numbered messages").open_or_create(&name)?;
    let mut out = io::stdout();
    for number in 1..=count {
        let message = (number, format!("hello from process {}", process::id()));
        while let Err(error) = queue.put_timeout(&message, Duration::from_secs(3)) {
            match error {
                PutError::Full => writeln!(out, "the queue is full: {} messages wait", queue.qsize())?,
                error => return Err(error.into()),
            }
        }
        writeln!(out, "put {number}")?;
        thread::sleep(Duration::from_millis(300));
    }
    queue.close();
    while !queue.empty() {
        writeln!(out, "waiting until somebody has taken the last {} messages", queue.qsize())?;
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
