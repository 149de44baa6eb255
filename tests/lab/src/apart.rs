//! A second lab on one machine: a command in a network, with lab folders and control groups of its own.
//!
//! A lab has one bridge, one lock and fixed names, so there is one per machine; most of its time it waits. What runs
//! apart sees the same files, but for `/run/ringward-lab`, `/var/lib/ringward-lab` and `/run/netns`, and has no way
//! out to any network: packages, roots and programs must be there before.
use crate::{LabError, command, lab::STATE};
use std::ffi::OsStr;
use std::process::Command;

/// Where hosts and machines are; see `host.rs` and `machine.rs`.
const HOSTS: &str = "/var/lib/ringward-lab";

/// Enters control groups of its own, so that its systemd machines are not those of another lab.
const OUTER: &str = "set -e; name=$1; shift\n\
    for top in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do\n\
      if [ -f $top/cgroup.procs ]; then mkdir -p $top/ringward-apart-$name; echo $$ > $top/ringward-apart-$name/cgroup.procs; fi\n\
    done\n\
    mkdir -p $STATE/apart/$name $HOSTS/apart/$name /run/netns\n\
    exec unshare --net --mount --cgroup --propagation private sh -c \"$INNER\" apart $name \"$@\"";

/// Mounts what shows the new namespaces in place of what shows the old ones. First what the other lab has mounted is let
/// go: its machines' roots and networks would seem to be ours, and would live as long as we do. The order matters: `/sys` is
/// mounted anew for its own network devices, under the control groups' mounts, which are kept aside meanwhile.
const INNER: &str = "set -e; name=$1; shift\n\
    for at in $(cut -d' ' -f2 /proc/mounts | grep -e ^$HOSTS/ -e ^$STATE/ -e ^/run/netns/ | tac); do umount $at; done\n\
    aside=$STATE/apart/$name/cgroups; mkdir -p $aside\n\
    mount --rbind /sys/fs/cgroup $aside; mount -t sysfs sysfs /sys; mount --move $aside /sys/fs/cgroup\n\
    for top in /sys/fs/cgroup/unified /sys/fs/cgroup; do\n\
      if [ -f $top/cgroup.controllers ]; then umount $top; mount -t cgroup2 cgroup2 $top; fi\n\
    done\n\
    top=/sys/fs/cgroup/systemd\n\
    if [ -f $top/cgroup.procs ]; then umount $top; mount -t cgroup -o none,name=systemd cgroup $top; fi\n\
    mount --bind $HOSTS/apart/$name $HOSTS; mount --bind $STATE/apart/$name $STATE\n\
    mount -t tmpfs tmpfs /run/netns; mount --make-shared /run/netns\n\
    ip link set lo up\n\
    unset STATE HOSTS INNER\n\
    exec \"$@\"";

/// The command `program`, to run apart; `name` tells such labs from each other and is a plain word.
#[must_use]
pub fn apart(name: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", OUTER, "apart", name]).arg(program);
    command.env("STATE", STATE).env("HOSTS", HOSTS).env("INNER", INNER);
    command
}

/// Whether this machine lets a command run apart: a container may not.
///
/// # Errors
/// What was said.
pub fn can_run_apart() -> Result<(), LabError> {
    command::finish("run a command apart", &mut apart("probe", "true")).map(|_| ())
}
