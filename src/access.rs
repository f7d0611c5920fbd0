//! The calls on a queue of bytes, for who locks an end for one call and for who holds it.

use std::io;

use crate::channel::{Channel, Turn};
use crate::codec::LARGEST_KEPT;
use crate::deadline::Deadline;
use crate::error::{GetError, PutError, PutManyError};
use crate::sys::region::Span;

/// A channel, and whether the end in question is held already.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a, T> {
    pub(crate) channel: Channel<'a>,
    pub(crate) turn: T,
}

/// Messages one behind the other in one buffer.
pub(crate) struct Batch {
    /// May be longer than what counts.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// What is in the buffer means nothing.
    pub(crate) fn new(buffer: Vec<u8>, messages: usize) -> Self {
        Self { bytes: buffer, ends: Vec::with_capacity(messages) }
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends a message that `write` writes behind what counts so far; it says where the message ends. Nothing if it
    /// fails.
    #[inline]
    pub(crate) fn push<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>, usize) -> Result<usize, E>,
    ) -> Result<(), E> {
        let start = self.ends.last().copied().unwrap_or(0);
        let end = write(&mut self.bytes, start)?;
        self.ends.push(end);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The message of that number.
    #[inline]
    pub(crate) fn message(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }
}

impl<T: Turn> Access<'_, T> {
    #[inline(always)]
    pub(crate) fn put(self, message: &[u8], deadline: Deadline) -> Result<(), PutError> {
        self.channel.put(self.turn, message, deadline)
    }

    #[inline]
    pub(crate) fn put_with(
        self,
        len: usize,
        deadline: Deadline,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), PutError> {
        self.channel.put_with(self.turn, len, deadline, fill)
    }

    pub(crate) fn put_many<'m>(
        self,
        count: usize,
        message: impl Fn(usize) -> &'m [u8],
        deadline: Deadline,
    ) -> Result<(), PutManyError> {
        let put = self.channel.put_many(self.turn, count, message, deadline);
        put.map_err(|(put, error)| PutManyError { put, error })
    }

    #[inline(always)]
    pub(crate) fn get(self, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        self.channel.get(self.turn, deadline, to_vec)
    }

    /// Gets the oldest message into the beginning of `buffer`, which grows if it is too short. Its length.
    #[inline(always)]
    pub(crate) fn get_reusing(self, buffer: &mut Vec<u8>, deadline: Deadline) -> Result<usize, GetError> {
        self.channel.get(self.turn, deadline, |message| {
            let len = message.len();
            if buffer.len() < len {
                grow(buffer, len)?;
            }
            message.copy_to(buffer);
            Ok(len)
        })
    }

    #[inline(always)]
    pub(crate) fn get_into(self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, GetError> {
        let taken = self.channel.get(self.turn, deadline, |message| {
            if message.len() > buffer.len() {
                return too_short_for(message).map(Err);
            }
            message.copy_to(buffer);
            Ok(Ok(message.len()))
        });
        taken?.map_err(|too_short| *too_short)
    }

    #[inline]
    pub(crate) fn get_with<R>(
        self,
        deadline: Deadline,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, GetError> {
        self.channel.get_with(self.turn, deadline, read)
    }

    pub(crate) fn get_many(self, max: usize, deadline: Deadline) -> Result<Vec<Vec<u8>>, GetError> {
        let mut messages = Vec::new();
        self.channel.get_many(self.turn, max, deadline, |message| {
            reserve(&mut messages, (message.pending as usize).min(max))?;
            messages.push(to_vec(message.bytes)?);
            Ok(())
        })?;
        Ok(messages)
    }

    /// Gets the oldest message if it has at most `max` bytes; a longer one stays.
    pub(crate) fn get_max(self, max: usize, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        self.channel.get(self.turn, deadline, |message| {
            let len = message.len();
            if len > max {
                return Err(Box::new(GetError::TooLong { len, max }));
            }
            to_vec(message)
        })
    }

    /// The same as [`get_many`](Self::get_many) into an empty batch.
    pub(crate) fn get_batch(self, batch: &mut Batch, max: usize, deadline: Deadline) -> Result<(), GetError> {
        let got = self.channel.get_many(self.turn, max, deadline, |message| {
            reserve(&mut batch.ends, (message.pending as usize).min(max))?;
            batch.push(|buffer, start| {
                let end = start + message.bytes.len();
                if buffer.len() < end {
                    grow(buffer, end)?;
                }
                message.bytes.copy_to(&mut buffer[start..end]);
                Ok(end)
            })
        });
        got.map(drop)
    }
}

#[inline]
fn to_vec(message: Span<'_>) -> Result<Vec<u8>, Box<GetError>> {
    let mut bytes = Vec::new();
    if message.len() <= SMALL {
        bytes = Vec::with_capacity(message.len());
    }
    append(message, &mut bytes)?;
    Ok(bytes)
}

/// Bytes that a list takes at first. When glibc is asked for more than 1 KiB, it first merges all the small blocks that
/// the last batch left, and has to cut up memory anew for each message: then better after most of them have been used
/// again.
const FIRST_LIST: usize = 1000;

/// Makes room for one more, and for `all` if it can be believed that so many will come.
#[inline]
fn reserve<T>(list: &mut Vec<T>, all: usize) -> Result<(), Box<GetError>> {
    if list.len() == list.capacity() {
        let first = if list.is_empty() { FIRST_LIST / size_of::<T>() } else { usize::MAX };
        list.try_reserve_exact(all.saturating_sub(list.len()).clamp(1, first)).map_err(no_memory)?;
    }
    Ok(())
}

/// A process that cannot have this much memory is at its end; for more, its caller is told.
const SMALL: usize = 64 << 10;

#[inline]
fn append(message: Span<'_>, buffer: &mut Vec<u8>) -> Result<(), Box<GetError>> {
    if message.len() > SMALL {
        buffer.try_reserve_exact(message.len()).map_err(no_memory)?;
    }
    message.append_to(buffer);
    Ok(())
}

/// The error for a message that is longer than the buffer, which is removed nevertheless.
#[cold]
#[inline(never)]
fn too_short_for(message: Span<'_>) -> Result<Box<GetError>, Box<GetError>> {
    to_vec(message).map(|message| Box::new(GetError::BufferTooShort { message }))
}

/// Makes the buffer that long, and as long as buffers that are kept twice as long as it was: it may have to grow again.
#[cold]
fn grow(buffer: &mut Vec<u8>, len: usize) -> Result<(), Box<GetError>> {
    let len = len.max((2 * buffer.len()).min(LARGEST_KEPT));
    buffer.try_reserve_exact(len - buffer.len()).map_err(no_memory)?;
    buffer.resize(len, 0);
    Ok(())
}

#[cold]
#[expect(clippy::unnecessary_box_returns, reason = "as all errors of what copies a message out")]
fn no_memory(error: std::collections::TryReserveError) -> Box<GetError> {
    Box::new(GetError::Io(io::Error::new(io::ErrorKind::OutOfMemory, error)))
}
