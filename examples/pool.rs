//! A pool of processes whose tasks are given the same queue as an argument.
//!
//! ```text
//! cargo run --example pool
//! ```
//!
//! Python programmers know it with `q = Manager().Queue()`, `pool.apply(writer, (q,))` and
//! `pool.apply(reader, (q,))`: a plain `multiprocessing.Queue` may not be an argument of a pool's task there
//! ("Queue objects should only be shared between processes through inheritance"), so another process, the manager,
//! keeps the queue and answers for it. Here a queue travels as any value does, and no process stands between.

#![expect(clippy::print_stdout, reason = "a program, not a library")]

use std::error::Error;

use procspawn::Pool;
use shmq::{GetError, PutError, Queue};

fn main() -> Result<(), Box<dyn Error>> {
    procspawn::init();

    println!("the pool starts");
    let pool = Pool::new(3)?;
    // This handle keeps the queue alive between the two tasks, which get clones.
    let queue = Queue::new(20)?;

    // To join at once is `apply`; to keep the handle and join later is `apply_async`.
    let writer = pool.spawn(queue.clone(), |queue| write(&queue).map_err(|error| error.to_string()));
    writer.join()??;
    let reader = pool.spawn(queue.clone(), |queue| read(&queue).map_err(|error| error.to_string()));
    reader.join()??;

    // `close` and `join` in one.
    pool.shutdown();
    println!("the pool has ended");
    Ok(())
}

fn write(queue: &Queue<char>) -> Result<(), PutError> {
    for letter in "letters".chars() {
        queue.put(&letter)?;
        println!("writer put {letter}");
    }
    Ok(())
}

fn read(queue: &Queue<char>) -> Result<(), GetError> {
    for _ in 0..queue.qsize() {
        println!("reader got {}", queue.get()?);
    }
    Ok(())
}
