//! Certificates for brokers that are tested with TLS.

use std::path::{Path, PathBuf};

use longshore_testing::brokers::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, DnType, Error, IsCa, Issuer, KeyPair};

use crate::unique;

/// A certificate authority of its own, and what it has signed.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    folder: PathBuf,
}

impl Authority {
    /// A new one; its files go into `folder`.
    ///
    /// # Errors
    /// What the cryptography says.
    pub fn new(folder: &str) -> Result<Self, Error> {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = unique("authority");
        parameters
            .distinguished_name
            .push(DnType::CommonName, &name);
        let key = KeyPair::generate()?;
        let pem = parameters.self_signed(&key)?.pem();
        let issuer = Issuer::new(parameters, key);
        Ok(Self {
            issuer,
            pem,
            folder: Path::new(folder).join(name),
        })
    }

    /// What a client must trust, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The files of a server with these names.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn server(&self, names: &[&str]) -> TlsFiles {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).expect("host names");
        parameters
            .distinguished_name
            .push(DnType::CommonName, "a broker");
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        std::fs::create_dir_all(&self.folder).expect("a folder");
        let write = |name: &str, pem: &str| {
            let path = self.folder.join(name);
            std::fs::write(&path, pem).expect("written");
            path
        };
        TlsFiles {
            ca: write("ca.pem", &self.pem),
            cert: write("cert.pem", &certificate.pem()),
            key: write("key.pem", &key.serialize_pem()),
        }
    }
}
