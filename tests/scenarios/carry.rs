//! What a space holds goes out of it, the space ends, another one is bought, and it is there again: by real SSH, with the base's
//! own find and tar, over a real overlay.

use anyhow::{Result, ensure};

use crate::machine::inside;
use crate::world::World;

/// A user, an installed package, and whatever a file can have beside its bytes.
const FILL: &str = r#"set -e
useradd -m -s /bin/bash bea
su bea -c 'echo mine >~/mine; chmod 600 ~/mine'
mkdir -p /tmp/q/DEBIAN /tmp/q/usr/bin && cd /tmp/q
printf 'Package: carried\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: x\n' >DEBIAN/control
printf '#!/bin/sh\necho carried\n' >usr/bin/carried && chmod 755 usr/bin/carried
dpkg-deb --build --root-owner-group /tmp/q /root/carried.deb >/dev/null && dpkg -i /root/carried.deb >/dev/null
mkdir -p /srv/carried/"odd name
of two lines" && cd /srv/carried
head -c 3000000 /dev/urandom >large && ln large again && ln -s large link && mkfifo pipe
truncate -s 200M holes && printf 'in the middle' | dd of=holes seek=100000000 bs=1 conv=notrunc status=none
cp /bin/true capable && cp /bin/true setuid && chmod 4755 setuid && chown bea setuid
touch -d '2001-02-03 04:05:06.789' large
mkdir -p /var/lib/containers/carried && echo layer >/var/lib/containers/carried/layer
python3 -c '
import os, struct
os.setxattr("capable", "security.capability", struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0))
os.setxattr("large", "user.note", b"kept")'
rm -rf /tmp/q"#;

/// All of it, as one text. Times of folders too.
const LOOK: &str = r#"set -e; cd /
find srv/carried home/bea var/lib/containers/carried root/carried.deb usr/bin/carried -type d -printf '%y %m %U %G %T@ %p\0' -o -printf '%y %m %U %G %s %T@ %n %l %p\0' | sort -z | tr '\0' '\n'
find srv/carried home/bea var/lib/containers/carried usr/bin/carried -type f -print0 | sort -z | xargs -0 sha256sum
python3 -c '
import os
for name in ("capable", "large"):
    path = "srv/carried/" + name
    print([(key, os.getxattr(path, key).hex()) for key in sorted(os.listxattr(path))])'
id bea; su bea -c 'cat ~/mine'; carried; dpkg -s carried | grep ^Status; stat -c %b srv/carried/holes | awk '{print ($1 < 64)}'"#;

/// Export, cancel, buy, import.
pub fn comes_back(world: &mut World) -> Result<()> {
    inside(world, FILL)?;
    let then = inside(world, LOOK)?;
    let folder = world.scratch()?.join("carried");
    let (folder, old) = (folder.display().to_string(), world.space()?);
    let host_key = inside(world, "cat /etc/ssh/ssh_host_ed25519_key.pub; cat /etc/hostname")?;
    let taken = world
        .user()?
        .run(&["export", &old, &folder, "--part", "1MiB", "--json"])?
        .expect_success("exporting")?;
    println!("{}", taken.out);
    world
        .user()?
        .run(&["export", "--check", &folder])?
        .expect_success("checking the export")?;
    world
        .user()?
        .run(&["cancel", &old, "--json"])?
        .expect_success("cancelling")?;
    let bought = world.buy()?;
    let new = world.space()?;
    ensure!(bought.text("/name")? != old, "it is the same space");
    // The control: nothing of it is there by itself.
    let absent = inside(
        world,
        "ls -d /srv/carried /home/bea /usr/bin/carried 2>/dev/null | wc -l",
    )?;
    ensure!(absent.trim() == "0", "a new space has {absent}");
    let given = world
        .user()?
        .run(&["import", &folder, &new, "--json"])?
        .expect_success("importing")?;
    println!("{}", given.out);
    let now = inside(world, LOOK)?;
    ensure!(now == then, "it was\n{then}\nand is\n{now}");
    let other = inside(world, "cat /etc/ssh/ssh_host_ed25519_key.pub; cat /etc/hostname")?;
    ensure!(
        other != host_key,
        "the new space has the old one's host key and name"
    );
    world.says_nothing_but(&new, "0\n")
}
