//! Nothing outlives the conductor: its pipe to a process is the life of that process.

use std::{io::Read, thread};

/// Ends this process when its standard input ends, which comes when the conductor closes it or dies.
pub(crate) fn hold() {
    thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
}

/// A shell that lets a stopped process go on when the conductor dies: a stopped one would never notice.
pub(crate) fn thaw_with_us(process: u32) -> std::io::Result<std::process::Child> {
    std::process::Command::new("sh")
        .args(["-c", "read -r _; kill -CONT \"$1\"", "longshore-thaw"])
        .arg(process.to_string())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
}
