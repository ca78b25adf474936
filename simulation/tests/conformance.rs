//! A faulty transport without faults is the transport it wraps, and with a lost connection one whose
//! connection was cut.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use longshore_core::ConnectOptions;
use longshore_memory::MemoryBroker;
use longshore_testing::{
    conformance::{self, Suite},
    faulty::{Faults, Faulty},
};

fn main() -> ExitCode {
    let broker = MemoryBroker::new(&ConnectOptions::default());
    let all: Arc<Mutex<Vec<Faults>>> = Arc::default();
    let cut = Arc::clone(&all);
    let suite = Suite::new("faulty", move |_| {
        let (transport, faults) = Faulty::over(broker.open(), 7).open();
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(faults);
        Box::pin(async move { Ok(transport) })
    });
    conformance::main(suite.faults(conformance::Faults::new().cut(move || {
        let all = cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            for faults in all {
                faults.disconnect(Duration::ZERO, Duration::ZERO);
            }
            Ok(())
        })
    })))
}
