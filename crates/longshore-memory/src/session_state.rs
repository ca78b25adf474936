//! The state of sessions, and who may write it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use longshore_core::{Error, ErrorKind, Result, Session, StateWrite, Text, chaos::Flaw};

/// The largest state.
const MOST_BYTES: usize = 256 * 1024;

/// How long a cleared session is kept for a message that is delivered again, while there is room.
const CLEARED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What is kept of one session.
#[derive(Debug, Default)]
struct Kept {
    before: Option<Bytes>,
    /// Whose write is the last; empty where a message without an id wrote.
    message: Text,
    after: Option<Bytes>,
    aside: bool,
    /// Until when a cleared session is kept; `None` while it is in use.
    cleared: Option<Duration>,
}

#[derive(Debug, Default)]
struct Scope {
    /// Smaller tokens write no more.
    floor: u64,
    sessions: BTreeMap<Text, Kept>,
}

/// The sessions of every scope, at most so many.
#[derive(Debug)]
pub(crate) struct States {
    scopes: BTreeMap<Text, Scope>,
    /// The cleared ones, in the order they are forgotten.
    cleared: BTreeSet<(Duration, Text, Text)>,
    count: usize,
    most: usize,
}

impl States {
    /// No sessions, and room for this many.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            scopes: BTreeMap::new(),
            cleared: BTreeSet::new(),
            count: 0,
            most,
        }
    }

    /// Refuses the writes of smaller tokens from now on.
    pub(crate) fn grant(&mut self, scope: &Text, token: u64) {
        let scope = self.scopes.entry(scope.clone()).or_default();
        scope.floor = scope.floor.max(token);
    }

    /// A session as this message may see it.
    pub(crate) fn load(&self, scope: &Text, key: &Text, message: &Text) -> Session {
        let kept = self.scopes.get(scope).and_then(|s| s.sessions.get(key));
        kept.map_or_else(Session::default, |kept| {
            let own = !message.is_empty() && kept.message == *message;
            let state = if own { &kept.before } else { &kept.after };
            Session {
                state: state.clone(),
                set_aside: kept.aside,
            }
        })
    }

    /// An error where this write would be refused.
    pub(crate) fn can_save(
        &mut self,
        scope: &Text,
        write: &StateWrite,
        now: Duration,
    ) -> Result<()> {
        let bytes = write.value.as_ref().map_or(0, Bytes::len);
        if bytes > MOST_BYTES {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a session state of {bytes} bytes is larger than {MOST_BYTES}"),
            ));
        }
        self.may_write(scope, Some(write.token))?;
        self.has_room(scope, &write.key, now)
    }

    /// Writes the state of a session.
    pub(crate) fn save(&mut self, scope: &Text, write: &StateWrite, now: Duration) -> Result<()> {
        self.can_save(scope, write, now)?;
        self.change(scope, &write.key, now, |kept| {
            let again = !write.message.is_empty() && kept.message == write.message;
            let last = std::mem::replace(&mut kept.after, write.value.clone());
            if !again {
                kept.before = last;
                kept.message = own(&write.message);
            }
        });
        Ok(())
    }

    /// Sets a session aside, or brings it back.
    pub(crate) fn set_aside(
        &mut self,
        (scope, key): (&Text, &Text),
        aside: bool,
        token: Option<u64>,
        now: Duration,
    ) -> Result<()> {
        self.may_write(scope, token)?;
        self.has_room(scope, key, now)?;
        self.change(scope, key, now, |kept| kept.aside = aside);
        Ok(())
    }

    fn may_write(&self, scope: &Text, token: Option<u64>) -> Result<()> {
        let floor = self.scopes.get(scope).map_or(0, |scope| scope.floor);
        match token {
            Some(token) if token < floor && !Flaw::UnfencedState.on() => Err(Error::new(
                ErrorKind::Stale,
                "the partition was granted to another owner since; nothing was written",
            )),
            _ => Ok(()),
        }
    }

    /// Makes room for a session that is not there, by forgetting the one cleared first.
    fn has_room(&mut self, scope: &Text, key: &Text, now: Duration) -> Result<()> {
        let there = self
            .scopes
            .get(scope)
            .is_some_and(|scope| scope.sessions.contains_key(key));
        if there {
            return Ok(());
        }
        let passed = |cleared: &BTreeSet<(Duration, Text, Text)>| {
            cleared.first().is_some_and(|(until, ..)| *until <= now)
        };
        for _ in 0..2 {
            if passed(&self.cleared) || self.count >= self.most {
                self.forget_first();
            }
        }
        if self.count < self.most {
            return Ok(());
        }
        let most = self.most;
        Err(Error::new(
            ErrorKind::Full,
            format!("{most} sessions have a state, which is all the memory store keeps"),
        ))
    }

    fn forget_first(&mut self) {
        if let Some((_, scope, key)) = self.cleared.pop_first()
            && let Some(scope) = self.scopes.get_mut(&scope)
            && scope.sessions.remove(&key).is_some()
        {
            self.count -= 1;
        }
    }

    /// Changes a session, and keeps the order in which cleared ones go.
    fn change(&mut self, scope: &Text, key: &Text, now: Duration, change: impl FnOnce(&mut Kept)) {
        let sessions = &mut self.scopes.entry(scope.clone()).or_default().sessions;
        // A key may be a slice of a whole message, which must not live as long as its session.
        let (key, mut kept) = match sessions.remove_entry(key) {
            Some(known) => known,
            None => {
                self.count += 1;
                (own(key), Kept::default())
            }
        };
        if let Some(until) = kept.cleared.take() {
            self.cleared.remove(&(until, scope.clone(), key.clone()));
        }
        change(&mut kept);
        if kept.after.is_none() && !kept.aside {
            if kept.before.is_none() {
                self.count -= 1;
                return;
            }
            let until = now.saturating_add(CLEARED_FOR);
            kept.cleared = Some(until);
            self.cleared.insert((until, scope.clone(), key.clone()));
        }
        sessions.insert(key, kept);
    }
}

fn own(text: &Text) -> Text {
    let text: &str = text;
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn write(key: &str, message: &str, token: u64, value: Option<&'static str>) -> StateWrite {
        StateWrite {
            key: key.into(),
            message: message.into(),
            token,
            value: value.map(Bytes::from),
        }
    }

    #[test]
    fn a_message_sees_what_was_before_its_own_write_and_any_other_what_is_there() {
        let (scope, mut sessions) = (Text::from("orders.s1.0"), States::new(10));
        let save = |sessions: &mut States, message: &str, value| {
            let saved = sessions.save(&scope, &write("k", message, 1, value), NOW);
            assert!(saved.is_ok());
        };
        let state = |sessions: &States, message: &str| {
            let session = sessions.load(&scope, &"k".into(), &message.into());
            session
                .state
                .map(|state| String::from_utf8_lossy(&state).into_owned())
        };
        save(&mut sessions, "m1", Some("one"));
        assert_eq!(state(&sessions, "m1"), None);
        assert_eq!(state(&sessions, "m2").as_deref(), Some("one"));
        save(&mut sessions, "m2", Some("two"));
        save(&mut sessions, "m2", Some("two again"));
        assert_eq!(state(&sessions, "m2").as_deref(), Some("one"));
        assert_eq!(state(&sessions, "m3").as_deref(), Some("two again"));
        save(&mut sessions, "m3", None);
        assert_eq!(state(&sessions, "m3").as_deref(), Some("two again"));
        assert_eq!(state(&sessions, "m4"), None);
        // Messages without an id are never taken for the same one.
        save(&mut sessions, "", Some("x"));
        assert_eq!(state(&sessions, "").as_deref(), Some("x"));
    }

    #[test]
    fn smaller_tokens_write_no_more_but_an_operator_may() {
        let (scope, mut sessions) = (Text::from("orders.s1.0"), States::new(10));
        sessions.grant(&scope, 5);
        sessions.grant(&scope, 3);
        let kind = |answer: Result<()>| answer.err().map(|e| e.kind());
        let stale = sessions.save(&scope, &write("k", "m", 4, Some("x")), NOW);
        assert_eq!(kind(stale), Some(ErrorKind::Stale));
        assert!(
            sessions
                .save(&scope, &write("k", "m", 5, Some("x")), NOW)
                .is_ok()
        );
        let key = Text::from("k");
        let stale = sessions.set_aside((&scope, &key), true, Some(4), NOW);
        assert_eq!(kind(stale), Some(ErrorKind::Stale));
        assert!(sessions.set_aside((&scope, &key), true, None, NOW).is_ok());
        assert!(sessions.load(&scope, &key, &"m".into()).set_aside);
        assert!(
            sessions
                .set_aside((&scope, &key), false, Some(5), NOW)
                .is_ok()
        );
        assert!(!sessions.load(&scope, &key, &"m".into()).set_aside);
        let large = StateWrite {
            value: Some(vec![0; MOST_BYTES + 1].into()),
            ..write("k", "m", 5, None)
        };
        assert_eq!(
            kind(sessions.save(&scope, &large, NOW)),
            Some(ErrorKind::Invalid)
        );
    }

    #[test]
    fn cleared_sessions_make_room_and_others_do_not() {
        let (scope, mut sessions) = (Text::from("orders.s1.0"), States::new(2));
        let save = |sessions: &mut States, key: &str, message: &str, value| {
            let saved = sessions.save(&scope, &write(key, message, 1, value), NOW);
            saved.map_err(|e| e.kind())
        };
        assert_eq!(save(&mut sessions, "a", "m1", Some("x")), Ok(()));
        assert_eq!(save(&mut sessions, "b", "m2", Some("x")), Ok(()));
        assert_eq!(
            save(&mut sessions, "c", "m3", Some("x")),
            Err(ErrorKind::Full)
        );
        assert_eq!(save(&mut sessions, "a", "m4", None), Ok(()));
        assert!(
            sessions
                .load(&scope, &"a".into(), &"m4".into())
                .state
                .is_some()
        );
        assert_eq!(save(&mut sessions, "c", "m5", Some("x")), Ok(()));
        assert_eq!(
            save(&mut sessions, "d", "m6", Some("x")),
            Err(ErrorKind::Full)
        );
        // A million keys that are cleared in turn need the room of two.
        for key in 0..1000 {
            let key = key.to_string();
            assert_eq!(save(&mut sessions, "c", "m", None), Ok(()));
            assert_eq!(save(&mut sessions, &key, "n", Some("x")), Ok(()));
            assert_eq!(save(&mut sessions, &key, "o", None), Ok(()));
            assert!(sessions.count <= 2 && sessions.cleared.len() <= 2);
        }
    }
}
