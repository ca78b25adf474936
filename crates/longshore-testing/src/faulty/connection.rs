//! The connection of one process, and everything that hangs on it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{faults::Shared, inbox::Inbox, line::Line, membership::Member};

/// The connection of one process, and everything that hangs on it.
#[derive(Default)]
pub(super) struct Connection {
    lost_until: Option<Instant>,
    lines: Vec<Weak<Line>>,
    memberships: Vec<Weak<Member>>,
    inboxes: Vec<Weak<Inbox>>,
}

/// What went with a lost connection, and does not know yet.
#[derive(Default)]
pub(super) struct Lost {
    lines: Vec<Arc<Line>>,
    memberships: Vec<Arc<Member>>,
    inboxes: Vec<Arc<Inbox>>,
}

impl Connection {
    pub(super) fn add_line(&mut self, line: &Arc<Line>) {
        self.lines.retain(|known| known.strong_count() > 0);
        self.lines.push(Arc::downgrade(line));
    }

    pub(super) fn add_membership(&mut self, membership: &Arc<Member>) {
        self.memberships.retain(|known| known.strong_count() > 0);
        self.memberships.push(Arc::downgrade(membership));
    }

    pub(super) fn add_inbox(&mut self, inbox: &Arc<Inbox>) {
        self.inboxes.retain(|known| known.strong_count() > 0);
        self.inboxes.push(Arc::downgrade(inbox));
    }

    pub(super) fn lines(&self) -> Vec<Arc<Line>> {
        self.lines.iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn memberships(&self) -> Vec<Arc<Member>> {
        self.memberships.iter().filter_map(Weak::upgrade).collect()
    }

    fn everything(&self) -> Lost {
        Lost {
            lines: self.lines(),
            memberships: self.memberships(),
            inboxes: self.inboxes.iter().filter_map(Weak::upgrade).collect(),
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost_until.is_some_and(|until| until > Instant::now())
    }

    /// Loses everything at the broker; what hung on it has still to be told.
    pub(super) fn disconnect(&mut self, outage: Duration) -> Lost {
        let until = Instant::now() + outage;
        self.lost_until = self.lost_until.max(Some(until));
        let lost = self.everything();
        lost.cut();
        lost
    }

    /// Ends the outage where its time has passed.
    pub(super) fn reconnect_if_due(&mut self) {
        if !self.is_lost() {
            self.reconnect();
        }
    }

    /// Ends the outage.
    pub(super) fn reconnect(&mut self) {
        self.lost_until = None;
        for line in self.lines() {
            line.reopen();
        }
    }

    pub(super) fn die(&self) {
        self.everything().cut();
    }
}

impl Lost {
    /// Sources first: what they hold comes back as after the death of a process.
    fn cut(&self) {
        self.lines.iter().for_each(|line| line.cut());
        self.memberships
            .iter()
            .for_each(|membership| membership.cut());
        self.inboxes.iter().for_each(|inbox| inbox.cut());
    }

    /// Lets the process hear of it after a while.
    pub(super) fn tell(self, shared: &Shared, news: Duration) {
        shared.after(news, move || {
            self.lines
                .iter()
                .for_each(|line| line.tell("the connection is lost"));
            self.memberships
                .iter()
                .for_each(|membership| membership.tell());
            self.inboxes.iter().for_each(|inbox| inbox.tell());
        });
    }
}
