//! Containers in a space: podman, unpacked from Debian's packages, runs an image that is imported from a local file, for
//! root and for another user.
//!
//! Their layers lie on the volume itself: the root file system of a space is an overlay, and the kernel holds no layers
//! of one overlay on another.

use anyhow::{Result, ensure};

use crate::machine::{expect, inside};
use crate::playbook::bring;
use crate::world::World;

/// What is unpacked into the space: no documentation, no units, nothing for building.
const PARTS: [&str; 9] = [
    "--exclude=*.a",
    "--exclude=glib-2.0",
    "etc/containers",
    "usr/share/containers",
    "usr/bin",
    "usr/sbin/nft",
    "usr/lib/podman/netavark",
    "usr/lib/x86_64-linux-gnu",
    "usr/libexec/podman/rootlessport",
];
/// An image as a tar archive: a shell, three programs, their libraries.
const IMAGE: &str = "cd / && tar -chf /tmp/tiny.tar usr/bin/dash usr/bin/id usr/bin/cat usr/bin/ls usr/bin/perl \
    $(ldd /usr/bin/id /usr/bin/cat /usr/bin/dash /usr/bin/ls /usr/bin/perl | grep -o '/lib[^ ]*' | sort -u | sed 's#^/##')";
/// One word out of a container, and both with its ids to who asks at its port; nobody here is root. Then what was given
/// to him, and whose images are where.
const TALK: &str = r#"useradd -m -s /bin/bash worker
cat >/tmp/talk <<'END'
podman import -q /tmp/tiny.tar tiny >/dev/null
timeout 200 perl -e 'socket(S, 2, 1, 0); bind(S, pack("SnNx8", 2, 8775, 0)) || die; listen(S, 1); accept(C, S); syswrite(C, "out ")' &
timeout 200 podman run --rm -p 127.0.0.1:8088:80 tiny /usr/bin/perl -e 'socket(O, 2, 1, 0); connect(O, pack("SnC4x8", 2, 8775, 169, 254, 1, 2)) || die "out: $!"; sysread(O, $word, 9); socket(S, 2, 1, 0); bind(S, pack("SnNx8", 2, 80, 0)) || die; listen(S, 1); accept(C, S); open(I, "/proc/self/uid_map"); syswrite(C, join(" ", $word . "in", $<, <I>))' &
for second in $(seq 60); do
    said=$(perl -e 'socket(S, 2, 1, 0); connect(S, pack("SnC4x8", 2, 8088, 127, 0, 0, 1)) || exit; sysread(S, $said, 99); print $said')
    [ -z "$said" ] || break
    sleep 1
done
echo $said
wait
END
su - worker -c 'sh /tmp/talk' 2>&1
echo $(id -u worker) $(sed -n 's/^worker:\(.*\):\(.*\)/\1 \2/p' /etc/subuid)
ls /var/lib/containers/users
podman images -q | wc -l
su - worker -c 'podman images -q' | wc -l"#;

/// The scenario.
pub fn for_root_and_others(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    bring(world, "STEADING_CONTAINERS", &PARTS, "/")?;
    inside(world, &format!("ldconfig && {IMAGE}"))?;
    let tried = [for_root(world), for_another(world), elsewhere(world)];
    let failed: Vec<String> = tried
        .into_iter()
        .filter_map(|tried| Some(format!("{:#}", tried.err()?)))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// An own network by nftables, and a limit of its own.
fn for_root(world: &mut World) -> Result<()> {
    expect(
        world,
        "podman import -q /tmp/tiny.tar tiny >/dev/null && \
         podman run --rm --memory 64m tiny /usr/bin/dash -c 'id -u; ls /sys/class/net; cat /sys/fs/cgroup/memory.max' 2>&1",
        "0\neth0\nlo\n67108864",
    )
}

/// No privilege and no warning; his network leads out and his ports in; his ids are his, within those of the space.
fn for_another(world: &mut World) -> Result<()> {
    let said = inside(world, TALK)?;
    // Others were made in this space before: which ids are his, he says himself.
    let words: Vec<&str> = said.split_whitespace().collect();
    let fits = matches!(words[..], ["out", "in", "0", "0", inner, "1", "1", first, count, id, sub, of, folder, "1", "1"]
        if inner == id && folder == id && first == sub && count == of);
    ensure!(
        fits,
        "another user's container, his ids, and where his image lies: {said}"
    );
    // The control: where he may not open the tunnels' device, there is no network.
    expect(
        world,
        "chmod 700 /dev/net; su - worker -c 'podman run --rm tiny /usr/bin/id' 2>&1 | grep -o 'open() /dev/net/tun: .*'; \
         chmod 755 /dev/net",
        "open() /dev/net/tun: Permission denied",
    )
}

/// The control: on the root file system it does not work.
fn elsewhere(world: &mut World) -> Result<()> {
    expect(
        world,
        "podman --root /root/elsewhere info 2>&1 | grep -o \"'overlay' is not supported over overlayfs\" | head -1",
        "'overlay' is not supported over overlayfs",
    )
}
