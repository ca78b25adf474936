//! Dedup marks: who has an id, and what becomes of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use longshore_core::{Mark, MarkChange, MarkWrite, Take, Text, mark_name};
use tokio::time::Instant;

use super::{
    stage::{LONG, SHORT, StoreStage, done, mark, take, waiting},
    store_cases,
};
use crate::conformance::must::Must;

store_cases![
    p12_an_id_is_taken_by_one_and_held_from_others,
    p12_the_same_owner_may_ask_again,
    p12_takes_are_answered_in_order,
    p12_of_many_at_once_one_gets_the_id,
    p12_scopes_and_names_are_apart,
    p12_names_may_hold_any_character,
    p12_what_is_done_stays_done_for_its_window,
    p12_what_is_done_answers_its_reply,
    p12_anybody_may_say_that_an_id_is_done,
    p12_what_is_released_is_anybodys,
    p12_what_waits_is_for_the_next_attempt,
    p12_only_its_owner_lets_an_id_wait_or_go,
    p12_writes_may_be_repeated,
];

async fn p12_an_id_is_taken_by_one_and_held_from_others(stage: Arc<StoreStage>) {
    StoreStage::assert_taken(&stage.take(take("id", "a")).await);
    for owner in ["b", "", "aa"] {
        StoreStage::assert_held(&stage.take(take("id", owner)).await, LONG);
        StoreStage::assert_held(&stage.take_elsewhere(take("id", owner)).await, LONG);
    }
    assert_eq!(stage.one.shared(), stage.other.shared());
}

async fn p12_the_same_owner_may_ask_again(stage: Arc<StoreStage>) {
    for _ in 0..3 {
        StoreStage::assert_taken(&stage.take(take("id", "a")).await);
        StoreStage::assert_taken(&stage.take_elsewhere(take("id", "a")).await);
    }
    StoreStage::assert_held(&stage.take(take("id", "b")).await, LONG);
}

async fn p12_takes_are_answered_in_order(stage: Arc<StoreStage>) {
    StoreStage::assert_taken(&stage.take(take("held", "x")).await);
    stage.write(mark("done", "x", done(None))).await;
    let marks = stage
        .take_all(&[
            take("one", "a"),
            take("held", "a"),
            take("done", "a"),
            take("two", "a"),
            take("one", "b"),
            take("two", "a"),
        ])
        .await;
    StoreStage::assert_taken(&marks[0]);
    StoreStage::assert_held(&marks[1], LONG);
    assert_eq!(marks[2], Mark::Done { reply: None });
    StoreStage::assert_taken(&marks[3]);
    StoreStage::assert_held(&marks[4], LONG);
    StoreStage::assert_taken(&marks[5]);
    assert!(stage.take_all(&[]).await.is_empty());
    let many: Vec<_> = (0..500).map(|at| take(&format!("m{at}"), "a")).collect();
    let marks = stage.take_all(&many).await;
    assert!(marks.iter().all(|mark| *mark == Mark::Taken));
}

async fn p12_of_many_at_once_one_gets_the_id(stage: Arc<StoreStage>) {
    for round in 0..15 {
        let mut asking = Vec::new();
        for at in 0..16 {
            let stage = stage.clone();
            asking.push(tokio::spawn(async move {
                let take = take(&format!("id-{round}"), &format!("owner-{at}"));
                if at % 2 == 0 {
                    stage.take(take).await
                } else {
                    stage.take_elsewhere(take).await
                }
            }));
        }
        let mut taken = 0;
        for asked in asking {
            match asked.await.must("who asks") {
                Mark::Taken => taken += 1,
                other => StoreStage::assert_held(&other, LONG),
            }
        }
        assert_eq!(taken, 1, "in round {round}");
    }
}

async fn p12_scopes_and_names_are_apart(stage: Arc<StoreStage>) {
    let names = ["id", "id-1", "i", "ID", "id ", " id"];
    for name in names {
        StoreStage::assert_taken(&stage.take(take(name, "a")).await);
    }
    for (scope, keys) in [
        (format!("{}.s16.03", stage.scope), None),
        (format!("{}.s16.04", stage.scope), Some("k")),
    ] {
        let name = mark_name(keys, "id");
        let take = Take {
            name: name.clone(),
            ..take("", "b")
        };
        let marks = stage.other.take(&scope.clone().into(), &[take]).await;
        StoreStage::assert_taken(&marks.must("taking")[0]);
        let done = MarkWrite {
            name,
            ..mark("", "b", done(None))
        };
        let written = stage.other.write(&scope.into(), &[done]).await;
        written.must("writing");
    }
    for name in names {
        StoreStage::assert_held(&stage.take_elsewhere(take(name, "b")).await, LONG);
    }
}

async fn p12_names_may_hold_any_character(stage: Arc<StoreStage>) {
    let odd: [Text; 10] = [
        "ü✓\u{1f600}".into(),
        "{braces}".into(),
        "a:b*c?d[e]".into(),
        "\"quoted\" \\ 'n' $1 %s".into(),
        "line\r\nfeed\ttab\u{0}nul".into(),
        "-inf".into(),
        "x".repeat(128).into(),
        "ü".repeat(64).into(),
        mark_name(Some(&"ключ".repeat(16)), &"'".repeat(128)),
        mark_name(Some("{k}:"), "\u{7f}\u{85}"),
    ];
    let different: BTreeSet<_> = odd.iter().collect();
    assert_eq!(different.len(), odd.len());
    for (at, name) in odd.iter().enumerate() {
        let owner = format!("owner {{{at}}}:'\"\\");
        StoreStage::assert_taken(&stage.take(take(name, &owner)).await);
        StoreStage::assert_held(&stage.take_elsewhere(take(name, "b")).await, LONG);
        assert_eq!(
            stage.renew(&[(name, &owner), (name, "b")], LONG).await,
            [true, false]
        );
        stage.write(mark(name, &owner, waiting(2))).await;
        let second = Take {
            attempt: 2,
            ..take(name, &owner)
        };
        StoreStage::assert_taken(&stage.take_elsewhere(second).await);
        stage.write(mark(name, &owner, done(Some(b"\0\xff")))).await;
        let reply = Some(Bytes::from_static(b"\0\xff"));
        assert_eq!(
            stage.take_elsewhere(take(name, "b")).await,
            Mark::Done { reply }
        );
    }
}

async fn p12_what_is_done_stays_done_for_its_window(stage: Arc<StoreStage>) {
    let window = SHORT * 2;
    for owner in ["a", ""] {
        let name = format!("id-{owner}");
        stage.take(take(&name, "a")).await;
        let written = Instant::now();
        let change = MarkChange::Done {
            window,
            reply: None,
        };
        stage.write(mark(&name, owner, change)).await;
        loop {
            let (asked, mark) = (Instant::now(), stage.take_elsewhere(take(&name, "b")).await);
            match mark {
                Mark::Done { reply: None } => {
                    assert!(asked < written + window + super::stage::SLACK, "for ever");
                }
                Mark::Taken => {
                    let lasted = written.elapsed() + Duration::from_millis(1);
                    assert!(lasted >= window, "forgotten after {lasted:?}");
                    break;
                }
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // Not even whoever had it before gets it inside.
    stage.take(take("own", "a")).await;
    stage.write(mark("own", "a", done(None))).await;
    for sole in [false, true] {
        let again = Take {
            sole,
            attempt: 7,
            ..take("own", "a")
        };
        assert_eq!(stage.take(again).await, Mark::Done { reply: None });
    }
}

async fn p12_what_is_done_answers_its_reply(stage: Arc<StoreStage>) {
    let large: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let replies = [
        None,
        Some(Bytes::new()),
        Some(Bytes::from_static(b"{\"price\":7}")),
        Some(Bytes::from_static(b"\0\r\n\xff\xfed")),
        Some(Bytes::from(large)),
    ];
    for (at, reply) in replies.into_iter().enumerate() {
        let name = format!("id-{at}");
        StoreStage::assert_taken(&stage.take(take(&name, "a")).await);
        let change = MarkChange::Done {
            window: LONG,
            reply: reply.clone(),
        };
        stage.write(mark(&name, "a", change)).await;
        for owner in ["a", "b"] {
            let mark = stage.take_elsewhere(take(&name, owner)).await;
            let same = mark
                == Mark::Done {
                    reply: reply.clone(),
                };
            assert!(same, "reply {at} is another");
        }
    }
}

async fn p12_anybody_may_say_that_an_id_is_done(stage: Arc<StoreStage>) {
    stage.take(take("running", "a")).await;
    stage.take(take("waiting", "a")).await;
    stage.write(mark("waiting", "a", waiting(2))).await;
    let marks = ["running", "waiting", "unknown"];
    let writes = marks.map(|name| mark(name, "b", done(Some(b"by b"))));
    stage.write_all(&writes).await;
    let reply = Some(Bytes::from_static(b"by b"));
    for name in marks {
        for owner in ["a", "c"] {
            let found = stage.take_elsewhere(take(name, owner)).await;
            assert_eq!(
                found,
                Mark::Done {
                    reply: reply.clone()
                },
                "{name}"
            );
        }
    }
    // And nobody, that it is not.
    for owner in ["a", "b", ""] {
        stage
            .write_all(&marks.map(|name| mark(name, owner, MarkChange::Released)))
            .await;
        stage
            .write_all(&marks.map(|name| mark(name, owner, waiting(1))))
            .await;
    }
    for name in marks {
        let found = stage.take(take(name, "a")).await;
        assert_eq!(
            found,
            Mark::Done {
                reply: reply.clone()
            },
            "{name}"
        );
    }
}

async fn p12_what_is_released_is_anybodys(stage: Arc<StoreStage>) {
    for round in 0..3 {
        let owner = format!("owner-{round}");
        StoreStage::assert_taken(&stage.take_elsewhere(take("id", &owner)).await);
        stage.write(mark("id", &owner, MarkChange::Released)).await;
    }
    StoreStage::assert_taken(&stage.take(take("id", "last")).await);
}

async fn p12_what_waits_is_for_the_next_attempt(stage: Arc<StoreStage>) {
    stage.take(take("id", "a")).await;
    let at_most = Duration::from_secs(30);
    let change = MarkChange::Waiting {
        attempt: 3,
        at_most,
    };
    stage.write(mark("id", "a", change)).await;
    for attempt in [1, 2] {
        let early = Take {
            attempt,
            ..take("id", "b")
        };
        StoreStage::assert_held(&stage.take_elsewhere(early).await, at_most);
    }
    // A number that could not be counted exactly may be larger.
    let next = Take {
        attempt: 4,
        ..take("id", "b")
    };
    StoreStage::assert_taken(&stage.take_elsewhere(next).await);
    for (owner, attempt) in [("a", 3), ("c", 9)] {
        let late = Take {
            attempt,
            ..take("id", owner)
        };
        StoreStage::assert_held(&stage.take(late).await, LONG);
    }
    // It runs again, and what its former owner says is heard no more.
    stage.write(mark("id", "a", MarkChange::Released)).await;
    StoreStage::assert_held(&stage.take(take("id", "c")).await, LONG);
    assert_eq!(
        stage.renew(&[("id", "a"), ("id", "b")], LONG).await,
        [false, true]
    );
    // Exactly the number is enough.
    stage.write(mark("id", "b", waiting(5))).await;
    let fifth = Take {
        attempt: 5,
        ..take("id", "c")
    };
    StoreStage::assert_taken(&stage.take(fifth).await);
}

async fn p12_only_its_owner_lets_an_id_wait_or_go(stage: Arc<StoreStage>) {
    for name in ["one", "two"] {
        stage.take(take(name, "a")).await;
    }
    for owner in ["b", "", "A"] {
        stage
            .write_all(&[
                mark("one", owner, MarkChange::Released),
                mark("two", owner, waiting(1)),
                mark("three", owner, MarkChange::Released),
            ])
            .await;
        for name in ["one", "two"] {
            let asked = stage.take_elsewhere(take(name, "c")).await;
            StoreStage::assert_held(&asked, LONG);
        }
    }
    let still = stage.renew(&[("one", "a"), ("two", "a")], LONG).await;
    assert_eq!(still, [true, true], "its owner has lost nothing");
    // What is somebody else's does not keep the rest of a batch from being written.
    stage
        .write_all(&[
            mark("one", "b", MarkChange::Released),
            mark("two", "a", MarkChange::Released),
        ])
        .await;
    StoreStage::assert_held(&stage.take(take("one", "c")).await, LONG);
    StoreStage::assert_taken(&stage.take(take("two", "c")).await);
}

async fn p12_writes_may_be_repeated(stage: Arc<StoreStage>) {
    stage.take(take("id", "a")).await;
    for _ in 0..2 {
        stage.write(mark("id", "a", waiting(2))).await;
    }
    StoreStage::assert_held(&stage.take(take("id", "b")).await, LONG);
    let second = Take {
        attempt: 2,
        ..take("id", "b")
    };
    StoreStage::assert_taken(&stage.take(second).await);
    for _ in 0..2 {
        stage.write(mark("id", "b", done(Some(b"once")))).await;
    }
    let reply = Some(Bytes::from_static(b"once"));
    assert_eq!(stage.take(take("id", "c")).await, Mark::Done { reply });
    stage.write_all(&[]).await;
}
