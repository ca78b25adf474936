//! The conformance suite of stores on the memory store.

use std::{process::ExitCode, sync::Arc};

use longshore_core::{Store, SystemClock};
use longshore_memory::MemoryStore;
use longshore_testing::conformance::{StoreSuite, store_main};

fn main() -> ExitCode {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(SystemClock::new())));
    store_main(StoreSuite::new("memory", move || {
        let store = store.clone();
        Box::pin(async move { Ok(store) })
    }))
}
