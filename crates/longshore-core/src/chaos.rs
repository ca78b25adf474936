//! Where a test may end the process, and how it may break a promise on purpose.
//!
//! Not part of the public interface. Without the feature `chaos`, which only the fault harness of
//! this workspace asks for, [`CrashPoint::reached`] does nothing, [`Flaw::on`] is `false`, and
//! nothing of either is left in the program.

/// The environment variable that names a crash point and which passing of it is the last:
/// `settle-decided:17`.
pub const CRASH_VARIABLE: &str = "LONGSHORE_CRASH";
/// The environment variable that names a flaw.
pub const FLAW_VARIABLE: &str = "LONGSHORE_FLAW";

/// A list of places or flaws: each a variant, its name, and what it means.
macro_rules! named {
    ($(#[$about:meta])* $type:ident { $($(#[doc = $says:literal])+ $variant:ident = $name:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type {
            $($(#[doc = $says])+ $variant,)+
        }

        impl $type {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name, as the environment variable gives it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means, in one line.
            pub const fn says(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($says),+),)+
                }
            }
        }
    };
}

named! {
    /// A place between two steps of which the death of the process must cost nothing.
    CrashPoint {
        /// Written to the broker, which has not confirmed it yet.
        PublishSent = "publish-sent",
        /// The lock of a partition is taken, and its marker does not say so yet (RabbitMQ).
        LockTaken = "lock-taken",
        /// The first marker of an owner is confirmed, and those before it are still there (RabbitMQ).
        MarkerWritten = "marker-written",
        /// The broker has granted a claim, and nothing is consumed under it yet.
        ClaimGranted = "claim-granted",
        /// What another worker held is this one's at the broker, and nothing of it is here (Redis).
        TakenOver = "taken-over",
        /// The id of a message is taken in the store, and its handler has not run.
        MarkTaken = "mark-taken",
        /// The start of a message is noted at the broker, and its handler has not run.
        StartNoted = "start-noted",
        /// What a handler published is confirmed, and its own message is not settled.
        OutboxSent = "outbox-sent",
        /// The reply to a request is confirmed, and the request is not settled.
        ReplySent = "reply-sent",
        /// A verdict is decided, and nobody has been told.
        SettleDecided = "settle-decided",
        /// The store has what becomes of ids and sessions, and the broker has not been told.
        BooksWritten = "books-written",
        /// The copy of a message, a marker or a redriven message is written to the broker, which has
        /// not confirmed it yet (RabbitMQ).
        CopySent = "copy-sent",
        /// The copy that will be the next attempt is confirmed, and its source is not acknowledged
        /// (RabbitMQ; elsewhere one step does both).
        RetryCopied = "retry-copied",
        /// The dead letter is confirmed, and its source is not acknowledged (RabbitMQ; elsewhere one
        /// step does both).
        DeadLetterCopied = "dead-letter-copied",
        /// A suspect is in the quarantine, and its source is not acknowledged (RabbitMQ).
        SuspectCopied = "suspect-copied",
        /// The acknowledgement is written to the broker, which tells nothing of it; on Redis, the
        /// settlement is done there, and nobody here has been told.
        SettleSent = "settle-sent",
        /// The broker has settled a message, and its worker does not know.
        Settled = "settled",
        /// What is due is about to be moved to its queue (Redis).
        Promoting = "promoting",
        /// What was due is in its queue, and its worker does not know (Redis).
        Promoted = "promoted",
        /// A redriven message is in its queue, and its dead letter is still there (RabbitMQ; elsewhere
        /// one step does both).
        RedriveCopied = "redrive-copied",
        /// A message of a plain client is in its partition, and its source is not acknowledged.
        Forwarded = "forwarded",
        /// All of a partition is settled or handed back, and its claim is not released.
        ClaimDrained = "claim-drained",
        /// The last marker of an owner is confirmed, and the lock is not given back (RabbitMQ).
        LastMarkerWritten = "last-marker-written",
    }
}

named! {
    /// A promise broken on purpose, to see that the harness notices.
    Flaw {
        /// Messages outside sessions are acknowledged before their handler runs.
        SettleBeforeHandler = "settle-before-handler",
        /// A publish counts as confirmed once it is written.
        NoConfirms = "no-confirms",
        /// A publish that the broker refused counts as confirmed.
        RefusalIgnored = "refusal-ignored",
        /// A publish that timed out or lost its connection counts as refused.
        UnknownIsRefused = "unknown-is-refused",
        /// Attempts are counted in the worker alone, and forgotten with it.
        AttemptsInMemory = "attempts-in-memory",
        /// One attempt more than allowed.
        OneAttemptMore = "one-attempt-more",
        /// A settlement is applied whoever holds the lock.
        UnfencedSettle = "unfenced-settle",
        /// The store takes the writes of an older fencing token.
        UnfencedState = "unfenced-state",
        /// An id is noted as done before its handler runs.
        MarkBeforeEffect = "mark-before-effect",
        /// An id is known no longer once its message is done.
        MarkForgotten = "mark-forgotten",
        /// A copy of a message that runs elsewhere starts as well.
        MarkIgnoredWhileRunning = "mark-ignored-while-running",
        /// A message of a session that failed goes behind what is here of its session.
        RequeueAtTail = "requeue-at-tail",
        /// The next message of a session starts before the one before it is settled.
        NextBeforeSettled = "next-before-settled",
        /// Messages of one session run at the same time.
        KeysInParallel = "keys-in-parallel",
        /// A settlement in a partition is not waited for: the next message may start before it is done
        /// (RabbitMQ).
        SettleUnheard = "settle-unheard",
        /// What is handed over to the next owner of a partition is requeued (RabbitMQ).
        HandOverRequeues = "hand-over-requeues",
        /// To be taken over by another worker costs an attempt.
        TakeOverCounts = "take-over-counts",
        /// Acknowledging one message acknowledges everything delivered before it (RabbitMQ).
        MultipleAcknowledge = "multiple-acknowledge",
        /// What could not be moved into its partition counts as moved.
        ForwardUnconfirmed = "forward-unconfirmed",
        /// A partition is given back while handlers of it still run.
        ReleaseWhileRunning = "release-while-running",
        /// A partition is granted to whoever asks.
        TwoOwners = "two-owners",
        /// The fencing token of a partition stays the same from owner to owner.
        TokenStays = "token-stays",
        /// A message is acknowledged without its dead letter.
        DeadLetterLost = "dead-letter-lost",
        /// A dead letter loses the last byte of its body.
        DeadLetterCut = "dead-letter-cut",
        /// The source of a retry is acknowledged before its copy is confirmed (RabbitMQ).
        AcknowledgeBeforeCopy = "acknowledge-before-copy",
        /// A copy that no queue takes counts as confirmed (RabbitMQ).
        CopiesNotMandatory = "copies-not-mandatory",
        /// A stream keeps its last hundred messages (Redis).
        StreamTrimmed = "stream-trimmed",
        /// A consumer group that is made again begins behind what is there (Redis).
        GroupAtEnd = "group-at-end",
        /// A delay is half of what was asked.
        HalfTheDelay = "half-the-delay",
        /// What a handler published counts as sent whatever the broker has said.
        OutboxUnconfirmed = "outbox-unconfirmed",
        /// A reply goes to whichever request is out.
        ReplyToAnother = "reply-to-another",
        /// Whatever came back unexplained becomes a dead letter.
        SuspectsAreDead = "suspects-are-dead",
        /// Locks are not renewed.
        NoRenewal = "no-renewal",
        /// A lost lock cancels nothing, and its partition is consumed on.
        LostLockIgnored = "lost-lock-ignored",
        /// A settlement that the broker did not take is forgotten.
        SettlementForgotten = "settlement-forgotten",
        /// A stopping worker completes what it never started.
        StopCompletes = "stop-completes",
        /// A stopping worker waits for its handlers without a deadline.
        StopWaits = "stop-waits",
        /// A panic of a handler is not caught, and ends the loop that would have run others.
        PanicEscapes = "panic-escapes",
        /// A worker does not subscribe again after a broken connection.
        NoReconnect = "no-reconnect",
        /// What the transport reads ahead is not bounded.
        UnboundedPrefetch = "unbounded-prefetch",
        /// A redriven message loses its key.
        RedriveLosesKey = "redrive-loses-key",
    }
}

#[cfg(not(feature = "chaos"))]
impl CrashPoint {
    /// Ends the process here, as `kill -9` would, where a test asked for it.
    #[inline(always)]
    pub const fn reached(self) {}
}

#[cfg(not(feature = "chaos"))]
impl Flaw {
    /// Whether a test asked for this promise to be broken.
    #[inline(always)]
    pub const fn on(self) -> bool {
        false
    }
}

/// The start of a message is about to be noted at the broker. Noted, it counts, whether its handler
/// starts or the process dies before.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
pub const fn noting(_: &crate::Envelope, _: u32) {}

#[cfg(feature = "chaos")]
pub use armed::{before_crash, noting, when_noting};

#[cfg(feature = "chaos")]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    use super::{CRASH_VARIABLE, CrashPoint, FLAW_VARIABLE, Flaw};
    use crate::Envelope;

    static LAST_WORDS: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();
    type Secretary = Box<dyn Fn(&Envelope, u32) + Send + Sync>;
    static SECRETARY: OnceLock<Secretary> = OnceLock::new();

    /// The start of a message is about to be noted at the broker. Noted, it counts, whether its
    /// handler starts or the process dies before.
    pub fn noting(envelope: &Envelope, attempt: u32) {
        if let Some(secretary) = SECRETARY.get() {
            secretary(envelope, attempt);
        }
    }

    /// Who is told of each start that is about to be noted, with its number. The first call counts.
    pub fn when_noting(secretary: impl Fn(&Envelope, u32) + Send + Sync + 'static) {
        let _ = SECRETARY.set(Box::new(secretary));
    }

    /// What is done before a crash point ends the process, so that a history has the death before
    /// anything that follows from it. The first call counts.
    pub fn before_crash(last_words: impl Fn() + Send + Sync + 'static) {
        let _ = LAST_WORDS.set(Box::new(last_words));
    }

    impl CrashPoint {
        /// Ends the process here, as `kill -9` would, where a test asked for it.
        pub fn reached(self) {
            static ARMED: OnceLock<Option<(CrashPoint, AtomicU64)>> = OnceLock::new();
            let armed = ARMED.get_or_init(|| {
                let wanted = std::env::var(CRASH_VARIABLE).ok()?;
                let (name, passing) = wanted.split_once(':').unwrap_or((&wanted, "1"));
                let point = CrashPoint::ALL.iter().find(|point| point.name() == name);
                let point = *point.expect("LONGSHORE_CRASH names a crash point");
                let passing = passing.parse().expect("LONGSHORE_CRASH ends with a number");
                Some((point, AtomicU64::new(passing)))
            });
            let Some((point, left)) = armed else { return };
            if *point == self && left.fetch_sub(1, Ordering::Relaxed) == 1 {
                if let Some(last_words) = LAST_WORDS.get() {
                    last_words();
                }
                // No destructor runs and nothing is flushed: to the broker it is `kill -9`.
                std::process::abort();
            }
        }
    }

    impl Flaw {
        /// Whether a test asked for this promise to be broken.
        pub fn on(self) -> bool {
            static CHOSEN: OnceLock<Option<Flaw>> = OnceLock::new();
            let chosen = CHOSEN.get_or_init(|| {
                let wanted = std::env::var(FLAW_VARIABLE).ok()?;
                let flaw = Flaw::ALL.iter().find(|flaw| flaw.name() == wanted);
                Some(*flaw.expect("LONGSHORE_FLAW names a flaw"))
            });
            *chosen == Some(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn are_names(names: impl Iterator<Item = &'static str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            let word = |word: &str| {
                word.starts_with(|c: char| c.is_ascii_lowercase())
                    && word.chars().all(|c| c.is_ascii_lowercase())
            };
            assert!(name.split('-').all(word), "{name} is not kebab-case");
            assert!(seen.insert(name), "{name} is there twice");
        }
    }

    #[test]
    fn every_name_is_kebab_case_and_there_once() {
        let points = CrashPoint::ALL.iter().map(|point| point.name());
        are_names(points.chain(Flaw::ALL.iter().map(|flaw| flaw.name())));
    }

    #[test]
    fn everything_says_what_it_is_in_one_sentence() {
        let points = CrashPoint::ALL.iter().map(|point| point.says());
        for says in points.chain(Flaw::ALL.iter().map(|flaw| flaw.says())) {
            let says = says.trim();
            assert!(says.ends_with('.') && says.len() > 20, "{says}");
        }
    }

    #[test]
    fn nothing_happens_where_nobody_asks_for_it() {
        let asked = [CRASH_VARIABLE, FLAW_VARIABLE].map(std::env::var_os);
        if asked.iter().all(Option::is_none) {
            CrashPoint::ALL.iter().for_each(|point| point.reached());
            assert!(Flaw::ALL.iter().all(|flaw| !flaw.on()));
        }
    }
}
