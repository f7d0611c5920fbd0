//! Uncontended calls to count the instructions of, for `benches/instructions.sh`.
//!
//! ```text
//! instructions (put | pair | typed | held | batches | in-place) COUNT
//! ```

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;

use shmq::{ByteQueue, Queue, QueueOptions};
use shmq_benches::{BATCH, Payload, Reading};

const LENGTH: usize = 64;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(calls), Some(count)) = (arguments.next(), arguments.next()) else {
        eprintln!("instructions: what to call, and how often");
        return ExitCode::FAILURE;
    };
    let done = count.parse().map_err(Into::into).and_then(|count| call(&calls, count));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn call(calls: &str, count: usize) -> Result<(), Box<dyn Error>> {
    let message = [7; LENGTH];
    let mut got = [0; LENGTH];
    match calls {
        "put" => {
            let mut options = QueueOptions::new();
            // Of one length for every count: what it takes to make the queue is not counted.
            options.capacity(1 << 20).max_message(LENGTH).ring_bytes(72 << 20);
            let queue: ByteQueue = options.anonymous::<()>()?.into();
            for _ in 0..count {
                queue.put(black_box(&message))?;
            }
        }
        "pair" => {
            let queue = ByteQueue::new(1024)?;
            for _ in 0..count {
                queue.put(black_box(&message))?;
                black_box(queue.get_into(&mut got)?);
            }
        }
        "typed" => {
            let queue = Queue::<Reading>::new(1024)?;
            let reading = Reading::blank();
            for _ in 0..count {
                queue.put(black_box(&*reading))?;
                black_box(queue.get()?);
            }
        }
        "held" => {
            let queue = ByteQueue::new(1024)?;
            let (producer, consumer) = (queue.producer()?, queue.consumer()?);
            for _ in 0..count {
                producer.put(black_box(&message))?;
                black_box(consumer.get_into(&mut got)?);
            }
        }
        "batches" => {
            let queue = ByteQueue::new(1024)?;
            let messages = [message.as_slice(); BATCH];
            for _ in 0..count / BATCH {
                queue.put_many(black_box(&messages))?;
                black_box(queue.get_many(BATCH)?);
            }
        }
        "in-place" => {
            let queue = ByteQueue::new(1024)?;
            for _ in 0..count {
                queue.put_with(LENGTH, |bytes| bytes.copy_from_slice(black_box(&message)))?;
                queue.get_with(|bytes| got.copy_from_slice(bytes))?;
            }
        }
        other => return Err(format!("nothing is called {other:?}").into()),
    }
    black_box(&got);
    Ok(())
}
