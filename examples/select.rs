//! One process serves three queues and a connection: it sleeps until one of the four has something for it.
//!
//! ```text
//! cargo run --example select
//! ```
//!
//! Python programmers know it as `multiprocessing.connection.wait([...])`, whose documentation has a program that
//! reads from several writers until each is at end of file. There a queue can be waited for only through its
//! private `_reader`.

#![expect(clippy::print_stdout, reason = "a program, not a library")]

use std::error::Error;

use shmq::{Connection, GetError, PutError, Queue, Source};

fn main() -> Result<(), Box<dyn Error>> {
    procspawn::init();

    let queues: [Queue<String>; 3] = [Queue::new(10)?, Queue::new(10)?, Queue::new(10)?];
    let (server, client) = shmq::pipe::<usize, String>()?;
    let asking = procspawn::spawn(client, |client| ask(&client).map_err(|error| error.to_string()));
    let putting = [("red", &queues[0]), ("green", &queues[1]), ("blue", &queues[2])].map(|(color, queue)| {
        procspawn::spawn((queue.clone(), color.to_owned()), |(queue, color)| {
            put(&queue, &color).map_err(|error| error.to_string())
        })
    });

    // What is closed or at end of file stays ready for ever, so it is taken off the list.
    let mut open = vec![0, 1, 2, 3];
    while !open.is_empty() {
        let sources: Vec<&dyn Source> = open
            .iter()
            .map(|&at| queues.get(at).map_or(&server as &dyn Source, |queue| queue as &dyn Source))
            .collect();
        let ready = shmq::wait(&sources, None)?;
        for at in ready.into_iter().map(|index| open[index]).collect::<Vec<_>>() {
            let got = queues.get(at).map_or_else(|| server.recv_nowait(), Queue::get_nowait);
            match got {
                Ok(question) if at == 3 => server.send(&question.len())?,
                Ok(text) => println!("queue {at}: {text}"),
                Err(GetError::Closed) => {
                    println!("{at} has ended");
                    open.retain(|&other| other != at);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    for process in putting {
        process.join()??;
    }
    asking.join()??;
    Ok(())
}

fn put(queue: &Queue<String>, color: &str) -> Result<(), PutError> {
    for number in 1..=3 {
        queue.put(&format!("{color} {number}"))?;
    }
    queue.close();
    Ok(())
}

fn ask(client: &Connection<String, usize>) -> Result<(), Box<dyn Error>> {
    for question in ["how long", "is this?"] {
        client.send(&question.to_owned())?;
        println!("client: {question:?} has {} bytes", client.recv()?);
    }
    Ok(())
}
