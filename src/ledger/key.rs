//! The key that signs the ledger, in its file, and its public half as people hand it on.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Error;

/// The file of the key, in the state folder.
pub const KEY_FILE: &str = "ledger.key";

/// Octets of an Ed25519 public key (RFC 8032 §5.1.5).
const PUBLIC_OCTETS: usize = 32;

/// Octets of an Ed25519 signature (RFC 8032 §5.1.6).
pub(super) const SIGNATURE_OCTETS: usize = 64;

/// The most octets that a key's file may have; ours has 119.
const KEY_FILE_OCTETS_MAX: u64 = 4_096;

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// The public half of a ledger's key (Ed25519). Written in base64, 44 characters, one spelling only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; PUBLIC_OCTETS]);

impl PublicKey {
    /// Whether the signature is one by this key (RFC 8032 §5.1.7; S below the group's order, so no other octets are).
    #[must_use]
    pub(super) fn has_signed(&self, octets: &[u8], signature: &[u8; SIGNATURE_OCTETS]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(octets, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// What is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAKey;

impl fmt::Display for NotAKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a public key is 44 characters of base64, as `bailiwick ledger key` prints it")
    }
}

impl std::error::Error for NotAKey {}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let octets = BASE64.decode(text).map_err(|_| NotAKey)?;
        octets.try_into().map(Self).map_err(|_| NotAKey)
    }
}

/// The whole key.
pub(super) struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl SigningKey {
    /// Reads the key in a folder; None: there is none.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let file = folder.join(KEY_FILE);
        let shown = file.display();
        match text_of(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error(format!("{shown}: cannot be read: {error}; give the service its key back"))),
            Ok(text) => {
                let key = from_pem(&text).map(|key| Some(Self(key)));
                key.ok_or_else(|| Error(format!("{shown}: not an Ed25519 key in PKCS#8; put the right one back")))
            }
        }
    }

    /// Makes a key. It is on the disk when this returns, since a line whose key is lost can be continued by nobody.
    pub(super) fn make(folder: &Path) -> Result<Self, Error> {
        let file = folder.join(KEY_FILE);
        let make = || {
            let key = Ed25519KeyPair::generate().map_err(io::Error::other)?;
            write_durably(folder, &file, &to_pem(&key)?)?;
            Ok(Self(key))
        };
        make().map_err(|error: io::Error| Error(format!("{}: cannot be made: {error}", file.display())))
    }

    pub(super) fn public(&self) -> PublicKey {
        let mut octets = [0; PUBLIC_OCTETS];
        octets.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(octets)
    }

    pub(super) fn sign(&self, octets: &[u8]) -> [u8; SIGNATURE_OCTETS] {
        let mut signature = [0; SIGNATURE_OCTETS];
        signature.copy_from_slice(self.0.sign(octets).as_ref());
        signature
    }
}

/// The public half of the key in a state folder; None: there is no key.
///
/// # Errors
/// When it cannot be read, or is no key.
pub fn public_key_of(folder: &Path) -> Result<Option<PublicKey>, Error> {
    Ok(SigningKey::read(folder)?.map(|key| key.public()))
}

fn text_of(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(KEY_FILE_OCTETS_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// RFC 7468 §10; in one line, since 48 octets make 64 characters.
fn to_pem(key: &Ed25519KeyPair) -> io::Result<String> {
    let document = key.to_pkcs8v1().map_err(io::Error::other)?;
    Ok(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", BASE64.encode(document.as_ref())))
}

fn from_pem(text: &str) -> Option<Ed25519KeyPair> {
    let (_, rest) = text.split_once(PEM_BEGIN)?;
    let (inside, _) = rest.split_once(PEM_END)?;
    let inside: String = inside.split_ascii_whitespace().collect();
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&BASE64.decode(inside).ok()?).ok()
}

/// Whole or not at all, and never over one that is there.
fn write_durably(folder: &Path, file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("key.new");
    let _ = fs::remove_file(&new);
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::hard_link(&new, file)?;
    fs::remove_file(&new)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(SigningKey::read(folder.path()).unwrap().is_none());
        let made = SigningKey::make(folder.path()).unwrap();
        let mode = fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(SigningKey::make(folder.path()).is_err(), "one that is there is not written over");
        let read = SigningKey::read(folder.path()).unwrap().unwrap();
        assert_eq!((read.public(), Ok(Some(made.public()))), (made.public(), public_key_of(folder.path())));
        assert!(made.public().has_signed(b"a", &read.sign(b"a")) && !made.public().has_signed(b"b", &read.sign(b"a")));
        let text = fs::read_to_string(folder.path().join(KEY_FILE)).unwrap();
        assert!(!format!("{made:?}").contains(text.lines().nth(1).unwrap()), "no log line can show it");
        for cut in 0..text.len() - PEM_END.len() {
            fs::write(folder.path().join(KEY_FILE), &text[..cut]).unwrap();
            assert!(SigningKey::read(folder.path()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_public_key_has_one_spelling() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::make(folder.path()).unwrap().public();
        let text = key.to_string();
        assert_eq!((text.len(), text.parse()), (44, Ok(key)));
        for cut in 0..text.len() {
            assert_eq!(text[..cut].parse::<PublicKey>(), Err(NotAKey));
        }
        for odd in [format!("{text}="), format!(" {text}"), text.replace('=', ""), format!("{text}\n")] {
            assert_eq!(odd.parse::<PublicKey>(), Err(NotAKey), "{odd}");
        }
    }
}
