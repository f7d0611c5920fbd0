//! Two processes write URLs, one reads them for ever, until it is terminated.
//!
//! ```text
//! cargo run --example two_writers_one_reader
//! ```
//!
//! Python programmers know it as `proc_write` and `proc_read`, with `reader.terminate()` at the end because the
//! reader loops for ever. Python's documentation warns of just that: a process terminated while it uses a queue
//! may leave the queue's lock held or half a message in its pipe, and whoever uses the queue next hangs or fails.
//! Here the reader may be killed at any instruction, and the queue is as good as before: the last lines show it.

#![expect(clippy::print_stdout, reason = "a program, not a library")]

use std::error::Error;
use std::thread;
use std::time::Duration;

use shmq::{GetError, PutError, Queue};

fn main() -> Result<(), Box<dyn Error>> {
    procspawn::init();

    let urls: Queue<String> = Queue::new(10)?;
    let mut reader = procspawn::spawn(urls.clone(), |urls| read(&urls).to_string());
    let writers = [("writer 1", ["url_1", "url_2", "url_3"]), ("writer 2", ["url_4", "url_5", "url_6"])]
        .map(|(name, list)| (name.to_owned(), list.map(str::to_owned)))
        .map(|(name, list)| {
            procspawn::spawn((urls.clone(), name, list), |(urls, name, list)| {
                write(&urls, &name, &list).map_err(|error| error.to_string())
            })
        });

    for writer in writers {
        writer.join()??;
    }
    // The writers have ended, but the reader may not have got to the last URL yet.
    urls.join();
    println!("all URLs have been dealt with");

    reader.kill()?;
    if reader.join().is_err() {
        println!("the reader was terminated");
    }

    urls.put(&"url_7".to_owned())?;
    println!("the queue still works: {}", urls.get()?);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "it is to be slow enough to watch")]
fn write(urls: &Queue<String>, name: &str, list: &[String]) -> Result<(), PutError> {
    for url in list {
        println!("{name} puts {url}");
        urls.put(url)?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Returns only because of an error: usually it is terminated.
fn read(urls: &Queue<String>) -> GetError {
    loop {
        match urls.get() {
            Ok(url) => println!("reader got {url}"),
            Err(error) => return error,
        }
        // Fails if it is called more often than something was got.
        _ = urls.task_done();
    }
}
