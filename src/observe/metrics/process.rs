//! The process itself, by the names that all Prometheus clients use.

use std::fs;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use nix::sys::resource::Resource;
use nix::sys::resource::UsageWho;
use nix::sys::resource::getrlimit;
use nix::sys::resource::getrusage;
use nix::sys::time::TimeVal;

/// What the process uses at a moment. What the system does not tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user and system mode, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Virtual memory in bytes.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The most file descriptors that may be open.
    pub max_fds: Option<u64>,
}

impl Usage {
    /// Reads what the process uses now.
    #[must_use]
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            cpu_seconds: getrusage(UsageWho::RUSAGE_SELF)
                .ok()
                .map(|usage| seconds(usage.user_time()) + seconds(usage.system_time())),
            resident_bytes: kibibytes(&status, "VmRSS:"),
            virtual_bytes: kibibytes(&status, "VmSize:"),
            threads: number(&status, "Threads:"),
            // The descriptor that reads the folder is among the entries.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .and_then(|entries| u64::try_from(entries.count()).ok())
                .map(|count| count.saturating_sub(1)),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

/// Resident memory in bytes, where the system tells; cheap enough to be asked several times a second.
#[must_use]
pub fn resident() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Resident memory in bytes that is not that of files: what was allocated, and stacks.
#[must_use]
pub fn resident_of_its_own() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// When the process began, in seconds since the epoch: the system's word for it, or else `now`.
#[must_use]
pub fn started(now: SystemTime) -> f64 {
    let told = || {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let boot = number(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
        Some(boot as f64 + start_after_boot(&stat)?.as_secs_f64())
    };
    told().unwrap_or_else(|| now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
}

fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

/// The number behind `name` at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|number| number.parse().ok())
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    number(text, name).and_then(|number| number.checked_mul(1024))
}

/// Field 22 of `/proc/self/stat`, `starttime`: clock ticks after boot, of which user space sees a
/// hundred a second whatever the kernel's own are. The second field is a name that may have spaces and
/// brackets in it.
fn start_after_boot(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some(Duration::from_millis(ticks.checked_mul(10)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_file_is_read_by_name() {
        let status = "Name:\tedge\nVmSize:\t  123 kB\nVmRSS:\t 45 kB\nThreads:\t7\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(45 * 1024));
        assert_eq!(kibibytes(status, "VmSize:"), Some(123 * 1024));
        assert_eq!(number(status, "Threads:"), Some(7));
        assert_eq!(number(status, "VmSwap:"), None);
        assert_eq!(number("Threads:\tmany", "Threads:"), None);
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "1 (a) b)) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 1234 99 100";
        assert_eq!(start_after_boot(stat), Some(Duration::from_millis(12_340)));
        assert_eq!(start_after_boot("1 (a) S"), None);
        assert_eq!(start_after_boot(""), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::now();
        assert!(usage.resident_bytes > Some(1 << 20), "{usage:?}");
        assert!(usage.virtual_bytes >= usage.resident_bytes, "{usage:?}");
        assert!(usage.threads >= Some(1) && usage.open_fds >= Some(3), "{usage:?}");
        assert!(usage.max_fds > usage.open_fds && usage.cpu_seconds > Some(0.0), "{usage:?}");
    }

    #[test]
    fn this_process_began_before_now_and_not_long_ago() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = started(UNIX_EPOCH);
        // Boot time is told in whole seconds.
        assert!(started <= now + 2.0 && started > now - 3600.0, "{started} {now}");
    }
}
