//! A mistake in a file that a person wrote: what, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The most mistakes shown of one file; the rest are counted.
pub const MISTAKES_MAX: usize = 100;

/// One mistake. Its `Display` is one line: `file:line:column: what; what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as it was named to us.
    pub file: PathBuf,
    /// Line, from 1; 0 where the whole file is meant (it cannot be read, say).
    pub line: usize,
    /// Column in characters, from 1; 0 with line 0.
    pub column: usize,
    /// What is wrong and, behind a semicolon, what to do.
    pub what: String,
}

impl Mistake {
    /// A mistake at octets `span` of `source`, the text of `file`.
    #[must_use]
    pub fn at(file: &Path, source: &str, span: Range<usize>, what: impl Into<String>) -> Self {
        let before = &source[..source.floor_char_boundary(span.start)];
        let start_of_line = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            file: file.to_owned(),
            line: before.bytes().filter(|octet| *octet == b'\n').count() + 1,
            column: before[start_of_line..].chars().count() + 1,
            what: what.into(),
        }
    }

    /// A mistake that is about the whole file.
    #[must_use]
    pub fn of_file(file: &Path, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, what: what.into() }
    }
}

/// Where the lines of a text begin: the line of each of many places is found without a walk over the text each time.
#[derive(Debug)]
pub struct Lines(Vec<usize>);

impl Lines {
    /// Those of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        Self(std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect())
    }

    /// The line of an octet, from 1.
    #[must_use]
    pub fn line(&self, at: usize) -> u32 {
        u32::try_from(self.0.partition_point(|start| *start <= at)).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        write!(f, " {}", self.what)
    }
}

impl std::error::Error for Mistake {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_same_from_either() {
        for text in ["", "\n", "a", "a\n\nb\r\nc\u{e9}\n"] {
            let lines = Lines::of(text);
            for at in 0..=text.len() {
                assert_eq!(
                    lines.line(at) as usize,
                    Mistake::at(Path::new("a"), text, at..at, "").line,
                    "{text:?} {at}"
                );
            }
        }
    }
}
