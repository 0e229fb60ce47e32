//! The one configuration file that LVM reads: a node without udev, one process, linear volumes.
//!
//! It is written where LVM looks by default. A file there that we did not write means that this
//! machine is somebody's computer and not a node; then nothing is started.

use std::fs;
use std::io;
use std::path::Path;

use super::LvmError;

/// Where liblvm2cmd looks for `lvm.conf` when nothing else is said.
pub const CONFIG_DIR: &str = "/etc/lvm";

const MARK: &str = "# Written by Steading; it is written again at each start.";

/// No udev: devices are found by reading /dev, nodes are made by libdevmapper itself. Volumes and
/// mappings are never looked into for further volume groups: their content is the user's. Backups
/// and archives are off, since the node's root is memory; the devices file, hints and lvmetad's
/// successors would be stale there too. A removed volume's extents are discarded.
const TEXT: &str = r#"
config { checks = 1  abort_on_errors = 0 }
devices {
    dir = "/dev"
    scan = [ "/dev" ]
    obtain_device_list_from_udev = 0
    external_device_info_source = "none"
    use_devicesfile = 0
    hints = "none"
    scan_lvs = 0
    multipath_component_detection = 0
    global_filter = [ "r|^/dev/dm-|", "r|^/dev/mapper/|", "r|^/dev/loop|", "r|^/dev/ram|", "r|^/dev/zram|", "r|^/dev/nbd|", "r|^/dev/sr|", "r|^/dev/fd|", "r|^/dev/md|", "a|.*|" ]
    issue_discards = 1
}
allocation { wipe_signatures_when_zeroing_new_lvs = 0 }
backup { backup = 0  archive = 0 }
global {
    locking_dir = "/run/lock/lvm"
    wait_for_locks = 1
    use_lvmlockd = 0
    use_lvmpolld = 0
    event_activation = 0
    notify_dbus = 0
}
activation {
    udev_sync = 0
    udev_rules = 0
    verify_udev_operations = 0
    monitoring = 0
    reserved_stack = 64
    reserved_memory = 0
}
log { syslog = 0  verbose = 0  prefix = ""  command_names = 0 }
"#;

/// Writes the configuration, and makes the folder of its locks.
pub(crate) fn write(dir: &Path) -> Result<(), LvmError> {
    let path = dir.join("lvm.conf");
    let config = |source| LvmError::Config {
        path: path.clone(),
        source,
    };
    match fs::read_to_string(&path) {
        Ok(text) if text.starts_with(MARK) => {}
        Ok(_) => return Err(LvmError::Foreign { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(config(error)),
    }
    fs::create_dir_all(dir).map_err(config)?;
    fs::create_dir_all("/run/lock/lvm").map_err(config)?;
    fs::write(&path, format!("{MARK}\n{TEXT}")).map_err(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_elses_configuration_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lvm.conf");
        fs::write(&path, "devices { filter = [] }\n").unwrap();
        let error = write(dir.path()).unwrap_err();
        assert!(matches!(error, LvmError::Foreign { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "devices { filter = [] }\n");
    }
}
