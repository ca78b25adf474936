//! Longshore's transport inside one process.
