//! The conformance suite on the memory transport.

use std::process::ExitCode;

use longshore_core::ConnectOptions;
use longshore_memory::MemoryBroker;
use longshore_testing::conformance::{self, Faults, Suite};

fn main() -> ExitCode {
    let broker = MemoryBroker::new(&ConnectOptions::default());
    let cut = broker.clone();
    let suite = Suite::new("memory", move |_| {
        let transport = broker.open();
        Box::pin(async move { Ok(transport) })
    });
    conformance::main(suite.faults(Faults::new().cut(move || {
        cut.lose_locks();
        Box::pin(async { Ok(()) })
    })))
}
