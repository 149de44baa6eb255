//! TLS by files, which are read again while it runs, so that a renewed certificate needs no restart.

use std::{
    fmt, fs, io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use node_agent_protocol::tls::{self, TlsError};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::time::sleep;

use super::metrics::DoorMetrics;
use crate::settings::TlsFiles;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// HTTP/2 first; browsers hold more than six streams of events by it.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a door cannot show its certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{path}: {source}. The user of the control plane must be able to read it")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path}: {source}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: TlsError,
    },
    /// The first certificate is no X.509.
    #[error("{path}: the first certificate cannot be read")]
    NotX509 {
        /// Which.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("{certificate} and {key}: {source}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// The certificate that a door shows now.
pub(crate) struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    pub(crate) fn new(certificate: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(certificate)))
    }

    pub(crate) fn replace(&self, certificate: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificate")
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// What the files held, and what it was read as.
struct Read {
    certificate_pem: Vec<u8>,
    key_pem: Vec<u8>,
    pair: Arc<CertifiedKey>,
    /// Unix time at which the certificate ends, s.
    not_after: i64,
}

impl Read {
    fn of(files: &TlsFiles) -> Result<Self, CertificateError> {
        let (certificate_pem, key_pem) = bytes(files)?;
        let (certificate, key) = (&files.certificate_file, &files.key_file);
        let pem = |path: &PathBuf| {
            let path = path.clone();
            |source| CertificateError::Pem { path, source }
        };
        let chain = tls::certificates("the certificate", &String::from_utf8_lossy(&certificate_pem))
            .map_err(pem(certificate))?;
        let (_, first) = x509_parser::parse_x509_certificate(&chain[0])
            .map_err(|_| CertificateError::NotX509 { path: certificate.clone() })?;
        let not_after = first.validity().not_after.timestamp();
        let private = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|source| pem(key)(TlsError::Pem { what: "the key", source }))?;
        let pair = CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|source| {
            CertificateError::Pair { certificate: certificate.clone(), key: key.clone(), source }
        })?;
        Ok(Self { certificate_pem, key_pem, pair: Arc::new(pair), not_after })
    }
}

fn bytes(files: &TlsFiles) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|source| CertificateError::File { path: path.clone(), source })
    };
    Ok((read(&files.certificate_file)?, read(&files.key_file)?))
}

/// The TLS of a door whose certificate lies in files.
pub(crate) struct FileTls {
    door: &'static str,
    files: TlsFiles,
    now: Read,
    shown: Arc<ServerCertificate>,
}

impl FileTls {
    /// Reads the files.
    pub(crate) fn open(door: &'static str, files: &TlsFiles) -> Result<Self, CertificateError> {
        let now = Read::of(files)?;
        let shown = ServerCertificate::new(Arc::clone(&now.pair));
        Ok(Self { door, files: files.clone(), now, shown })
    }

    /// TLS 1.3 and 1.2.
    pub(crate) fn config(&self) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<ServerCertificate>::clone(&self.shown));
        config.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    /// Shows what the files hold, from now on. What cannot be used leaves the certificate that was shown before.
    pub(crate) async fn follow(mut self, metrics: DoorMetrics) {
        let mut said = None;
        loop {
            metrics.certificate_ends(self.door, self.now.not_after);
            sleep(LOOK_EVERY).await;
            let (files, door) = (&self.files, self.door);
            match bytes(files) {
                Ok((certificate, key))
                    if certificate == self.now.certificate_pem && key == self.now.key_pem => {}
                _ => match Read::of(files) {
                    Ok(read) => {
                        self.shown.replace(Arc::clone(&read.pair));
                        self.now = read;
                        said = None;
                        tracing::info!(door, "shows the certificate that its file holds now");
                    }
                    Err(error) => {
                        let error = error.to_string();
                        if said.as_ref() != Some(&error) {
                            tracing::error!(door, %error, "the certificate cannot be renewed: the one before is shown");
                        }
                        said = Some(error);
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(dir: &Path, until_year: i32) -> CertifiedKey {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["ringward.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.join("c.pem"), certificate.pem()).unwrap();
        fs::write(dir.join("k.pem"), key.serialize_pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        CertifiedKey::from_der(vec![certificate.der().clone()], key, &ring::default_provider()).unwrap()
    }

    fn shown(certificate: &ServerCertificate) -> Vec<u8> {
        certificate.0.read().unwrap().cert[0].to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_shown_and_half_a_renewal_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            TlsFiles { certificate_file: dir.path().join("c.pem"), key_file: dir.path().join("k.pem") };
        let first = write(dir.path(), 2030);
        let tls = FileTls::open("customers", &files).unwrap();
        let certificate = Arc::clone(&tls.shown);
        let metrics = DoorMetrics::new(&prometheus::Registry::new()).unwrap();
        tokio::spawn(tls.follow(metrics.clone()));
        tokio::task::yield_now().await;
        assert_eq!(shown(&certificate), first.cert[0].to_vec());
        assert_eq!(metrics.certificate_end("customers"), 1_893_456_000);

        // Only the certificate has been replaced yet.
        let old_key = fs::read(&files.key_file).unwrap();
        let second = write(dir.path(), 2031);
        let new_key = fs::read(&files.key_file).unwrap();
        fs::write(&files.key_file, old_key).unwrap();
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(shown(&certificate), first.cert[0].to_vec());
        fs::remove_file(&files.key_file).unwrap();
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(shown(&certificate), first.cert[0].to_vec());

        fs::write(&files.key_file, new_key).unwrap();
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(shown(&certificate), second.cert[0].to_vec());
        assert_eq!(metrics.certificate_end("customers"), 1_924_992_000);
    }

    #[test]
    fn what_cannot_be_shown_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            TlsFiles { certificate_file: dir.path().join("c.pem"), key_file: dir.path().join("k.pem") };
        let said = || FileTls::open("customers", &files).err().unwrap().to_string();
        assert!(said().contains("c.pem") && said().contains("read it"), "{}", said());
        write(dir.path(), 2030);
        fs::write(&files.certificate_file, "nonsense").unwrap();
        assert!(said().contains("c.pem"), "{}", said());
        let certificate = KeyPair::generate().unwrap().serialize_pem();
        write(dir.path(), 2030);
        fs::write(&files.key_file, certificate).unwrap();
        assert!(said().contains("k.pem"), "of another: {}", said());
    }
}
