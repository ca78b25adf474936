//! The suite: a transport's name, how to connect, and the run of all cases.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    process::ExitCode,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use libtest_mimic::{Arguments, Completion, Trial};
use longshore_core::{ConnectOptions, Ids, RandomIds, Result, Text, Transport};

use super::{
    case::{Case, Met},
    cases,
    faults::Faults,
    playing::{Played, played, runtime, within},
    refusal,
    stage::Stage,
};

/// A connection being opened.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Arc<dyn Transport>>> + Send>>;

/// A transport under test. Each call of `connect` stands for another process on the same broker.
#[derive(Clone)]
pub struct Suite {
    pub(crate) name: String,
    pub(crate) connect: Arc<dyn Fn(ConnectOptions) -> Connecting + Send + Sync>,
    pub(crate) faults: Faults,
    pub(crate) lock: Duration,
    ordered: bool,
    only_faults: bool,
    pub(crate) duplicates: bool,
    pub(crate) settling: Duration,
    time_limit: Duration,
}

impl Suite {
    /// A suite for the transport of this name.
    pub fn new(
        name: impl Into<String>,
        connect: impl Fn(ConnectOptions) -> Connecting + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            connect: Arc::new(connect),
            faults: Faults::new(),
            lock: Duration::from_secs(2),
            ordered: true,
            only_faults: false,
            duplicates: false,
            settling: Duration::ZERO,
            time_limit: Duration::from_secs(120),
        }
    }

    /// What may be done to the broker.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// How long locks last in subscriptions. Default 2 s; cases about locks wait for it.
    #[must_use]
    pub fn lock(mut self, lock: Duration) -> Self {
        self.lock = lock;
        self
    }

    /// The transport does not keep publish order even where nothing fails.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.ordered = false;
        self
    }

    /// The death of a process may leave one more copy of a message, with the same id and number, as
    /// on brokers that cannot move a message in one step.
    #[must_use]
    pub fn may_duplicate(mut self) -> Self {
        self.duplicates = true;
        self
    }

    /// How old a queue must be for the broker itself to survive being killed with it. Default 0.
    #[must_use]
    pub fn queues_settle_in(mut self, time: Duration) -> Self {
        self.settling = time;
        self
    }

    /// Only the cases that need its faults.
    #[must_use]
    pub fn only_faults(mut self) -> Self {
        self.only_faults = true;
        self
    }

    /// How long one case may take. Default 120 s.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    fn trial(self: &Arc<Self>, case: &'static Case, run: Text, alone: Arc<RwLock<()>>) -> Trial {
        let suite = self.clone();
        let trial = Trial::ignorable_test(case.name, move || {
            if case.alone() {
                let _alone = alone.write().unwrap_or_else(PoisonError::into_inner);
                suite.run_named(case, run)
            } else {
                let _together = alone.read().unwrap_or_else(PoisonError::into_inner);
                suite.run_named(case, run)
            }
        });
        trial.with_kind(self.name.clone())
    }

    fn run_named(self: Arc<Self>, case: &'static Case, run: Text) -> Played {
        let limit = self.time_limit;
        played(case.name, limit, move || self.run(case, run))
    }

    fn run(self: &Arc<Self>, case: &Case, run: Text) -> Played {
        let runtime = runtime()?;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(within(self.time_limit, self.play(case, run)))
        }));
        if case.is_given_by(&self.faults) {
            runtime.block_on(self.faults.mend());
        }
        runtime.shutdown_timeout(Duration::from_secs(5));
        ended.unwrap_or_else(|panic| resume_unwind(panic))
    }

    async fn play(self: &Arc<Self>, case: &Case, run: Text) -> Played {
        let stage = match Stage::new(self.clone(), run).await {
            Ok(stage) => Arc::new(stage),
            Err(error) => return Err(format!("cannot connect: {:?}: {error}", error.kind()).into()),
        };
        let can = stage.transport.capabilities();
        match case.met(can, &self.faults, self.ordered) {
            Met::Yes => (case.run)(stage.clone()).await,
            Met::Refused(need) => refusal::check(need, &stage).await,
            Met::NotCovered(why) => return Ok(Completion::ignored_with(why)),
        }
        stage.strike().await;
        Ok(Completion::Completed)
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite")
            .field("name", &self.name)
            .field("faults", &self.faults)
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

impl From<Suite> for Vec<Suite> {
    fn from(suite: Suite) -> Self {
        vec![suite]
    }
}

/// Runs the cases that the arguments of the process ask for, as the standard test harness would, and
/// answers with its exit code. Of several suites, the first one that can run a case with a fault does.
pub fn main(suites: impl Into<Vec<Suite>>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most cases wait most of the time.
    arguments.test_threads.get_or_insert(4);
    let suites: Vec<_> = suites.into().into_iter().map(Arc::new).collect();
    let alone = Arc::new(RwLock::new(()));
    let run = RandomIds.text();
    let mut trials = Vec::new();
    // Those that run alone come last: each would keep the others waiting.
    let (alone_ones, others): (Vec<_>, Vec<_>) = cases::all().partition(|case| case.alone());
    for case in others.into_iter().chain(alone_ones) {
        let runs: Vec<_> = if case.is_fault() {
            let able = suites.iter().find(|s| case.is_given_by(&s.faults));
            able.or(suites.first()).into_iter().collect()
        } else {
            suites.iter().filter(|suite| !suite.only_faults).collect()
        };
        trials.extend(
            runs.into_iter()
                .map(|s| s.trial(case, run.clone(), alone.clone())),
        );
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
