//! Messages that know whether they are whole and in order.

use serde::{Deserialize, Serialize};

/// A message that is numbered when it is put and checked when it is got.
///
/// Its number is at both ends, and a check reads all of it: nothing is optimised away, and whatever is
/// lost, torn or out of order is seen.
pub trait Payload {
    /// A message without a number.
    fn blank() -> Self;

    /// Gives it a number.
    fn set_number(&mut self, number: u64);

    /// Whether it is the whole message of this number.
    fn is_whole(&self, number: u64) -> bool;
}

/// Fills what is between the two numbers.
const FILL: u64 = 0x5348_4d51_5348_4d51;
const MIDDLE: u64 = 6;

impl Payload for [u8; 64] {
    fn blank() -> Self {
        let mut message = [0; 64];
        for word in message.as_chunks_mut().0 {
            *word = FILL.to_ne_bytes();
        }
        message
    }

    #[inline]
    fn set_number(&mut self, number: u64) {
        if let ([first, .., last], _) = self.as_chunks_mut() {
            *first = number.to_ne_bytes();
            *last = *first;
        }
    }

    #[inline]
    fn is_whole(&self, number: u64) -> bool {
        let words = self.as_chunks().0;
        let sum = words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_ne_bytes(*word)));
        let expected = FILL.wrapping_mul(MIDDLE).wrapping_add(number).wrapping_add(number);
        sum == expected && words.first().is_some_and(|word| u64::from_ne_bytes(*word) == number)
    }
}

/// A small struct of 64 bytes, as a typed queue would carry.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    number: u64,
    values: [f64; 7],
}

const _: () = assert!(size_of::<Reading>() == 64);

impl Payload for Reading {
    fn blank() -> Self {
        Self { number: 0, values: [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5] }
    }

    #[inline]
    fn set_number(&mut self, number: u64) {
        self.number = number;
        self.values[0] = f64::from_bits(number);
    }

    #[inline]
    fn is_whole(&self, number: u64) -> bool {
        let sum = |values: &[f64]| values.iter().fold(0, |sum: u64, value| sum.wrapping_add(value.to_bits()));
        let expected = sum(&Self::blank().values).wrapping_add(number);
        self.number == number && sum(&self.values) == expected
    }
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
            let mut torn = message;
            torn[byte] ^= 4;
            assert!(!torn.is_whole(300), "byte {byte}");
        }
    }

    #[test]
    fn a_changed_field_or_a_wrong_number_is_seen() {
        let mut reading = Reading::blank();
        reading.set_number(300);
        assert!(reading.is_whole(300));
        assert!(!reading.is_whole(301));
        for value in 0..reading.values.len() {
            let mut torn = reading;
            torn.values[value] += 1.0;
            assert!(!torn.is_whole(300), "value {value}");
        }
    }
}
