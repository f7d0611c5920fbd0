//! Requests and responses through one pipe.
//!
//! ```text
//! cargo run --example pipe_duplex
//! ```
//!
//! Python programmers know it as `parent, child = Pipe()` with `send` and `recv` on both ends. In Python either end
//! carries anything; here each end says what it sends and what it receives, and mixing them up does not compile.

#![expect(clippy::print_stdout, reason = "a program, not a library")]

use std::error::Error;

use serde::{Deserialize, Serialize};
use shmq::{Connection, GetError};

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Add(i64, i64),
    Divide(i64, i64),
}

type Response = Result<i64, String>;

fn main() -> Result<(), Box<dyn Error>> {
    procspawn::init();

    let (client, server) = shmq::pipe::<Request, Response>()?;
    let serving = procspawn::spawn(server, |server| serve(&server).map_err(|error| error.to_string()));

    for request in [Request::Add(20, 22), Request::Divide(84, 2), Request::Divide(1, 0)] {
        client.send(&request)?;
        match client.recv()? {
            Ok(value) => println!("{request:?} is {value}"),
            Err(why) => println!("{request:?} failed: {why}"),
        }
    }

    // The server's `recv` says `Closed`: the end of file.
    client.close();
    println!("the server answered {} requests", serving.join()??);
    Ok(())
}

fn serve(server: &Connection<Response, Request>) -> Result<u32, Box<dyn Error>> {
    for answered in 0.. {
        let response = match server.recv() {
            Ok(Request::Add(left, right)) => Ok(left + right),
            Ok(Request::Divide(left, right)) => {
                left.checked_div(right).ok_or_else(|| "division by zero".to_owned())
            }
            Err(GetError::Closed) => return Ok(answered),
            Err(error) => return Err(error.into()),
        };
        server.send(&response)?;
    }
    unreachable!("the numbers do not end")
}
