//! The process that cleans up after us, also when we cannot.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::error::Error;

/// Reads the process groups to kill, one full list per line; at the end of its input, which comes when
/// its parent closes the pipe *or dies*, it kills the last list and removes the data folder. A dying
/// Erlang VM may still write while we remove, hence the repetition.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=
while IFS= read -r line; do groups=$line; done
for group in $groups; do kill -KILL "-$group"; done
tries=0
until rm -rf -- "$1" || [ "$tries" -ge 50 ]; do tries=$((tries + 1)); sleep 0.1; done
"#;

/// Kills the process groups it was told of and removes the data folder when it is dropped, or when this
/// process dies in any way.
#[derive(Debug)]
pub(crate) struct Guardian {
    folder: PathBuf,
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guardian {
    /// Watches over `folder`, from now on the guardian's to remove.
    pub(crate) fn start(folder: &Path) -> Result<Self, Error> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "longshore-guardian"])
            .arg(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Its own group: a Ctrl-C at the terminal must reach us, not the one who cleans up after us.
            .process_group(0)
            .spawn()
            .map_err(|error| Error::io("start `sh`", error))?;
        let pipe = shell.stdin.take();
        Ok(Self {
            folder: folder.to_owned(),
            shell,
            pipe,
        })
    }

    /// What it will remove.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Replaces the list of process groups that must not outlive us.
    pub(crate) fn watch(&mut self, groups: &[u32]) -> Result<(), Error> {
        let list: Vec<String> = groups.iter().map(u32::to_string).collect();
        let line = format!("{}\n", list.join(" "));
        match &mut self.pipe {
            Some(pipe) => pipe
                .write_all(line.as_bytes())
                .map_err(|error| Error::io("reach the clean-up process", error)),
            None => Ok(()),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}
