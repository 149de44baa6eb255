//! Two labs side by side know nothing of each other.
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where a machine of the lab has its root, and a host its network.
const ROOT: &str = "/var/lib/ringward-lab/machines/beside/root";
const NETWORK: &str = "beside";

/// What the first lab has while a second begins; gone with it.
struct Beside;

impl Drop for Beside {
    fn drop(&mut self) {
        let _is_gone = (run("ip", &["netns", "del", NETWORK]), run("umount", &[ROOT]));
    }
}

#[test]
fn a_second_lab_sees_no_machine_and_no_network_of_the_first_and_takes_none_from_it() {
    fs::create_dir_all(ROOT).unwrap();
    assert!(run("mount", &["-t", "tmpfs", "tmpfs", ROOT]) && run("ip", &["netns", "add", NETWORK]));
    let beside = Beside;
    let second = lab::apart("tested", "cat").arg("/proc/mounts").output().unwrap();
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    let first = fs::read_to_string("/proc/mounts").unwrap();
    for (mounts, is_there) in [(first, true), (String::from_utf8_lossy(&second.stdout).into_owned(), false)] {
        for at in [ROOT.to_owned(), format!("/run/netns/{NETWORK}")] {
            assert_eq!(mounts.contains(&format!(" {at} ")), is_there, "{at} in\n{mounts}");
        }
    }
    drop(beside);
    fs::remove_dir_all(Path::new(ROOT).parent().unwrap()).unwrap();
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}
