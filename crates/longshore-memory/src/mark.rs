//! What an id can be in a dedup window, and how it gets from one to the other. Pure: the table that
//! keeps them is [`marks`](crate::marks).

use std::time::Duration;

use bytes::Bytes;
use longshore_core::{Mark, MarkChange, MarkWrite, Take, Text};

/// How an id stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Taken when this copy was published; the number names the copy.
    Held(u64),
    /// A copy runs, or is about to.
    Running { owner: Text },
    /// A copy waits for its next attempt.
    Waiting { attempt: u32 },
    /// A copy was completed.
    Done { reply: Option<Bytes> },
}

/// An id with how it stands and until when, by the store's clock. What has passed is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) standing: Standing,
    pub(crate) until: Duration,
}

/// Who writes a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// A caller of the store. With an empty owner it means whatever is held since its publish.
    Anybody,
    /// The delivery of the copy with this number.
    Copy(u64),
    /// A delivery that no window concerns: it may complete and change nothing else.
    Exempt,
}

/// What becomes of a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It stays as it is.
    Keep,
    /// It stands so from now on.
    Set(Known),
    /// It is unknown from now on.
    Forget,
}

/// Asks for an id: how it stands afterwards where the asker gets it, else what stands in the way.
pub(crate) fn take(known: Option<&Known>, take: &Take, now: Duration) -> Result<Known, Mark> {
    if let Some(known) = known {
        let ours = match &known.standing {
            Standing::Done { reply } => {
                let reply = reply.clone();
                return Err(Mark::Done { reply });
            }
            // Of one session only one copy is out at a time, so whoever had it is gone or behind.
            _ if take.sole => true,
            Standing::Held(_) => false,
            Standing::Running { owner } => *owner == take.owner,
            Standing::Waiting { attempt } => take.attempt >= *attempt,
        };
        if !ours {
            let at_most = known.until.saturating_sub(now);
            return Err(Mark::Held { at_most });
        }
    }
    Ok(Known {
        standing: Standing::Running {
            owner: take.owner.clone(),
        },
        until: now.saturating_add(take.lease),
    })
}

/// Renews a lease; `None` where it is not this owner's.
pub(crate) fn renew(known: &Known, owner: &Text, lease: Duration, now: Duration) -> Option<Known> {
    let ours = matches!(&known.standing, Standing::Running { owner: o } if o == owner);
    ours.then(|| Known {
        standing: known.standing.clone(),
        until: now.saturating_add(lease),
    })
}

/// Changes a mark as far as it is the writer's.
pub(crate) fn write(
    known: Option<&Known>,
    write: &MarkWrite,
    writer: Writer,
    now: Duration,
) -> Change {
    let standing = known.map(|known| &known.standing);
    let held = match (standing, writer) {
        (Some(Standing::Held(_)), Writer::Anybody) => write.owner.is_empty(),
        (Some(Standing::Held(by)), Writer::Copy(copy)) => write.owner.is_empty() && *by == copy,
        _ => false,
    };
    let running = matches!(standing, Some(Standing::Running { owner }) if *owner == write.owner)
        && writer != Writer::Exempt;
    match &write.change {
        MarkChange::Done { window, reply } => {
            let earlier = match standing {
                Some(Standing::Done { reply }) => reply.clone(),
                _ => None,
            };
            Change::Set(Known {
                standing: Standing::Done {
                    reply: reply.clone().or(earlier),
                },
                until: now.saturating_add(*window),
            })
        }
        MarkChange::Waiting { at_most, .. } if held => {
            let until = now.saturating_add(*at_most);
            match known {
                Some(known) if known.until < until => Change::Set(Known {
                    standing: known.standing.clone(),
                    until,
                }),
                _ => Change::Keep,
            }
        }
        MarkChange::Waiting { attempt, at_most } if running => Change::Set(Known {
            standing: Standing::Waiting { attempt: *attempt },
            until: now.saturating_add(*at_most),
        }),
        MarkChange::Released if held || running => Change::Forget,
        MarkChange::Waiting { .. } | MarkChange::Released => Change::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const SECOND: Duration = Duration::from_secs(1);

    fn known(standing: Standing) -> Known {
        let until = NOW + 10 * SECOND;
        Known { standing, until }
    }

    fn running(owner: &str) -> Known {
        let owner = owner.into();
        known(Standing::Running { owner })
    }

    fn done(reply: Option<&'static str>) -> Known {
        let reply = reply.map(Bytes::from);
        known(Standing::Done { reply })
    }

    fn asks(owner: &str, attempt: u32, sole: bool) -> Take {
        Take {
            name: "id".into(),
            owner: owner.into(),
            attempt,
            lease: 30 * SECOND,
            sole,
        }
    }

    fn writes(owner: &str, change: MarkChange) -> MarkWrite {
        MarkWrite {
            name: "id".into(),
            owner: owner.into(),
            change,
        }
    }

    fn waiting(attempt: u32) -> MarkChange {
        let at_most = 60 * SECOND;
        MarkChange::Waiting { attempt, at_most }
    }

    #[test]
    fn an_id_is_taken_where_nobody_else_has_it() {
        let waits = known(Standing::Waiting { attempt: 3 });
        let held = known(Standing::Held(1));
        for (state, take_it, taken) in [
            (None, asks("a", 1, false), true),
            (Some(&running("a")), asks("a", 1, false), true),
            (Some(&running("b")), asks("a", 9, false), false),
            (Some(&running("b")), asks("a", 1, true), true),
            (Some(&waits), asks("a", 2, false), false),
            (Some(&waits), asks("a", 3, false), true),
            (Some(&waits), asks("a", 4, false), true),
            (Some(&held), asks("a", 9, false), false),
            (Some(&done(None)), asks("a", 9, true), false),
        ] {
            match take(state, &take_it, NOW) {
                Ok(now) => {
                    assert!(taken, "{state:?} {take_it:?}");
                    assert_eq!(now.until, NOW + 30 * SECOND);
                    assert_eq!(now.standing, running("a").standing);
                }
                Err(mark) => {
                    assert!(!taken, "{state:?} {take_it:?}");
                    let expected = match state.map(|known| &known.standing) {
                        Some(Standing::Done { .. }) => Mark::Done { reply: None },
                        _ => Mark::Held {
                            at_most: 10 * SECOND,
                        },
                    };
                    assert_eq!(mark, expected);
                }
            }
        }
    }

    #[test]
    fn only_the_owner_renews() {
        let renewed = renew(&running("a"), &"a".into(), 30 * SECOND, NOW);
        assert_eq!(renewed.map(|known| known.until), Some(NOW + 30 * SECOND));
        for other in [running("b"), known(Standing::Held(1)), done(None)] {
            assert_eq!(renew(&other, &"a".into(), SECOND, NOW), None);
        }
    }

    #[test]
    fn anything_can_become_done_and_keeps_its_reply() {
        let window = 600 * SECOND;
        let change = |reply: Option<&'static str>| MarkChange::Done {
            window,
            reply: reply.map(Bytes::from),
        };
        let after =
            |state, reply, writer| match write(state, &writes("a", change(reply)), writer, NOW) {
                Change::Set(Known {
                    standing: Standing::Done { reply },
                    until,
                }) if until == NOW + window => reply,
                other => panic!("{other:?}"),
            };
        let (runs, held, is_done) = (running("b"), known(Standing::Held(1)), done(None));
        for state in [None, Some(&runs), Some(&held), Some(&is_done)] {
            for writer in [Writer::Anybody, Writer::Copy(7), Writer::Exempt] {
                assert_eq!(after(state, Some("r"), writer), Some("r".into()));
            }
        }
        let earlier = done(Some("first"));
        assert_eq!(
            after(Some(&earlier), None, Writer::Anybody),
            Some("first".into())
        );
    }

    #[test]
    fn only_ones_own_mark_waits_or_is_released() {
        let held = known(Standing::Held(1));
        let cases = [
            (running("a"), "a", Writer::Anybody, true),
            (running("a"), "a", Writer::Copy(1), true),
            (running("b"), "a", Writer::Anybody, false),
            (running("a"), "a", Writer::Exempt, false),
            (held.clone(), "", Writer::Anybody, true),
            (held.clone(), "", Writer::Copy(1), true),
            (held.clone(), "", Writer::Copy(2), false),
            (held.clone(), "", Writer::Exempt, false),
            (held, "a", Writer::Anybody, false),
            (
                known(Standing::Waiting { attempt: 2 }),
                "a",
                Writer::Anybody,
                false,
            ),
            (done(None), "a", Writer::Anybody, false),
            (done(None), "", Writer::Copy(1), false),
        ];
        for (state, owner, writer, ours) in cases {
            let released = write(
                Some(&state),
                &writes(owner, MarkChange::Released),
                writer,
                NOW,
            );
            let waits = write(Some(&state), &writes(owner, waiting(2)), writer, NOW);
            if ours {
                assert_eq!(released, Change::Forget, "{state:?}");
                let Change::Set(waits) = waits else {
                    panic!("{state:?}");
                };
                assert_eq!(waits.until, NOW + 60 * SECOND);
                // A copy that holds its id since its publish goes on holding it.
                let expected = match state.standing {
                    Standing::Held(by) => Standing::Held(by),
                    _ => Standing::Waiting { attempt: 2 },
                };
                assert_eq!(waits.standing, expected);
            } else {
                assert_eq!((released, waits), (Change::Keep, Change::Keep), "{state:?}");
            }
        }
        assert_eq!(
            write(None, &writes("a", waiting(2)), Writer::Anybody, NOW),
            Change::Keep
        );
    }

    #[test]
    fn waiting_never_shortens_a_hold() {
        let held = Known {
            standing: Standing::Held(1),
            until: NOW + 3600 * SECOND,
        };
        let change = write(Some(&held), &writes("", waiting(2)), Writer::Copy(1), NOW);
        assert_eq!(change, Change::Keep);
    }
}
