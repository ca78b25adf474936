//! The guard without a connection, for fuzz targets.

use std::{fmt, io, sync::Arc};

use longshore_core::{Defect, Limits};

use super::{Watch, content, filter::Filter};

/// Judges the payload of one content header frame.
///
/// # Errors
/// The defect to tell instead of the message.
pub fn judge(payload: &[u8], limits: &Limits) -> Result<(), Defect> {
    content::judge(payload, limits).map(drop)
}

/// What stands between the broker and lapin.
pub struct Guard {
    watch: Arc<Watch>,
    filter: Filter,
}

impl Guard {
    /// A guard of a new connection.
    pub fn new(limits: Limits) -> Self {
        let watch = Arc::new(Watch::new(limits, 7, None));
        Self {
            filter: Filter::new(watch.clone()),
            watch,
        }
    }

    /// The header that marks what lapin must not see.
    pub fn marker(&self) -> &str {
        self.watch.marker()
    }

    /// Reads octets of the broker and appends what lapin may read.
    ///
    /// # Errors
    /// The broker breaks the framing.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.filter.feed(input, out)
    }

    /// Octets held back until their frame is complete.
    pub fn held(&self) -> usize {
        self.filter.held()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}
