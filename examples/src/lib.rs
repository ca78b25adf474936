//! Programs that show Longshore; see the files beside this package's manifest.
