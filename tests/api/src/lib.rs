//! The whole control plane in process, on a real database and a fake PBX, through its doors.
