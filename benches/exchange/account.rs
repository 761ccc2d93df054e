//! What a process has used, as /proc tells it.

use std::fs;

use super::Failure;

/// Microseconds of a clock tick in /proc: Linux shows it as a hundredth of a second whatever the kernel's own is.
const TICK_US: f64 = 10_000.0;

/// What a process has used since it began, or between two looks at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// CPU time of all its threads, user and system, in microseconds.
    pub(crate) cpu_us: f64,
    /// The user part of it.
    pub(crate) user_us: f64,
    /// System calls that write.
    pub(crate) writes: u64,
}

impl Used {
    /// Until now.
    pub(crate) fn of(pid: u32) -> Result<Self, Failure> {
        let [stat, io] = ["stat", "io"].map(|file| fs::read_to_string(format!("/proc/{pid}/{file}")));
        let (stat, io) = (stat?, io?);
        let strange = || format!("/proc/{pid} is not as proc(5) has it");
        let [user_us, system_us] = cpu(&stat).ok_or_else(strange)?;
        let writes = field(&io, "syscw:").ok_or_else(strange)?;
        Ok(Self { cpu_us: user_us + system_us, user_us, writes })
    }

    /// Between an earlier look and this one.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_us: self.cpu_us - before.cpu_us,
            user_us: self.user_us - before.user_us,
            writes: self.writes - before.writes,
        }
    }
}

/// Memory of a process that is in RAM, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    field(&status, "VmRSS:").ok_or_else(|| "no VmRSS in /proc".into())
}

/// The cores that this process may run on, one by one; none where /proc does not say.
pub(crate) fn cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let listed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    listed.map(|listed| ranges(listed.trim())).unwrap_or_default()
}

/// The processor's name.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown processor".to_owned(), |(_, model)| model.to_owned())
}

/// User and system time out of a `stat` line. The program's name in it may hold anything, closing brackets too.
fn cpu(stat: &str) -> Option<[f64; 2]> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11).map(|ticks| ticks.parse::<f64>().ok());
    Some([fields.next()?? * TICK_US, fields.next()?? * TICK_US])
}

/// The number behind a word that begins a line.
fn field(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `0-2,5` → 0, 1, 2, 5.
fn ranges(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}
