//! `bailiwick ledger`: the proof, checked or printed from its file; no server is asked.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::Refusal;
use crate::config::Config;
use crate::digest::Digest;
use crate::ledger::line::Line;
use crate::ledger::report::Case;
use crate::ledger::verify::{Lines, key_named_in};
use crate::ledger::{self, LEDGER_FILE, PublicKey, public_key_of, verify, words};

/// How long a last line without its end may be one that a server is writing at the moment.
const WRITE_PATIENCE: Duration = Duration::from_millis(500);

/// Which ledger is meant, and whose it must be.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// The configuration's file; it is read where it is needed.
    pub config: PathBuf,
    /// The ledger; None: that of the configuration's state folder.
    pub file: Option<PathBuf>,
    /// The node's public key; None: that of the state folder, or what the ledger itself names.
    pub key: Option<PublicKey>,
}

/// The key that a ledger is checked with, and who says that it is the node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUsed {
    /// The key.
    pub key: PublicKey,
    /// Who says so.
    pub from: String,
    /// The ledger itself does: it proves one author, not who.
    pub is_own: bool,
}

const OWN_KEY: &str = "the ledger itself names it: that proves that all lines have one author, not who it is; \
                       give the node's public key with --key";

impl Proof {
    /// The ledger's file.
    ///
    /// # Errors
    /// Where none is named and the configuration does not tell one.
    pub fn file(&self) -> Result<PathBuf, Refusal> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => Ok(state_folder(&self.config)?.join(LEDGER_FILE)),
        }
    }

    /// The key that was named, that beside the ledger, that of our own state folder, or what the ledger itself names.
    ///
    /// # Errors
    /// Where there is none of them.
    pub fn key(&self) -> Result<KeyUsed, Refusal> {
        if let Some(key) = self.key {
            return Ok(KeyUsed { key, from: "as given".to_owned(), is_own: false });
        }
        let file = self.file()?;
        let beside = file.parent().map(Path::to_owned);
        let own = state_folder(&self.config).ok();
        for folder in beside.into_iter().chain(own) {
            // Whoever may not read the private key can do without it.
            if let Ok(Some(key)) = public_key_of(&folder) {
                let from = format!("of {}", folder.join(ledger::KEY_FILE).display());
                return Ok(KeyUsed { key, from, is_own: false });
            }
        }
        let named = key_named_in(open(&file)?);
        let none = || Refusal::line(format!("{}: its first line names no key; give it with --key", file.display()));
        Ok(KeyUsed { key: named.ok_or_else(none)?, from: OWN_KEY.to_owned(), is_own: true })
    }
}

fn state_folder(config: &Path) -> Result<PathBuf, Refusal> {
    let state = Config::read(config)?.policy.state;
    state.ok_or_else(|| Refusal::line("no [state] folder; name the ledger's file"))
}

/// The ledger as it is now: what a running server appends meanwhile is not read, so that no line is seen half written.
fn open(file: &Path) -> Result<impl BufRead + use<>, Refusal> {
    let opened = File::open(file).and_then(|file| {
        let mut length = file.metadata()?.len();
        if !ends_with_newline(&file, length)? {
            thread::sleep(WRITE_PATIENCE);
            length = file.metadata()?.len();
        }
        Ok(BufReader::new(file.take(length)))
    });
    opened
        .map_err(|error| Refusal::line(format!("{}: cannot be read: {error}; name the ledger's file", file.display())))
}

fn ends_with_newline(file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else { return Ok(true) };
    let mut octet = [0];
    file.read_exact_at(&mut octet, last)?;
    Ok(octet == *b"\n")
}

/// `bailiwick ledger key`: the public half of the state folder's key.
///
/// # Errors
/// When there is no key, or it cannot be read.
pub fn public_key(config: &Path) -> Result<PublicKey, Refusal> {
    let folder = state_folder(config)?;
    let key = public_key_of(&folder).map_err(Refusal::line)?;
    let none =
        || format!("{}: no {} there; the first start of the server makes it", folder.display(), ledger::KEY_FILE);
    key.ok_or_else(|| Refusal::line(none()))
}

/// `bailiwick ledger verify`: what was found, as lines, and a warning where the key is the ledger's own word.
///
/// # Errors
/// The first line that is broken, or that no line has the hash that was written down elsewhere.
pub fn verify(proof: &Proof, known: Option<&Digest>) -> Result<(String, Option<String>), Refusal> {
    let (file, used) = (proof.file()?, proof.key()?);
    let shown = file.display();
    let refused = |what: String| {
        let key = format!("checked with the key {} ({})", used.key, used.from);
        Refusal { lines: vec![format!("{shown}: {what}"), key] }
    };
    let verified = verify::verify(open(&file)?, used.key, known).map_err(|broken| refused(broken.to_string()))?;
    let (number, head) = (verified.head.number, verified.head.hash);
    let known = match (known, verified.known) {
        (None, _) => String::new(),
        (Some(hash), None) => {
            let lines = words::counted(number as usize, "line");
            let why = "its end was cut off, it was written anew, or it is another ledger";
            return Err(refused(format!("no line of {lines} has the hash {hash}: {why}")));
        }
        (Some(_), Some(at)) if at == number => "\nknown   the last line has the hash given".to_owned(),
        (Some(_), Some(at)) => format!("\nknown   line {at} has the hash given; {} more since", number - at),
    };
    let (lines, key) = (words::counted(number as usize, "line"), used.key);
    let (first, last) = (words::moment(verified.first), words::moment(verified.last));
    let from = if used.is_own { "named by the ledger itself" } else { &used.from };
    let told = format!(
        "{shown}: whole\nlines   {lines}, each continues the one before and is signed\nfirst   {first}\nlast    {last}\n\
         head    {head}{known}\nkey     {key}, {from}\n"
    );
    Ok((told, used.is_own.then(|| format!("{key}: {OWN_KEY}"))))
}

/// `bailiwick ledger show`: each line for people, or as it is. It is not checked.
///
/// # Errors
/// When the file cannot be read to its end, or nothing can be written.
pub fn show(proof: &Proof, as_it_is: bool, to: &mut impl Write) -> Result<(), Refusal> {
    let file = proof.file()?;
    let mut lines = Lines::new(open(&file)?);
    let mut number = 0_u64;
    loop {
        number += 1;
        let broken = |fault| Refusal::line(format!("{}: line {number}: {fault}", file.display()));
        let Some(octets) = lines.next_octets().map_err(broken)? else { return Ok(()) };
        let written = if as_it_is {
            to.write_all(octets).and_then(|()| to.write_all(b"\n"))
        } else {
            writeln!(to, "{}", shown(number, octets))
        };
        match written {
            // Nobody reads any more (`bailiwick ledger show | head -1`).
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(Refusal::line)?,
        }
    }
}

/// `bailiwick ledger report`: everything that the ledger says about an order, up to its first broken line.
///
/// # Errors
/// When the file cannot be read, or a whole ledger has no line about the order.
pub fn report(proof: &Proof, order: &str) -> Result<Case, Refusal> {
    let (file, used) = (proof.file()?, proof.key()?);
    let mut case = Case::gather(open(&file)?, used.key, order, Timestamp::now());
    case.ledger.file = file.display().to_string();
    (case.ledger.key_from, case.ledger.key_is_own) = (used.from, used.is_own);
    if case.ledger.broken.is_none() && !case.is_known() {
        let order = words::printable(order);
        return Err(Refusal::line(format!("{}: no line about an order {order}", file.display())));
    }
    Ok(case)
}

fn shown(number: u64, octets: &[u8]) -> String {
    match Line::read(octets) {
        Err(fault) => format!("{number:>6}  {fault}"),
        Ok(line) => {
            let what = line
                .event()
                .map_or_else(|| "a kind of event that is not known here".to_owned(), |event| words::sentence(&event));
            format!("{number:>6}  {}  {what}", words::moment(line.at))
        }
    }
}
