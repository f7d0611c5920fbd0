//! Items to messages and back: serde and postcard, in a reused buffer. Knows no lock.

use std::cell::{Cell, RefCell};
use std::fmt;

use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::ser::{self, Serialize, Serializer};

use crate::error::{DecodeError, EncodeError};

/// A scratch buffer that has grown beyond this is not kept.
pub(crate) const LARGEST_KEPT: usize = 4 << 20;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The calling thread's buffer; a new one where it is in use further up the stack. It is as long as it has ever had to
/// be, and what is in it means nothing.
///
/// No guard gives it back: one that is lost to a panic is allocated again, and cleaning up after everything in between
/// would cost each call more.
#[inline]
pub(crate) fn take_scratch() -> Vec<u8> {
    SCRATCH.try_with(Cell::take).unwrap_or_default()
}

#[inline]
pub(crate) fn give_back_scratch(buffer: Vec<u8>) {
    if buffer.capacity() <= LARGEST_KEPT {
        // Gone already while the thread ends: then so is the buffer.
        _ = SCRATCH.try_with(|scratch| scratch.set(buffer));
    }
}

/// Why an item is no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsuitable {
    TooLong { len: usize },
    Encode(EncodeError),
}

/// Encodes `item` into `buffer` from `start` on and says where it ends. What is in the buffer from there on, and how long
/// it is, means nothing: it grows as needed, and is not cleared between two items.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized>(
    item: &T,
    buffer: &mut Vec<u8>,
    start: usize,
    max: usize,
) -> Result<usize, Unsuitable> {
    let remark = RefCell::new(None);
    let limit = start.saturating_add(max);
    let room = buffer.len().min(limit);
    let mut serializer = postcard::Serializer { output: Bounded { buffer, end: start, room, limit } };
    let encoded = item.serialize(Watch { inner: &mut serializer, remark: &remark });
    let end = serializer.output.end;
    match encoded {
        Ok(()) if end <= limit => Ok(end),
        Ok(()) => Err(Unsuitable::TooLong { len: end - start }),
        Err(refusal) => Err(unsuitable(refusal, remark)),
    }
}

#[cold]
fn unsuitable(refusal: Refusal<postcard::Error>, remark: Remark) -> Unsuitable {
    // The first remark is the innermost, and says what is wrong; what came of it further out may not.
    let text = remark.into_inner().unwrap_or_else(|| match *refusal.0 {
        Ok(error) => describe(&error),
        Err(text) => text,
    });
    Unsuitable::Encode(EncodeError(text))
}

/// Decodes all of `message`.
///
/// Errors are only looked at out of line: a look at one here would split the copy of an item, with which it shares its
/// place, into pieces that the processor cannot forward from its stores.
#[inline(always)]
pub(crate) fn decode<T: DeserializeOwned, E>(
    message: &[u8],
    undecodable: impl FnOnce(DecodeError) -> E,
) -> Result<T, E> {
    let mut input = postcard::Deserializer::from_bytes(message);
    match T::deserialize(&mut input) {
        Ok(item) => match input.finalize() {
            Ok([]) => Ok(item),
            Ok(rest) => Err(undecodable(left_over(rest))),
            Err(ref error) => Err(undecodable(wrong(error))),
        },
        Err(ref error) => Err(undecodable(wrong(error))),
    }
}

#[cold]
#[inline(never)]
fn wrong(error: &postcard::Error) -> DecodeError {
    DecodeError(describe(error))
}

#[cold]
#[inline(never)]
fn left_over(rest: &[u8]) -> DecodeError {
    DecodeError(format!(
        "{} bytes are left over; was it put as another type, or with a field that is written but not read \
         (#[serde(skip_deserializing)])?",
        rest.len()
    ))
}

#[cold]
fn describe(error: &postcard::Error) -> String {
    use postcard::Error;
    match error {
        Error::SerializeSeqLengthUnknown => {
            "postcard has to know the length of a sequence or map before its elements: \
             #[serde(flatten)] and iterators of unknown length cannot be carried"
                .to_owned()
        }
        Error::WontImplement => {
            "postcard does not describe its data: types that ask for that (#[serde(untagged)], \
             #[serde(tag = \"...\")], #[serde(flatten)], serde_json::Value) cannot be carried"
                .to_owned()
        }
        Error::DeserializeUnexpectedEnd => {
            "it ends too early; was it put as another type, or with fields that are \
             skipped (#[serde(skip_serializing)], untagged, flatten)?"
                .to_owned()
        }
        error => format!("{error}; was it put as another type?"),
    }
}

/// Writes up to `limit` and counts on beyond that, so that the error can tell how long it is.
struct Bounded<'a> {
    buffer: &'a mut Vec<u8>,
    /// Where what has been written, or counted, ends.
    end: usize,
    /// How far the buffer may be written to as it is.
    room: usize,
    limit: usize,
}

impl Bounded<'_> {
    /// What finds no room in the buffer as it is.
    #[cold]
    #[inline(never)]
    fn extend_slowly(&mut self, bytes: &[u8]) {
        let start = self.end;
        self.end = start.saturating_add(bytes.len());
        if self.end <= self.limit {
            let len = self.end.max(2 * self.buffer.len()).max(256).min(self.limit);
            self.buffer.resize(len, 0);
            self.room = len;
            self.buffer[start..self.end].copy_from_slice(bytes);
        }
    }
}

impl Flavor for Bounded<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.buffer.get_mut(self.end..self.room) {
            Some([place, ..]) => {
                *place = byte;
                self.end += 1;
            }
            _ => self.extend_slowly(&[byte]),
        }
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let place = self.buffer.get_mut(self.end..self.room).and_then(|room| room.get_mut(..bytes.len()));
        match place {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.end += bytes.len();
            }
            None => self.extend_slowly(bytes),
        }
        Ok(())
    }

    /// Where it ends is asked before.
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// A value that postcard is not to encode wrongly without a word.
///
/// postcard writes no field names, so a field left out by `skip_serializing_if` makes the reader take
/// the next field for it. Every value goes through [`Watch`], which refuses such a field; and it keeps
/// the text of a custom error, for which postcard's own has no place.
struct Strict<'a, T: ?Sized> {
    value: &'a T,
    remark: &'a Remark,
}

type Remark = RefCell<Option<String>>;

impl<T: Serialize + ?Sized> Serialize for Strict<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Watch { inner, remark: self.remark }).map_err(|refusal| match *refusal.0 {
            Ok(inner) => inner,
            Err(text) => {
                self.remark.borrow_mut().get_or_insert(text);
                ser::Error::custom("")
            }
        })
    }
}

/// The inner serializer's error, or a text that would be lost in it. In a box, so that what each field returns fits into
/// a register.
struct Refusal<E>(Box<Result<E, String>>);

impl<E> Refusal<E> {
    #[cold]
    fn inner(error: E) -> Self {
        Self(Box::new(Ok(error)))
    }

    fn skipped(field: &str) -> Self {
        Self(Box::new(Err(format!(
            "field `{field}` is skipped (#[serde(skip_serializing_if)]), but postcard writes fields without their \
             names: one that is left out cannot be told from the next; use an Option that is always written"
        ))))
    }
}

impl<E> ser::Error for Refusal<E>
where
    E: ser::Error,
{
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(Box::new(Err(text.to_string())))
    }
}

impl<E: fmt::Display> fmt::Display for Refusal<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Ok(inner) => inner.fmt(f),
            Err(text) => f.write_str(text),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for Refusal<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: std::error::Error> std::error::Error for Refusal<E> {}

/// A serializer, or what it returned for a sequence, map or struct, under watch.
struct Watch<'a, S> {
    inner: S,
    remark: &'a Remark,
}

macro_rules! pass_on {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(#[inline]
        fn $method(self, $($argument: $type),*) -> Result<Self::Ok, Self::Error> {
            self.inner.$method($($argument),*).map_err(Refusal::inner)
        })*
    };
}

macro_rules! open_compound {
    ($($method:ident($($argument:ident: $type:ty),*) -> $compound:ident;)*) => {
        $(#[inline]
        fn $method(self, $($argument: $type),*) -> Result<Self::$compound, Self::Error> {
            let inner = self.inner.$method($($argument),*).map_err(Refusal::inner)?;
            Ok(Watch { inner, remark: self.remark })
        })*
    };
}

impl<'a, S: Serializer> Serializer for Watch<'a, S> {
    type Ok = S::Ok;
    type Error = Refusal<S::Error>;
    type SerializeSeq = Watch<'a, S::SerializeSeq>;
    type SerializeTuple = Watch<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Watch<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Watch<'a, S::SerializeTupleVariant>;
    type SerializeMap = Watch<'a, S::SerializeMap>;
    type SerializeStruct = Watch<'a, S::SerializeStruct>;
    type SerializeStructVariant = Watch<'a, S::SerializeStructVariant>;

    pass_on! {
        serialize_bool(value: bool);
        serialize_i8(value: i8);
        serialize_i16(value: i16);
        serialize_i32(value: i32);
        serialize_i64(value: i64);
        serialize_i128(value: i128);
        serialize_u8(value: u8);
        serialize_u16(value: u16);
        serialize_u32(value: u32);
        serialize_u64(value: u64);
        serialize_u128(value: u128);
        serialize_f32(value: f32);
        serialize_f64(value: f64);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_bytes(value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    open_compound! {
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> SerializeStructVariant;
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Self::Ok, Self::Error> {
        let value = Strict { value, remark: self.remark };
        self.inner.serialize_some(&value).map_err(Refusal::inner)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Self::Ok, Self::Error> {
        let value = Strict { value, remark: self.remark };
        self.inner.serialize_newtype_struct(name, &value).map_err(Refusal::inner)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Self::Ok, Self::Error> {
        let value = Strict { value, remark: self.remark };
        self.inner.serialize_newtype_variant(name, index, variant, &value).map_err(Refusal::inner)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<Self::Ok, Self::Error> {
        self.inner.collect_str(value).map_err(Refusal::inner)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident),*) => {
        $(impl<S: ser::$trait> ser::$trait for Watch<'_, S> {
            type Ok = S::Ok;
            type Error = Refusal<S::Error>;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
                self.inner.$method(&Strict { value, remark: self.remark }).map_err(Refusal::inner)
            }

            #[inline]
            fn end(self) -> Result<Self::Ok, Self::Error> {
                self.inner.end().map_err(Refusal::inner)
            }
        })*
    };
}

elements! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
}

macro_rules! fields {
    ($($trait:ident),*) => {
        $(impl<S: ser::$trait> ser::$trait for Watch<'_, S> {
            type Ok = S::Ok;
            type Error = Refusal<S::Error>;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Self::Error> {
                self.inner.serialize_field(name, &Strict { value, remark: self.remark }).map_err(Refusal::inner)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), Self::Error> {
                Err(Refusal::skipped(name))
            }

            #[inline]
            fn end(self) -> Result<Self::Ok, Self::Error> {
                self.inner.end().map_err(Refusal::inner)
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl<S: ser::SerializeMap> ser::SerializeMap for Watch<'_, S> {
    type Ok = S::Ok;
    type Error = Refusal<S::Error>;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Self::Error> {
        self.inner.serialize_key(&Strict { value: key, remark: self.remark }).map_err(Refusal::inner)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Self::Error> {
        self.inner.serialize_value(&Strict { value, remark: self.remark }).map_err(Refusal::inner)
    }

    #[inline]
    fn end(self) -> Result<Self::Ok, Self::Error> {
        self.inner.end().map_err(Refusal::inner)
    }
}
