//! Many users set out on one road, each with other permissions.

use std::{future::Future, time::Duration};

use longshore::{Client, Connect, WorkerHandle};
use tokio::task::{LocalSet, spawn_local};

/// How long a road may take, and how long one that is blocked is tried: most say so soon, some wait for ever.
const ENOUGH: Duration = Duration::from_secs(120);
const TOO_LONG: Duration = Duration::from_secs(40);

/// One user, on keys or in a virtual host of its own.
pub(crate) struct Walk {
    /// The one thing it was not granted.
    pub(crate) without: Option<String>,
    /// Who may do everything there.
    pub(crate) owner: Connect,
    pub(crate) user: Connect,
}

/// Who was granted everything passes, and nobody else.
pub(crate) async fn walk_all<P, R>(
    user: &str,
    walks: Vec<Walk>,
    prepare: impl Fn(Client) -> P + Copy + 'static,
    road: impl Fn(Connect) -> R + Copy + 'static,
) where
    P: Future<Output = Option<WorkerHandle>> + 'static,
    R: Future<Output = ()> + 'static,
{
    let (set, named) = (LocalSet::new(), user.to_owned());
    let mut walking = Vec::new();
    for walk in walks {
        let limit = match walk.without {
            None => ENOUGH,
            Some(_) => TOO_LONG,
        };
        let user = named.clone();
        let walk = async move {
            let owner = walk.owner.open().await.unwrap();
            let others = prepare(owner.clone()).await;
            let walked = spawn_local(tokio::time::timeout(limit, road(walk.user)));
            let passed = matches!(walked.await, Ok(Ok(())));
            drop(others);
            owner.close().await;
            println!("{user} without {:?}: {passed}", walk.without);
            (walk.without, passed)
        };
        walking.push(set.spawn_local(walk));
    }
    set.await;
    let mut spare = Vec::new();
    for walk in walking {
        match walk.await.unwrap() {
            (None, passed) => assert!(passed, "what is granted to {user} is not enough"),
            (Some(piece), true) => spare.push(piece),
            (Some(_), false) => {}
        }
    }
    assert!(spare.is_empty(), "{user} does not need {spare:#?}");
}
