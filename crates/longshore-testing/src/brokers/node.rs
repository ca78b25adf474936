//! One server process: started, signalled, awaited, its log read.

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::{Error, ErrorKind};
use super::port::Port;

const POLL: Duration = Duration::from_millis(20);
/// Generous: several brokers may start at once on a small machine.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(90);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
const LOG_TAIL_LINES: usize = 100;

/// A process group led by the command we ran, with the ports it listens on.
#[derive(Debug)]
pub(crate) struct Node {
    name: String,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    ports: Vec<Port>,
    child: Option<Child>,
}

impl Node {
    /// `ports[0]` is the one clients use. Nothing runs yet.
    pub(crate) fn new(
        name: impl Into<String>,
        command: Vec<String>,
        environment: Vec<(String, String)>,
        log: PathBuf,
        ports: Vec<Port>,
    ) -> Self {
        Self {
            name: name.into(),
            command,
            environment,
            log,
            ports,
            child: None,
        }
    }

    pub(crate) fn port(&self) -> &Port {
        &self.ports[0]
    }

    pub(crate) fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The process group, while it is not known to have ended.
    pub(crate) fn group(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn spawn(&mut self) -> Result<(), Error> {
        if !self.has_exited() {
            return Err(Error::new(
                ErrorKind::Command,
                format!("{} runs already: kill or stop it first", self.name),
            ));
        }
        let log = self.open_log()?;
        let also = log
            .try_clone()
            .map_err(|error| Error::io("share the log file", error))?;
        let child = prepared(&self.command, &self.environment)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(also)
            .process_group(0)
            .spawn()
            .map_err(|error| Error::io(format!("run `{}`", self.command.join(" ")), error))?;
        self.child = Some(child);
        Ok(())
    }

    /// Sends a signal (`KILL`, `STOP`, `CONT`, …) to the whole group. Not running is fine.
    pub(crate) fn signal(&self, signal: &str) -> Result<(), Error> {
        match self.group() {
            Some(group) => kill(signal, &format!("-{group}")),
            None => Ok(()),
        }
    }

    /// `kill -9` of the whole group; returns when its ports are closed.
    pub(crate) async fn kill(&mut self) -> Result<(), Error> {
        self.signal("KILL")?;
        self.gone().await
    }

    /// Asks it to end properly; returns when it has, or kills it after a minute and says so.
    pub(crate) async fn stop(&mut self) -> Result<(), Error> {
        let Some(group) = self.group() else {
            return Ok(());
        };
        // To the leader alone: RabbitMQ's start script passes it on and waits for the Erlang VM.
        kill("TERM", &group.to_string())?;
        if let Err(error) = self.gone().await {
            self.kill().await?;
            return Err(error);
        }
        Ok(())
    }

    /// Waits until the leader has ended and nothing listens on the ports any more. The rest of the group
    /// cannot be waited for: where nobody reaps orphans, its zombies stay members for ever.
    async fn gone(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + STOPPED_WITHIN;
        while !(self.has_exited() && self.ports.iter().all(Port::is_free)) {
            if Instant::now() > deadline {
                return Err(self.failure(ErrorKind::NotReady, "did not end"));
            }
            tokio::time::sleep(POLL).await;
        }
        self.child = None;
        Ok(())
    }

    /// Whether the leader has ended (or was never started).
    pub(crate) fn has_exited(&mut self) -> bool {
        self.child
            .as_mut()
            .is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Repeats `attempt` until it gives a value.
    ///
    /// # Errors
    /// The process ended, or 90 s passed; with the last reason and the tail of the log.
    pub(crate) async fn until<T, F>(
        &mut self,
        awaited: &str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let reason = match tokio::time::timeout(Duration::from_secs(5), attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer within 5 s".to_owned(),
            };
            if self.has_exited() {
                return Err(
                    self.failure(ErrorKind::Exited, &format!("ended before it was {awaited}"))
                );
            }
            if Instant::now() > deadline {
                return Err(self.failure(
                    ErrorKind::NotReady,
                    &format!("was not {awaited} in time ({reason})"),
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) fn failure(&self, kind: ErrorKind, what: &str) -> Error {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n  ");
        let command = self.command.join(" ");
        Error::new(
            kind,
            format!(
                "{} {what}\n  command: {command}\n  log:\n  {tail}",
                self.name
            ),
        )
    }

    fn open_log(&self) -> Result<File, Error> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|error| Error::io(format!("open {}", self.log.display()), error))
    }
}

impl Drop for Node {
    /// Kills what the guardian has not, takes the exit status so that no zombie stays, and waits (at most
    /// 5 s) for the rest of the group to close the ports.
    fn drop(&mut self) {
        let Some(group) = self.group() else { return };
        let _ = kill("KILL", &format!("-{group}"));
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.ports.iter().all(Port::is_free) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }
}

/// A command with an environment of its own: what the system configures for its brokers (`RABBITMQ_*`,
/// `ERL_*`) must not reach ours.
pub(crate) fn prepared(command: &[String], environment: &[(String, String)]) -> Command {
    let mut search = std::env::var("PATH").unwrap_or_default();
    search.push_str(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut prepared = Command::new(&command[0]);
    prepared
        .args(&command[1..])
        .env_clear()
        .env("PATH", search)
        .env("LANG", "C.UTF-8")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/");
    prepared
}

/// Through the shell: its `kill` is built in, and the crate may not call the system directly.
fn kill(signal: &str, target: &str) -> Result<(), Error> {
    Command::new("sh")
        .args(["-c", "kill -\"$1\" \"$2\"", "sh", signal, target])
        .stderr(Stdio::null())
        .status()
        // A group that has just ended is not an error: the caller waits for the state it wants.
        .map(drop)
        .map_err(|error| Error::io("run `sh`", error))
}
