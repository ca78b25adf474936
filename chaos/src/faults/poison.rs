//! Messages that do harm.

use super::{Act, Evidence, Fault};
use crate::plan::{Fates, On};

pub(super) fn all() -> Vec<Fault> {
    let load = |name, row, says| Fault {
        on: On::ALL,
        mixes: false,
        evidence: Evidence {
            redeliveries: 100,
            ..Evidence::default()
        },
        ..Fault::new(name, row, says, Act::Load)
    };
    vec![
        Fault {
            plan: |plan| plan.fates.panic = 60,
            ..load("panic", "26", "one message of sixteen panics every time")
        },
        Fault {
            on: On::SERVERS,
            plan: |plan| {
                plan.fates.abort = 1;
                plan.busy = (1, 50);
            },
            evidence: Evidence {
                aborts: 5,
                redeliveries: 20,
                ..Evidence::default()
            },
            ..load(
                "abort",
                "27",
                "a message takes its process with it, by abort, stack overflow or want of memory",
            )
        },
        Fault {
            plan: |plan| plan.fates.hang = 20,
            ..load("hang", "28", "one message of fifty never returns")
        },
        Fault {
            on: On::SERVERS,
            plan: |plan| {
                plan.slow = (2, 2_500);
                plan.blocks = true;
            },
            evidence: Evidence {
                redeliveries: 20,
                ..Evidence::default()
            },
            ..load(
                "block",
                "28",
                "one message of five hundred blocks its thread for longer than a lock",
            )
        },
        Fault {
            plan: |plan| {
                plan.bulk = (30, 900_000);
                plan.complaint = 1 << 20;
                plan.load.plain = 40;
                plan.load.sessions = 60;
                plan.load.dedup = 20;
                plan.memory = 768 << 20;
                plan.fates.fail = 60;
            },
            ..load(
                "huge",
                "29",
                "bodies near the limit, and errors of a mebibyte",
            )
        },
        Fault {
            plan: |plan| {
                plan.complaint = 1 << 20;
                plan.load.plain = 200;
                plan.memory = 512 << 20;
                plan.fates = Fates {
                    always: 300,
                    refuse: 200,
                    panic: 30,
                    ..plan.fates
                };
            },
            ..load(
                "poison-flood",
                "30",
                "half of all messages fail for good, and say so at length",
            )
        },
    ]
}
