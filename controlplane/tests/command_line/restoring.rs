//! A backup is put in the place of the database.

use super::{Server, ringward, told};

fn restore(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = ringward();
    command.args(["restore", "--data-dir"]).arg(server.data.path()).args(arguments);
    told(command.output().unwrap())
}

#[test]
fn a_backup_is_restored_beside_what_was_there_and_not_under_a_server() {
    let mut server = Server::start();
    let backup = tempfile::TempDir::new().unwrap();
    let folder = backup.path().to_str().unwrap();
    let (code, _, stderr) = restore(&server, &[folder]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("in use by another control plane"), "{stderr}");
    server.child.kill().unwrap();
    server.child.wait().unwrap();

    let (code, _, stderr) = restore(&server, &[folder]);
    assert_eq!(code, Some(1), "an empty folder is no backup");
    assert!(stderr.contains("ringward.db"), "{stderr}");
    let database = server.data.path().join("ringward.db");
    std::fs::copy(&database, backup.path().join("ringward.db")).unwrap();
    std::fs::write(backup.path().join("agents-ca.pem"), "of the backup").unwrap();
    std::fs::write(&database, "damaged").unwrap();
    // Something that is no backup is in the folder: nothing is touched.
    let strange = backup.path().join("strange");
    std::fs::create_dir(&strange).unwrap();
    let ca = server.data.path().join("agents-ca.pem");
    let before = std::fs::read(&ca).unwrap();
    let (code, _, stderr) = restore(&server, &[folder]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("strange is no file"), "{stderr}");
    assert_eq!(
        (std::fs::read(&ca).unwrap(), std::fs::read(&database).unwrap()),
        (before, b"damaged".to_vec())
    );
    std::fs::remove_dir(&strange).unwrap();
    let (code, stdout, stderr) = restore(&server, &[folder]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains("0 calls and incidents are held") && stdout.contains("ringward held list"),
        "{stdout}"
    );
    assert_eq!(std::fs::read(server.data.path().join("ringward.db.replaced")).unwrap(), b"damaged");
    assert_eq!(std::fs::read(server.data.path().join("agents-ca.pem")).unwrap(), b"of the backup");
    let (code, _, stderr) = restore(&server, &["--hold-only"]);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, _, _) = restore(&server, &[]);
    assert_eq!(code, Some(2), "which backup?");
}
