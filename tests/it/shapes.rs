//! Which items a queue carries, and what it says of those that it cannot.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CString, OsString};
use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZero, Wrapping};
use std::ops::{Bound, Range, RangeInclusive};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use serde::de::{self, DeserializeOwned, Visitor};
use serde::ser::{self, SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shmq::{GetError, PutError, Queue, QueueOptions};

use crate::harness::Stage;

/// Goes through a queue and is the same afterwards.
#[track_caller]
fn carried<T: Serialize + DeserializeOwned + PartialEq + Debug>(items: impl IntoIterator<Item = T>) {
    let _stage = Stage::new();
    let queue = Queue::new(2).unwrap();
    for item in items {
        queue.put(&item).unwrap();
        assert_eq!(queue.get().unwrap(), item);
    }
    assert!(queue.empty());
}

/// Is refused by put, for a reason that names `feature`; nothing is put, and the queue goes on.
#[track_caller]
fn not_encoded<T: Serialize + DeserializeOwned + Debug>(item: &T, feature: &str) {
    let _stage = Stage::new();
    let queue = Queue::new(2).unwrap();
    for _ in 0..2 {
        let Err(PutError::Encode(error)) = queue.put(item) else { panic!("{item:?} was put") };
        assert!(error.to_string().contains(feature), "it does not name {feature}: {error}");
        assert!(queue.empty());
    }
    goes_on(&queue);
}

/// Is refused by get, for a reason that names `feature`; the message comes back whole, and the queue goes on.
#[track_caller]
fn not_decoded<T: Serialize + DeserializeOwned + Debug>(item: &T, feature: &str) {
    let _stage = Stage::new();
    let queue = Queue::<T>::new(2).unwrap();
    queue.put(item).unwrap();
    let raw = queue.bytes().get().unwrap();
    for _ in 0..2 {
        queue.put(item).unwrap();
        let got = queue.get();
        let Err(GetError::Decode { message, error }) = got else { panic!("{item:?} came back: {got:?}") };
        assert_eq!(message, raw);
        assert!(error.to_string().contains(feature), "it does not name {feature}: {error}");
        assert!(queue.empty());
    }
    goes_on(&queue);
}

#[track_caller]
fn goes_on<T>(queue: &Queue<T>) {
    queue.bytes().put(b"next").unwrap();
    assert_eq!(queue.bytes().get().unwrap(), b"next");
}

// What is carried

#[test]
fn every_integer_is_carried_at_both_ends_of_its_range() {
    carried([false, true]);
    carried([u8::MIN, 127, 128, u8::MAX]);
    carried([u16::MIN, 127, 128, 16_383, 16_384, u16::MAX]);
    carried([u32::MIN, 1 << 28, u32::MAX]);
    carried([u64::MIN, 1 << 56, u64::MAX]);
    carried([u128::MIN, 1 << 100, u128::MAX]);
    carried([usize::MIN, usize::MAX]);
    carried([i8::MIN, -1, 0, 1, i8::MAX]);
    carried([i16::MIN, -1, 0, 1, i16::MAX]);
    carried([i32::MIN, -1, 0, 1, i32::MAX]);
    carried([i64::MIN, -1, 0, 1, i64::MAX]);
    carried([i128::MIN, -1, 0, 1, i128::MAX]);
    carried([isize::MIN, isize::MAX]);
    carried([NonZero::<u32>::MIN, NonZero::<u32>::MAX]);
    carried([Wrapping(7_u64)]);
}

#[test]
fn floats_are_carried_bit_by_bit() {
    carried([0.0, -0.0, 1.5, f32::MIN, f32::MAX, f32::EPSILON, f32::INFINITY, f32::NEG_INFINITY]);
    carried([0.0, -0.0, 1.5, f64::MIN, f64::MAX, f64::EPSILON, f64::INFINITY, f64::NEG_INFINITY]);
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    for bits in [f64::NAN.to_bits(), 0x7ff0_0000_0000_0001, (-0.0_f64).to_bits()] {
        queue.put(&f64::from_bits(bits)).unwrap();
        assert_eq!(queue.get().unwrap().to_bits(), bits);
    }
}

#[test]
fn text_is_carried() {
    carried(['a', '\0', 'ä', '\u{ffff}', '\u{10ffff}']);
    carried([String::new(), "a".to_owned(), "ä€😀\0".to_owned(), "x".repeat(8000)]);
    carried([Cow::Borrowed("borrowed"), Cow::Owned("owned".to_owned())]);
    carried([Box::<str>::from("boxed")]);
    carried([CString::new("c").unwrap()]);
    carried([OsString::from("os")]);
    carried([PathBuf::from("/a/b"), PathBuf::new()]);
}

/// What `serde_bytes` does: the bytes in one piece, not as a sequence of numbers.
#[derive(Debug, PartialEq)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taker;

        impl Visitor<'_> for Taker {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_owned()))
            }
        }
        deserializer.deserialize_bytes(Taker)
    }
}

#[test]
fn bytes_are_carried() {
    carried([Bytes(vec![]), Bytes((0..=255).collect())]);
    carried([vec![0_u8, 255], vec![]]);
    carried([Box::<[u8]>::from([1, 2, 3])]);
}

#[test]
fn options_and_results_are_carried_however_nested() {
    carried([None, Some(0), Some(u64::MAX)]);
    carried([None, Some(None), Some(Some(())), Some(None)]);
    carried([Ok(1_u8), Err("no".to_owned())]);
}

#[test]
fn sequences_and_maps_are_carried() {
    carried([vec![], vec![1_u32], (0..1000).collect()]);
    carried([vec![vec![]], vec![vec!["x".to_owned()], vec![]]]);
    carried([[0_u16; 0]]);
    carried([[1_u16, 2, 3]]);
    carried([[[1_u8; 2]; 3]]);
    carried([[(); 4]]);
    carried([(1_u8,)]);
    carried([(1_u8, -2_i64, 'c', "d".to_owned(), (5.0, ()), [6_u8; 7])]);
    carried([VecDeque::from([1, 2, 3])]);
    carried([LinkedList::from([1, 2, 3])]);
    carried([HashMap::from([(1, "one".to_owned()), (2, "two".to_owned())]), HashMap::new()]);
    carried([HashSet::from([1_u8, 2]), HashSet::new()]);
    carried([BTreeMap::from([("a".to_owned(), vec![1]), ("b".to_owned(), vec![])])]);
    carried([BTreeMap::from([((1, Some('k')), None::<u8>)])]);
    carried([BTreeSet::from([Reverse(1_u8), Reverse(2)])]);
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    queue.put(&BinaryHeap::from([1, 3, 2])).unwrap();
    assert_eq!(queue.get().unwrap().into_sorted_vec(), [1, 2, 3]);
}

#[test]
fn types_of_the_standard_library_are_carried() {
    carried([Duration::ZERO, Duration::MAX, Duration::from_nanos(1)]);
    carried([SystemTime::UNIX_EPOCH + Duration::from_nanos(123_456_789)]);
    carried([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    carried(["127.0.0.1:80".parse::<SocketAddr>().unwrap(), "[::1]:80".parse().unwrap()]);
    carried([Range { start: 1, end: 2 }]);
    carried([RangeInclusive::new('a', 'z')]);
    carried([Bound::Included(1), Bound::Excluded(2), Bound::Unbounded]);
    carried([Box::new(1)]);
    carried([Cell::new(1)]);
    carried([RefCell::new(vec![1])]);
    carried([PhantomData::<fn(u8)>]);
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    queue.put(&(Mutex::new(7), AtomicU32::new(8))).unwrap();
    let (locked, atomic) = queue.get().unwrap();
    assert_eq!((locked.into_inner().unwrap(), atomic.load(Ordering::Relaxed)), (7, 8));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tuple(u8, Unit, Option<Newtype>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Struct<T> {
    number: i128,
    inner: T,
    list: Vec<Tuple>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Enum {
    Unit,
    Newtype(Newtype),
    Tuple(u8, char),
    Struct { name: String, value: Option<Box<Enum>> },
    Empty {},
    None(),
}

#[test]
fn every_kind_of_struct_is_carried() {
    carried([Unit]);
    carried([Newtype(String::new()), Newtype("n".to_owned())]);
    let tuple = Tuple(1, Unit, Some(Newtype("t".to_owned())));
    carried([tuple.clone()]);
    let inner = Struct { number: -1, inner: (), list: vec![tuple.clone(), tuple] };
    carried([Struct { number: i128::MAX, inner: Struct { number: 0, inner, list: vec![] }, list: vec![] }]);
}

#[test]
fn every_kind_of_enum_variant_is_carried() {
    let nested = Enum::Struct { name: "in".to_owned(), value: Some(Box::new(Enum::Unit)) };
    let variants = [
        Enum::Unit,
        Enum::Newtype(Newtype("v".to_owned())),
        Enum::Tuple(1, 'x'),
        Enum::Struct { name: "out".to_owned(), value: Some(Box::new(nested)) },
        Enum::Empty {},
        Enum::None(),
    ];
    carried(variants.clone());
    carried([variants.to_vec()]);
    carried([BTreeMap::from([(1, variants.to_vec())])]);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf(u32),
    Fork(Box<Tree>, Box<Tree>),
}

#[test]
fn a_deep_tree_is_carried() {
    let tree = (0..500).fold(Tree::Leaf(0), |tree, n| Tree::Fork(Box::new(tree), Box::new(Tree::Leaf(n))));
    carried([tree]);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename = "other name")]
struct Attributes {
    #[serde(rename = "type")]
    kind: u8,
    /// Left out on both sides: this is how it should be done.
    #[serde(skip)]
    cache: Option<u64>,
    #[serde(alias = "old")]
    new: u16,
    #[serde(with = "as_text")]
    text: u32,
    #[serde(default)]
    present: u8,
    transparent: Transparent,
    converted: Converted,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Transparent {
    only: i8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
struct Converted(u8);

impl From<u16> for Converted {
    fn from(wide: u16) -> Self {
        Self(u8::try_from(wide / 2).unwrap())
    }
}

impl From<Converted> for u16 {
    fn from(Converted(narrow): Converted) -> Self {
        Self::from(narrow) * 2
    }
}

mod as_text {
    use super::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[test]
fn attributes_that_change_nothing_but_names_are_carried() {
    carried([Attributes {
        kind: 1,
        cache: None,
        new: 2,
        text: 3,
        present: 4,
        transparent: Transparent { only: -5 },
        converted: Converted(6),
    }]);
    let _stage = Stage::new();
    let queue = Queue::new(1).unwrap();
    queue.put(&Skipping { before: 1, skipped: 2, after: 3 }).unwrap();
    assert_eq!(queue.get().unwrap(), Skipping { before: 1, skipped: 0, after: 3 });
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Skipping {
    before: u8,
    #[serde(skip)]
    skipped: u8,
    after: u8,
}

// What is not

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Struct { name: String },
}

#[test]
fn an_untagged_enum_is_refused_by_name() {
    not_decoded(&Untagged::Number(1), "untagged");
    not_decoded(&Untagged::Struct { name: "u".to_owned() }, "untagged");
    not_decoded(&vec![Some(Untagged::Number(1))], "untagged");
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum InternallyTagged {
    Unit,
    Struct { name: String },
    Newtype(Plain),
}

#[derive(Debug, Serialize, Deserialize)]
struct Plain {
    number: u32,
}

#[test]
fn an_internally_tagged_enum_is_refused_by_name() {
    not_decoded(&InternallyTagged::Unit, "tag");
    not_decoded(&InternallyTagged::Struct { name: "i".to_owned() }, "tag");
    not_decoded(&InternallyTagged::Newtype(Plain { number: 1 }), "tag");
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "content")]
enum AdjacentlyTagged {
    Unit,
    Newtype(u32),
    Tuple(u8, char),
    Struct { name: String },
}

/// postcard could, but serde reads the tag of a sequence as it reads the name of a field.
#[test]
fn an_adjacently_tagged_enum_is_refused_by_name() {
    not_decoded(&AdjacentlyTagged::Unit, "tag");
    not_decoded(&AdjacentlyTagged::Newtype(1), "tag");
    not_decoded(&AdjacentlyTagged::Tuple(2, 't'), "tag");
    not_decoded(&vec![AdjacentlyTagged::Struct { name: "s".to_owned() }], "tag");
}

#[derive(Debug, Serialize, Deserialize)]
struct Flattened {
    before: u8,
    #[serde(flatten)]
    inner: Plain,
}

#[derive(Debug, Serialize, Deserialize)]
struct Rest {
    known: u8,
    #[serde(flatten)]
    others: BTreeMap<String, u8>,
}

#[test]
fn a_flattened_field_is_refused_by_name() {
    not_encoded(&Flattened { before: 1, inner: Plain { number: 2 } }, "flatten");
    not_encoded(&vec![Flattened { before: 1, inner: Plain { number: 2 } }], "flatten");
    not_encoded(&Rest { known: 1, others: BTreeMap::from([("a".to_owned(), 1)]) }, "flatten");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SkippedIf {
    #[serde(skip_serializing_if = "Option::is_none")]
    maybe: Option<u8>,
    after: u8,
}

/// Left out, `after` would be read as `maybe`: a wrong item and no error. So it is refused by put, but only
/// when there is something to leave out.
#[test]
fn a_field_skipped_at_times_is_refused_when_it_is_skipped() {
    let skipped = SkippedIf { maybe: None, after: 1 };
    not_encoded(&skipped, "skip_serializing_if");
    not_encoded(&skipped, "maybe");
    not_encoded(&Some(vec![(1, skipped)]), "skip_serializing_if");
    carried([SkippedIf { maybe: Some(1), after: 2 }]);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum SkippedInVariant {
    Variant {
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        list: Vec<u8>,
        after: u8,
    },
}

#[test]
fn a_field_skipped_at_times_in_a_variant_is_refused_when_it_is_skipped() {
    not_encoded(&SkippedInVariant::Variant { list: vec![], after: 1 }, "skip_serializing_if");
    carried([SkippedInVariant::Variant { list: vec![1], after: 1 }]);
}

#[derive(Debug, Serialize, Deserialize)]
struct SkippedInTuple(#[serde(skip_serializing_if = "Option::is_none")] Option<u8>, u8);

/// serde does not tell the serializer of a field left out of a tuple, so this shows when it is read.
#[test]
fn a_field_skipped_at_times_in_a_tuple_is_refused_by_name() {
    not_decoded(&SkippedInTuple(None, 1), "skip_serializing");
}

#[derive(Debug, Serialize, Deserialize)]
struct NeverWritten {
    #[serde(skip_serializing, default)]
    #[expect(dead_code, reason = "for its type")]
    unwritten: u32,
    after: u8,
}

#[test]
fn a_field_that_is_never_written_but_read_is_refused_by_name() {
    not_decoded(&NeverWritten { unwritten: 1, after: 2 }, "skip_serializing");
}

#[derive(Debug, Serialize, Deserialize)]
struct NeverRead {
    before: u8,
    #[serde(skip_deserializing)]
    unread: u32,
}

#[test]
fn a_field_that_is_written_but_never_read_is_refused_by_name() {
    not_decoded(&NeverRead { before: 1, unread: 2 }, "skip_deserializing");
}

/// A value of a format that describes itself (`serde_json::Value`, ...): it asks what comes next.
#[derive(Debug)]
struct Anything(u32);

impl Serialize for Anything {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(de::IgnoredAny).map(|_| Self(0))
    }
}

#[test]
fn a_type_that_asks_what_comes_next_is_refused() {
    not_decoded(&Anything(1), "does not describe its data");
}

/// Does not say how long it is before it begins.
#[derive(Debug, Deserialize)]
struct Endless(Vec<u8>);

impl Serialize for Endless {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;
        for byte in &self.0 {
            sequence.serialize_element(byte)?;
        }
        sequence.end()
    }
}

#[derive(Debug, Deserialize)]
struct EndlessMap(BTreeMap<u8, u8>);

impl Serialize for EndlessMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[test]
fn a_sequence_of_unknown_length_is_refused() {
    not_encoded(&Endless(vec![1]), "length");
    not_encoded(&EndlessMap(BTreeMap::from([(1, 1)])), "length");
}

/// Refuses to be written, or to be read, with a word of its own.
#[derive(Debug)]
struct Stubborn(bool);

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 { self.0.serialize(serializer) } else { Err(ser::Error::custom("not on a Sunday: 42")) }
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom("not on a Monday: 43"))
    }
}

#[test]
fn the_word_of_a_type_that_refuses_to_be_encoded_is_kept() {
    not_encoded(&Stubborn(false), "not on a Sunday: 42");
    not_encoded(&vec![(1, Some(Stubborn(false)))], "not on a Sunday: 42");
    not_encoded(&BTreeMap::from([(1, Newtyped(Stubborn(false)))]), "not on a Sunday: 42");
    not_decoded(&Stubborn(true), "");
}

#[derive(Debug, Serialize, Deserialize)]
struct Newtyped<T>(T);

/// Adds where it was to what its field says, as careful implementations do.
#[derive(Debug)]
struct Tells(SkippedIf);

impl Serialize for Tells {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tells = serializer.serialize_struct("Tells", 1)?;
        let field = tells.serialize_field("field", &self.0);
        field.map_err(|error| ser::Error::custom(format!("in Tells.field: {error}")))?;
        tells.end()
    }
}

impl<'de> Deserialize<'de> for Tells {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom("nobody reads it"))
    }
}

#[test]
fn what_is_wrong_is_told_even_if_a_type_around_it_has_a_word_of_its_own() {
    let tells = || Tells(SkippedIf { maybe: None, after: 1 });
    not_encoded(&tells(), "skip_serializing_if");
    not_encoded(&Some(tells()), "skip_serializing_if");
}

#[test]
fn a_message_that_goes_on_after_the_item_is_refused_whole() {
    let _stage = Stage::new();
    let queue = Queue::<u16>::new(2).unwrap();
    queue.bytes().put(b"\x05tail").unwrap();
    queue.put(&6).unwrap();
    let Err(GetError::Decode { message, error }) = queue.get() else { panic!("it was decoded") };
    assert_eq!(message, b"\x05tail");
    assert!(error.to_string().contains('4'), "it does not tell how much is left: {error}");
    assert_eq!(queue.get().unwrap(), 6);
}

#[test]
fn a_message_of_another_type_is_refused_whole() {
    let _stage = Stage::new();
    let queue = Queue::<(u64, String)>::new(4).unwrap();
    for foreign in [
        &b""[..],
        b"\x01",
        b"\x01\x09short",
        b"\x01\x02\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
    ] {
        queue.bytes().put(foreign).unwrap();
        let Err(GetError::Decode { message, error }) = queue.get() else { panic!("{foreign:?} was decoded") };
        assert_eq!(message, foreign);
        assert!(!error.to_string().is_empty());
    }
    queue.put(&(1, "one".to_owned())).unwrap();
    assert_eq!(queue.get().unwrap(), (1, "one".to_owned()));
}

/// A length that lies does not take memory for what is not there.
#[test]
fn a_message_that_claims_to_be_enormous_is_refused() {
    let _stage = Stage::new();
    let queue = Queue::<Vec<u64>>::new(1).unwrap();
    queue.bytes().put(b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f").unwrap();
    assert!(matches!(queue.get(), Err(GetError::Decode { .. })));
}

#[test]
fn an_item_too_long_when_encoded_is_refused_with_its_true_length() {
    let _stage = Stage::new();
    let queue: Queue<(u8, String)> = QueueOptions::new().capacity(2).max_message(100).anonymous().unwrap();
    // One byte for the number, one or two for the length of the text.
    queue.put(&(0, "x".repeat(98))).unwrap();
    for (text, encoded) in [(99, 101), (127, 129), (128, 131), (20_000, 20_004)] {
        let put = queue.put(&(0, "x".repeat(text)));
        let Err(PutError::TooLong { len, max }) = put else { panic!("{put:?}") };
        assert_eq!((len, max), (encoded, 100));
        assert_eq!(queue.qsize(), 1);
    }
    queue.put(&(1, "y".repeat(98))).unwrap();
    assert_eq!(queue.get().unwrap(), (0, "x".repeat(98)));
    assert_eq!(queue.get().unwrap(), (1, "y".repeat(98)));
}

#[test]
fn a_large_item_is_carried_where_it_is_allowed() {
    let _stage = Stage::new();
    let queue: Queue<Vec<u32>> = QueueOptions::new().capacity(1).max_message(8 << 20).anonymous().unwrap();
    let large: Vec<u32> = (0..1_000_000).collect();
    queue.put(&large).unwrap();
    assert_eq!(queue.get().unwrap(), large);
}
