//! Two pairs of a producer and a consumer side by side: one that waits, and one that does not.
//!
//! ```text
//! cargo run --example blocking_and_not
//! ```
//!
//! Python programmers know it as `q.put(i)` and `q.get()` on one side, and `q.put_nowait(i)` and `q.get_nowait()`
//! with `except queue.Full` and `except queue.Empty` on the other. Here these are values, and beside them there is
//! `Closed`: a consumer learns that nothing will come any more and ends by itself.

#![expect(clippy::print_stdout, reason = "a program, not a library")]
#![expect(clippy::disallowed_methods, reason = "somebody has to be slow for somebody else to wait")]

use std::error::Error;
use std::thread;
use std::time::Duration;

use shmq::{GetError, PutError, Queue};

const PAUSE: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn Error>> {
    procspawn::init();

    // These handles stay here: a queue lives as long as somebody has one.
    let (waiting, trying) = (Queue::new(2)?, Queue::new(2)?);
    let processes = [
        procspawn::spawn(waiting.clone(), |queue| produce(&queue).map_err(|error| error.to_string())),
        procspawn::spawn(waiting.clone(), |queue| consume(&queue).map_err(|error| error.to_string())),
        procspawn::spawn(trying.clone(), |queue| produce_nowait(&queue).map_err(|error| error.to_string())),
        procspawn::spawn(trying.clone(), |queue| consume_nowait(&queue).map_err(|error| error.to_string())),
    ];
    for process in processes {
        process.join()??;
    }
    println!("all four have ended: both queues are closed and empty");
    Ok(())
}

fn produce(queue: &Queue<u32>) -> Result<(), PutError> {
    (1..=5).try_for_each(|number| queue.put(&number))?;
    queue.close();
    Ok(())
}

fn consume(queue: &Queue<u32>) -> Result<(), GetError> {
    loop {
        match queue.get() {
            Ok(number) => println!("blocking: got {number}"),
            Err(GetError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
        thread::sleep(PAUSE);
    }
}

fn produce_nowait(queue: &Queue<u32>) -> Result<(), PutError> {
    for number in 1..=5 {
        while let Err(error) = queue.put_nowait(&number) {
            match error {
                PutError::Full => thread::sleep(PAUSE), // or something useful
                error => return Err(error),
            }
        }
    }
    queue.close();
    Ok(())
}

fn consume_nowait(queue: &Queue<u32>) -> Result<(), GetError> {
    loop {
        match queue.get_nowait() {
            Ok(number) => println!("nowait: got {number}"),
            Err(GetError::Empty) => thread::sleep(PAUSE), // or something useful
            Err(GetError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
