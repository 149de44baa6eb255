//! The host's figures: load, memory, disk, ports of the RTP range.

use std::{fs, path::PathBuf};

use node_agent_core::observe::{self, HostText};
use node_agent_protocol::Host;

/// Where they are read.
pub(crate) struct HostFiles {
    pub(crate) rtp_conf: PathBuf,
    pub(crate) disk: PathBuf,
}

/// What can be read of them now.
pub(crate) fn host(files: &HostFiles) -> Host {
    let text = |path: &str| fs::read_to_string(path).ok();
    let udp = ["/proc/net/udp", "/proc/net/udp6"].iter().filter_map(|path| text(path)).collect::<String>();
    let (loadavg, meminfo) = (text("/proc/loadavg"), text("/proc/meminfo"));
    let rtp_conf = fs::read_to_string(&files.rtp_conf).ok();
    let read = observe::Host::read(HostText {
        loadavg: loadavg.as_deref(),
        meminfo: meminfo.as_deref(),
        udp: Some(&udp),
        rtp_conf: rtp_conf.as_deref(),
    });
    let disk = rustix::fs::statvfs(&files.disk).ok();
    Host {
        load_1m_milli: read.load_1m_milli,
        cpus: std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok()),
        memory_bytes: read.memory_bytes,
        memory_available_bytes: read.memory_available_bytes,
        disk_free_bytes: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        clock_offset_us: None,
        rtp_ports: read.rtp_ports,
        rtp_ports_in_use: read.rtp_ports_in_use,
    }
}
