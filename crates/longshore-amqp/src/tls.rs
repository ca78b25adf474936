//! TLS: the chain and the host name are verified, and there is no way round it.

use std::{io, sync::Arc};

use longshore_core::{Error, ErrorKind, Result};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Makes TLS streams that trust the given authorities, or the system's where none are given.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl Tls {
    /// # Errors
    /// [`ErrorKind::Invalid`] where `authorities` holds no certificate, [`ErrorKind::Denied`]
    /// where the system trusts none.
    pub(crate) fn new(authorities: Option<&[u8]>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        match authorities {
            Some(pem) => {
                let invalid = |why| Error::new(ErrorKind::Invalid, why);
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|e| {
                        invalid("the certificate authorities are no PEM").because(e)
                    })?;
                    roots.add(certificate).map_err(|e| {
                        invalid("a certificate authority cannot be read").because(e)
                    })?;
                }
                if roots.is_empty() {
                    return Err(invalid("the certificate authorities hold no certificate"));
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(Error::new(
                        ErrorKind::Denied,
                        "this system trusts no certificate authority; install its \
                         ca-certificates, or name your own",
                    ));
                }
            }
        }
        // The provider is named here, so no process-wide default can change it.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::new(ErrorKind::Unsupported, "no TLS version").because(e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// The name verified is the one the operator configured, never one the server says.
    pub(crate) async fn wrap(
        &self,
        host: &str,
        tcp: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a host name"))?;
        self.0.connect(name, tcp).await
    }
}
