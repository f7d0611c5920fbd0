//! One direction of one end of a pipe: a handle that can put into a channel, or get from it.

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};

use crate::access::Access;
use crate::attachment::{self, Attachment, Patience};
use crate::channel::{Channel, Classes, Once, Port};
use crate::error::OpenError;
use crate::handover;
use crate::layout::{Expected, Kind, Lane};
use crate::membership::{self, Ticket};
use crate::sys::ofd::Class;

/// What a half does with its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Put,
    Get,
}

impl Part {
    fn other(self) -> Self {
        match self {
            Self::Put => Self::Get,
            Self::Get => Self::Put,
        }
    }

    /// The class of those who do this with the channel.
    pub(crate) fn class(self, lane: Lane) -> Class {
        Class::new(2 * lane as u8 + self as u8)
    }
}

/// A member of one of a pipe's four classes. Clones share it.
pub(crate) struct Half {
    attachment: Attachment,
    part: Part,
    lane: Lane,
    port: Port,
}

impl Half {
    /// Makes an attachment one of this end's, which is open. The class is not marked as opened yet.
    pub(crate) fn enter(attachment: Attachment, lane: Lane, part: Part) -> Result<Self, OpenError> {
        let name = attachment.name().to_owned();
        Self::enter_with(attachment, lane, part, None)?.ok_or(OpenError::NotFound { name })
    }

    /// `None` if the end is closed.
    fn enter_with(
        attachment: Attachment,
        lane: Lane,
        part: Part,
        ticket: Option<Ticket>,
    ) -> Result<Option<Self>, OpenError> {
        let mut patience = Patience::new();
        loop {
            match membership::enter(&attachment, part.class(lane), ticket).map_err(OpenError::Io)? {
                Some(true) => break,
                Some(false) => return Ok(None),
                None => patience.pause()?,
            }
        }
        let classes = Classes { put: Part::Put.class(lane), get: Part::Get.class(lane) };
        let channel = Port::new(&attachment, lane, Some(classes));
        Ok(Some(Self { attachment, part, lane, port: channel }))
    }

    pub(crate) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    pub(crate) fn name(&self) -> &str {
        self.attachment.name()
    }

    pub(crate) fn max_message(&self) -> usize {
        self.port.shape.max_message
    }

    pub(crate) fn channel(&self) -> Channel<'_> {
        Channel::new(&self.attachment, &self.port)
    }

    pub(crate) fn access(&self) -> Access<'_, Once> {
        Access { channel: self.channel(), turn: Once }
    }

    /// Whether somebody is, or was, at the other end of the channel and nobody ever will be again.
    pub(crate) fn is_alone(&self) -> bool {
        membership::has_ended(&self.attachment, self.part.other().class(self.lane))
    }
}

impl Drop for Half {
    /// Leaves first and wakes then: who waits for the end finds it.
    ///
    /// Killed in between: they look for themselves within 75 ms.
    fn drop(&mut self) {
        self.attachment.leave();
        self.channel().wake_all();
        handover::sweep();
    }
}

/// How a half travels: name, nonce, one-way or not, second channel or not, ticket.
type Parcel = (String, u64, bool, bool, (u8, u64));

/// A duplicate of a half. It is called back when this goes, unless it has been sent.
struct Duplicate {
    parcel: Parcel,
    ticket: Option<Ticket>,
}

impl Duplicate {
    fn of(half: &Half) -> Result<Self, OpenError> {
        let ticket = handover::pack(&half.attachment, half.part.class(half.lane))?;
        let geometry = half.attachment.geometry();
        let (one_way, second) = (geometry.kind == Kind::Simplex, half.lane == Lane::Second);
        let parcel = (half.name().to_owned(), geometry.nonce, one_way, second, ticket.to_parts());
        Ok(Self { parcel, ticket: Some(ticket) })
    }

    /// Its ticket is in the serializer's hands.
    fn sent(&mut self) {
        self.ticket = None;
    }
}

impl Drop for Duplicate {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            handover::call_back(ticket);
        }
    }
}

pub(crate) fn serialize<S: Serializer>(half: &Half, serializer: S) -> Result<S::Ok, S::Error> {
    let mut duplicate = Duplicate::of(half).map_err(S::Error::custom)?;
    let output = duplicate.parcel.serialize(serializer)?;
    duplicate.sent();
    Ok(output)
}

/// Both halves of an end, or neither.
pub(crate) fn serialize_both<S: Serializer>(
    sending: &Half,
    receiving: &Half,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut sending = Duplicate::of(sending).map_err(S::Error::custom)?;
    let mut receiving = Duplicate::of(receiving).map_err(S::Error::custom)?;
    let output = (&sending.parcel, &receiving.parcel).serialize(serializer)?;
    sending.sent();
    receiving.sent();
    Ok(output)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
    part: Part,
) -> Result<Arc<Half>, D::Error> {
    let (name, nonce, one_way, second, ticket) = Parcel::deserialize(deserializer)?;
    let kind = if one_way { Kind::Simplex } else { Kind::Pipe };
    let lane = if second && !one_way { Lane::Second } else { Lane::First };
    let expected = Expected { kind, schema: "", nonce: Some(nonce) };
    let attachment = attachment::open(&name, expected).map_err(D::Error::custom)?;
    let ticket = Some(Ticket::from_parts(ticket));
    let entered = Half::enter_with(attachment, lane, part, ticket).map_err(D::Error::custom)?;
    handover::sweep();
    match entered {
        Some(half) => Ok(Arc::new(half)),
        None => Err(D::Error::custom("the end of the pipe was closed before this duplicate of it arrived")),
    }
}
