//! A service as a process with no environment set, and good jobs beside whatever a test sends it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use longshore::{Client, DeadLetter, Draft, Queue};
use tokio::process::{Child, Command};

use crate::{job::Job, journal, service::terminate, unique, waiting::until, witness::dead};

/// A running service with a queue of its own.
#[derive(Debug)]
pub struct Scene {
    /// The broker.
    pub url: String,
    /// An operator's connection.
    pub client: Client,
    /// The queue.
    pub queue: Queue,
    process: Child,
    log: PathBuf,
    journal: PathBuf,
    good: u64,
}

impl Scene {
    /// Starts `program` (`logging_service`) with files in `folder`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start(program: &str, folder: &str, url: &str, name: &str) -> Self {
        let name = unique(name);
        let client = longshore::connect(url).await.expect("a broker");
        let queue = Queue::new(&name);
        client.declare(&queue).await.expect("a queue");
        let (log, journal) = (
            Path::new(folder).join(format!("{name}.log")),
            Path::new(folder).join(format!("{name}.journal")),
        );
        let process = Command::new(program)
            .args([
                url,
                &name,
                journal.to_str().expect("text"),
                "info,longshore=trace",
            ])
            .env_clear()
            .stdin(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            .kill_on_drop(true)
            .spawn()
            .expect("the service starts");
        let mut scene = Self {
            url: url.to_owned(),
            client,
            queue,
            process,
            log,
            journal,
            good: 0,
        };
        scene.works().await;
        scene
    }

    /// Sends one good job and waits until it is done, in its first attempt.
    ///
    /// # Panics
    /// When the service has died or does not handle it.
    pub async fn works(&mut self) {
        self.good += 1;
        let number = self.good;
        let sent = self.client.publish(&self.queue, &Job { number }).await;
        sent.expect("published");
        self.done(number).await;
    }

    /// Sends many good jobs.
    ///
    /// # Panics
    /// When one is not accepted.
    pub async fn send(&mut self, count: u64) {
        let numbers = self.good + 1..=self.good + count;
        self.good += count;
        let drafts = numbers.map(|number| Draft::new(&Job { number }));
        for answer in self.client.publish_all(&self.queue, drafts).await {
            answer.expect("published");
        }
    }

    /// Waits until this many good jobs are done, each in its first attempt.
    ///
    /// # Panics
    /// When the service has died or does not handle them.
    pub async fn done(&mut self, count: u64) {
        let process = &mut self.process;
        let (journal, log) = (&self.journal, &self.log);
        until(
            &format!("{count} good jobs are done"),
            Duration::from_secs(60),
            async || {
                if let Some(status) = process.try_wait().expect("a child") {
                    let said = std::fs::read_to_string(log).unwrap_or_default();
                    let lines: Vec<_> = said.lines().collect();
                    let last = lines[lines.len().saturating_sub(20)..].join("\n");
                    panic!("the service ended with {status}: {last}");
                }
                let done = journal::attempts(&journal::read(journal).ok()?, "done");
                let all = (1..=count).all(|number| done.get(&number).is_some_and(|a| a == &[1]));
                all.then_some(())
            },
        )
        .await;
    }

    /// How often a job of this number is done.
    pub fn done_count(&self, number: u64) -> usize {
        let events = journal::read(&self.journal).unwrap_or_default();
        let done = journal::attempts(&events, "done");
        done.get(&number).map_or(0, Vec::len)
    }

    /// All good jobs so far.
    pub fn sent(&self) -> u64 {
        self.good
    }

    /// Waits for so many dead letters while the service lives and works.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn sets_aside(&mut self, count: usize) -> Vec<DeadLetter> {
        self.works().await;
        let found = dead(&self.client, &self.queue, count).await;
        assert_eq!(found.len(), count, "{found:?}");
        found
    }

    /// Everything the service has logged.
    ///
    /// # Panics
    /// When that is no text.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).expect("text")
    }

    /// The most memory the service has had resident so far, in KiB.
    ///
    /// # Panics
    /// When it is not running.
    pub fn peak_kib(&self) -> u64 {
        let process = self.process.id().expect("running");
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let figure = line.and_then(|line| line.split_whitespace().next());
        figure.and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Ends the service with SIGTERM; what is in the queue stays there.
    ///
    /// # Panics
    /// When it does not end well.
    pub async fn stop(&mut self) {
        terminate(&self.process).await.expect("signalled");
        let status = self.process.wait().await.expect("waited for");
        assert!(status.success(), "{status}: {}", self.logged());
    }
}
