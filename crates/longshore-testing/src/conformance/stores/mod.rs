//! The conformance suite of stores: what every place for dedup marks and session state promises.

mod fences;
mod leases;
mod marks;
mod stage;
mod states;

use std::{fmt, future::Future, pin::Pin, process::ExitCode, sync::Arc, time::Duration};

use libtest_mimic::{Arguments, Completion, Trial};
use longshore_core::{Ids, RandomIds, Result, Store};

use self::stage::StoreStage;
use super::{
    case::Running,
    playing::{Played, played, runtime, within},
};

/// A store being opened.
pub type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn Store>>> + Send>>;

/// A store under test. Each call of `open` stands for another process that uses the same one; where
/// the store knows one process alone, it answers the same store again.
#[derive(Clone)]
pub struct StoreSuite {
    name: String,
    open: Arc<dyn Fn() -> Opening + Send + Sync>,
    time_limit: Duration,
}

impl StoreSuite {
    /// A suite for the store of this name.
    pub fn new(
        name: impl Into<String>,
        open: impl Fn() -> Opening + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            open: Arc::new(open),
            time_limit: Duration::from_secs(60),
        }
    }

    /// How long one case may take. Default 60 s.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    fn trial(&self, case: &'static StoreCase) -> Trial {
        let suite = self.clone();
        let trial = Trial::test(case.name, move || {
            let limit = suite.time_limit;
            played(case.name, limit, move || suite.run(case)).map(|_| ())
        });
        trial.with_kind(self.name.clone())
    }

    fn run(&self, case: &StoreCase) -> Played {
        let runtime = runtime()?;
        let playing = async {
            let opened = (self.open)().await;
            let one = opened.map_err(|e| format!("cannot open: {:?}: {e}", e.kind()))?;
            let opened = (self.open)().await;
            let other = opened.map_err(|e| format!("cannot open: {:?}: {e}", e.kind()))?;
            let scope = format!("store.{}", RandomIds.text()).into();
            (case.run)(Arc::new(StoreStage { one, other, scope })).await;
            Ok(Completion::Completed)
        };
        let ended = runtime.block_on(within(self.time_limit, playing));
        runtime.shutdown_timeout(Duration::from_secs(5));
        ended
    }
}

impl fmt::Debug for StoreSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSuite")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Runs the cases of a store that the arguments of the process ask for, as the standard test harness
/// would, and answers with its exit code.
pub fn store_main(suite: StoreSuite) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most cases wait most of the time.
    arguments.test_threads.get_or_insert(4);
    let cases = [marks::CASES, leases::CASES, states::CASES, fences::CASES];
    let trials = cases.into_iter().flatten().map(|case| suite.trial(case));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// A named case of a store.
struct StoreCase {
    name: &'static str,
    run: fn(Arc<StoreStage>) -> Running,
}

/// Lists the cases of a file.
macro_rules! store_cases {
    ($($name:ident),* $(,)?) => {
        pub(super) const CASES: &[$crate::conformance::stores::StoreCase] = &[
            $($crate::conformance::stores::StoreCase {
                name: stringify!($name),
                run: |stage| Box::pin($name(stage)),
            }),*
        ];
    };
}
use store_cases;
