//! How much memory a process has.
use crate::LabError;

/// Its resident memory, in MB (1,000,000 bytes).
///
/// # Errors
/// There is no such process.
pub fn rss_mb(pid: u32) -> Result<f64, LabError> {
    status_mb(pid, "VmRSS:")
}

/// The most that it had resident, in MB.
///
/// # Errors
/// There is no such process.
pub fn peak_mb(pid: u32) -> Result<f64, LabError> {
    status_mb(pid, "VmHWM:")
}

fn status_mb(pid: u32, field: &str) -> Result<f64, LabError> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0 / 1e6).ok_or_else(|| LabError::Machine(format!("{path} tells no {field}")))
}
