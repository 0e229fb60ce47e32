//! A space as a useful machine: what people do in one on the first day, with the programs that they use.
//!
//! All of it over the ssh_config that the client writes: plain `ssh`, `sftp`, forwarded ports, `tmux`, services.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::world::World;

/// A scenario: its name and what it does.
pub type Scenario = (&'static str, fn(&mut World) -> Result<()>);

/// In this order, on a space that was bought.
pub const SCENARIOS: [Scenario; 8] = [
    ("machine_apt_sudo_ping_and_setuid_work", packages),
    ("machine_shows_what_was_sold", size),
    ("machine_takes_files_by_sftp", files),
    ("machine_forwards_ports_both_ways", forwards),
    ("machine_has_what_editors_and_playbooks_need", editors),
    ("machine_knows_terminals_time_and_names", terminals),
    ("machine_keeps_what_was_left_running", left_running),
    ("machine_lets_in_again_after_its_sshd_was_killed", sshd_killed),
];

/// What a command inside prints.
pub fn inside(world: &mut World, command: &str) -> Result<String> {
    world.ensure_bought()?;
    let (name, config) = (world.space()?, world.ssh_config()?);
    let output = Command::new("ssh")
        .arg("-F")
        .arg(&config)
        .args([&name, command])
        .stdin(Stdio::null())
        .output()
        .context("starting ssh")?;
    ensure!(
        output.status.success(),
        "{command:?} inside: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fails unless a command inside prints this.
pub fn expect(world: &mut World, command: &str, wanted: &str) -> Result<()> {
    let said = inside(world, command)?;
    ensure!(
        said.trim() == wanted,
        "{command:?} says {said:?}, wanted {wanted:?}"
    );
    Ok(())
}

/// A package with a script that makes a user, a program for everybody and a service.
const PACKAGE: &str = r#"set -e
mkdir -p /tmp/p/DEBIAN /tmp/p/usr/bin /tmp/p/etc/init.d
cd /tmp/p
printf 'Package: useful\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDepends: bash\nDescription: x\n' >DEBIAN/control
printf '#!/bin/sh\nset -e\nid useful >/dev/null 2>&1 || useradd --system --no-create-home useful\nupdate-rc.d useful defaults\n' >DEBIAN/postinst
printf '#!/bin/sh\necho useful\n' >usr/bin/useful
cat >etc/init.d/useful <<'END'
#!/bin/sh
### BEGIN INIT INFO
# Provides: useful
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
date +%s >/var/lib/useful.started
setsid sleep 86399 >/dev/null 2>&1 &
END
chmod 755 DEBIAN/postinst usr/bin/useful etc/init.d/useful
dpkg-deb --build --root-owner-group /tmp/p /root/useful.deb >/dev/null
apt-get install -y /root/useful.deb >/root/apt.log 2>&1 || { cat /root/apt.log; exit 1; }
useful; id -un useful
"#;

fn packages(world: &mut World) -> Result<()> {
    expect(world, PACKAGE, "useful\nuseful")?;
    inside(
        world,
        "useradd -m -s /bin/bash ann && echo 'ann ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ann",
    )?;
    // Whatever sudo says beside the answer (a name that does not resolve) fails here.
    expect(world, "su - ann -c 'sudo id -u' 2>&1", "0")?;
    inside(
        world,
        "ping -c1 -W5 127.0.0.1 && su ann -c 'ping -c1 -W5 127.0.0.1'",
    )?;
    expect(
        world,
        "cp /usr/bin/id /usr/local/bin/sid && chmod u+s /usr/local/bin/sid && su ann -c 'sid -u'",
        "0",
    )?;
    // The control: without the bit.
    let plain = inside(world, "chmod u-s /usr/local/bin/sid && su ann -c 'sid -u'")?;
    ensure!(plain.trim() != "0", "without the bit it is root as well");
    Ok(())
}

fn size(world: &mut World) -> Result<()> {
    // A login, sudo's clean environment, Python and top all speak of what was sold.
    expect(
        world,
        "nproc; sudo -n nproc; python3 -c 'import os; print(os.cpu_count())'; grep -c ^processor /proc/cpuinfo; \
         free -m | awk '/^Mem/{print $2}'; TERM=dumb top -bn1 -E m | awk '/^MiB Mem/{print int($4)}'; \
         awk '{print ($1 < 7200)}' /proc/uptime; cut -d' ' -f1 /proc/loadavg | grep -c '^[0-9.]*$'",
        "1\n1\n1\n1\n256\n256\n1\n1",
    )?;
    // The control: the kernel below has more.
    let nodes = inside(world, "awk '/^MemTotal/{print $2}' /dev/.steading/proc/meminfo")?;
    ensure!(nodes.trim().parse::<u64>()? > 300_000, "the node has {nodes} kB");
    let figure = |text: String| -> Result<u64> { text.trim().parse().with_context(|| text.clone()) };
    let disk = figure(inside(world, "df --output=size -B1 / | tail -1")?)?;
    ensure!(
        (700 << 20..=1 << 30).contains(&disk),
        "df says {disk} bytes of the 1 GiB sold"
    );
    let limit = figure(inside(world, "cat /sys/fs/cgroup/memory.max")?)?;
    ensure!(limit == 256 << 20, "memory.max is {limit}");
    let processes = inside(world, "ps -e -o comm=")?;
    let of_the_node = |name: &&str| ["init", "agent", "lxcfs", "kthreadd"].contains(name);
    ensure!(
        !processes.lines().any(|line| of_the_node(&line.trim())) && processes.contains("sshd"),
        "ps shows {processes}"
    );
    Ok(())
}

fn files(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    let (name, config, scratch) = (world.space()?, world.ssh_config()?, world.scratch()?);
    let (to, back) = (scratch.join("to"), scratch.join("back"));
    std::fs::write(&to, "by sftp\n")?;
    let mut sftp = Command::new("sftp")
        .arg("-F")
        .arg(&config)
        .args(["-b", "-", &name])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("starting sftp")?;
    let orders = format!(
        "put {} /root/by-sftp\nget /root/by-sftp {}\nls /root\n",
        to.display(),
        back.display()
    );
    sftp.stdin
        .take()
        .context("sftp's input")?
        .write_all(orders.as_bytes())?;
    let status = sftp.wait()?;
    ensure!(status.success(), "sftp ended with {status}");
    ensure!(
        std::fs::read_to_string(&back)? == "by sftp\n",
        "sftp brought something else"
    );
    Ok(())
}

/// Serves one word on its loopback, says so, and tells what it heard from the other side.
const PEER: &str = r#"python3 -c '
import socket
here = socket.create_server(("127.0.0.1", 8765))
print("ready", flush=True)
there = socket.create_connection(("127.0.0.1", 8766))
print(there.recv(64).decode(), flush=True)
while True:
    stream, _ = here.accept()
    stream.sendall(b"from inside")
    stream.close()
'"#;

fn forwards(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    let (name, config) = (world.space()?, world.ssh_config()?);
    let ours = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (local, socks) = (free_port()?, free_port()?);
    let mut ssh = Command::new("ssh")
        .arg("-F")
        .arg(&config)
        .args(["-o", "ExitOnForwardFailure=yes"])
        .args(["-L", &format!("{local}:127.0.0.1:8765")])
        .args(["-D", &socks.to_string()])
        .args([
            "-R",
            &format!("127.0.0.1:8766:127.0.0.1:{}", ours.local_addr()?.port()),
        ])
        .args([&name, PEER])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting ssh")?;
    let tried = (|| -> Result<()> {
        let mut said = BufReader::new(ssh.stdout.take().context("ssh's output")?).lines();
        ensure!(
            said.next().transpose()?.as_deref() == Some("ready"),
            "the peer did not start"
        );
        ours.accept()?.0.write_all(b"from outside")?;
        let heard = said.next().transpose()?;
        ensure!(heard.as_deref() == Some("from outside"), "-R brought {heard:?}");
        let mut word = String::new();
        TcpStream::connect((Ipv4Addr::LOCALHOST, local))?.read_to_string(&mut word)?;
        ensure!(word == "from inside", "-L brought {word:?}");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, socks))?;
        // SOCKS5 (RFC 1928): no password; connect to 127.0.0.1:8765.
        stream.write_all(&[5, 1, 0])?;
        stream.read_exact(&mut [0; 2])?;
        stream.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, 0x22, 0x3d])?;
        stream.read_exact(&mut [0; 10])?;
        word.clear();
        stream.read_to_string(&mut word)?;
        ensure!(word == "from inside", "-D brought {word:?}");
        Ok(())
    })();
    ssh.kill()?;
    ssh.wait()?;
    tried
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn editors(world: &mut World) -> Result<()> {
    // What the installer of VS Code's server asks for, and what its node binary links: glibc 2.28 and GLIBCXX_3.4.25.
    inside(
        world,
        "set -e; ldd --version | awk 'NR == 1 { exit $NF < 2.28 }'; \
         grep -q GLIBCXX_3.4.25 /usr/lib/x86_64-linux-gnu/libstdc++.so.6; ! grep -q GLIBCXX_9 /usr/lib/x86_64-linux-gnu/libstdc++.so.6; \
         for program in tar gzip curl wget sed ps kill uname mktemp bash; do command -v $program; done",
    )?;
    // Unpacked into the home and run from there, a program in C++; its port is forwarded by the scenario before.
    inside(
        world,
        "ldd /usr/bin/apt-get | grep -q libstdc && mkdir -p ~/.vscode-server/bin && \
         tar -C /usr/bin -czf - apt-get | tar -C ~/.vscode-server/bin -xzf - && ~/.vscode-server/bin/apt-get --version",
    )?;
    // Ansible sends a module as a zip inside a Python program, and runs it from its temporary folder.
    expect(
        world,
        "mkdir -p ~/.ansible/tmp && cd ~/.ansible/tmp && \
         python3 -c 'import zipfile; zipfile.ZipFile(\"m.zip\", \"w\").writestr(\"__main__.py\", \"import json, pwd, grp, selectors, platform, shlex, subprocess, tempfile; print(json.dumps(dict(ping=subprocess.check_output([\\\"echo\\\", \\\"pong\\\"]).decode().strip())))\")' && \
         python3 m.zip",
        "{\"ping\": \"pong\"}",
    )?;
    Ok(())
}

fn terminals(world: &mut World) -> Result<()> {
    expect(
        world,
        "for name in xterm xterm-256color screen screen-256color tmux tmux-256color linux vt100 vt220 ansi \
         rxvt-unicode-256color alacritty foot foot-direct konsole-256color gnome-256color putty-256color wezterm \
         xterm-kitty xterm-ghostty ghostty contour rio st-256color; do \
         TERM=$name clear >/dev/null && TERM=$name tput longname >/dev/null || echo $name; done; \
         TERM=no-such-terminal clear 2>/dev/null || echo control",
        "control",
    )?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let there: u64 = inside(world, "date +%s")?.trim().parse()?;
    ensure!(
        now.abs_diff(there) < 60,
        "the clock is {} s off",
        now.abs_diff(there)
    );
    expect(
        world,
        "locale charmap; perl -e 'print 1' 2>&1; python3 -c 'print(\"\\u00e9\")'",
        "UTF-8\n1é",
    )?;
    let name = world.space()?;
    expect(
        world,
        "hostname; hostname -f; uname -n; date +%Z; echo ${TZ-none}",
        &format!("{name}\n{name}\n{name}\nUTC\nnone"),
    )?;
    inside(
        world,
        "getent hosts $(hostname) && getent hosts localhost && test -s /etc/machine-id",
    )?;
    // What a laptop sends along by its own ssh_config does not make Perl complain of a locale that is not here.
    let output = Command::new("ssh")
        .arg("-F")
        .arg(world.ssh_config()?)
        .args([
            "-o",
            "SendEnv=LANG LC_*",
            &name,
            "perl -e 'print 1' 2>&1; locale 2>&1 | grep -c UTF-8",
        ])
        .envs([
            ("LC_ALL", "de_DE.UTF-8"),
            ("LANG", "de_DE.UTF-8"),
            ("LC_TIME", "sv_SE.UTF-8"),
        ])
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        said.starts_with('1') && !said.contains("warning"),
        "with a locale sent along: {said}"
    );
    Ok(())
}

fn left_running(world: &mut World) -> Result<()> {
    inside(
        world,
        "tmux new-session -d -s left 'sleep 86397'; nohup sleep 86398 >/dev/null 2>&1 </dev/null &",
    )?;
    // Another login: the first is over.
    expect(
        world,
        "tmux ls | cut -d: -f1; pgrep -fc '^sleep 8639[78]$'",
        "left\n2",
    )?;
    Ok(())
}

/// Enables a service of a package, and a line of /etc/rc.local; neither has run since.
pub fn enable(world: &mut World) -> Result<()> {
    inside(world, PACKAGE)?;
    let local = "printf '#!/bin/sh\\ndate >/root/local-ran\\n' >/etc/rc.local && chmod 755 /etc/rc.local && \
                 rm -f /root/local-ran /var/lib/useful.started && sync";
    inside(world, local)?;
    Ok(())
}

/// What was enabled runs again after `unlock`; called when a power cut is over.
pub fn enabled_again(world: &mut World) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    let look = "test -s /root/local-ran && test -s /var/lib/useful.started && pgrep -f '^sleep 86399$' >/dev/null && echo yes || echo no";
    while inside(world, look)?.trim() != "yes" {
        ensure!(Instant::now() < end, "what was enabled did not start within 30 s");
    }
    Ok(())
}

fn sshd_killed(world: &mut World) -> Result<()> {
    let first = inside(world, "cat /run/sshd.pid")?;
    inside(world, "kill -KILL $(cat /run/sshd.pid)")?;
    let killed = Instant::now();
    let second = loop {
        match inside(world, "cat /run/sshd.pid") {
            Ok(second) => break second,
            Err(error) if killed.elapsed() > Duration::from_secs(20) => return Err(error),
            Err(_) => {}
        }
    };
    ensure!(first != second, "sshd was not killed");
    Ok(())
}
