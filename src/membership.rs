//! Who is in a class of a segment, and whether anybody ever will be again: the ends of a pipe.
//!
//! The lease is the record of who holds an end. A handle of an end locks a byte of the end's class; whoever
//! asks whether the end is closed asks the kernel whether anybody is in the class. An end on its way to
//! another process is a *ticket*: a word of the segment that says so, and a byte that the sender keeps locked
//! for as long as it keeps the duplicate. That may be longer than it takes to be claimed, so the byte has nothing
//! to do with the word's place, which is free again at once.
//!
//! | ticket                 | meaning                                                        |
//! | ---------------------- | -------------------------------------------------------------- |
//! | 0                      | free, or claimed                                               |
//! | serial, byte and class | on its way, as long as somebody keeps the ticket's byte locked |
//!
//! **An end ends once, for good.** `ended` is set only by who has barred the class, so that nobody is in it and
//! nobody can enter, and has found no ticket of it on its way. Who enters locks a byte first and looks at
//! `ended` afterwards.
//!
//! Killed in between: a class that was barred can be entered again, a byte without a ticket is nothing, a ticket
//! without a byte is dead and its place is used again.

use std::io;
use std::sync::atomic::Ordering::SeqCst;

use crate::attachment::Attachment;
use crate::layout::TICKETS;
use crate::sys::ofd::{Class, TOMB};
use crate::sys::random;

/// The class of the tickets' bytes.
const TICKET: Class = Class::new(4);
/// The class of the one who is opening an end.
const OPENING: Class = Class::new(5);
/// The part of a ticket's word that names its class: one more than the number.
const CLASS: u64 = 0xff;
/// Where in a ticket's word its byte begins, which has 28 bits. Above it is the serial, which is random.
const BYTE: u32 = 8;
const SERIAL: u32 = BYTE + 28;

/// An end on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    place: u8,
    word: u64,
}

impl Ticket {
    pub(crate) fn from_parts((place, word): (u8, u64)) -> Self {
        Self { place, word }
    }

    pub(crate) fn to_parts(self) -> (u8, u64) {
        (self.place, self.word)
    }
}

fn bit(class: Class) -> u32 {
    1 << class.number()
}

/// Marks classes as opened. Their members are in them already.
pub(crate) fn open(segment: &Attachment, classes: &[Class]) {
    let bits = classes.iter().fold(0, |bits, class| bits | bit(*class));
    segment.live().opened.fetch_or(bits, SeqCst);
}

pub(crate) fn was_opened(segment: &Attachment, class: Class) -> bool {
    segment.live().opened.load(SeqCst) & bit(class) != 0
}

/// Whether the class has had members and will never have one again.
pub(crate) fn has_ended(segment: &Attachment, class: Class) -> bool {
    let live = segment.live();
    if live.ended.load(SeqCst) & bit(class) != 0 {
        return true;
    }
    if !was_opened(segment, class) || segment.lease().is_entered(class) {
        return false;
    }
    end(segment, class)
}

#[cold]
fn end(segment: &Attachment, class: Class) -> bool {
    segment.lease().if_nobody_enters(class, || {
        let ended = !is_on_its_way(segment, class);
        if ended {
            segment.live().ended.fetch_or(bit(class), SeqCst);
        }
        ended
    })
}

fn is_on_its_way(segment: &Attachment, class: Class) -> bool {
    segment.live().tickets.iter().any(|word| {
        let word = word.load(SeqCst);
        word & CLASS == u64::from(class.number()) + 1 && is_kept(segment, word)
    })
}

/// The byte of the ticket with this word.
#[expect(clippy::cast_possible_truncation, reason = "28 bits")]
fn byte(word: u64) -> u32 {
    (word >> BYTE) as u32 & TOMB
}

fn is_kept(segment: &Attachment, word: u64) -> bool {
    segment.lease().is_member(TICKET, byte(word))
}

/// Enters the class. `None` if somebody is just finding out that it is empty: try again.
///
/// With a ticket that is still on its way, or while another member is in it; else the end is closed, and false.
pub(crate) fn enter(segment: &Attachment, class: Class, ticket: Option<Ticket>) -> io::Result<Option<bool>> {
    let carried = ticket
        .is_some_and(|ticket| load(segment, ticket) == Some(ticket.word) && is_kept(segment, ticket.word));
    if ticket.is_some() && !carried && !segment.lease().is_entered(class) && !is_on_its_way(segment, class) {
        return Ok(Some(false));
    }
    if !segment.lease().enter(class)? {
        return Ok(None);
    }
    if segment.live().ended.load(SeqCst) & bit(class) != 0 {
        return Ok(Some(false));
    }
    if let (true, Some(ticket)) = (carried, ticket) {
        withdraw(segment, ticket);
    }
    Ok(Some(true))
}

fn load(segment: &Attachment, ticket: Ticket) -> Option<u64> {
    segment.live().tickets.get(usize::from(ticket.place)).map(|word| word.load(SeqCst))
}

/// Sends the end on its way, for as long as `segment`, an attachment of its own, is kept.
pub(crate) fn send(segment: &Attachment, class: Class) -> io::Result<Ticket> {
    let Some(byte) = segment.lease().enter_alone(TICKET)? else {
        return Err(io::ErrorKind::ResourceBusy.into());
    };
    bury(segment, byte);
    let word = random()? << SERIAL | u64::from(byte) << BYTE | (u64::from(class.number()) + 1);
    for (place, of_place) in (0..).zip(&segment.live().tickets) {
        let before = of_place.load(SeqCst);
        if (before == 0 || !is_kept(segment, before))
            && of_place.compare_exchange(before, word, SeqCst, SeqCst).is_ok()
        {
            return Ok(Ticket { place, word });
        }
    }
    Err(io::Error::other(format!(
        "{TICKETS} ends of this pipe are on their way to other processes already; wait until some have arrived"
    )))
}

/// A dead sender's ticket is not to live again because its byte has got a new bearer.
fn bury(segment: &Attachment, new: u32) {
    for word in &segment.live().tickets {
        let before = word.load(SeqCst);
        if before != 0 && byte(before) == new {
            _ = word.compare_exchange(before, 0, SeqCst, SeqCst);
        }
    }
}

/// Whether nobody has claimed it.
pub(crate) fn is_waiting(segment: &Attachment, ticket: Ticket) -> bool {
    load(segment, ticket) == Some(ticket.word)
}

/// The end has arrived, or will not be sent after all.
pub(crate) fn withdraw(segment: &Attachment, ticket: Ticket) {
    if let Some(word) = segment.live().tickets.get(usize::from(ticket.place)) {
        _ = word.compare_exchange(ticket.word, 0, SeqCst, SeqCst);
    }
}

/// Locks out everybody else who would open an end, for as long as `segment` is attached.
pub(crate) fn begin_opening(segment: &Attachment) -> io::Result<bool> {
    segment.lease().enter_as(OPENING, 0)
}
