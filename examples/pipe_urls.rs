//! One process sends ten URLs through a pipe, another one receives them until the end of file.
//!
//! ```text
//! cargo run --example pipe_urls
//! ```
//!
//! Python programmers know it as `proc_send(pipe[0], urls)` and `proc_recv(pipe[1])`, whose receiver loops for
//! ever and has to be terminated: the end of file comes only when every process has closed its copy of the sending
//! end, and a process started by `fork` has one without asking. Here an end that is handed over is gone from the
//! process that had it, so the receiver sees the end of file when the sender has ended.

#![expect(clippy::print_stdout, reason = "a program, not a library")]

use std::error::Error;

use shmq::{GetError, PutError, Receiver, Sender};

fn main() -> Result<(), Box<dyn Error>> {
    procspawn::init();

    let (receiver, sender) = shmq::simplex()?;
    let sending = procspawn::spawn(sender, |urls| send(&urls).map_err(|error| error.to_string()));
    let receiving = procspawn::spawn(receiver, |urls| receive(&urls).map_err(|error| error.to_string()));
    sending.join()??;
    receiving.join()??;
    Ok(())
}

fn send(urls: &Sender<String>) -> Result<(), PutError> {
    for number in 0..10 {
        let url = format!("url_{number}");
        println!("send: {url}");
        urls.send(&url)?;
    }
    Ok(())
}

fn receive(urls: &Receiver<String>) -> Result<(), GetError> {
    loop {
        match urls.recv() {
            Ok(url) => println!("receive: {url}"),
            Err(GetError::Closed) => break,
            Err(error) => return Err(error),
        }
    }
    println!("receive: end of file");
    Ok(())
}
