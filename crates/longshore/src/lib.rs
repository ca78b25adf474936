//! Azure-Service-Bus-grade messaging for Rust services on the broker they already run.
