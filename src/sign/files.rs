//! What `bailiwick sign` does: a key pair, or the signature of a file, written to the disk.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{PublicKey, SecretKey, check_name, signature_file};

/// The most octets of a key's or a password's file.
const KEY_OCTETS_MAX: u64 = 4 << 10;

/// The most octets of a file that is signed: those of the largest order that is read.
const FILE_OCTETS_MAX: u64 = 4 << 20;

/// Only its owner reads a secret key.
const SECRET_MODE: u32 = 0o600;

/// Signatures and public keys are for everyone.
const PUBLIC_MODE: u32 = 0o644;

/// Makes a key pair, `NAME.key` and `NAME.pub`, in a folder; the text says what was made, and what to paste into the
/// configuration. The secret key's file is its owner's alone, and is encrypted where a file has a password.
///
/// # Errors
/// What keeps it from being made, in a line; a file that is there already is left as it is.
pub fn make_pair(name: &str, folder: &Path, password: Option<&Path>) -> Result<String, String> {
    check_name(name)?;
    let password = password.map(read_password).transpose()?;
    let (secret, text) = SecretKey::make(name, password.as_deref())?;
    let public = secret.public();
    let (secret_file, public_file) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.pub")));
    if let Some(there) = [&secret_file, &public_file].into_iter().find(|file| file.symlink_metadata().is_ok()) {
        let there = there.display();
        return Err(format!("{there}: is there already; move it away, or name another folder with --out"));
    }
    fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
    write_new(&secret_file, SECRET_MODE, &text)?;
    write_new(&public_file, PUBLIC_MODE, &format!("untrusted comment: bailiwick public key of {name}\n{public}\n"))?;
    Ok(format!(
        "secret key  {}, for {name} alone\npublic key  {}\n\n\
         In the configuration:\n\n[[policy.key]]\nname = \"{name}\"\npublic = \"{public}\"\n",
        secret_file.display(),
        public_file.display()
    ))
}

/// What `sign` is asked to do.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The file to sign.
    pub file: &'a Path,
    /// The secret key's file.
    pub key: &'a Path,
    /// The file of its password.
    pub password: Option<&'a Path>,
    /// The name of the key; None: that of its file.
    pub name: Option<&'a str>,
}

/// Signs a file: `FILE.NAME.minisig` beside it, in place of the one that may be there. The text says what was done.
/// `refuse` hears the file's octets, and what it says against them is said instead.
///
/// # Errors
/// What keeps it from being signed, in lines.
pub fn sign(
    wanted: &Wanted<'_>,
    now: Timestamp,
    refuse: impl FnOnce(&[u8]) -> Vec<String>,
) -> Result<String, Vec<String>> {
    let one = |what: String| vec![what];
    let stem = wanted.key.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let name = wanted.name.unwrap_or(stem);
    check_name(name).map_err(|what| one(format!("{what}; --name says whose key it is")))?;
    let octets = read(wanted.file, FILE_OCTETS_MAX).map_err(one)?;
    let against = refuse(&octets);
    if !against.is_empty() {
        return Err(against);
    }
    let secret = read_key(wanted).map_err(one)?;
    let file_name = wanted.file.file_name().unwrap_or_default().to_string_lossy();
    let key = wanted.key.display();
    let text = secret.sign(&octets, &file_name, now).map_err(|what| one(format!("{key}: {what}")))?;
    let to = signature_file(wanted.file, name);
    replace(&to, &text).map_err(one)?;
    let (file, to, public) = (wanted.file.display(), to.display(), secret.public());
    Ok(format!("signed  {file}, {} octets, as they are now\nby      {name}, {public}\nin      {to}\n", octets.len()))
}

fn read_key(wanted: &Wanted<'_>) -> Result<SecretKey, String> {
    let password = wanted.password.map(read_password).transpose()?;
    let text = read_text(wanted.key, KEY_OCTETS_MAX)?;
    let shown = wanted.key.display();
    if PublicKey::in_file(&text).is_some() {
        return Err(format!("{shown}: is a public key; sign with the secret one{}", secret_beside(wanted.key)));
    }
    SecretKey::read(&text, password.as_deref()).map_err(|what| format!("{shown}: {what}"))
}

/// `, NAME.key`, where a public key's file is `NAME.pub`.
fn secret_beside(public: &Path) -> String {
    match public.extension() {
        Some(ending) if ending == "pub" => format!(", {}", public.with_extension("key").display()),
        _ => String::new(),
    }
}

/// The first line of a file: an editor adds the end of it.
fn read_password(file: &Path) -> Result<String, String> {
    let text = read_text(file, KEY_OCTETS_MAX)?;
    match text.lines().next().unwrap_or_default() {
        "" => Err(format!("{}: has no password in its first line; write one", file.display())),
        password => Ok(password.to_owned()),
    }
}

fn read_text(file: &Path, octets_max: u64) -> Result<String, String> {
    String::from_utf8(read(file, octets_max)?)
        .map_err(|_| format!("{}: is not text; name another file", file.display()))
}

fn read(file: &Path, octets_max: u64) -> Result<Vec<u8>, String> {
    let shown = file.display();
    let mut octets = Vec::new();
    let opened = File::open(file).and_then(|open| open.take(octets_max + 1).read_to_end(&mut octets));
    opened.map_err(|error| format!("{shown}: cannot be read: {error}"))?;
    let fits = octets.len() as u64 <= octets_max;
    if fits { Ok(octets) } else { Err(format!("{shown}: is larger than {octets_max} octets; name another file")) }
}

fn write_new(file: &Path, mode: u32, text: &str) -> Result<(), String> {
    let write = || {
        let mut open = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()
    };
    write().map_err(|error| cannot_write(file, &error))
}

/// Whole at once: a server may be watching.
fn replace(file: &Path, text: &str) -> Result<(), String> {
    let mut temporary = PathBuf::from(file).into_os_string();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // One of a run that was cut off; there is none otherwise.
    let _ = fs::remove_file(&temporary);
    write_new(&temporary, PUBLIC_MODE, text)?;
    fs::rename(&temporary, file).map_err(|error| cannot_write(file, &error))
}

fn cannot_write(file: &Path, error: &io::Error) -> String {
    format!("{}: cannot be written: {error}; name another folder", file.display())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_pair_is_private_is_never_overwritten_and_signs() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let said = make_pair("anna", &path("keys"), None).unwrap();
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("keys/anna.key"), mode("keys/anna.pub") & 0o600), (0o600, 0o600));
        let public = said.lines().find_map(|line| line.strip_prefix("public = \"")?.strip_suffix('"')).unwrap();
        let public = PublicKey::from_text(public).unwrap();
        assert_eq!(fs::read_to_string(path("keys/anna.pub")).unwrap().lines().nth(1), Some(&public.to_string()[..]));
        let secret = fs::read(path("keys/anna.key")).unwrap();
        assert!(make_pair("anna", &path("keys"), None).unwrap_err().contains("anna.key: is there already"));
        assert_eq!(fs::read(path("keys/anna.key")).unwrap(), secret);
        fs::remove_file(path("keys/anna.key")).unwrap();
        assert!(make_pair("anna", &path("keys"), None).unwrap_err().contains("anna.pub: is there already"));
        make_pair("../anna", &path("keys"), None).unwrap_err();
    }

    #[test]
    fn a_file_is_signed_beside_it_and_a_mistaken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        make_pair("anna", folder.path(), None).unwrap();
        fs::write(path("a.toml"), "octets").unwrap();
        let (file, key) = (path("a.toml"), path("anna.key"));
        let wanted = Wanted { file: &file, key: &key, password: None, name: None };
        assert_eq!(sign(&wanted, now(), |_| vec!["a.toml:1:1: no".to_owned()]), Err(vec!["a.toml:1:1: no".to_owned()]));
        assert!(!path("a.toml.anna.minisig").exists());
        for name in [None, None, Some("an-na")] {
            let said = sign(&Wanted { name, ..wanted }, now(), |_| vec![]).unwrap();
            let to = signature_file(&file, name.unwrap_or("anna"));
            assert!(said.contains(&to.display().to_string()), "{said}");
            let public = fs::read_to_string(path("anna.pub")).unwrap();
            let public = PublicKey::from_text(public.lines().nth(1).unwrap()).unwrap();
            assert_eq!(public.verify(b"octets", &fs::read(to).unwrap()), Ok(()));
        }
        let count = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(count, 5, "a temporary file is left");
        fs::write(path("password"), "open\n").unwrap();
        make_pair("bert", folder.path(), Some(&path("password"))).unwrap();
        let key = path("bert.key");
        let bert = Wanted { key: &key, ..wanted };
        assert!(sign(&bert, now(), |_| vec![]).unwrap_err()[0].contains("bert.key: is encrypted; name the file"));
        sign(&Wanted { password: Some(&path("password")), ..bert }, now(), |_| vec![]).unwrap();
        let refused = |wanted: &Wanted<'_>| sign(wanted, now(), |_| vec![]).unwrap_err().remove(0);
        assert!(refused(&Wanted { name: Some("a/b"), ..wanted }).contains("--name"));
        assert!(refused(&Wanted { key: &file, ..wanted }).contains("a.toml: is not a secret key"));
        let (public, named) = (path("anna.pub"), path("anna.key"));
        let what = format!("{}: is a public key; sign with the secret one, {}", public.display(), named.display());
        assert_eq!(refused(&Wanted { key: &public, ..wanted }), what);
        fs::copy(&public, path("public")).unwrap();
        let what = refused(&Wanted { key: &path("public"), ..wanted });
        assert!(what.ends_with("public: is a public key; sign with the secret one"), "{what}");
        assert!(refused(&Wanted { file: folder.path(), ..wanted }).contains("cannot be read"));
        assert!(refused(&Wanted { file: &path("b.toml"), ..wanted }).contains("b.toml: cannot be read"));
    }
}
