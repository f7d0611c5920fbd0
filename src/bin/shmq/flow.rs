//! Messages in and out: `put`, `get`, `drain`.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use shmq::{ByteQueue, GetError, PutError};

use crate::arguments::{Drain, Get, Put};
use crate::failure::{Failure, Outcome, note};
use crate::look;
use crate::sink::{Delivery, Ready, Sink, is_stand_in};
use crate::text::{counted, printable};

const GONE: &str = "the queue has gone: it was removed, or the last process that used it has left";
/// How long to wait before looking at something else: whether the reader has gone, or the queue.
const SLICE: Duration = Duration::from_millis(200);

pub(crate) fn put(put: &Put) -> Outcome {
    let queue = ByteQueue::open_as_guest(&put.name).map_err(Failure::open)?;
    let mut puts = Puts { queue: &queue, timeout: put.timeout, done: 0, looked: Instant::now() };
    if !put.messages.is_empty() {
        return put.messages.iter().try_for_each(|message| puts.put(message.as_bytes(), "message"));
    }
    let (end, what) = if put.null { (0, "message") } else { (b'\n', "line") };
    let max = longest(&put.name)?;
    let mut input = io::stdin().lock();
    if is_stand_in(io::stdin())? {
        return Err(Failure::Error(
            "the input was closed; nothing was put (to put nothing: < /dev/null)".to_owned(),
        ));
    }
    if io::stdin().is_terminal() {
        note("each line is a message; end with Ctrl-D");
    }
    let cannot_read = |error| Failure::Error(format!("cannot read the input: {error}"));
    let mut message = Vec::new();
    if put.whole {
        // One more than fits, so that what does not is not read to its end.
        input.take(max + 1).read_to_end(&mut message).map_err(cannot_read)?;
        return puts.put(&message, "message");
    }
    loop {
        message.clear();
        if (&mut input).take(max + 2).read_until(end, &mut message).map_err(cannot_read)? == 0 {
            return Ok(());
        }
        message.pop_if(|last| *last == end);
        let put = puts.put(&message, what);
        if put.is_err() {
            // Whoever wrote it into a pipe takes it for read.
            note(&format!("read and not put: {}", printable(&message)));
        }
        put?;
    }
}

/// The longest message that the queue carries.
fn longest(name: &str) -> Result<u64, Failure> {
    shmq::inspect(name).map(|info| info.max_message).map_err(Failure::open)
}

struct Puts<'a> {
    queue: &'a ByteQueue,
    timeout: Option<Duration>,
    done: u64,
    /// When it was last asked whether the queue has gone.
    looked: Instant,
}

impl Puts<'_> {
    fn put(&mut self, message: &[u8], what: &str) -> Outcome {
        let start = Instant::now();
        loop {
            if start.duration_since(self.looked) > SLICE || start.elapsed() > SLICE {
                self.looked = Instant::now();
                if self.queue.is_abandoned() {
                    return Err(Failure::Error(self.stopped(GONE)));
                }
            }
            let left = self.timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            match self.queue.put_timeout(message, left.map_or(SLICE, |left| left.min(SLICE))) {
                Ok(()) => {
                    self.done += 1;
                    return Ok(());
                }
                Err(PutError::Full) if left.is_none_or(|left| !left.is_zero()) => {}
                Err(PutError::Full) => {
                    let text = "the queue is full, and no message was taken in time";
                    return Err(Failure::TimedOut(self.stopped(text)));
                }
                Err(PutError::TooLong { max, .. }) => {
                    let number = self.done + 1;
                    return Err(Failure::Error(self.stopped(&format!(
                        "{what} {number} is longer than {max} bytes, the longest message that this queue carries \
                         (see create --max-message)"
                    ))));
                }
                Err(error) => {
                    let why = Failure::put(self.queue.name(), &error);
                    return Err(Failure::Error(self.stopped(&why)));
                }
            }
        }
    }

    /// The end before the end of the input, in words.
    fn stopped(&self, why: &str) -> String {
        match self.done {
            0 => format!("{why}\nnothing was put"),
            done => format!("{why}\n{} put before that", counted(done, "message was", "messages were")),
        }
    }
}

pub(crate) fn get(get: &Get) -> Outcome {
    let queue = ByteQueue::open_as_guest(&get.name).map_err(Failure::open)?;
    Gets::new(&queue, get.null)?.all(|gets| {
        let mut waited = Duration::ZERO;
        while get.count.is_none_or(|count| gets.done < count) {
            let left = get.timeout.map(|timeout| timeout.saturating_sub(waited));
            match gets.get(left.map_or(SLICE, |left| left.min(SLICE)))? {
                Got::Message => waited = Duration::ZERO,
                Got::Closed => break,
                Got::Nothing(_) if left.is_some_and(|left| left.is_zero()) => return gets.timed_out(),
                Got::Nothing(time) => waited += time,
                Got::NotAsked if queue.is_closed() && queue.empty() => break,
                Got::NotAsked => {}
            }
            if queue.empty() && queue.is_abandoned() {
                note(GONE);
                break;
            }
        }
        Ok(())
    })
}

pub(crate) fn drain(drain: &Drain) -> Outcome {
    /// Somebody who gets one message has done so by then.
    const PATIENCE: Duration = Duration::from_secs(1);
    let queue = ByteQueue::open_as_guest(&drain.name).map_err(Failure::open)?;
    Gets::new(&queue, drain.null)?.all(|gets| {
        // Those that are there now: where others go on putting there is no end.
        let there = queue.qsize() as u64;
        while gets.done < there && !queue.empty() {
            match gets.get(PATIENCE)? {
                Got::Message | Got::NotAsked => {}
                Got::Closed => break,
                Got::Nothing(_) if queue.empty() => break,
                Got::Nothing(_) => {
                    return Err(Failure::Error(format!("got {} of {there}{}", gets.done, blocked(&queue))));
                }
            }
        }
        Ok(())
    })
}

/// Why there are messages and none is to be had.
fn blocked(queue: &ByteQueue) -> String {
    let mut text = format!(
        "\n{} there, but another process is in the middle of taking one, or keeps the others from it",
        counted(queue.qsize() as u64, "message is", "messages are")
    );
    for user in look::users(queue.name()) {
        _ = write!(text, "\n  it is used by {user}");
    }
    text
}

enum Got {
    Message,
    /// And how long it waited for one.
    Nothing(Duration),
    /// The reader of the output is not ready for one.
    NotAsked,
    Closed,
}

struct Gets<'a> {
    queue: &'a ByteQueue,
    sink: Sink,
    done: u64,
}

impl<'a> Gets<'a> {
    fn new(queue: &'a ByteQueue, null: bool) -> Result<Self, Failure> {
        let sink = Sink::new(if null { 0 } else { b'\n' }).map_err(Failure::from)?;
        Ok(Self { queue, sink, done: 0 })
    }

    fn timed_out(&self) -> Outcome {
        if self.done > 0 {
            return Ok(());
        }
        let mut text = "no message in the time given".to_owned();
        if !self.queue.empty() {
            text += &blocked(self.queue);
        }
        Err(Failure::TimedOut(text))
    }

    /// The messages that `get` takes, to the end; and then what has become of them.
    fn all(mut self, get: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        let outcome = get(&mut self);
        self.finish();
        outcome
    }

    /// Gets a message and prints it; it is removed when that is done.
    fn get(&mut self, timeout: Duration) -> Result<Got, Failure> {
        /// The message stays in the queue: thrown out of `get_with`, which removes what was read to the end.
        struct Keep(Failure);

        match self.sink.wait_until_ready(SLICE)? {
            Ready::Yes => {}
            Ready::NotYet => return Ok(Got::NotAsked),
            Ready::ReaderGone => return Err(Failure::ReaderGone),
        }
        let Self { queue, sink, .. } = self;
        let alone = || queue.stats().attached == 1;
        let start = Instant::now();
        let got = catch_unwind(AssertUnwindSafe(|| {
            queue.get_with_timeout(timeout, |message| {
                let failure = match sink.deliver(message, alone) {
                    Ok(Delivery::Done) => return,
                    Ok(Delivery::ReaderGone) => Failure::ReaderGone,
                    Err(error) => Failure::from(error),
                };
                resume_unwind(Box::new(Keep(failure)));
            })
        }));
        match got {
            Ok(Ok(())) => {
                self.done += 1;
                Ok(Got::Message)
            }
            Ok(Err(GetError::Empty)) => Ok(Got::Nothing(start.elapsed())),
            Ok(Err(GetError::Closed)) => Ok(Got::Closed),
            Ok(Err(error)) => Err(Failure::get(queue.name(), &error)),
            Err(thrown) => match thrown.downcast::<Keep>() {
                Ok(keep) => Err(keep.0),
                Err(panic) => resume_unwind(panic),
            },
        }
    }

    /// Tells of a message that was taken, and that the reader then went without reading.
    fn finish(&mut self) {
        let mut messages = self.sink.never_read().peekable();
        if messages.peek().is_some() {
            note("taken from the queue, but the reader of the output went without reading it:");
        }
        for message in messages {
            note(&printable(message));
        }
    }
}
