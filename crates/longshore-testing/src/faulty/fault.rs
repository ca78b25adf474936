//! What can go wrong.

/// What can go wrong, and what may be seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// A publish is refused for certain, and nothing is stored: `Full`.
    PublishRefused,
    /// A publish never arrives, and nobody knows: `Unknown`.
    PublishLost,
    /// A publish is answered `Unknown` and arrives a little later.
    PublishLate,
    /// A publish is stored, and its answer is lost: `Unknown`.
    ConfirmLost,
    /// A batch is confirmed, but late.
    ConfirmLate,
    /// A delivery arrives late, and everything behind it.
    DeliveryLate,
    /// A start cannot be noted: `Unavailable`.
    StartRefused,
    /// A start is noted, and the answer is lost.
    StartUnanswered,
    /// A settlement does not happen: `Unavailable`.
    SettleRefused,
    /// A settlement happens, and its answer is lost: another try finds the lock gone.
    SettleUnanswered,
    /// A batch is settled, but late, or answered late.
    SettleLate,
    /// The lock of one message is lost. Only where [`Faulty::lock_breaker`](super::Faulty::lock_breaker)
    /// says how.
    LockLost,
    /// The connection is lost and comes back after a while: every lock, every ownership and every
    /// inbox is gone.
    Disconnect,
    /// A partition goes to somebody else.
    OwnershipLost,
    /// The process hears of a loss only a while after it: what it does in between is a zombie's.
    NewsLate,
    /// A queue cannot be declared: `Unavailable`.
    DeclareRefused,
    /// A part cannot be subscribed to: `Unavailable`.
    SubscribeRefused,
    /// A worker cannot join: `Unavailable`.
    JoinRefused,
    /// An inbox for replies cannot be opened: `Unavailable`.
    InboxRefused,
    /// Nobody can say how many workers live or which partitions are free: `Unavailable`.
    LookRefused,
    /// A claim is neither granted nor refused: `Unavailable`.
    ClaimRefused,
    /// A claim is granted, and the answer is lost: it is free again only after a while.
    ClaimUnanswered,
    /// A claim is given back, and the broker does not hear of it: it is free only after a while.
    ReleaseRefused,
    /// The store does not do what it is asked: `Unavailable`.
    StoreRefused,
    /// The store does it, and its answer is lost.
    StoreUnanswered,
    /// The store answers late, or does it late.
    StoreLate,
    /// An operator's call fails: `Unavailable`.
    AdminRefused,
    /// An operator's call happens, and its answer is lost: `Unknown`.
    AdminUnanswered,
    /// The process is dead: no call of it is ever answered. Never drawn; see
    /// [`Faults::die`](super::Faults::die).
    Died,
}

impl Fault {
    /// Every one of them.
    pub const ALL: &[Self] = &[
        Self::PublishRefused,
        Self::PublishLost,
        Self::PublishLate,
        Self::ConfirmLost,
        Self::ConfirmLate,
        Self::DeliveryLate,
        Self::StartRefused,
        Self::StartUnanswered,
        Self::SettleRefused,
        Self::SettleUnanswered,
        Self::SettleLate,
        Self::LockLost,
        Self::Disconnect,
        Self::OwnershipLost,
        Self::NewsLate,
        Self::DeclareRefused,
        Self::SubscribeRefused,
        Self::JoinRefused,
        Self::InboxRefused,
        Self::LookRefused,
        Self::ClaimRefused,
        Self::ClaimUnanswered,
        Self::ReleaseRefused,
        Self::StoreRefused,
        Self::StoreUnanswered,
        Self::StoreLate,
        Self::AdminRefused,
        Self::AdminUnanswered,
        Self::Died,
    ];

    /// How many there are.
    pub(super) const COUNT: usize = Self::ALL.len();

    /// Its name in reports: `confirm-lost`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PublishRefused => "publish-refused",
            Self::PublishLost => "publish-lost",
            Self::PublishLate => "publish-late",
            Self::ConfirmLost => "confirm-lost",
            Self::ConfirmLate => "confirm-late",
            Self::DeliveryLate => "delivery-late",
            Self::StartRefused => "start-refused",
            Self::StartUnanswered => "start-unanswered",
            Self::SettleRefused => "settle-refused",
            Self::SettleUnanswered => "settle-unanswered",
            Self::SettleLate => "settle-late",
            Self::LockLost => "lock-lost",
            Self::Disconnect => "disconnect",
            Self::OwnershipLost => "ownership-lost",
            Self::NewsLate => "news-late",
            Self::DeclareRefused => "declare-refused",
            Self::SubscribeRefused => "subscribe-refused",
            Self::JoinRefused => "join-refused",
            Self::InboxRefused => "inbox-refused",
            Self::LookRefused => "look-refused",
            Self::ClaimRefused => "claim-refused",
            Self::ClaimUnanswered => "claim-unanswered",
            Self::ReleaseRefused => "release-refused",
            Self::StoreRefused => "store-refused",
            Self::StoreUnanswered => "store-unanswered",
            Self::StoreLate => "store-late",
            Self::AdminRefused => "admin-refused",
            Self::AdminUnanswered => "admin-unanswered",
            Self::Died => "died",
        }
    }
}
