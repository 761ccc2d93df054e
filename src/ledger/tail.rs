//! What a ledger's file ends with when it is opened: a line to go on behind, and what is torn.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aws_lc_rs::digest::{Context, SHA256};

use super::Head;
use super::key::PublicKey;
use super::line::{LINE_OCTETS_MAX, Line};
use crate::digest::Digest;

/// How much of a file is read at once.
const CHUNK_OCTETS: usize = 64 << 10;

/// How a ledger's file ends.
#[derive(Debug)]
pub(super) struct Tail {
    /// Octets up to and with the newline of the last whole line.
    pub(super) whole: u64,
    /// How many octets stand behind that, and what they are.
    pub(super) torn: Option<(u64, Digest)>,
    /// The last whole line.
    pub(super) head: Option<Head>,
    /// It follows the line before it and is signed by the key; true where there is none.
    pub(super) holds: bool,
}

impl Tail {
    /// Reads the end of a file of this many octets.
    pub(super) fn read(file: &File, length: u64, key: &PublicKey) -> io::Result<Self> {
        let mut whole = newline_before(file, length)?.map_or(0, |newline| newline + 1);
        // What ends with a newline may still be no line: the disk was full, or its blocks were never written.
        if whole == length && whole > 0 && !is_a_line(file, whole)? {
            whole = newline_before(file, whole - 1)?.map_or(0, |newline| newline + 1);
        }
        let torn = if whole < length { Some((length - whole, digest(file, whole, length)?)) } else { None };
        if whole == 0 {
            return Ok(Self { whole, torn, head: None, holds: true });
        }
        let start = newline_before(file, whole - 1)?.map_or(0, |newline| newline + 1);
        let hash = digest(file, start, whole - 1)?;
        let told = number_that_holds(file, start, whole, key)?;
        let number = told.map_or_else(|| count_lines(file, whole), Ok)?;
        Ok(Self { whole, torn, head: Some(Head { number, hash }), holds: told.is_some() })
    }
}

/// The line that ends with the newline before `end`; None: it is longer than one may be.
fn line_before(file: &File, end: u64) -> io::Result<Option<Vec<u8>>> {
    let start = newline_before(file, end - 1)?.map_or(0, |newline| newline + 1);
    let length = usize::try_from(end - 1 - start).unwrap_or(usize::MAX);
    if length > LINE_OCTETS_MAX {
        return Ok(None);
    }
    let mut octets = vec![0; length];
    file.read_exact_at(&mut octets, start)?;
    Ok(Some(octets))
}

fn is_a_line(file: &File, end: u64) -> io::Result<bool> {
    Ok(line_before(file, end)?.is_some_and(|octets| Line::read(&octets).is_ok()))
}

/// The number of the line from `start` to `end`, if it follows the one before and is signed.
fn number_that_holds(file: &File, start: u64, end: u64, key: &PublicKey) -> io::Result<Option<u64>> {
    let Some(octets) = line_before(file, end)? else { return Ok(None) };
    let Ok(line) = Line::read(&octets) else { return Ok(None) };
    let before = if start == 0 {
        None
    } else {
        let begins = newline_before(file, start - 1)?.map_or(0, |newline| newline + 1);
        Some(Head { number: line.number.saturating_sub(1), hash: digest(file, begins, start - 1)? })
    };
    Ok(line.follows(before.as_ref(), key).is_ok().then_some(line.number))
}

/// Where the last newline before `end` is.
fn newline_before(file: &File, end: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; CHUNK_OCTETS];
    let mut end = end;
    while end > 0 {
        let start = end.saturating_sub(CHUNK_OCTETS as u64);
        let chunk = &mut chunk[..(end - start) as usize];
        file.read_exact_at(chunk, start)?;
        if let Some(at) = chunk.iter().rposition(|octet| *octet == b'\n') {
            return Ok(Some(start + at as u64));
        }
        end = start;
    }
    Ok(None)
}

/// The digest of the octets from `start` up to `end`, however many.
fn digest(file: &File, start: u64, end: u64) -> io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    each_chunk(file, start, end, |chunk| context.update(chunk))?;
    let mut digest = Digest([0; 32]);
    digest.0.copy_from_slice(context.finish().as_ref());
    Ok(digest)
}

/// Lines of a file whose last one does not say its number.
fn count_lines(file: &File, end: u64) -> io::Result<u64> {
    let mut count = 0;
    each_chunk(file, 0, end, |chunk| count += chunk.iter().filter(|octet| **octet == b'\n').count() as u64)?;
    Ok(count)
}

fn each_chunk(file: &File, start: u64, end: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_OCTETS];
    let mut at = start;
    while at < end {
        let chunk = &mut chunk[..(end - at).min(CHUNK_OCTETS as u64) as usize];
        file.read_exact_at(chunk, at)?;
        take(chunk);
        at += chunk.len() as u64;
    }
    Ok(())
}
