//! The certificate files a broker's TLS listener is given.

use std::path::PathBuf;

/// PEM files for a TLS listener. They are copied into the broker's data folder when it starts.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The server's certificate; `localhost` and `127.0.0.1` should be among its names.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
}
