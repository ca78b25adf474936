//! Where replies go: the addresses of requesters and what has arrived at them.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
};

use longshore_core::{Envelope, ErrorKind, Ids, ReplyAddress, Text};

const PREFIX: &str = "memory:reply:";

/// Replies one requester may leave untaken; what comes beyond is dropped, and nobody waits for it.
const MOST_REPLIES: usize = 10_000;

/// An address nobody can guess.
pub(crate) fn address(ids: &dyn Ids) -> ReplyAddress {
    ReplyAddress::checked(format!("{PREFIX}{:032x}", ids.next()))
}

/// Whether this has the form of an address made here. Only such are shown to a worker; an address
/// nobody listens at takes nothing.
pub(crate) fn is_address(address: &ReplyAddress) -> bool {
    address.as_str().strip_prefix(PREFIX).is_some_and(|id| {
        id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// What one requester has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// The transport it belongs to.
    client: u64,
    pub(crate) replies: VecDeque<Envelope>,
    /// Takes nothing more; what is there can still be taken.
    pub(crate) stopped: bool,
    /// Why replies may have been lost.
    pub(crate) ended: Option<ErrorKind>,
    pub(crate) waiting: Option<Waker>,
}

/// All requesters that are alive.
#[derive(Debug, Default)]
pub(crate) struct Inboxes(BTreeMap<Text, Inbox>);

impl Inboxes {
    /// Opens an address of a transport.
    pub(crate) fn open(&mut self, address: &ReplyAddress, client: u64) {
        let inbox = Inbox {
            client,
            ..Inbox::default()
        };
        self.0.insert(address.as_str().into(), inbox);
    }

    /// The inbox of an address, while its source lives.
    pub(crate) fn get(&mut self, address: &ReplyAddress) -> Option<&mut Inbox> {
        self.0.get_mut(address.as_str())
    }

    /// Forgets an address.
    pub(crate) fn close(&mut self, address: &ReplyAddress) {
        self.0.remove(address.as_str());
    }

    /// Delivers a reply, or drops it where nobody can take it.
    pub(crate) fn deliver(
        &mut self,
        address: &ReplyAddress,
        reply: Envelope,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(inbox) = self.get(address) else {
            return;
        };
        let takes = !inbox.stopped && inbox.ended.is_none();
        if takes && inbox.replies.len() < MOST_REPLIES {
            inbox.replies.push_back(reply);
            wakers.extend(inbox.waiting.take());
        }
    }

    /// Ends the inboxes of one transport, or of all.
    pub(crate) fn end(&mut self, client: Option<u64>, why: ErrorKind, wakers: &mut Vec<Waker>) {
        for inbox in self.0.values_mut() {
            if client.is_none_or(|client| client == inbox.client) {
                inbox.ended.get_or_insert(why);
                wakers.extend(inbox.waiting.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use longshore_core::SeededIds;

    use super::*;

    #[test]
    fn only_what_was_made_here_looks_like_an_address() {
        assert!(is_address(&address(&SeededIds::new(1))));
        let id = "0123456789abcdef0123456789abcdef";
        for (text, fits) in [
            (format!("{PREFIX}{id}"), true),
            (format!("{PREFIX}{id}0"), false),
            (format!("{PREFIX}{}", id.to_uppercase()), false),
            (format!("memory:orders:{id}"), false),
            (id.to_owned(), false),
            (PREFIX.to_owned(), false),
            ("orders".to_owned(), false),
        ] {
            assert_eq!(
                is_address(&ReplyAddress::checked(text.clone())),
                fits,
                "{text}"
            );
        }
    }

    #[test]
    fn a_full_inbox_drops_what_comes_beyond() {
        let mut inboxes = Inboxes::default();
        let address = address(&SeededIds::new(1));
        inboxes.open(&address, 1);
        for _ in 0..MOST_REPLIES + 5 {
            inboxes.deliver(&address, Envelope::default(), &mut Vec::new());
        }
        let held = inboxes.get(&address).map(|inbox| inbox.replies.len());
        assert_eq!(held, Some(MOST_REPLIES));
    }
}
