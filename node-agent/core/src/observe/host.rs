//! Files of /proc and rtp.conf, read into numbers. What cannot be read is absent.

use std::collections::HashSet;

/// Texts of files, as far as they could be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostText<'a> {
    /// /proc/loadavg.
    pub loadavg: Option<&'a str>,
    /// /proc/meminfo.
    pub meminfo: Option<&'a str>,
    /// /proc/net/udp and /proc/net/udp6, one behind the other.
    pub udp: Option<&'a str>,
    /// rtp.conf.
    pub rtp_conf: Option<&'a str>,
}

/// What they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Host {
    /// Load average over one minute, in thousandths.
    pub load_1m_milli: Option<u64>,
    /// Memory in all, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory that can be had, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Ports of the RTP range.
    pub rtp_ports: Option<u32>,
    /// Of these, in use.
    pub rtp_ports_in_use: Option<u32>,
}

impl Host {
    /// Reads what there is.
    #[must_use]
    pub fn read(text: HostText<'_>) -> Self {
        let load = text.loadavg.and_then(|text| text.split_ascii_whitespace().next());
        let range = rtp_range(text.rtp_conf.unwrap_or_default());
        Self {
            load_1m_milli: load.and_then(|load| load.parse::<f64>().ok()).map(|load| (load * 1000.0) as u64),
            memory_bytes: text.meminfo.and_then(|text| memory(text, "MemTotal")),
            memory_available_bytes: text.meminfo.and_then(|text| memory(text, "MemAvailable")),
            rtp_ports: Some(u32::from(range.1 - range.0) + 1),
            rtp_ports_in_use: text.udp.map(|text| rtp_ports_in_use(text, range)),
        }
    }
}

/// A line of /proc/meminfo, in bytes.
#[must_use]
pub fn memory(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

/// `rtpstart` and `rtpend`; Asterisk's defaults where rtp.conf says nothing.
#[must_use]
pub fn rtp_range(rtp_conf: &str) -> (u16, u16) {
    let value = |key: &str| {
        rtp_conf.lines().find_map(|line| {
            let (name, value) = line.split(';').next()?.split_once('=')?;
            (name.trim() == key).then(|| value.trim_start_matches('>').trim().parse().ok()).flatten()
        })
    };
    let (start, end) = (value("rtpstart").unwrap_or(5000), value("rtpend").unwrap_or(31_000));
    (start, end.max(start))
}

/// Ports of that range that a UDP socket of /proc/net/udp is bound to.
#[must_use]
pub fn rtp_ports_in_use(udp: &str, (start, end): (u16, u16)) -> u32 {
    let port = |line: &str| {
        let local = line.split_ascii_whitespace().nth(1)?;
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    };
    let ports: HashSet<u16> = udp.lines().filter_map(port).filter(|p| (start..=end).contains(p)).collect();
    u32::try_from(ports.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let udp = "  sl  local_address rem_address\n 12: 0100007F:2710 00000000:0000 07\n \
                   13: 00000000:2711 00000000:0000 07\n 14: 00000000:13C4 00000000:0000 07\n";
        let host = Host::read(HostText {
            loadavg: Some("0.52 0.58 0.59 1/389 12345\n"),
            meminfo: Some("MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:    8 kB\n"),
            udp: Some(udp),
            rtp_conf: Some("[general]\nrtpstart = 10000\nrtpend=>20000 ; many\n"),
        });
        assert_eq!(host.load_1m_milli, Some(520));
        assert_eq!((host.memory_bytes, host.memory_available_bytes), (Some(16 * 1024), Some(8 * 1024)));
        assert_eq!((host.rtp_ports, host.rtp_ports_in_use), (Some(10_001), Some(2)));
        assert_eq!(Host::read(HostText::default()).rtp_ports, Some(26_001));
    }
}
