//! A machine that stands still is a fault like any other.

use std::{io, path::Path, time::Duration};

use longshore_testing::history::{Event, Recorder, now, read};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(100);
/// So much later than asked, a process was not given what it needs to renew a lock in time.
const STALL: Duration = Duration::from_millis(400);
/// The name of the fault.
const NAME: &str = "stall";

/// Notes whenever this process was kept from running: nothing is wrong with a lock that is lost then.
pub(crate) async fn watch(history: &Recorder) {
    loop {
        let before = now();
        tokio::time::sleep(LOOK).await;
        if now().saturating_sub(before) > LOOK + STALL {
            let fault = || NAME.to_owned();
            let _ = history.add_at(before, Event::FaultBegins { fault: fault() });
            let _ = history.add(Event::FaultEnds { fault: fault() });
        }
    }
}

/// How often that happened.
///
/// # Errors
/// What the file system says.
pub(crate) fn count(history: &Path) -> io::Result<u64> {
    let mut stalls = 0;
    for record in read(history)? {
        let stalled = Event::FaultEnds {
            fault: NAME.to_owned(),
        };
        stalls += u64::from(record?.event == stalled);
    }
    Ok(stalls)
}
