//! One process writes into a queue; when it has ended, another one reads until the queue is empty.
//!
//! ```text
//! cargo run --example write_then_read
//! ```
//!
//! Python programmers know it with `Process(target=write, args=(q,))`, "Put A to queue..." and
//! "Get A from queue.". `while not q.empty()` is a safe end here for the reason that holds in Python too: nobody
//! puts any more. While somebody may, let the writer `close` the queue, and read with `for letter in &queue`.

#![expect(clippy::print_stdout, reason = "a program, not a library")]

use std::error::Error;
use std::thread;
use std::time::Duration;

use shmq::{GetError, PutError, Queue};

fn main() -> Result<(), Box<dyn Error>> {
    // A child is this program again. It runs its function in here, and does not come back.
    procspawn::init();

    // The queue lives as long as somebody has a handle: the children get clones, and this one stays.
    let queue = Queue::unbounded()?;

    let writer = procspawn::spawn(queue.clone(), |queue| write(&queue).map_err(|error| error.to_string()));
    // The first `?` is for the process, the second one for what its function returned.
    writer.join()??;

    let reader = procspawn::spawn(queue.clone(), |queue| read(&queue).map_err(|error| error.to_string()));
    reader.join()??;

    println!("all that was written has been read");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "it is to be slow enough to watch")]
fn write(queue: &Queue<char>) -> Result<(), PutError> {
    for letter in ['A', 'B', 'C'] {
        println!("Put {letter} to queue...");
        queue.put(&letter)?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn read(queue: &Queue<char>) -> Result<(), GetError> {
    while !queue.empty() {
        println!("Get {} from queue.", queue.get()?);
    }
    Ok(())
}
