//! Programs that show Longshore, one file each: see the files beside this one.
