//! How often what goes wrong.

use std::time::Duration;

use super::Fault;

/// How often each [`Fault`] happens, and how long what is late takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of a thousand, in the order of [`Fault::ALL`].
    rates: [u16; Fault::COUNT],
    pub(super) late: (Duration, Duration),
    pub(super) outage: (Duration, Duration),
}

impl Plan {
    /// Nothing goes wrong. What is late, where a fault is added, takes 10 ms to 2 s, a lost
    /// connection 100 ms to 3 s.
    pub fn calm() -> Self {
        Self {
            rates: [0; Fault::COUNT],
            late: (Duration::from_millis(10), Duration::from_secs(2)),
            outage: (Duration::from_millis(100), Duration::from_secs(3)),
        }
    }

    /// The same with this fault happening so often of a thousand opportunities. More than a thousand
    /// is a thousand.
    #[must_use]
    pub fn with(mut self, fault: Fault, per_thousand: u16) -> Self {
        self.rates[fault as usize] = per_thousand.min(1000);
        self
    }

    /// The same where what is late takes from `least` to `most`.
    #[must_use]
    pub fn late(mut self, least: Duration, most: Duration) -> Self {
        self.late = (least, most);
        self
    }

    /// The same where a lost connection comes back after `least` to `most`.
    #[must_use]
    pub fn outage(mut self, least: Duration, most: Duration) -> Self {
        self.outage = (least, most);
        self
    }

    /// How often this fault happens, of a thousand opportunities.
    pub fn rate(&self, fault: Fault) -> u16 {
        self.rates[fault as usize]
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::calm()
    }
}
