//! SIP as it passes a host's cable: captured where packets have not met the host's packet rules yet, with the moments at
//! which they came.
use crate::{HostName, LabError, clock, pcap, process, sip};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Kernel buffer of a capture: 1,000 calls at once lose no packet.
const CAPTURE_BUFFER_KIB: &str = "65536";
/// For tcpdump to open.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// Begins to write what passes a host's cable into a file, and waits until it does.
pub(crate) fn capture(host: &HostName, process: &str, file: &Path, filter: &str) -> Result<(), LabError> {
    let mut tcpdump = host.in_namespace();
    tcpdump
        .args(["tcpdump", "-i", "eth0", "-n", "-U", "--immediate-mode", "-s", "0", "-Z", "root"])
        .args(["-B", CAPTURE_BUFFER_KIB, "-w"])
        .arg(file)
        .arg(filter)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    std::fs::remove_file(file).ok();
    process::spawn(process, tcpdump)?;
    // The file's header is written when the capture is open.
    let is_open = || file.metadata().is_ok_and(|meta| meta.len() >= pcap::FILE_HEADER as u64);
    clock::wait_until("the capture to open", OPEN_MAX, "is tcpdump allowed to write there?", is_open)
        .map(|_| ())
}

/// A capture of a host's SIP; it ends when this is dropped.
#[derive(Debug)]
pub struct Wire {
    file: PathBuf,
    process: String,
}

/// One SIP message that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Since 1970.
    pub at: Duration,
    /// Who sent it, by the packet.
    pub from: Ipv4Addr,
    /// Whom it went to.
    pub to: Ipv4Addr,
    /// Its Call-ID.
    pub call_id: String,
    /// The method, of an answer that of the request which it answers.
    pub method: String,
    /// Of an answer, its code.
    pub code: Option<u16>,
}

impl Wire {
    /// Captures a host's SIP from now on. The host is one that has a folder: a PBX or a carrier.
    ///
    /// # Errors
    /// tcpdump does not start.
    pub fn tap(host: &HostName) -> Result<Self, LabError> {
        let (file, process) = (host.folder().join("wire.pcap"), format!("wire-{}", host.as_str()));
        capture(host, &process, &file, "udp port 5060")?;
        Ok(Wire { file, process })
    }

    /// All that has passed so far, in the order of the wire.
    ///
    /// # Errors
    /// The capture cannot be read.
    pub fn passed(&self) -> Result<Vec<Passed>, LabError> {
        let bytes = std::fs::read(&self.file).map_err(LabError::file("read", &self.file))?;
        let mut all = Vec::new();
        pcap::read(bytes.get(pcap::FILE_HEADER..).unwrap_or_default(), |packet| {
            let Some(message) = sip::parse(packet.payload) else { return };
            all.push(Passed {
                at: packet.at,
                from: packet.source,
                to: packet.destination,
                call_id: message.call_id.to_owned(),
                method: message.cseq_method.to_owned(),
                code: match message.kind {
                    sip::Kind::Request { .. } => None,
                    sip::Kind::Answer(code) => Some(code),
                },
            });
        });
        Ok(all)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // What cannot be ended here is ended by the lab's sweep.
        process::end(&self.process).ok();
    }
}
