//! Signatures in minisign's format: keys made and read, octets signed and verified.

pub mod files;

use std::fmt;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use minisign::{KeyPair, SecretKeyBox, SignatureBox};

/// The most octets of a signature's file: one of minisign's has some 300.
pub const SIGNATURE_OCTETS_MAX: u64 = 4 << 10;

/// The most octets of a key's name.
pub const NAME_OCTETS_MAX: usize = 64;

/// What a signature's file ends in, behind the key's name.
pub const ENDING: &str = ".minisig";

/// A public key in minisign's format: an Ed25519 key (RFC 8032) and its number.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// `Ed`, the number of the key, the key.
    octets: [u8; PUBLIC_OCTETS],
}

const PUBLIC_OCTETS: usize = 2 + KEY_NUMBER_OCTETS + 32;
const KEY_NUMBER_OCTETS: usize = 8;

/// `ED` or `Ed`, the number of the key, the signature.
const SIGNATURE_OCTETS: usize = 2 + KEY_NUMBER_OCTETS + 64;

impl PublicKey {
    /// Reads the one line that minisign prints.
    ///
    /// # Errors
    /// What is wrong and what to do.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let what = || {
            "not a public key in minisign's format; copy the second line of the .pub file, \
             56 characters that begin with RW"
        };
        let octets = STANDARD.decode(text).ok().and_then(|octets| <[u8; PUBLIC_OCTETS]>::try_from(octets).ok());
        let octets = octets.filter(|octets| octets.starts_with(b"Ed")).ok_or_else(what)?;
        Ok(Self { octets })
    }

    /// The key in the text of a file: that of minisign has a comment above it.
    fn in_file(text: &str) -> Option<Self> {
        text.lines().find_map(|line| Self::from_text(line.trim()).ok())
    }

    /// Whether both are the same key, whatever number each goes by.
    #[must_use]
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.octets[PUBLIC_OCTETS - 32..] == other.octets[PUBLIC_OCTETS - 32..]
    }

    /// Whether `signature`, the text of a signature's file, is this key's over `octets`.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify(&self, octets: &[u8], signature: &[u8]) -> Result<(), &'static str> {
        let signature = read_signature(signature).ok_or("is not a signature in minisign's format")?;
        let own = minisign::PublicKey::from_bytes(&self.octets).map_err(|_| "is by no key")?;
        if signature.keynum() != own.keynum() {
            return Err("is by another key");
        }
        // Quiet, without output, and prehashed only: the older form has been out of use since 2021.
        let verified = minisign::verify(&own, &signature, Cursor::new(octets), true, false, false);
        verified.map_err(|_| "is not over the file as it is now")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.octets))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The library takes parts of any length and then reaches past their end, so lengths are looked at first.
fn read_signature(text: &[u8]) -> Option<SignatureBox> {
    let text = str::from_utf8(text).ok()?;
    let mut lines = text.lines();
    let (_, signature, _, of_comment) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let has = |line: &str, length| STANDARD.decode(line.trim()).is_ok_and(|octets| octets.len() == length);
    let fits = has(signature, SIGNATURE_OCTETS) && has(of_comment, 64);
    fits.then(|| SignatureBox::from_string(text).ok()).flatten()
}

/// Where the signature of an order's file by the key of this name stands: `ORDER.toml.NAME.minisig`, beside it.
#[must_use]
pub fn signature_file(file: &Path, name: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(format!(".{name}{ENDING}"));
    path.into()
}

/// Checks the name of a key, which is part of file names.
///
/// # Errors
/// What is wrong and what to do.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..=NAME_OCTETS_MAX).contains(&name.len());
    if fits && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
        return Ok(());
    }
    Err(format!("{name:?} is no name of a key; write 1 to {NAME_OCTETS_MAX} letters, digits and hyphens"))
}

/// A secret key. It has no `Debug`: it is never shown.
#[derive(Clone)]
pub struct SecretKey {
    key: minisign::SecretKey,
    public: minisign::PublicKey,
}

impl SecretKey {
    /// A new key, by the operating system's random numbers, and the text of its file: encrypted where there is a
    /// password.
    ///
    /// # Errors
    /// When there are no random numbers, or the password is too long.
    pub fn make(name: &str, password: Option<&str>) -> Result<(Self, String), String> {
        let pair = match password {
            Some(password) => KeyPair::generate_encrypted_keypair(Some(password.to_owned())),
            None => KeyPair::generate_unencrypted_keypair(),
        };
        let comment = format!("bailiwick secret key of {name}; keep it to yourself");
        let text = pair.and_then(|pair| pair.sk.to_box(Some(&comment))).map_err(|error| error.to_string())?.to_string();
        Ok((Self::read(&text, password)?, text))
    }

    /// Reads the text of a secret key's file. One that is encrypted takes its password.
    ///
    /// # Errors
    /// What is wrong with it, or with the password.
    pub fn read(text: &str, password: Option<&str>) -> Result<Self, String> {
        let boxed = || SecretKeyBox::from(text.to_owned());
        let key = match (boxed().into_unencrypted_secret_key(), password) {
            (Ok(key), _) => Ok(key),
            // The library would ask the terminal, and a pipeline has none.
            (Err(error), None) if error.to_string().contains("encrypted") => {
                return Err("is encrypted; name the file of its password with --password-file".to_owned());
            }
            (Err(error), Some(password)) if error.to_string().contains("encrypted") => {
                let opened = boxed().into_secret_key(Some(password.to_owned()));
                opened.map_err(|_| "is not opened by this password; correct the one in --password-file")
            }
            (Err(_), _) => {
                Err("is not a secret key in minisign's format; name the one that `bailiwick sign --new` made")
            }
        };
        let key = key?;
        let public = minisign::PublicKey::from_secret_key(&key).map_err(|error| error.to_string())?;
        Ok(Self { key, public })
    }

    /// What verifies its signatures.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut octets = [0; PUBLIC_OCTETS];
        // Of the library's own making, and of this length.
        octets.iter_mut().zip(self.public.to_bytes()).for_each(|(to, from)| *to = from);
        PublicKey { octets }
    }

    /// The text of a signature's file over these octets. The trusted comment has the file's name and the time, as
    /// minisign's own has; nothing is decided by it.
    ///
    /// # Errors
    /// When there are no random numbers, or the key is not whole.
    pub fn sign(&self, octets: &[u8], file_name: &str, now: Timestamp) -> Result<String, String> {
        let name = file_name.replace(char::is_control, "\u{fffd}");
        let trusted = format!("timestamp:{}\tfile:{name}\thashed", now.as_second());
        let untrusted = Some("signature by bailiwick sign");
        let signature = minisign::sign(Some(&self.public), &self.key, Cursor::new(octets), Some(&trusted), untrusted);
        signature.map(SignatureBox::into_string).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Made by minisign 0.9 over `test`, from its author's documentation.
    const PUBLIC: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
        RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
        trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
        wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";

    fn now() -> Timestamp {
        "2026-11-22T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn what_minisign_signed_is_verified() {
        let key = PublicKey::from_text(PUBLIC).unwrap();
        assert_eq!(key.verify(b"test", SIGNATURE.as_bytes()), Ok(()));
        assert_eq!(key.verify(b"Test", SIGNATURE.as_bytes()), Err("is not over the file as it is now"));
        assert_eq!(key.to_string(), PUBLIC);
        let comment = SIGNATURE.replace("file:test", "file:best");
        assert!(key.verify(b"test", comment.as_bytes()).is_err(), "the trusted comment is signed too");
    }

    #[test]
    fn what_is_signed_here_is_verified_here() {
        let (secret, text) = SecretKey::make("anna", None).unwrap();
        let signature = secret.sign(b"octets", "a\n.toml", now()).unwrap();
        assert!(
            signature.contains("trusted comment: timestamp:1795305600\tfile:a\u{fffd}.toml\thashed\n"),
            "{signature}"
        );
        assert_eq!(secret.public().verify(b"octets", signature.as_bytes()), Ok(()));
        let other = SecretKey::make("bert", None).unwrap().0.public();
        assert_eq!(other.verify(b"octets", signature.as_bytes()), Err("is by another key"));
        let read = SecretKey::read(&text, None).unwrap();
        assert_eq!(read.public(), secret.public());
        // The number of a key is anyone's to claim.
        let mut claimed = other.octets;
        claimed[2..10].copy_from_slice(&secret.public().octets[2..10]);
        let claimed = PublicKey { octets: claimed };
        assert!(claimed.verify(b"octets", signature.as_bytes()).is_err());
        assert!(claimed.is_same_key(&other) && claimed != other && !claimed.is_same_key(&secret.public()));
    }

    #[test]
    fn every_cut_and_every_flip_of_a_signature_counts_nothing() {
        let key = PublicKey::from_text(PUBLIC).unwrap();
        let whole = SIGNATURE.trim_end().len();
        for cut in 0..whole {
            assert!(key.verify(b"test", &SIGNATURE.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        let comment = SIGNATURE.find('\n').unwrap();
        for at in comment..whole {
            let mut octets = SIGNATURE.as_bytes().to_vec();
            octets[at] ^= 2;
            assert!(key.verify(b"test", &octets).is_err(), "flipped at {at}");
        }
        for odd in ["", "\n\n\n\n", "untrusted comment: \n\ntrusted comment: \n\n"] {
            assert!(key.verify(b"test", odd.as_bytes()).is_err());
        }
    }

    #[test]
    fn every_cut_of_a_key_is_none() {
        for cut in 0..PUBLIC.len() {
            PublicKey::from_text(&PUBLIC[..cut]).unwrap_err();
        }
        for odd in [format!("{PUBLIC} "), PUBLIC.replacen("RW", "RU", 1), format!("{PUBLIC}AAAA")] {
            assert!(PublicKey::from_text(&odd).unwrap_err().contains("begin with RW"), "{odd}");
        }
        let (_, text) = SecretKey::make("anna", None).unwrap();
        for cut in 0..text.trim_end().len() {
            let what = SecretKey::read(&text[..cut], None).err().unwrap();
            assert_eq!(
                what, "is not a secret key in minisign's format; name the one that `bailiwick sign --new` made",
                "{cut}"
            );
        }
    }

    #[test]
    fn an_encrypted_key_takes_its_password() {
        let (_, text) = SecretKey::make("anna", Some("open")).unwrap();
        assert!(SecretKey::read(&text, None).err().unwrap().contains("--password-file"));
        assert!(SecretKey::read(&text, Some("shut")).err().unwrap().contains("is not opened by this password"));
        let secret = SecretKey::read(&text, Some("open")).unwrap();
        let signature = secret.sign(b"octets", "a.toml", now()).unwrap();
        assert_eq!(secret.public().verify(b"octets", signature.as_bytes()), Ok(()));
    }

    #[test]
    fn a_name_is_part_of_a_file_name() {
        assert_eq!(signature_file(Path::new("orders/a.toml"), "anna"), Path::new("orders/a.toml.anna.minisig"));
        for name in ["anna", "a-1", &"a".repeat(NAME_OCTETS_MAX)] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", "../anna", "a.b", "ä", &"a".repeat(NAME_OCTETS_MAX + 1)] {
            check_name(name).unwrap_err();
        }
    }
}
