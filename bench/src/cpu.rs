//! CPU time of this process.

use std::time::Duration;

/// User and system time of all threads, those that have ended included, to 10 ms. `None` where there is no
/// `/proc`.
pub(crate) fn used() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold spaces; `utime` and `stime` are
    // the fields 14 and 15 (proc_pid_stat(5)), counted in hundredths on every Linux.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}
