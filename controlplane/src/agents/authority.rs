//! The CA of the agents' door: made at the first start, kept in the data directory.
//!
//! `agents-ca.pem` (mode 0600) holds its key and certificate. Every replica has the same file. A second,
//! `agents-ca-trusted.pem`, may hold further certificates that are believed and handed to nodes, but sign
//! nothing: this is how the CA is changed without a node noticing (docs/runbooks/agents-ca.md).
//!
//! What it signs opens nothing by itself: the store must know the certificate too.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use controlplane_core::names::NodeName;
use data_encoding::HEXLOWER;
use node_agent_protocol::{
    CERTIFICATE_LIFETIME, SERVER_NAME,
    tls::{self, TlsError},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use time::{Duration, OffsetDateTime};

const FILE: &str = "agents-ca.pem";
const TRUSTED_FILE: &str = "agents-ca-trusted.pem";
const CA_LIFETIME: Duration = Duration::days(3650);
const SERVER_LIFETIME: Duration = Duration::days(90);
/// Certificates begin so long before they are made: a node's clock may be behind.
const BACKDATED: Duration = Duration::hours(1);
/// Largest signing request: an RSA key of 8,192 bits has some 2.5 KB.
const CSR_MAX: usize = 8 * 1024;

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("the agents' CA {path}: {source}. The data directory must be writable by this user")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error(
        "the agents' CA {path}: {source}. Restore it from a backup; without it, every node has to join again"
    )]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: TlsError,
    },
    /// It cannot be made or used.
    #[error("the agents' CA: {0}")]
    Crypto(#[from] rcgen::Error),
    /// The TLS of the door cannot be set up.
    #[error("the agents' door: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a signing request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// Larger than any honest one.
    #[error("the signing request is larger than {CSR_MAX} bytes")]
    TooLarge,
    /// Not one, not signed by its own key, or with a key that is not supported.
    #[error("the signing request: {0}")]
    Invalid(#[from] rcgen::Error),
}

/// A certificate that was signed and is not yet worth anything.
pub struct Signed {
    /// The certificate, in PEM.
    pub pem: String,
    /// Its SHA-256.
    pub fingerprint: [u8; 32],
    /// When it begins.
    pub not_before: OffsetDateTime,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// See the module.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own first.
    trusted: Vec<CertificateDer<'static>>,
    trusted_pem: String,
}

impl Authority {
    /// Reads the CA, or makes it where there is none.
    ///
    /// # Errors
    /// [`AuthorityError`] names the file.
    pub fn open(dir: &Path, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let path = dir.join(FILE);
        if !path.exists() {
            make(dir, &path, now)?;
        }
        let pem_error = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Pem { path, source }
        };
        let text = read(&path)?;
        let own = tls::certificates("the certificate", &text).map_err(pem_error(&path))?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|source| pem_error(&path)(TlsError::Pem { what: "the key", source }))?;
        let issuer = Issuer::from_ca_cert_der(&own[0], KeyPair::try_from(&key)?)?;
        let mut trusted = vec![own[0].clone()];
        let trusted_path = dir.join(TRUSTED_FILE);
        if trusted_path.exists() {
            let text = read(&trusted_path)?;
            trusted.extend(tls::certificates("a certificate", &text).map_err(pem_error(&trusted_path))?);
        }
        let trusted_pem = trusted.iter().map(|der| pem("CERTIFICATE", der)).collect();
        Ok(Self { issuer, trusted, trusted_pem })
    }

    /// SHA-256 of its certificate: what join tokens carry.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        tls::fingerprint(&self.trusted[0])
    }

    /// What tells the CAs from others, its own first.
    pub(crate) fn print(&self) -> String {
        let print = |certificate| HEXLOWER.encode(&tls::fingerprint(certificate));
        self.trusted.iter().map(print).collect::<Vec<_>>().join(",")
    }

    /// Every CA whose certificates are believed.
    #[must_use]
    pub fn trusted(&self) -> &[CertificateDer<'static>] {
        &self.trusted
    }

    /// The same, as nodes get it.
    #[must_use]
    pub fn trusted_pem(&self) -> &str {
        &self.trusted_pem
    }

    /// Signs a node's key. Of the request only the key is used.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn sign_node(
        &self,
        node: &NodeName,
        csr_pem: &str,
        now: OffsetDateTime,
        serial: [u8; 32],
    ) -> Result<Signed, CsrError> {
        if csr_pem.len() > CSR_MAX {
            return Err(CsrError::TooLarge);
        }
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let lifetime = Duration::try_from(CERTIFICATE_LIFETIME).unwrap_or(Duration::days(30));
        let mut params = leaf(node.as_str(), now, lifetime, serial);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &request.public_key).map_err(CsrError::Invalid)
    }

    /// A certificate of the door, with a new key, and when it should be replaced.
    ///
    /// # Errors
    /// Only if the system gives no randomness.
    pub fn server(
        &self,
        now: OffsetDateTime,
        serial: [u8; 32],
    ) -> Result<(Arc<CertifiedKey>, OffsetDateTime), AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = leaf(SERVER_NAME, now, SERVER_LIFETIME, serial);
        params.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let signing = ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
        // The CA goes along: an agent that joins knows its fingerprint only.
        let chain = vec![certificate, self.trusted[0].clone()];
        Ok((Arc::new(CertifiedKey::new(chain, signing)), now + SERVER_LIFETIME * 2 / 3))
    }

    fn sign(&self, params: CertificateParams, key: &impl PublicKeyData) -> Result<Signed, rcgen::Error> {
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Signed {
            pem: certificate.pem(),
            fingerprint: tls::fingerprint(certificate.der()),
            not_before: params.not_before,
            not_after: params.not_after,
        })
    }
}

fn leaf(name: &str, now: OffsetDateTime, lifetime: Duration, serial: [u8; 32]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    // 20 bytes at most, positive (RFC 5280 section 4.1.2.2).
    params.serial_number = Some(SerialNumber::from_slice(&serial[..16]));
    params.not_before = whole_second(now - BACKDATED);
    params.not_after = whole_second(now + lifetime);
    params
}

/// X.509 knows no fractions: what is signed is what is stored.
fn whole_second(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Makes the file in one step, so that a crash leaves a whole CA or none.
fn make(dir: &Path, path: &Path, now: OffsetDateTime) -> Result<(), AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Ringward agents");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATED;
    params.not_after = now + CA_LIFETIME;
    let certificate = params.self_signed(&key)?;
    let text = format!("{}{}", key.serialize_pem(), certificate.pem());
    let failed = |source| AuthorityError::File { path: path.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let draft = path.with_extension(format!("pem.{}", std::process::id()));
    let written = write(&draft, &text).and_then(|()| match fs::hard_link(&draft, path) {
        // Another process was faster: its CA is the CA.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    // A draft that stays is of no use to anybody, and of no harm.
    let _ = fs::remove_file(&draft);
    written.map_err(failed)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    tracing::info!(path = %path.display(), "made the CA of the agents' door: back it up");
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let body = data_encoding::BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
