//! What `full`, `empty`, `qsize`, a timeout and the `nowait` forms say about a queue with room for three.
//!
//! ```text
//! cargo run --example full_and_empty
//! ```
//!
//! Python programmers know it as the first program of many tutorials on `multiprocessing.Queue(3)`: three puts, a
//! fourth with `q.put(message, True, 2)` and again with `q.put_nowait(message)`, both of which raise `queue.Full`,
//! and a loop over `range(q.qsize())`. In Python `qsize` and `empty` may lag behind a put, which a thread of the
//! process carries out later. Here a put that has returned is in the queue.

#![expect(clippy::print_stdout, reason = "a program, not a library")]

use std::error::Error;
use std::time::Duration;

use shmq::{PutError, Queue};

fn main() -> Result<(), Box<dyn Error>> {
    let queue = Queue::<String>::new(3)?;
    println!("empty: {}", queue.empty());

    for number in 1..=3 {
        queue.put(&format!("message {number}"))?;
        println!("put {number}; full: {}", queue.full());
    }

    let fourth = "message 4".to_owned();
    match queue.put_timeout(&fourth, Duration::from_secs(2)) {
        Err(PutError::Full) => println!("still full after 2 s, with {} messages", queue.qsize()),
        other => other?,
    }
    match queue.put_nowait(&fourth) {
        Err(PutError::Full) => println!("full at once, with {} messages", queue.qsize()),
        other => other?,
    }

    // Good enough with one producer: with several, another may take the room between the look and the put.
    if queue.full() {
        println!("message 4 is not put: the queue is full");
    } else {
        queue.put_nowait(&fourth)?;
    }

    for _ in 0..queue.qsize() {
        println!("got {}", queue.get_nowait()?);
    }
    println!("empty: {}", queue.empty());
    Ok(())
}
