//! The calls on a queue of bytes, for who locks an end for one call and for who holds it.

use std::io;

use crate::channel::{Channel, Turn};
use crate::deadline::Deadline;
use crate::error::{GetError, PutError, PutManyError};
use crate::ring::Message;

/// A channel, and whether the end in question is held already.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a, T> {
    pub(crate) channel: Channel<'a>,
    pub(crate) turn: T,
}

/// Messages one behind the other in one buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Appends a message that `write` writes behind what counts so far; it says where the message ends. Nothing if it
    /// fails. The buffer may be longer than what counts.
    pub(crate) fn push<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>, usize) -> Result<usize, E>,
    ) -> Result<(), E> {
        let start = self.ends.last().copied().unwrap_or(0);
        let end = write(&mut self.bytes, start)?;
        self.ends.push(end);
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.ends.len()).map(|at| {
            let start = if at == 0 { 0 } else { self.ends[at - 1] };
            &self.bytes[start..self.ends[at]]
        })
    }
}

impl<T: Turn> Access<'_, T> {
    #[inline]
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
        messages: impl ExactSizeIterator<Item = &'m [u8]> + Clone,
        deadline: Deadline,
    ) -> Result<(), PutManyError> {
        let put = self.channel.put_many(self.turn, messages, deadline);
        put.map_err(|(put, error)| PutManyError { put, error })
    }

    #[inline]
    pub(crate) fn get(self, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        let mut message = Vec::new();
        self.channel.get(self.turn, deadline, |first| append(first, &mut message))?;
        Ok(message)
    }

    /// Gets the oldest message into the beginning of `buffer`, which grows if it is too short. Its length.
    #[inline]
    pub(crate) fn get_reusing(self, buffer: &mut Vec<u8>, deadline: Deadline) -> Result<usize, GetError> {
        self.channel.get(self.turn, deadline, |message| {
            let len = message.len();
            if buffer.len() < len {
                buffer.try_reserve_exact(len - buffer.len()).map_err(no_memory)?;
                buffer.resize(len, 0);
            }
            message.copy_to(&mut buffer[..len])?;
            Ok(len)
        })
    }

    #[inline]
    pub(crate) fn get_into(self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, GetError> {
        let taken = self.channel.get(self.turn, deadline, |message| {
            if let Some(buffer) = buffer.get_mut(..message.len()) {
                message.copy_to(buffer)?;
                return Ok(Ok(buffer.len()));
            }
            let mut whole = Vec::new();
            append(message, &mut whole)?;
            Ok(Err(whole))
        })?;
        taken.map_err(|message| GetError::BufferTooShort { message })
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
            let mut bytes = Vec::new();
            messages.try_reserve(1).map_err(no_memory)?;
            append(message, &mut bytes)?;
            messages.push(bytes);
            Ok(())
        })?;
        Ok(messages)
    }

    /// Gets the oldest message if it has at most `max` bytes; a longer one stays.
    pub(crate) fn get_max(self, max: usize, deadline: Deadline) -> Result<Vec<u8>, GetError> {
        self.channel.get(self.turn, deadline, |message| {
            let len = message.len();
            if len > max {
                return Err(GetError::TooLong { len, max });
            }
            let mut bytes = Vec::new();
            append(message, &mut bytes)?;
            Ok(bytes)
        })
    }

    /// The same as [`get_many`](Self::get_many) into one buffer.
    pub(crate) fn get_batch(self, max: usize, deadline: Deadline) -> Result<Batch, GetError> {
        let mut batch = Batch::default();
        self.channel.get_many(self.turn, max, deadline, |message| {
            batch.ends.try_reserve(1).map_err(no_memory)?;
            batch.push(|buffer, _| append(message, buffer).map(|()| buffer.len()))
        })?;
        Ok(batch)
    }
}

#[inline]
fn append(message: &Message<'_>, buffer: &mut Vec<u8>) -> Result<(), GetError> {
    message.append_to(buffer)?.map_err(no_memory)
}

fn no_memory(error: std::collections::TryReserveError) -> GetError {
    GetError::Io(io::Error::new(io::ErrorKind::OutOfMemory, error))
}
