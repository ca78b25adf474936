//! Whole-system tests of Longshore: processes, brokers, crashes.
