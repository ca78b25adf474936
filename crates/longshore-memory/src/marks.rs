//! The ids inside their dedup windows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use longshore_core::{Error, ErrorKind, Mark, MarkWrite, Result, Take, Text};

use crate::mark::{self, Change, Known, Standing, Writer};

/// How many that have passed are dropped for each one that comes in: with more than one, what is
/// kept follows what is known.
const DROPPED_PER_INSERT: usize = 2;

/// The known ids of every scope, at most so many; what has passed goes as others come.
#[derive(Debug)]
pub(crate) struct Marks {
    scopes: BTreeMap<Text, BTreeMap<Text, Known>>,
    /// Who passes next.
    passing: BTreeSet<(Duration, Text, Text)>,
    most: usize,
}

impl Marks {
    /// No ids, and room for this many.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            scopes: BTreeMap::new(),
            passing: BTreeSet::new(),
            most,
        }
    }

    /// Takes an id for a copy that is published; `false` where it is known already.
    pub(crate) fn hold(
        &mut self,
        (scope, name): (&Text, &Text),
        copy: u64,
        lasts: Duration,
        now: Duration,
    ) -> Result<bool> {
        if self.get(scope, name, now).is_some() {
            return Ok(false);
        }
        let known = Known {
            standing: Standing::Held(copy),
            until: now.saturating_add(lasts),
        };
        self.set(scope, name, known, now)?;
        Ok(true)
    }

    /// Whether this copy has held its id since it was published.
    pub(crate) fn holds(&self, scope: &Text, name: &Text, copy: u64, now: Duration) -> bool {
        let known = self.get(scope, name, now);
        known.is_some_and(|known| known.standing == Standing::Held(copy))
    }

    /// Whether an id is known.
    pub(crate) fn knows(&self, scope: &Text, name: &Text, now: Duration) -> bool {
        self.get(scope, name, now).is_some()
    }

    /// Asks for an id.
    pub(crate) fn take(&mut self, scope: &Text, take: &Take, now: Duration) -> Result<Mark> {
        match mark::take(self.get(scope, &take.name, now), take, now) {
            Ok(known) => {
                self.set(scope, &take.name, known, now)?;
                Ok(Mark::Taken)
            }
            Err(mark) => Ok(mark),
        }
    }

    /// Renews a lease; `false` where it is no longer this owner's.
    pub(crate) fn renew(
        &mut self,
        (scope, name): (&Text, &Text),
        owner: &Text,
        lease: Duration,
        now: Duration,
    ) -> bool {
        let renewed = self
            .get(scope, name, now)
            .and_then(|known| mark::renew(known, owner, lease, now));
        renewed.is_some_and(|known| self.set(scope, name, known, now).is_ok())
    }

    /// Changes a mark as far as it is the writer's.
    pub(crate) fn write(
        &mut self,
        scope: &Text,
        write: &MarkWrite,
        writer: Writer,
        now: Duration,
    ) -> Result<()> {
        match mark::write(self.get(scope, &write.name, now), write, writer, now) {
            Change::Keep => Ok(()),
            Change::Set(known) => self.set(scope, &write.name, known, now),
            Change::Forget => {
                self.forget(scope, &write.name);
                Ok(())
            }
        }
    }

    /// Forgets an id where this copy has held it since it was published.
    pub(crate) fn let_go(&mut self, scope: &Text, name: &Text, copy: u64, now: Duration) {
        if self.holds(scope, name, copy, now) {
            self.forget(scope, name);
        }
    }

    /// An error where an id that is not known yet would find no room.
    pub(crate) fn has_room(&mut self, scope: &Text, name: &Text, now: Duration) -> Result<()> {
        let there = self.scopes.get(scope).is_some_and(|s| s.contains_key(name));
        if there || self.passing.len() < self.most {
            return Ok(());
        }
        self.drop_passed(usize::MAX, now);
        if self.passing.len() < self.most {
            return Ok(());
        }
        let most = self.most;
        Err(Error::new(
            ErrorKind::Full,
            format!(
                "{most} ids are inside their dedup windows, which is all the memory store keeps"
            ),
        ))
    }

    fn get(&self, scope: &Text, name: &Text, now: Duration) -> Option<&Known> {
        let known = self.scopes.get(scope)?.get(name)?;
        (known.until > now).then_some(known)
    }

    fn set(&mut self, scope: &Text, name: &Text, known: Known, now: Duration) -> Result<()> {
        self.has_room(scope, name, now)?;
        self.forget(scope, name);
        self.drop_passed(DROPPED_PER_INSERT, now);
        let passes = (known.until, scope.clone(), name.clone());
        self.passing.insert(passes);
        let names = match self.scopes.get_mut(scope) {
            Some(names) => names,
            None => self.scopes.entry(scope.clone()).or_default(),
        };
        names.insert(name.clone(), known);
        Ok(())
    }

    fn forget(&mut self, scope: &Text, name: &Text) {
        let Some(names) = self.scopes.get_mut(scope) else {
            return;
        };
        if let Some((name, known)) = names.remove_entry(name) {
            self.passing.remove(&(known.until, scope.clone(), name));
        }
        if names.is_empty() {
            self.scopes.remove(scope);
        }
    }

    fn drop_passed(&mut self, most: usize, now: Duration) {
        for _ in 0..most {
            match self.passing.first() {
                Some((until, ..)) if *until <= now => {}
                _ => return,
            }
            if let Some((_, scope, name)) = self.passing.pop_first()
                && let Some(names) = self.scopes.get_mut(&scope)
            {
                names.remove(&name);
                if names.is_empty() {
                    self.scopes.remove(&scope);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_has_passed_is_unknown_and_makes_room() {
        let (scope, mut marks) = (Text::from("orders"), Marks::new(2));
        let hold = |marks: &mut Marks, name: &str, now| {
            let held = marks.hold((&scope, &name.into()), 1, 10 * SECOND, now);
            held.map_err(|e| e.kind())
        };
        assert_eq!(hold(&mut marks, "a", SECOND), Ok(true));
        assert_eq!(hold(&mut marks, "a", 2 * SECOND), Ok(false));
        assert_eq!(hold(&mut marks, "b", 5 * SECOND), Ok(true));
        assert_eq!(hold(&mut marks, "c", 10 * SECOND), Err(ErrorKind::Full));
        assert_eq!(hold(&mut marks, "a", 10 * SECOND), Ok(false));
        assert_eq!(hold(&mut marks, "c", 11 * SECOND), Ok(true));
        assert!(!marks.knows(&scope, &"a".into(), 11 * SECOND));
        assert_eq!(hold(&mut marks, "b", 15 * SECOND), Ok(true));
    }

    #[test]
    fn a_stream_of_ids_keeps_no_more_than_what_is_known() {
        let (scope, mut marks) = (Text::from("orders"), Marks::new(1_000_000));
        for second in 0..10_000 {
            let now = SECOND * second;
            let name = Text::from(second.to_string());
            let held = marks.hold((&scope, &name), 1, 10 * SECOND, now);
            assert!(held.is_ok_and(|new| new));
            assert!(marks.passing.len() <= 11, "{}", marks.passing.len());
            let kept: usize = marks.scopes.values().map(BTreeMap::len).sum();
            assert_eq!(kept, marks.passing.len());
        }
    }

    #[test]
    fn a_hold_is_let_go_by_its_own_copy_alone() {
        let (scope, name, mut marks) = (Text::from("orders"), Text::from("a"), Marks::new(9));
        assert!(marks.hold((&scope, &name), 7, SECOND, SECOND).is_ok());
        marks.let_go(&scope, &name, 8, SECOND);
        assert!(marks.holds(&scope, &name, 7, SECOND));
        marks.let_go(&scope, &name, 7, SECOND);
        assert!(!marks.knows(&scope, &name, SECOND));
        assert!(marks.scopes.is_empty() && marks.passing.is_empty());
    }
}
