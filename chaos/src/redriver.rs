//! The sub-command `redriver`: sends all dead letters back, once.

use std::path::Path;

use longshore_core::chaos::before_crash;
use longshore_testing::history::{Event, Recorder};

use crate::{
    Failure,
    item::Item,
    lifeline,
    plan::{HISTORY, Kind, Plan},
};

/// Sends back what is dead now and can be read.
///
/// # Errors
/// What keeps it from writing the history. A broker that is away is no error: there is a next time.
pub(crate) async fn run() -> Result<(), Failure> {
    lifeline::hold();
    let plan = Plan::read(Path::new("."))?;
    let history = std::sync::Arc::new(Recorder::open(HISTORY)?);
    let last = std::sync::Arc::clone(&history);
    before_crash(move || {
        let victim = std::process::id();
        let _ = last.add(Event::Killed { victim });
    });
    let client = match plan.connect("chaos-redriver", &plan.url, None).await {
        Ok(client) => client,
        Err(error) => {
            eprintln!("cannot connect: {error}");
            return Ok(());
        }
    };
    for kind in Kind::ALL {
        let mut noted = Ok(());
        let dead = client.dead_letters(&kind.queue(&plan));
        let swept = dead.redrive_where(
            |letter| match Item::number_of(&letter.envelope) {
                Some(message) if noted.is_ok() => {
                    noted = history.add(Event::Redriven { message });
                    noted.is_ok()
                }
                _ => false,
            },
            |_| {},
        );
        if let Err(error) = swept.await {
            eprintln!("{} cannot be sent back: {error}", kind.name());
        }
        noted?;
    }
    client.close().await;
    Ok(())
}
