//! No type of another crate stands in a public signature, except serde's traits and bytemuck's: whoever uses this
//! library need not know what it is built with, and what that is can change.

use crate::rooms::{Source, sources};

/// What the library is built with. serde and bytemuck may show.
const HIDDEN: &[&str] = &["libc", "postcard"];

/// What stands between each `pub` and the end of its signature, field or alias.
fn public_signatures(source: &Source) -> Vec<&[String]> {
    let tokens = &source.tokens;
    let is_public = |at: &usize| tokens[*at] == "pub" && tokens.get(at + 1).is_some_and(|next| next != "(");
    let end = |at: usize| {
        let rest = &tokens[at..];
        // A structure's fields have a `pub` of their own; an enum's variants have not.
        let is_enum = rest.get(1).is_some_and(|kind| kind == "enum");
        let stop = if is_enum { "}" } else { "{" };
        let mut depth = 0_i32;
        for (offset, token) in rest.iter().enumerate() {
            match token.as_str() {
                "(" | "[" | "<" => depth += 1,
                // Not that of an arrow.
                ">" if offset > 0 && rest[offset - 1] == "-" => {}
                ")" | "]" | ">" => depth -= 1,
                ";" => return at + offset,
                "," if depth <= 0 && !is_enum => return at + offset,
                other if other == stop => return at + offset,
                _ => {}
            }
        }
        tokens.len()
    };
    (0..tokens.len()).filter(is_public).map(|at| &tokens[at..end(at)]).collect()
}

/// The hidden crates, and every name that the file has from them.
fn hidden_names(source: &Source) -> Vec<String> {
    let mut names: Vec<_> = HIDDEN.iter().map(|name| (*name).to_owned()).collect();
    let tokens = &source.tokens;
    for at in 0..tokens.len() {
        let imported =
            tokens[at] == "use" && tokens.get(at + 1).is_some_and(|name| HIDDEN.contains(&&**name));
        if imported {
            let path = tokens[at + 2..].iter().take_while(|token| *token != ";");
            let types = path.filter(|token| token.starts_with(char::is_uppercase));
            names.extend(types.cloned());
        }
    }
    names
}

#[test]
fn no_foreign_type_stands_in_a_public_signature() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for source in sources() {
        let hidden = hidden_names(&source);
        for signature in public_signatures(&source) {
            // A `use` shows what it names: that of bytemuck is meant.
            seen += 1;
            if let Some(name) = signature.iter().find(|token| hidden.contains(token)) {
                wrong.push(format!("{}: {name} in {}", source.file.display(), signature.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 200, "only {seen} public signatures were found");
}

#[test]
fn the_reader_of_signatures_finds_a_foreign_type() {
    let text = "use postcard::{Error as E, ser::Flavor}; pub fn f(x: u8) -> Result<(), Flavor> { } \
                pub struct S { pub a: libc::stat, b: libc::flock } pub(crate) fn g(x: Flavor) {} \
                pub enum V { A { inner: Flavor }, B }";
    let source = Source::read(text);
    let hidden = hidden_names(&source);
    let found: Vec<_> = public_signatures(&source)
        .into_iter()
        .filter(|signature| signature.iter().any(|token| hidden.contains(token)))
        .map(|signature| signature[..3].join(" "))
        .collect();
    assert_eq!(found, ["pub fn f", "pub a :", "pub enum V"]);
}
