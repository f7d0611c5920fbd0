//! What cannot be reached from outside: the way round a file system that refuses nameless files.

use super::*;
use crate::layout::Kind;
use crate::ring::Shape;

fn plan() -> Plan {
    let geometry = Geometry {
        kind: Kind::Queue,
        persistent: false,
        anonymous: false,
        nonce: 0,
        schema: String::new(),
        shape: Shape::new(1, 8, 16),
    };
    Plan { geometry, mode: 0o600 }
}

fn refused() -> io::Result<Descriptor> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

fn objects(name: &str) -> Vec<String> {
    let names = segment::names().expect("a listing");
    names.into_iter().filter(|object| object.starts_with(name)).collect()
}

const ANY: Expected<'_> = Expected { kind: Kind::Queue, schema: "", nonce: None };

#[test]
fn where_nameless_files_are_refused_a_stopgap_name_is_used_and_then_gone() {
    let name = format!("stopgap-{}", std::process::id());
    let path = path(&name).expect("a path");
    let nameless = Nameless::try_make(&name, &plan(), refused()).expect("a segment");
    assert!(objects(&name)[0].starts_with(&format!("{name}+new-")));
    assert!(matches!(open(&name, ANY), Err(OpenError::NotFound { .. })));
    nameless.link(&path).expect("a free name");
    let created = nameless.named(path.clone(), &plan());
    assert_eq!(objects(&name), [name.as_str()]);

    let second = Nameless::try_make(&name, &plan(), refused()).expect("a segment");
    let taken = second.link(&path).expect_err("the name is taken");
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    drop(second);
    assert_eq!(objects(&name), [name.as_str()], "the stopgap goes with whoever did not get the name");

    drop(open(&name, ANY).expect("the segment"));
    drop(created);
    assert!(objects(&name).is_empty());
}

#[test]
fn a_segment_that_never_got_its_name_leaves_nothing() {
    let name = format!("nameless-{}", std::process::id());
    drop(Nameless::try_make(&name, &plan(), segment::open_unnamed()).expect("a segment"));
    assert!(objects(&name).is_empty());
}
