//! The register's file: read whole or not at all, written whole and durable.

use std::io;
use std::path::{Path, PathBuf};

use super::Register;
use crate::policy::load;

/// The most octets of a register's file that are read: some hundred thousand orders.
const REGISTER_OCTETS_MAX: u64 = 512 << 20;

impl Register {
    /// Where a state folder has it.
    #[must_use]
    pub fn file(folder: &Path) -> PathBuf {
        folder.join("register.json")
    }

    /// The register of a state folder: an empty one where there is none yet, and where it cannot be read, beside a
    /// warning that says why. A server starts all the same: what the last good copies say still holds.
    #[must_use]
    pub fn read(folder: &Path) -> (Self, Option<String>) {
        let file = Self::file(folder);
        if matches!(file.try_exists(), Ok(false)) {
            return (Self::default(), None);
        }
        let octets = load::read_file(&file, REGISTER_OCTETS_MAX);
        let read =
            octets.and_then(|octets| serde_json::from_slice(&octets).map_err(|error| format!("is damaged: {error}")));
        read.map_or_else(|what| (Self::default(), Some(lost(&file, &what))), |register| (register, None))
    }

    /// Writes it to a state folder, whole and on the disk before it takes the old one's name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        load::write_whole(&Self::file(folder), &serde_json::to_vec(self)?)
    }
}

fn lost(file: &Path, what: &str) -> String {
    format!(
        "{}: {what}; an empty register is begun: since when orders are carried out, and which were lifted by removing \
         their files, is forgotten; put a backup in its place and restart",
        file.display()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::tests::{at, order, policy};

    #[test]
    fn what_is_saved_is_read_again_and_a_cut_file_begins_an_empty_one() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Register::read(state.path()), (Register::default(), None));
        let mut register = Register::default();
        register.follow(&policy(&[order("x", &["a.example"]), order("y", &["b.example"])], &[], &[]), at(0));
        register.save(state.path()).unwrap();
        let (read, warning) = Register::read(state.path());
        assert_eq!((&read.orders, warning), (&register.orders, None));
        let octets = fs::read(Register::file(state.path())).unwrap();
        for cut in 0..octets.len() {
            fs::write(Register::file(state.path()), &octets[..cut]).unwrap();
            let (read, warning) = Register::read(state.path());
            assert_eq!(read, Register::default());
            assert!(warning.unwrap().contains("register.json: is damaged: "), "cut at {cut}");
        }
        fs::remove_file(Register::file(state.path())).unwrap();
        fs::create_dir(Register::file(state.path())).unwrap();
        assert!(Register::read(state.path()).1.unwrap().contains("is not a file"));
        register.save(state.path()).unwrap_err();
    }
}
