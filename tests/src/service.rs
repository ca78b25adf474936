//! A service as a process of its own, started again whenever it dies.

use std::{
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    task::JoinHandle,
};

/// How to run the `service` program.
#[derive(Debug, Clone)]
pub struct Service {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Service {
    /// The program, with name and value of each argument.
    pub fn new(program: &str, arguments: &[(&str, &str)]) -> Self {
        Self {
            program: program.into(),
            arguments: arguments
                .iter()
                .flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()])
                .collect(),
        }
    }

    /// Starts it once.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn spawn(&self) -> io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    }

    /// Starts it, and again whenever it dies, until the supervisor is stopped.
    pub fn supervise(&self) -> Supervisor {
        let service = self.clone();
        let stopping = Arc::new(AtomicBool::new(false));
        let crashes = Arc::new(AtomicU32::new(0));
        let (told, counted) = (Arc::clone(&stopping), Arc::clone(&crashes));
        let task = tokio::spawn(async move {
            while !told.load(Ordering::SeqCst) {
                let mut child = service.spawn()?;
                let status = loop {
                    tokio::select! {
                        biased;
                        status = child.wait() => break status?,
                        () = tokio::time::sleep(Duration::from_millis(20)), if told.load(Ordering::SeqCst) => {
                            terminate(&child).await?;
                            break child.wait().await?;
                        }
                        () = tokio::time::sleep(Duration::from_millis(50)) => {}
                    }
                };
                if !status.success() {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }
            Ok(())
        });
        Supervisor {
            stopping,
            crashes,
            task,
        }
    }
}

/// Keeps one service running.
#[derive(Debug)]
pub struct Supervisor {
    stopping: Arc<AtomicBool>,
    crashes: Arc<AtomicU32>,
    task: JoinHandle<io::Result<()>>,
}

impl Supervisor {
    /// How often it ended other than by being told.
    pub fn crashes(&self) -> u32 {
        self.crashes.load(Ordering::SeqCst)
    }

    /// Ends the service with SIGTERM and waits for it.
    ///
    /// # Errors
    /// What went wrong while it was supervised.
    pub async fn stop(self) -> io::Result<()> {
        self.stopping.store(true, Ordering::SeqCst);
        self.task.await.map_err(io::Error::other)?
    }
}

/// Sends SIGTERM.
///
/// # Errors
/// What the operating system says.
pub async fn terminate(child: &Child) -> io::Result<ExitStatus> {
    let process = child.id().unwrap_or_default().to_string();
    Command::new("kill")
        .args(["-TERM", &process])
        .status()
        .await
}
