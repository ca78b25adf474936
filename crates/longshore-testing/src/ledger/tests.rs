use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::*;
use crate::history::{Event, Record, Recorder, read};

/// Where the second process finds its socket and its history: it runs
/// [`the_other_process`] of this very program.
const FOLDER: &str = "LONGSHORE_TEST_LEDGER";

/// A ledger in a process of its own.
struct Other {
    folder: PathBuf,
    process: Child,
}

impl Other {
    fn start(name: &str) -> Self {
        let folder = format!("longshore-ledger-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("created");
        let process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "ledger::tests::the_other_process", "--ignored"])
            .env(FOLDER, &folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("started");
        let other = Self { folder, process };
        let begun = Instant::now();
        while UnixStream::connect(other.socket()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it listens");
            std::thread::sleep(Duration::from_millis(5));
        }
        other
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn history(&self) -> Vec<Record> {
        let lines = read(self.folder.join("history")).expect("a history");
        lines.map(|line| line.expect("a line")).collect()
    }

    fn signal(&self, name: &str) {
        let process = self.process.id().to_string();
        let sent = Command::new("kill").args([name, &process]).status();
        assert!(sent.expect("run").success());
    }

    /// Waits until a signal to stop has reached every thread.
    fn stands_still(&self) {
        let tasks = format!("/proc/{}/task", self.process.id());
        let stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            Some(stat.rsplit_once(") ")?.1.starts_with(['T', 't']))
        };
        let begun = Instant::now();
        while !std::fs::read_dir(&tasks)
            .expect("it runs")
            .all(|task| stopped(task) == Some(true))
        {
            assert!(begun.elapsed() < Duration::from_secs(30), "it stops");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Not a test: what the second process runs.
#[ignore = "run by the other tests, in a process of its own"]
#[tokio::test]
async fn the_other_process() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let recorder = Recorder::open(folder.join("history")).expect("opened");
    let served = serve(folder.join("socket"), recorder).await;
    panic!("{served:?}");
}

#[test]
fn a_token_below_the_largest_of_its_session_is_stale_and_without_a_session_none_is() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.decide(Some("a"), 2), Effect::Accepted);
    assert_eq!(ledger.decide(Some("a"), 1), Effect::Stale);
    assert_eq!(ledger.decide(Some("a"), 2), Effect::Accepted);
    assert_eq!(ledger.decide(Some("b"), 1), Effect::Accepted);
    assert_eq!(ledger.decide(None, 0), Effect::Accepted);
}

#[tokio::test]
async fn every_answer_is_in_the_history_before_it_is_given() {
    let other = Other::start("answers");
    let client = Client::connect(other.socket()).await.expect("it listens");
    let asked = [
        (1, Some("orders/7"), 2, Effect::Accepted),
        (2, Some("orders/7"), 1, Effect::Stale),
        (3, Some(""), 1, Effect::Accepted),
        (4, None, 0, Effect::Accepted),
    ];
    for (place, (message, key, token, expected)) in asked.into_iter().enumerate() {
        let effect = client.effect(message, key, token).await.expect("answered");
        assert_eq!(effect, expected);
        let history = other.history();
        let last = history.last().expect("a line");
        assert_eq!(history.len(), place + 1);
        assert_eq!(last.process, other.process.id());
        let event = Event::Effect {
            message,
            token,
            effect,
        };
        assert_eq!(last.event, event);
    }
}

#[tokio::test]
async fn of_many_at_once_each_gets_its_own_answer() {
    let other = Other::start("many");
    let client = Client::connect(other.socket()).await.expect("it listens");
    let client = std::sync::Arc::new(client);
    assert_eq!(
        client.effect(0, Some("stale"), 9).await.expect("answered"),
        Effect::Accepted
    );
    let mut asking = tokio::task::JoinSet::new();
    for message in 1..=300_u64 {
        let client = std::sync::Arc::clone(&client);
        asking.spawn(async move {
            let key = if message % 3 == 0 { "stale" } else { "fresh" };
            let asked = client.effect(message, Some(key), 1);
            // Every seventh handler is dropped while it asks.
            if message % 7 == 0 {
                let _ = tokio::time::timeout(Duration::from_micros(message), asked).await;
                return;
            }
            let expected = match message % 3 {
                0 => Effect::Stale,
                _ => Effect::Accepted,
            };
            assert_eq!(asked.await.expect("answered"), expected);
        });
    }
    while let Some(ended) = asking.join_next().await {
        ended.expect("each is right");
    }
    let answered = other.history().len();
    assert!((1 + 300 - 300 / 7..=301).contains(&answered), "{answered}");
}

#[tokio::test]
async fn whatever_a_client_does_harms_nobody_else() {
    let other = Other::start("hostile");
    let client = Client::connect(other.socket()).await.expect("it listens");
    let connect = || UnixStream::connect(other.socket()).expect("it listens");
    let head = |key: u16| [&[0; 16][..], &key.to_be_bytes()].concat();

    let mut half = connect();
    half.write_all(&head(5)[..11]).expect("written");
    let half_a_key = [head(5), b"ab".to_vec()].concat();
    connect().write_all(&half_a_key).expect("written, and gone");
    let never_read = [head(2), b"ab".to_vec()].concat().repeat(100);
    connect().write_all(&never_read).expect("written, and gone");
    // A key that is too long, or no text, ends its connection unanswered.
    for frame in [head(1_025), [head(2), vec![0xff, 0xfe]].concat()] {
        let mut stream = connect();
        stream.write_all(&frame).expect("written");
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).expect("set");
        assert_eq!(stream.read(&mut [0]).expect("closed, not silent"), 0);
    }

    let effect = client.effect(1, Some("orders/7"), 1).await;
    assert_eq!(effect.expect("answered"), Effect::Accepted);
    let too_long = "k".repeat(1_025);
    let refused = client.effect(2, Some(&too_long), 1).await;
    assert_eq!(
        refused.expect_err("refused").kind(),
        std::io::ErrorKind::InvalidInput
    );
    drop(half);
    let effect = client.effect(3, Some(&too_long[..1_024]), 1).await;
    assert_eq!(effect.expect("answered"), Effect::Accepted);
}

#[tokio::test]
async fn an_effect_without_an_answer_is_an_error_and_the_next_one_asks_anew() {
    let other = Other::start("silent");
    let client = Client::connect(other.socket()).await.expect("it listens");
    other.signal("-STOP");
    other.stands_still();
    let silent = client.effect(1, Some("a"), 2).await;
    assert_eq!(
        silent.expect_err("no answer").kind(),
        std::io::ErrorKind::TimedOut
    );
    other.signal("-CONT");
    let begun = Instant::now();
    while other.history().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Its answer, to nobody, does not become that of another.
    let effect = client.effect(2, Some("a"), 1).await.expect("answered");
    assert_eq!(effect, Effect::Stale);

    let socket = other.socket();
    drop(other);
    let gone = client.effect(3, None, 0).await;
    assert!(gone.is_err(), "{gone:?}");
    assert!(Client::connect(socket).await.is_err());
}
