//! The calls on a queue of items, for who locks an end for one call and for who holds it.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::ser::Serialize;

use crate::access::{Access, Batch};
use crate::channel::Turn;
use crate::codec::{self, Unsuitable, give_back_scratch, take_scratch};
use crate::deadline::Deadline;
use crate::error::{DecodeError, GetError, GetManyError, PutError, PutManyError};
use crate::handover::Sending;

/// Access to a queue whose messages are encoded items.
pub(crate) struct Items<'a, T, W> {
    access: Access<'a, W>,
    max: usize,
    item: PhantomData<fn(T) -> T>,
}

impl<'a, T, W> Items<'a, T, W> {
    #[inline]
    pub(crate) fn new(access: Access<'a, W>, max: usize) -> Self {
        Self { access, max, item: PhantomData }
    }
}

impl<T: Serialize, W: Turn> Items<'_, T, W> {
    #[inline]
    pub(crate) fn put(&self, item: &T, deadline: Deadline) -> Result<(), PutError> {
        let sending = Sending::begin();
        let mut buffer = take_scratch();
        let put = match codec::encode(item, &mut buffer, 0, self.max) {
            Ok(end) => self.access.put(&buffer[..end], deadline),
            Err(unsuitable) => Err(self.refuse(unsuitable)),
        };
        give_back_scratch(buffer);
        put?;
        let packed = sending.packed();
        sending.sent(packed);
        Ok(())
    }

    pub(crate) fn put_many(&self, items: &[T], deadline: Deadline) -> Result<(), PutManyError> {
        let sending = Sending::begin();
        let mut batch = Batch::new(take_scratch(), items.len());
        // Where the count of packed ends grew: mostly nowhere.
        let mut packed = vec![(0, 0)];
        for (at, item) in items.iter().enumerate() {
            let encoded = batch.push(|buffer, start| codec::encode(item, buffer, start, self.max));
            if let Err(unsuitable) = encoded {
                give_back_scratch(batch.into_buffer());
                return Err(PutManyError { put: 0, error: self.refuse(unsuitable) });
            }
            if packed.last().is_none_or(|(_, count)| *count != sending.packed()) {
                packed.push((at + 1, sending.packed()));
            }
        }
        let result = self.access.put_many(batch.len(), |at| batch.message(at), deadline);
        give_back_scratch(batch.into_buffer());
        let put = result.as_ref().map_or_else(|error| error.put, |()| items.len());
        let with_those = packed.iter().rev().find(|(items, _)| *items <= put);
        sending.sent(with_those.map_or(0, |(_, count)| *count));
        result
    }

    #[cold]
    fn refuse(&self, unsuitable: Unsuitable) -> PutError {
        match unsuitable {
            Unsuitable::TooLong { len } => PutError::TooLong { len, max: self.max },
            Unsuitable::Encode(error) => PutError::Encode(error),
        }
    }
}

impl<T: DeserializeOwned, W: Turn> Items<'_, T, W> {
    #[inline]
    pub(crate) fn get(&self, deadline: Deadline) -> Result<T, GetError> {
        let mut buffer = take_scratch();
        let got = self.access.get_reusing(&mut buffer, deadline);
        let item = got.and_then(|len| decode(&buffer[..len]));
        give_back_scratch(buffer);
        item
    }

    pub(crate) fn get_many(&self, max: usize, deadline: Deadline) -> Result<Vec<T>, GetManyError<T>> {
        let mut batch = Batch::new(take_scratch(), 0);
        let items = match self.access.get_batch(&mut batch, max, deadline) {
            Ok(()) => decode_all(&batch),
            Err(error) => Err(GetManyError::from(error)),
        };
        give_back_scratch(batch.into_buffer());
        items
    }
}

fn decode_all<T: DeserializeOwned>(batch: &Batch) -> Result<Vec<T>, GetManyError<T>> {
    let mut got = Vec::with_capacity(batch.len());
    for at in 0..batch.len() {
        match decode(batch.message(at)) {
            Ok(item) => got.push(item),
            Err(error) => {
                let rest = (at + 1..batch.len()).map(|at| batch.message(at).to_vec()).collect();
                return Err(GetManyError { got, error, rest });
            }
        }
    }
    Ok(got)
}

#[inline(always)]
fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<T, GetError> {
    codec::decode(message, |error| undecodable(message, error))
}

#[cold]
#[inline(never)]
fn undecodable(message: &[u8], error: DecodeError) -> GetError {
    GetError::Decode { message: message.to_vec(), error }
}
