//! An Ansible playbook over the ssh_config that the client writes: a package, a user, a file and a service; then once more.
//!
//! Ansible runs in the Python of the packages for tests, under the sysroot's loader: the build machine may have neither.
//! Debian's archive is played by a folder in the space, so Ansible's module for apt fetches its own library as it would
//! from Debian.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::machine::{expect, inside};
use crate::world::World;

/// A first playbook.
const PLAYBOOK: &str = r#"
- hosts: all
  gather_subset: min
  tasks:
    - name: a package, from the archive
      apt: {name: passt, update_cache: true}
    - name: a user
      user: {name: player, shell: /bin/bash}
    - name: a service
      copy:
        dest: /etc/init.d/played
        mode: "0755"
        content: |
          #!/bin/sh
          # Played on {{ ansible_facts.distribution }}.
          ### BEGIN INIT INFO
          # Provides: played
          # Required-Start:
          # Required-Stop:
          # Default-Start: 2 3 4 5
          # Default-Stop: 0 1 6
          ### END INIT INFO
          case $1 in
          start) start-stop-daemon --start --background --make-pidfile --pidfile /run/played.pid --exec /usr/bin/sleep -- 86396 ;;
          stop) start-stop-daemon --stop --pidfile /run/played.pid ;;
          status) start-stop-daemon --status --pidfile /run/played.pid ;;
          esac
    - name: enabled and started
      service: {name: played, enabled: true, state: started}
    - name: a command as another user
      command: id -un
      become: true
      become_user: player
      register: other
      changed_when: false
    - assert: {that: other.stdout == "player"}
"#;

/// The scenario.
pub fn twice(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    bring_archive(world)?;
    let first = play(world, false)?;
    ensure!(first.contains("changed=4 "), "the first time: {first}");
    expect(
        world,
        "grep Played /etc/init.d/played; stat -c %a /etc/init.d/played; pgrep -fc '^/usr/bin/sleep 86396$'; \
         ls /etc/rc2.d | grep -c played; id -un player; command -v passt",
        "# Played on Debian.\n755\n1\n1\nplayer\n/usr/bin/passt",
    )?;
    let second = play(world, true)?;
    let went = second.contains("changed=0 ") && second.contains("TASK [enabled and started]");
    ensure!(went, "the second time: {second}");
    Ok(())
}

/// Lays the folder of packages into the space, in the place of Debian's archive.
fn bring_archive(world: &mut World) -> Result<()> {
    bring(world, "STEADING_ARCHIVE", &["."], "/root/archive")?;
    inside(
        world,
        "rm /etc/apt/sources.list.d/debian.sources && \
         echo 'deb [trusted=yes] file:/root/archive ./' >/etc/apt/sources.list.d/archive.list",
    )?;
    Ok(())
}

/// Copies parts of a folder of this machine, named by a variable, to a folder of the space.
pub fn bring(world: &World, variable: &str, parts: &[&str], to: &str) -> Result<()> {
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(folder(variable)?)
        .args(["-cf", "-", "--owner=0", "--group=0"])
        .args(parts)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting tar")?;
    let status = Command::new("ssh")
        .arg("-F")
        .arg(world.ssh_config()?)
        .args([
            &world.space()?,
            &format!("mkdir -p {to} && tar -C {to} --no-overwrite-dir -xf -"),
        ])
        .stdin(tar.stdout.take().context("tar's output")?)
        .status()?;
    let made = tar.wait()?;
    ensure!(
        status.success() && made.success(),
        "bringing {variable}: {made}, {status}"
    );
    Ok(())
}

/// Plays it: modules are copied to the home and run there; or what comes after the package, modules piped into Python,
/// as many set it.
fn play(world: &World, again: bool) -> Result<String> {
    let (name, config, scratch) = (world.space()?, world.ssh_config()?, world.scratch()?);
    let book = scratch.join("book.yml");
    std::fs::write(&book, PLAYBOOK)?;
    let output = ansible(&scratch)?
        .args(["-i", &format!("{name},"), "--ssh-common-args"])
        .arg(format!("-F {}", config.display()))
        .env("ANSIBLE_PIPELINING", if again { "1" } else { "0" })
        .args(
            again
                .then_some(["--start-at-task", "a user"])
                .into_iter()
                .flatten(),
        )
        .arg(&book)
        .output()
        .context("starting ansible-playbook")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "ansible-playbook ended with {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

fn ansible(home: &Path) -> Result<Command> {
    let programs = folder("STEADING_PROGRAMS")?;
    let mut python = of_the_packages("usr/bin/python3.13")?;
    python
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .env("ANSIBLE_HOME", home.join("ansible"))
        .env("PYTHONHOME", programs.join("usr"))
        .env("PYTHONPATH", programs.join("usr/lib/python3/dist-packages"))
        .args(["-m", "ansible", "playbook"]);
    Ok(python)
}

/// A program of the packages for tests, under the sysroot's loader: this machine may have no such program.
pub fn of_the_packages(program: &str) -> Result<Command> {
    let (programs, sysroot) = (folder("STEADING_PROGRAMS")?, folder("STEADING_SYSROOT")?);
    let libraries =
        [&programs, &sysroot].map(|tree| tree.join("usr/lib/x86_64-linux-gnu").display().to_string());
    let mut command = Command::new(sysroot.join("usr/lib64/ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(libraries.join(":"))
        .arg(programs.join(program))
        .stdin(Stdio::null());
    Ok(command)
}

fn folder(variable: &str) -> Result<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    folder.with_context(|| format!("{variable} is not set: run these tests by ./x test --scenarios"))
}
