//! attacks.md, the block policy: what its files may hold, and that the last good one stays.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bailiwick::dns::Qtype;
use tempfile::TempDir;

use crate::field::{one_worker, others_are_served, processor, resident};
use crate::support::{PATIENCE, Server, Upstream, query};

const ORDER: &str = "id = \"it-1\"\nissuer = \"Court\"\njurisdiction = [\"*\"]\nreceived = 2026-01-01T00:00:00Z\n\
    state = \"in-force\"\n[[target]]\nsubtree = [\"ordered.example\"]\n";

/// A server with an order and a list in force.
struct Stage {
    _upstream: Upstream,
    folder: TempDir,
    server: Server,
}

impl Stage {
    fn set() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("orders")).unwrap();
        fs::write(folder.path().join("orders/it.toml"), ORDER).unwrap();
        fs::write(folder.path().join("list.txt"), "listed.example\n").unwrap();
        let upstream = Upstream::delaying();
        let policy = format!(
            "[policy]\norders = \"{0}/orders\"\n[[policy.list]]\nname = \"malware\"\nfile = \"{0}/list.txt\"\n\
            format = \"domains\"\ncovers = \"subtree\"\n",
            folder.path().display()
        );
        let server = one_worker(&upstream, &policy);
        let stage = Self { _upstream: upstream, folder, server };
        stage.both_are_blocked();
        stage
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("list.txt")
    }

    fn order(&self) -> PathBuf {
        self.folder.path().join("orders/it.toml")
    }

    fn both_are_blocked(&self) {
        for name in ["www.ordered.example", "www.listed.example"] {
            let mut dot = self.server.dot();
            dot.ask(&[query(1, name, Qtype::A)]);
            assert_eq!(dot.receive().rcode, 3, "{name}");
        }
    }

    /// Puts a file in the place of `path` by one rename, waits until the server tells of it, and sees what it cost.
    fn put(&self, path: &Path, make: impl FnOnce(&Path)) -> (Duration, usize) {
        let aside = self.folder.path().join("aside");
        make(&aside);
        let (processor_before, resident_before) = (processor(&self.server), resident(&self.server));
        let mut most = 0;
        fs::rename(&aside, path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let start = Instant::now();
        while !self.server.get("/health").unwrap().contains(file) {
            assert!(start.elapsed() < PATIENCE, "nothing is said of {file}");
            most = most.max(resident(&self.server));
            others_are_served(&self.server);
            sleep(Duration::from_millis(20));
        }
        self.both_are_blocked();
        (processor(&self.server) - processor_before, most.saturating_sub(resident_before))
    }

    /// Puts the good files back, and waits until all is well.
    fn restore(&self) {
        fs::write(self.order(), ORDER).unwrap();
        fs::write(self.list(), "listed.example\n").unwrap();
        let start = Instant::now();
        while self.server.get("/health").unwrap().contains("degraded") {
            assert!(start.elapsed() < PATIENCE, "{}", self.server.get("/health").unwrap());
            sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_huge_list_or_order_is_refused_and_the_old_one_stays() {
    let stage = Stage::set();
    let sparse = |path: &Path| File::create(path).unwrap().set_len(300 << 20).unwrap();
    for file in [stage.list(), stage.order()] {
        let (spent, grown) = stage.put(&file, sparse);
        assert!(grown < 32 << 20, "{grown} octets");
        assert!(spent < Duration::from_secs(2), "{spent:?}");
        stage.restore();
    }
}

#[test]
fn a_page_of_html_or_octets_of_anything_keep_the_old_one() {
    let stage = Stage::set();
    let html = b"<!DOCTYPE html>\n<html><body>\nerror.example\n</body></html>\n".to_vec();
    let octets: Vec<u8> = (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for garbage in [html, octets, vec![0; 100_000], Vec::new()] {
        for file in [stage.list(), stage.order()] {
            stage.put(&file, |path| fs::write(path, &garbage).unwrap());
            stage.restore();
        }
    }
}

/// Order files as large as may be, of what costs a TOML parser most.
#[test]
fn garbage_of_the_greatest_size_takes_neither_long_nor_much() {
    const OCTETS: usize = 4 << 20;
    let stage = Stage::set();
    let lines = |line: &str| line.repeat(OCTETS / line.len()).into_bytes();
    let numbered: String = (0..=OCTETS / 12).map(|number| format!("k{number:07} =1\n")).collect();
    for garbage in [
        lines("["),
        lines("a = ["),
        lines("a."),
        lines("[[target]]\n"),
        lines("x\n"),
        lines("= \"\n"),
        lines("{a="),
        [b"a = [".to_vec(), lines("1,")].concat()[..OCTETS].to_vec(),
        numbered.into_bytes()[..OCTETS].to_vec(),
        lines("\""),
    ] {
        let start = String::from_utf8_lossy(&garbage[..12]).into_owned();
        let (spent, grown) = stage.put(&stage.order(), |path| fs::write(path, &garbage).unwrap());
        eprintln!("{start:?}: {spent:?}, {} MiB", grown >> 20);
        let seconds = if cfg!(debug_assertions) { 15 } else { 3 };
        assert!(spent < Duration::from_secs(seconds), "{start:?}: {spent:?}");
        assert!(grown < 1 << 30, "{start:?}: {grown} octets");
        stage.restore();
    }
}
