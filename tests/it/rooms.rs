//! The rooms of `docs/design.md`: which file may know of which.
//!
//! Each file of `src/` stands on a floor of this table and imports from lower floors only. Files of one
//! floor do not import each other, but for those of one room (`sys`, `sync`). A file that is not in the
//! table fails the test: it needs a place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A directory stands for all files in it.
const FLOORS: &[&[&str]] = &[
    &["error", "deadline", "atomic"],
    &["sys"],
    &["sync", "ring"],
    &["layout"],
    &["attachment"],
    &["membership", "glimpse"],
    &["channel", "tasks", "options", "codec", "handover"],
    &["access", "admin"],
    &["items", "half"],
    &["bytes", "pipe"],
    &["queue"],
    &["wait", "value"],
    &["lib"],
];

/// Where `unsafe` may stand, besides the tests of a file.
const UNSAFE: &[&str] = &["sys", "sync", "attachment"];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// A source file: the path of its module, and its text without comments and literals.
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    module: Vec<String>,
    pub(crate) tokens: Vec<String>,
}

impl Source {
    /// A file that is not there.
    pub(crate) fn read(text: &str) -> Self {
        Self { file: PathBuf::new(), module: Vec::new(), tokens: tokens(text) }
    }

    /// The file or directory right under `src/`; tests beside a file belong to it.
    fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

pub(crate) fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut directories = vec![src.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                // The command is a crate of its own, which sees what every user sees.
                if file != src.join("bin") {
                    directories.push(file);
                }
            } else if file.extension().is_some_and(|extension| extension == "rs") {
                let path = file.strip_prefix(&src).unwrap().with_extension("");
                let mut module: Vec<_> = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                module.pop_if(|last| last == "mod" || last == "lib");
                let tokens = tokens(&fs::read_to_string(&file).unwrap());
                sources.push(Source { file, module, tokens });
            }
        }
    }
    assert!(sources.len() > 10, "the sources are not where they were");
    sources
}

/// Names and signs, without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = literal(rest) {
            len
        } else if first.is_alphanumeric() || first == '_' {
            let len = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(rest.len());
            tokens.push(rest[..len].to_owned());
            len
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[len..];
    }
    tokens
}

/// The length of a string or character at the beginning.
fn literal(text: &str) -> Option<usize> {
    let quote = text.strip_prefix(['b', 'c']).unwrap_or(text);
    let raw = quote.strip_prefix('r').unwrap_or(quote);
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if raw.len() < quote.len() && raw[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let start = text.len() - raw.len() + hashes + 1;
        return Some(start + text[start..].find(&end)? + end.len());
    }
    let mark = quote.chars().next().filter(|mark| *mark == '"' || *mark == '\'')?;
    let start = text.len() - quote.len() + 1;
    let mut escaped = false;
    for (at, sign) in text[start..].char_indices() {
        if escaped {
            escaped = false;
        } else if sign == '\\' {
            escaped = true;
        } else if sign == mark {
            return Some(start + at + 1);
        } else if mark == '\'' && at > 0 && !text[start..].starts_with('\\') {
            // A lifetime.
            return None;
        }
    }
    None
}

/// Every module path that begins with `crate` or `super`, as written out from the root.
fn imports(source: &Source) -> Vec<Vec<String>> {
    let mut imports = Vec::new();
    let mut inline = InlineModules::default();
    let mut at = 0;
    while at < source.tokens.len() {
        inline.see(&source.tokens, at);
        let token = source.tokens[at].as_str();
        let starts = matches!(token, "crate" | "super" | "self")
            && source.tokens.get(at + 1).is_some_and(|next| next == "::")
            // `pub(in crate::...)`, `$crate::...`, and the middle of a path.
            && at.checked_sub(1).is_none_or(|before| !matches!(source.tokens[before].as_str(), "::" | "in"));
        if starts {
            let mut base = match token {
                "crate" => Vec::new(),
                _ => [source.module.as_slice(), &inline.path].concat(),
            };
            at = path(&source.tokens, at, &mut base, &mut imports);
        } else {
            at += 1;
        }
    }
    imports
}

/// Reads the path or the tree of paths at `at`; where it ends.
fn path(tokens: &[String], mut at: usize, base: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    loop {
        match tokens[at].as_str() {
            "crate" | "self" => {}
            "super" => _ = base.pop(),
            "{" => {
                at += 1;
                while tokens[at] != "}" {
                    if tokens[at] == "," {
                        at += 1;
                    } else {
                        at = path(tokens, at, &mut base.clone(), found);
                    }
                }
                return at + 1;
            }
            name => base.push(name.to_owned()),
        }
        at += 1;
        if tokens.get(at).is_none_or(|next| next != "::") {
            break;
        }
        at += 1;
        if tokens[at] == "<" {
            break;
        }
    }
    found.push(base.clone());
    if tokens.get(at).is_some_and(|next| next == "as") {
        at += 2;
    }
    at
}

/// `mod tests { ... }`: in it, `super` is the file.
#[derive(Default)]
struct InlineModules {
    path: Vec<String>,
    /// How deep in braces each of them began.
    depths: Vec<usize>,
    depth: usize,
}

impl InlineModules {
    fn see(&mut self, tokens: &[String], at: usize) {
        match tokens[at].as_str() {
            "{" => {
                self.depth += 1;
                if at >= 2 && tokens[at - 2] == "mod" {
                    self.path.push(tokens[at - 1].clone());
                    self.depths.push(self.depth);
                }
            }
            "}" => {
                if self.depths.last() == Some(&self.depth) {
                    self.path.pop();
                    self.depths.pop();
                }
                self.depth -= 1;
            }
            _ => {}
        }
    }
}

#[test]
fn every_file_has_a_floor_and_every_floor_has_files() {
    let rooms: BTreeSet<_> = sources().iter().map(|source| source.room().to_owned()).collect();
    let table: BTreeSet<_> = FLOORS.iter().copied().flatten().map(|room| (*room).to_owned()).collect();
    assert_eq!(rooms, table, "the table in {} does not fit src/", file!());
}

#[test]
fn no_file_imports_from_its_own_floor_or_from_above() {
    let mut wrong = Vec::new();
    let mut right = 0;
    for source in sources() {
        let Some(own) = floor(source.room()) else { continue };
        for import in imports(&source) {
            // What the root re-exports stands above everything.
            let room = import.first().map_or("lib", String::as_str);
            let theirs = floor(room).unwrap_or(FLOORS.len() - 1);
            if room == source.room() || theirs < own {
                right += 1;
            } else {
                wrong.push(format!("{} imports {}", source.file.display(), import.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(right > 50, "only {right} imports were found");
}

#[test]
fn unsafe_code_stands_in_few_rooms() {
    let mut found = BTreeSet::new();
    for source in sources() {
        let is_test = source.module.last().is_some_and(|last| last == "tests");
        if !is_test && source.tokens.iter().any(|token| token == "unsafe") {
            assert!(UNSAFE.contains(&source.room()), "{} is unsafe", source.file.display());
            found.insert(source.room().to_owned());
        }
    }
    assert!(found.contains("sys"));
}

#[test]
fn the_reader_of_sources_reads_them() {
    let text = r##"
        //! crate::queue in a comment
        use crate::sys::{self, futex, lease::{Lease, Identity as Id}};
        pub(crate) fn f<'a>(x: &'a str) -> char { let _ = "crate::queue \" unsafe"; let _ = r#"unsafe"#; '\'' }
        #[cfg(test)]
        mod tests { use super::*; fn g() { super::super::error::h(); let _ = b'"'; } }
        fn i() { self::j(); core::k(); super::other::l::<crate::error::Corrupt>(); }
    "##;
    let tokens = tokens(text);
    assert!(!tokens.iter().any(|token| token == "unsafe" || token == "queue"));
    let source = Source { file: PathBuf::new(), module: vec!["a".to_owned(), "b".to_owned()], tokens };
    let found: Vec<_> = imports(&source).iter().map(|path| path.join("::")).collect();
    let expected = [
        "sys",
        "sys::futex",
        "sys::lease::Lease",
        "sys::lease::Identity",
        "a::b::*",
        "a::error::h",
        "a::b::j",
        "a::other::l",
    ];
    assert_eq!(found[..8], expected);
    assert_eq!(found[8..], ["error::Corrupt"]);
}
