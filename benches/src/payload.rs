//! Messages that know whether they are whole, and numbers that say whether they are in order.

use std::io;

use serde::{Deserialize, Serialize};

/// A message that is numbered when it is put and checked when it is got.
///
/// Its number is at both ends, and a check reads all of it: nothing is optimised away, and whatever is
/// lost, torn or out of order is seen.
pub trait Payload {
    /// A message without a number.
    fn blank() -> Box<Self>;

    /// Gives it a number.
    fn set_number(&mut self, number: u64);

    /// The number that it says it has.
    fn number(&self) -> u64;

    /// Whether it is the whole message of this number.
    fn is_whole(&self, number: u64) -> bool;
}

/// Fills what is between the two numbers.
const FILL: u64 = 0x5348_4d51_5348_4d51;

/// A whole number of words; a single word is nothing but its number.
impl<const N: usize> Payload for [u8; N] {
    fn blank() -> Box<Self> {
        const { assert!(N >= 8 && N.is_multiple_of(8)) };
        // By way of a vector: a long array would not fit on a stack.
        let mut message: Box<Self> = vec![0; N]
            .into_boxed_slice()
            .try_into()
            .unwrap_or_else(|_| unreachable!("N bytes were asked for"));
        for word in message.as_chunks_mut().0 {
            *word = FILL.to_ne_bytes();
        }
        message
    }

    #[inline]
    fn set_number(&mut self, number: u64) {
        let words = self.as_chunks_mut().0;
        if let Some(last) = words.last_mut() {
            *last = number.to_ne_bytes();
        }
        if let Some(first) = words.first_mut() {
            *first = number.to_ne_bytes();
        }
    }

    #[inline]
    fn number(&self) -> u64 {
        self.as_chunks().0.first().map_or(0, |word| u64::from_ne_bytes(*word))
    }

    #[inline]
    fn is_whole(&self, number: u64) -> bool {
        let words = self.as_chunks().0;
        let sum = words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_ne_bytes(*word)));
        let expected = match words.len() {
            1 => number,
            // Two numbers, and what is between them.
            len => FILL.wrapping_mul(len as u64 - 2).wrapping_add(number).wrapping_add(number),
        };
        sum == expected && self.number() == number
    }
}

/// Writes the whole message of this number where it is to lie.
#[inline]
pub fn write_in_place(bytes: &mut [u8], number: u64) {
    let words = bytes.as_chunks_mut().0;
    words.fill(FILL.to_ne_bytes());
    if let Some(last) = words.last_mut() {
        *last = number.to_ne_bytes();
    }
    if let Some(first) = words.first_mut() {
        *first = number.to_ne_bytes();
    }
}

/// A small struct of 64 bytes, as a typed queue would carry.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    number: u64,
    values: [f64; 7],
}

const _: () = assert!(size_of::<Reading>() == 64);

const VALUES: [f64; 7] = [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5];

impl Payload for Reading {
    fn blank() -> Box<Self> {
        Box::new(Self { number: 0, values: VALUES })
    }

    #[inline]
    fn set_number(&mut self, number: u64) {
        self.number = number;
        self.values[0] = f64::from_bits(number);
    }

    #[inline]
    fn number(&self) -> u64 {
        self.number
    }

    #[inline]
    fn is_whole(&self, number: u64) -> bool {
        let sum = |values: &[f64]| values.iter().fold(0, |sum: u64, value| sum.wrapping_add(value.to_bits()));
        let expected = sum(&VALUES).wrapping_add(number);
        self.number == number && sum(&self.values) == expected
    }
}

/// The messages of a producer are numbered from its own first number on.
const PRODUCER_SHIFT: u32 = 40;

/// The first number of a producer.
pub(crate) fn first_number(producer: usize) -> u64 {
    (producer as u64) << PRODUCER_SHIFT
}

/// What a consumer knows of the messages that it has got.
#[derive(Debug)]
pub struct Checks {
    /// For each producer, the least number that its next message can have.
    next: Vec<u64>,
    /// Whether all messages come here, so that the next one has exactly that number.
    alone: bool,
    /// Of all numbers, wrapping: compared with the producers' in the end.
    sum: u64,
}

impl Checks {
    pub(crate) fn new(producers: usize, alone: bool) -> Self {
        Self { next: (0..producers).map(first_number).collect(), alone, sum: 0 }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// It is torn, or not the one that can come next from its producer.
    #[inline]
    pub fn see<P: Payload + ?Sized>(&mut self, message: &P) -> io::Result<()> {
        let number = message.number();
        let producer = usize::try_from(number >> PRODUCER_SHIFT).unwrap_or(usize::MAX);
        let Some(next) = self.next.get_mut(producer) else { return Err(wrong(number)) };
        let in_order = if self.alone { number == *next } else { number >= *next };
        if !(in_order && message.is_whole(number)) {
            return Err(wrong(*next));
        }
        *next = number + 1;
        self.sum = self.sum.wrapping_add(number);
        Ok(())
    }

    /// Reads a whole message of `N` bytes where it lies.
    ///
    /// # Errors
    /// Also if it is shorter or longer.
    #[inline]
    pub fn see_bytes<const N: usize>(&mut self, bytes: &[u8]) -> io::Result<()> {
        let message: &[u8; N] = bytes.try_into().map_err(|_| wrong_length(bytes.len(), N))?;
        self.see(message)
    }
}

#[cold]
fn wrong(number: u64) -> io::Error {
    io::Error::other(format!("message {number:#x} was lost, torn or reordered"))
}

#[cold]
pub(crate) fn wrong_length(len: usize, expected: usize) -> io::Error {
    io::Error::other(format!("a message of {len} bytes where one of {expected} was expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_or_a_wrong_number_is_seen() {
        let mut message = <[u8; 64]>::blank();
        message.set_number(300);
        assert!(message.is_whole(300));
        assert!(!message.is_whole(301));
        for byte in 0..message.len() {
            let mut torn = message.clone();
            torn[byte] ^= 4;
            assert!(!torn.is_whole(300), "byte {byte}");
        }
    }

    #[test]
    fn a_message_written_in_place_is_the_same() {
        let mut message = <[u8; 64]>::blank();
        message.set_number(7);
        let mut bytes = [0; 64];
        write_in_place(&mut bytes, 7);
        assert_eq!(bytes, *message);
        let mut word = <[u8; 8]>::blank();
        word.set_number(9);
        assert!(word.is_whole(9) && !word.is_whole(8));
    }

    #[test]
    fn a_changed_field_or_a_wrong_number_is_seen() {
        let mut reading = Reading::blank();
        reading.set_number(300);
        assert!(reading.is_whole(300));
        assert!(!reading.is_whole(301));
        for value in 0..reading.values.len() {
            let mut torn = *reading;
            torn.values[value] += 1.0;
            assert!(!torn.is_whole(300), "value {value}");
        }
    }

    #[test]
    fn a_lost_or_repeated_message_is_seen() {
        let message = |number| {
            let mut message = <[u8; 64]>::blank();
            message.set_number(number);
            message
        };
        let second = first_number(1);
        let mut alone = Checks::new(2, true);
        alone.see(&*message(0)).unwrap();
        alone.see(&*message(second)).unwrap();
        alone.see(&*message(1)).unwrap();
        assert!(alone.see(&*message(1)).is_err());
        assert!(alone.see(&*message(second + 2)).is_err());
        assert!(alone.see(&*message(first_number(2))).is_err());
        let mut shared = Checks::new(1, false);
        shared.see(&*message(5)).unwrap();
        assert!(shared.see(&*message(4)).is_err());
        assert_eq!(shared.sum(), 5);
    }
}
