//! The kernel's own view against the journal: for every space, step by step, and nothing that no record explains.
//!
//! A step that is `Applied` is there, one that is `Undone` or was never begun is not; one in between may be either.
//! Of LVM's mappings each is explained by a volume, and has its node and its length.
//! Key slots are asked of the volume's header itself: the step `key` is the one slot, and without it there is none.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use host::names;
use provision::journal::Journal;
use provision::space::SpaceRecord;
use provision::step::{StepLog, StepState};
use provision::volume::SNAPSHOT;
use storage::Storage;
use storage::lvm::LogicalVolume;

use super::bench::entries;

/// What the kernel shows of everybody's.
struct Seen {
    volumes: Vec<LogicalVolume>,
    mappings: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    mounts: String,
    rules: String,
}

/// Fails at the first thing that is there and should not be, or the other way round.
pub async fn agrees(
    storage: &Storage,
    group: &str,
    journal: &Journal,
    records: &[SpaceRecord],
) -> Result<()> {
    let mut seen = Seen::read(storage, group)?;
    seen.layers_are_explained(group)?;
    let (mut users, mut links) = (BTreeSet::new(), BTreeSet::new());
    for record in records {
        let (sale, user) = (record.spec.sale, record.spec.user);
        let id = sale.as_bytes();
        let steps = journal.records(&sale).await;
        let steps = steps.map_err(|error| anyhow::anyhow!("{error}"))?;
        let state = |name: &str| {
            steps
                .iter()
                .find(|step| step.step == name)
                .map(|step| &step.state)
        };
        let name = names::space_volume(id);
        let at = seen.volumes.iter().position(|volume| volume.name == name);
        let volume = at.map(|at| seen.volumes.remove(at));
        let tagged = volume
            .as_ref()
            .is_some_and(|it| it.tags.contains(&format!("sale-{sale}")));
        let slots = match &volume {
            Some(_) => storage.luks().slots(&names::lvm_device(group, &name))?,
            None => Vec::new(),
        };
        let name = names::snapshot_volume(id);
        let at = seen.volumes.iter().position(|volume| volume.name == name);
        let snapshot = at.map(|at| seen.volumes.remove(at));
        let mapping = seen.mappings.remove(&names::mapping(id));
        let mount = names::volume_mount(id);
        let mounted = seen.mounts.contains(&format!(" {} ", mount.display()));
        let cgroup = names::cgroup(id);
        let own = cgroup.file_name().map(|name| name.to_string_lossy().into_owned());
        let limited = own.is_some_and(|own| seen.cgroups.remove(&own));
        let namespace = seen.namespaces.remove(&names::space_netns(id));
        let key = mount.join("upper/etc/ssh/ssh_host_ed25519_key").exists();
        for (step, there, gone) in [
            ("volume", tagged, volume.is_none()),
            (
                SNAPSHOT,
                snapshot.as_ref().is_some_and(|it| it.origin.is_some()),
                snapshot.is_none(),
            ),
            ("key", slots == [0], slots.is_empty()),
            ("mount", mapping && mounted, !mapping && !mounted),
            ("files", key, !mounted || !key),
            ("limits", limited, !limited),
            ("network", namespace, !namespace),
            (
                "process",
                host::cgroup::is_populated(&cgroup).unwrap_or(false),
                true,
            ),
        ] {
            let right = match state(step) {
                Some(StepState::Applied) => there,
                Some(StepState::Undone) | None => gone,
                Some(_) => true,
            };
            ensure!(
                right,
                "space {sale}: {step} is {:?} in the journal, and not so: volume {volume:?}, slots {slots:?}, mapping \
                 {mapping}, mounted {mounted}, cgroup {limited}, namespace {namespace}",
                state(step)
            );
        }
        if state("network").is_some_and(StepState::may_be_there) {
            users.insert(names::user_netns(user.as_bytes()));
            links.insert(names::user_interface(user.as_bytes()));
        }
    }
    let of_spaces = |name: &str| name.starts_with("space-") || name.starts_with("snap-");
    seen.volumes.retain(|volume| of_spaces(&volume.name));
    ensure!(seen.volumes.is_empty(), "volumes of nobody: {:?}", seen.volumes);
    ensure!(
        seen.mappings.is_empty(),
        "mappings of nobody: {:?}",
        seen.mappings
    );
    ensure!(
        seen.namespaces == users,
        "namespaces: {:?}, not {users:?}",
        seen.namespaces
    );
    ensure!(seen.cgroups.is_empty(), "cgroups of nobody: {:?}", seen.cgroups);
    for user in records
        .iter()
        .map(|record| names::user_interface(record.spec.user.as_bytes()))
    {
        ensure!(
            seen.rules.contains(&user) == links.contains(&user),
            "the rules of {user} are not as the journal says: {}",
            seen.rules
        );
    }
    Ok(())
}

impl Seen {
    /// The kernel's mappings of the group are those of its volumes, and their nodes lead to them.
    fn layers_are_explained(&self, group: &str) -> Result<()> {
        let mut explained = BTreeSet::new();
        for volume in &self.volumes {
            if volume.active {
                explained.insert(names::lvm_mapping(group, &volume.name));
            }
            if let Some(origin) = &volume.origin {
                explained.insert(format!("{}-real", names::lvm_mapping(group, origin)));
                explained.insert(format!("{}-cow", names::lvm_mapping(group, &volume.name)));
            }
        }
        let mut there = BTreeSet::new();
        for device in entries(Path::new("/sys/block"))? {
            let folder = Path::new("/sys/block").join(&device);
            let Ok(name) = std::fs::read_to_string(folder.join("dm/name")) else {
                continue;
            };
            let name = name.trim_end().to_owned();
            let node = std::fs::metadata(names::mapping_device(&name)).map(|node| node.rdev());
            let number = std::fs::metadata(Path::new("/dev").join(&device))?.rdev();
            ensure!(
                node.as_ref().is_ok_and(|node| *node == number),
                "the node of {name} is {node:?}, not {number}"
            );
            let own = |it: &&LogicalVolume| names::lvm_mapping(group, &it.name) == name;
            if let Some(volume) = self.volumes.iter().find(own) {
                let units: u64 = std::fs::read_to_string(folder.join("size"))?.trim_end().parse()?;
                ensure!(
                    volume.origin.is_some() || units * 512 == volume.size_bytes,
                    "{name} has {units} units of 512 bytes, its volume {} bytes",
                    volume.size_bytes
                );
            }
            if name.starts_with(&names::lvm_mapping(group, "")) {
                there.insert(name);
            }
        }
        ensure!(
            there == explained,
            "mappings: {there:?}, of volumes: {explained:?}"
        );
        Ok(())
    }

    fn read(storage: &Storage, group: &str) -> Result<Self> {
        let set = |folder: &str| -> Result<BTreeSet<String>> {
            Ok(entries(Path::new(folder))?.into_iter().collect())
        };
        let mut mappings = set("/dev/mapper")?;
        // Two dashes are one in a group's name: those are volumes.
        mappings.retain(|name| name.starts_with("steading-") && !name.starts_with("steading--"));
        let mut cgroups = set(names::CGROUP_SPACES)?;
        cgroups.retain(|name| Path::new(names::CGROUP_SPACES).join(name).is_dir());
        Ok(Self {
            volumes: storage.lvm().lvs(Some(group))?,
            mappings,
            namespaces: set(names::RUN_NETNS)?,
            cgroups,
            mounts: std::fs::read_to_string("/proc/mounts")?,
            rules: String::from_utf8(host::command::nft_ruleset(None)?.stdout)?,
        })
    }
}
