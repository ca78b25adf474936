//! The attempt numbers of one message.

/// Which were seen, and how often.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// A bit for each of 1 to 63.
    seen: u64,
    /// Those that were seen once more, each time, and all above 63.
    again: Box<[u16]>,
    highest: u16,
}

impl Attempts {
    /// Adds one, and says how often it has been seen by now.
    pub(super) fn add(&mut self, attempt: u32) -> u32 {
        let attempt = u16::try_from(attempt).unwrap_or(u16::MAX);
        self.highest = self.highest.max(attempt);
        if attempt < 64 && self.seen & (1 << attempt) == 0 {
            self.seen |= 1 << attempt;
            return 1;
        }
        self.again = self.again.iter().copied().chain([attempt]).collect();
        self.times(attempt)
    }

    /// The largest; 0 where there is none.
    pub(super) fn highest(&self) -> u32 {
        self.highest.into()
    }

    /// How often the most frequent one was seen.
    pub(super) fn most(&self) -> u32 {
        let seen = u32::from(self.highest > 0);
        let again = self.again.iter().map(|attempt| self.times(*attempt));
        again.max().unwrap_or(seen)
    }

    fn times(&self, attempt: u16) -> u32 {
        let first = u32::from(attempt < 64 && self.seen & (1 << attempt) != 0);
        let again = self.again.iter().filter(|other| **other == attempt);
        first + u32::try_from(again.count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_counted_by_itself() {
        let mut attempts = Attempts::default();
        assert_eq!((attempts.highest(), attempts.most()), (0, 0));
        let times: Vec<u32> = [1, 2, 1, 700, 1, 700, 3]
            .into_iter()
            .map(|attempt| attempts.add(attempt))
            .collect();
        assert_eq!(times, [1, 1, 2, 1, 3, 2, 1]);
        assert_eq!((attempts.highest(), attempts.most()), (700, 3));
    }
}
