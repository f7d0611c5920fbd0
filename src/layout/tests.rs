//! Golden offsets, and headers that are not to be believed.

use super::*;

const QUEUE: Expected<'_> = Expected { kind: Kind::Queue, schema: "", nonce: None };

fn geometry() -> Geometry {
    Geometry {
        kind: Kind::Queue,
        persistent: true,
        anonymous: false,
        nonce: 0x0123_4567_89ab_cdef,
        schema: "label".to_owned(),
        shape: Shape::new(3, 100, 336),
    }
}

fn check(bytes: &[u8], expected: Expected<'_>) -> Result<Geometry, Disbelief> {
    let len = geometry().segment_len() as u64;
    UncheckedHeader::read(bytes).expect("the magic is there").check(len, expected)
}

/// The format on disk. If this fails, either put it back or raise `VERSION`.
#[test]
fn the_header_has_its_bytes_where_they_have_always_been() {
    let bytes = geometry().to_bytes();
    assert_eq!(bytes.len(), 512);
    let field = |from: usize, len: usize| {
        u64::from_le_bytes({
            let mut word = [0; 8];
            word[..len].copy_from_slice(&bytes[from..from + len]);
            word
        })
    };
    assert_eq!(&bytes[0..8], b"shmq seg");
    assert_eq!(field(8, 4), 1, "format version");
    assert_eq!(field(12, 4), 1, "flags: persistent");
    assert_eq!(field(16, 8), 0x0123_4567_89ab_cdef, "nonce");
    assert_eq!(field(24, 4), 1, "kind: queue");
    assert_eq!(field(28, 4), 5, "length of the label");
    assert_eq!(field(32, 8), 3, "capacity");
    assert_eq!(field(40, 8), 100, "max_message");
    assert_eq!(field(48, 8), 4096, "ring offset");
    assert_eq!(field(56, 8), 336, "ring length");
    assert_eq!(&bytes[64..69], b"label");
    assert!(bytes[69..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_live_words_are_where_they_have_always_been() {
    assert_eq!((LIVE, CHANNEL, RING), (512, 1024, 4096));
    assert_eq!(offset_of!(Live, recoveries), 0);
    assert_eq!(offset_of!(Ends, put), 0);
    assert_eq!(offset_of!(Ends, get), 256);
    assert_eq!(offset_of!(Ends, not_empty), 512);
    assert_eq!(offset_of!(Ends, not_full), 640);
    assert_eq!(offset_of!(End, mutex), 0);
    assert_eq!(offset_of!(End, side), 8, "what was seen of the other cursor, messages, bytes");
    assert_eq!(CURSOR, 120, "the cursor, 128 from the lock");
    assert_eq!(size_of::<Side>(), 128);
}

#[test]
fn what_is_written_is_read_back() {
    assert_eq!(check(&geometry().to_bytes(), QUEUE), Ok(geometry()));
    assert_eq!(check(&geometry().to_bytes(), Expected { schema: "label", ..QUEUE }), Ok(geometry()));
}

#[test]
fn what_does_not_begin_like_a_segment_is_none() {
    assert!(UncheckedHeader::read(&[]).is_none());
    assert!(UncheckedHeader::read(&[0; HEADER]).is_none());
    assert!(UncheckedHeader::read(&geometry().to_bytes()[..127]).is_none());
}

#[test]
fn each_mismatch_names_its_field() {
    let mut other_version = geometry().to_bytes();
    other_version[8] = 2;
    assert!(matches!(
        check(&other_version, QUEUE),
        Err(Disbelief::Mismatch { field: "format version", expected, found }) if expected == "1" && found == "2"
    ));
    let mut other_kind = geometry().to_bytes();
    other_kind[24] = 77;
    assert!(matches!(check(&other_kind, QUEUE), Err(Disbelief::Mismatch { field: "kind", .. })));
    let other_label = Expected { schema: "another", ..QUEUE };
    assert!(matches!(
        check(&geometry().to_bytes(), other_label),
        Err(Disbelief::Mismatch { field: "schema", .. })
    ));
}

/// Every bit of every field: believed as it is, or refused with a reason, and never a panic.
#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    let whole = geometry();
    for bit in 64..8 * 128 {
        let mut bytes = whole.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(believed) = check(&bytes, QUEUE) {
            // What is believed must at least lie within the file.
            assert_eq!(believed.segment_len(), whole.segment_len(), "bit {bit}");
        }
    }
}

#[test]
fn nonsense_in_each_number_is_named() {
    let cases: [(usize, u64, &str); 10] = [
        (12, 8, "flags"),
        (12, 4, "capacity"),
        (28, 65, "label"),
        (32, 0, "capacity"),
        (32, 1 << 31, "capacity"),
        (40, (1 << 30) + 1, "max_message"),
        (48, 4104, "ring offset"),
        (56, 8, "ring length"),
        (56, 337, "ring length"),
        (56, u64::MAX, "ring length"),
    ];
    for (at, value, name) in cases {
        let mut bytes = geometry().to_bytes();
        let len = if at < 32 { 4 } else { 8 };
        bytes[at..at + len].copy_from_slice(&value.to_ne_bytes()[..len]);
        let Err(Disbelief::NotShmq(reason)) = check(&bytes, QUEUE) else {
            panic!("{name} {value} is believed")
        };
        assert!(reason.contains(name), "{reason}");
    }
}

#[test]
fn a_file_of_another_length_is_refused() {
    let header = UncheckedHeader::read(&geometry().to_bytes()).expect("the magic is there");
    for len in [0, 512, 4096, geometry().segment_len() as u64 - 1, geometry().segment_len() as u64 + 1] {
        assert!(matches!(header.check(len, QUEUE), Err(Disbelief::NotShmq(_))), "{len}");
    }
}
