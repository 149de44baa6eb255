//! The PostgreSQL that tests of the store get; and the database of a control plane that is copied, lost, and restored.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]
mod copied;
mod restored;

use lab::postgres::Cluster;
use std::process::Command;

#[test]
fn two_clusters_answer_side_by_side_with_normal_durability_and_are_gone_when_dropped() {
    let (first, second) = (Cluster::start().unwrap(), Cluster::start().unwrap());
    assert_ne!(first.url(), second.url());
    for cluster in [&first, &second] {
        let url = cluster.url();
        let ask = ["-tA", "-c", "show fsync", "-c", "show synchronous_commit"];
        let said = Command::new("psql").arg(&url).args(ask).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "on\non\n");
    }
    let url = first.url();
    drop(first);
    assert!(!Command::new("psql").args([&url, "-c", "select 1"]).output().unwrap().status.success());
}
