//! Who this node is to its control planes: key, certificate, CAs, addresses; one file, written whole or not.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use controlplane_core::names::NodeName;
use node_agent_core::renewal::Validity;
use node_agent_protocol::{JoinResponse, PlaneUrl};
use serde::{Deserialize, Serialize};

const FILE: &str = "identity.json";

/// The file's content. `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// This node.
    pub node: NodeName,
    /// Made here; never leaves.
    pub key_pem: String,
    /// The certificate.
    pub certificate_pem: String,
    /// CAs of the control planes.
    pub ca_pem: String,
    /// When the certificate begins, in s since 1970.
    pub not_before_unix_s: i64,
    /// When it ends, in s since 1970.
    pub expires_unix_s: i64,
    /// As the operator sees it.
    pub fingerprint: String,
    /// The addresses of the join token.
    pub control_planes: Vec<PlaneUrl>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({}, {}, ends {})", self.node, self.fingerprint, self.expires_unix_s)
    }
}

impl Identity {
    /// Of what the control plane answered to our request.
    #[must_use]
    pub fn of(answer: JoinResponse, key_pem: String, control_planes: Vec<PlaneUrl>) -> Self {
        Self {
            node: answer.node,
            key_pem,
            certificate_pem: answer.certificate_pem,
            ca_pem: answer.ca_pem,
            not_before_unix_s: answer.not_before_unix_s,
            expires_unix_s: answer.expires_unix_s,
            fingerprint: answer.fingerprint.to_string(),
            control_planes,
        }
    }

    /// The certificate's time.
    #[must_use]
    pub fn validity(&self) -> Validity {
        Validity { not_before_unix_s: self.not_before_unix_s, expires_unix_s: self.expires_unix_s }
    }
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Makes it, 0700, if it is not there; takes rights of others from it if it is.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("state directory {}: {error}", path.display()))
        };
        fs::create_dir_all(path).map_err(named)?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(named)?;
        Ok(Self(path.to_owned()))
    }

    /// A file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file whole, 0600, durably, or leaves the old one.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.prepare(name, content)?;
        self.put(name)?;
        self.sync()
    }

    /// Makes new names durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    /// The first half of [`StateDir::write`], which waits for the disk: the new file beside the old one.
    pub(crate) fn prepare(&self, name: &str, content: &[u8]) -> io::Result<File> {
        let new = self.new_path(name);
        // One left over by a crash would keep its mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(file)
    }

    /// The other half: in the old one's place, durable with the next sync of the directory.
    pub(crate) fn put(&self, name: &str) -> io::Result<()> {
        fs::rename(self.new_path(name), self.path(name))
    }

    fn new_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.new"))
    }

    /// The identity, `None` before joining.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn identity(&self) -> io::Result<Option<Identity>> {
        match fs::read(self.path(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the identity.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(&self, identity: &Identity) -> io::Result<()> {
        self.write(FILE, &serde_json::to_vec_pretty(identity)?)
    }
}
