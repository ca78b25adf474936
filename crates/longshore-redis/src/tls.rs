//! TLS: whom to trust. The chain and the host name are always verified.

use longshore_core::{Error, ErrorKind, Result};
use redis::TlsCertificates;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// What redis-rs takes: these authorities, PEM, or the system's where none are given.
///
/// # Errors
/// [`ErrorKind::Invalid`] where `authorities` holds no certificate; without TLS nobody looks.
pub(crate) fn certificates(tls: bool, authorities: Option<Vec<u8>>) -> Result<TlsCertificates> {
    if tls {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // redis-rs takes the process's provider; one that the program has chosen stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        if let Some(pem) = &authorities {
            check(pem)?;
        }
    }
    Ok(TlsCertificates {
        client_tls: None,
        root_cert: authorities,
    })
}

fn check(pem: &[u8]) -> Result<()> {
    let invalid = |why| Error::new(ErrorKind::Invalid, why);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate
            .map_err(|error| invalid("the certificate authorities are no PEM").because(error))?;
        roots
            .add(certificate)
            .map_err(|error| invalid("a certificate authority cannot be read").because(error))?;
    }
    if roots.is_empty() {
        return Err(invalid("the certificate authorities hold no certificate"));
    }
    Ok(())
}
