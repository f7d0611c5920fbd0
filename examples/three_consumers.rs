//! 150,000 numbers are put before anybody takes one; then three processes take 50,000 each.
//!
//! ```text
//! cargo run --release --example three_consumers
//! ```
//!
//! Python programmers know it as the program that shows that a queue may be filled long before its consumers
//! start, and that no number comes twice or not at all. There the numbers wait in the memory of the process that
//! put them, and pass one by one through a pipe. Here they all lie in shared memory, of which the queue takes as much as it
//! needs. Who gets which number is for the system to decide.

#![expect(clippy::print_stdout, reason = "a program, not a library")]

use std::error::Error;

use shmq::{GetError, Queue};

const CONSUMERS: u32 = 3;
const EACH: u32 = 50_000;
const ALL: u32 = CONSUMERS * EACH;

fn main() -> Result<(), Box<dyn Error>> {
    procspawn::init();

    let numbers: Queue<u32> = Queue::unbounded()?;
    for number in 0..ALL {
        numbers.put(&number)?;
    }
    println!("{} numbers wait", numbers.qsize());

    let consumers: Vec<_> = (1..=CONSUMERS)
        .map(|consumer| {
            let process = procspawn::spawn(numbers.clone(), |numbers| {
                take(&numbers).map_err(|error| error.to_string())
            });
            (consumer, process)
        })
        .collect();

    let mut union = Vec::new();
    for (consumer, process) in consumers {
        let taken = process.join()??;
        if let [first, second, .., last] = taken[..] {
            println!("consumer {consumer} took {} numbers ({first}, {second} ... {last})", taken.len());
        }
        union.extend(taken);
    }

    union.sort_unstable();
    let exact = union.into_iter().eq(0..ALL);
    println!("together they took each number exactly once: {exact}; empty: {}", numbers.empty());
    Ok(())
}

fn take(numbers: &Queue<u32>) -> Result<Vec<u32>, GetError> {
    (0..EACH).map(|_| numbers.get()).collect()
}
