//! What the packages do by themselves: how far their units are shut in, and what a purge leaves.

use crate::site::Site;

/// What `systemd-analyze security` may say at most, of 10 (nothing shut in) to 0.
const EXPOSURE_MAX: [(&str, &str, f32); 4] = [
    ("plane", "ringward.service", 1.2),
    ("plane", "ringward-backup.service", 1.3),
    ("waw-1", "ringward-agent.service", 2.1),
    ("waw-1", "ringward-agent-guard.service", 1.5),
];

pub(crate) fn sandboxes(site: &Site) {
    for (host, unit, most) in EXPOSURE_MAX {
        let said = site
            .host(host)
            .shell(&format!("systemd-analyze --no-pager security {unit} | tail -n 1"))
            .unwrap();
        let figure = said.split_whitespace().find_map(|word| word.parse::<f32>().ok()).unwrap();
        println!("{unit}: exposure {figure}");
        assert!(figure <= most, "{said}");
    }
}

/// All goes but the backups.
pub(crate) fn purge(site: &Site) {
    let plane = site.host("plane");
    let backups = plane.shell("ls /var/backups/ringward").unwrap();
    assert!(backups.contains("ringward-"), "{backups}");
    plane.shell("apt-get -q purge -y ringward").unwrap();
    let left = plane.shell(
        "ls -d /usr/bin/ringward /etc/ringward /var/lib/ringward /usr/lib/ringward 2>/dev/null || true; \
         systemctl list-unit-files --no-legend 'ringward*' || true",
    );
    assert_eq!(left.unwrap(), "");
    assert_eq!(plane.shell("ls /var/backups/ringward").unwrap(), backups, "backups stay");
}
