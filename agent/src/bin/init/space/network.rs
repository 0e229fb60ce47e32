//! A network namespace for a space, owned by a new user namespace of the space's range.
//!
//! A paused child is born into both; its maps are written from outside, by the node's root; the
//! network namespace is bound to a file, which keeps both alive; the child dies.
//!
//! The user namespace is made by the first id of the range, not by root: the kernel counts what it
//! gives without a cgroup (inotify watches, namespaces, fanotify groups) by who made the namespace,
//! so made by root all spaces would share one count, and one could use up what the others need.

use std::fs;
use std::path::Path;
use std::time::Duration;

use host::isolate::{NetworkStart, RANGE, check_range};
use host::mount;
use host::process::{Clone, Fork, clone3, exit_now};
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use super::{At, Failure};

/// Makes and binds it.
pub fn make(start: &NetworkStart) -> Result<(), Failure> {
    check_range(start.first_id).at("check the request")?;
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNET;
    let become_effective = |id: u32| nix::unistd::seteuid(Uid::from_raw(id)).at("make the namespaces");
    become_effective(start.first_id)?;
    let cloned = clone3(&Clone {
        namespaces,
        ..Clone::default()
    });
    // In the child this is the id 0 of a namespace without a map: it fails, and nothing of it is needed.
    let root_again = become_effective(0);
    match cloned.at("make the namespaces")? {
        Fork::Child => {
            // Never outlives the helper, whatever ends that.
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            loop {
                if nix::unistd::getppid().as_raw() == 1 {
                    exit_now(1);
                }
                nix::unistd::pause();
            }
        }
        Fork::Parent(pid, child) => {
            let made = root_again.and_then(|()| map_and_bind(pid, start));
            let _ = child.kill(Signal::SIGKILL);
            let _ = child.wait_ended(Duration::from_secs(5));
            let _ = child.reap();
            made
        }
    }
}

fn map_and_bind(pid: i32, start: &NetworkStart) -> Result<(), Failure> {
    let process = Path::new("/proc").join(pid.to_string());
    let map = format!("0 {} {RANGE}\n", start.first_id);
    fs::write(process.join("uid_map"), &map).at("write the map of users")?;
    fs::write(process.join("gid_map"), &map).at("write the map of groups")?;
    mount::bind(&process.join("ns/net"), &start.path).at("bind the network namespace")
}
