//! A machine for one trial: a volume group with the base in it, a journal, and the proof that nothing is left.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::names;
use market::id::{Digest, GroupId, SaleId, UserId};
use market::quantity::{BitsPerSecond, Bytes, MilliCpus};
use provision::journal::Journal;
use provision::space::{Access, Provisioner, SpaceSpec};
use storage::Storage;
use storage::luks::UnlockKey;
use zeroize::Zeroizing;

const DISK: &str = "/dev/vdb";
const BASE: &str = "/dev/vdd2";
/// Where the spaces of a trial lie.
pub const GROUP: &str = "steading-0badcafe-0badcafe";
const DIGEST: Digest = Digest([0xba; 32]);
const JOURNAL: &str = "/run/provisioner-trial";
const LOGIN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAJrgNR4BsboY4aZyk7ASEU06dHBpGti11RrqnIToQ/7 trial";
const MIB: u64 = 1 << 20;
/// What another's volume is full of, and how its name begins.
#[cfg(feature = "fault-points")]
pub const OBSTACLE: u8 = 0x5a;
#[cfg(feature = "fault-points")]
const OBSTACLES: &str = "another-";

pub struct Bench {
    storage: Storage,
    journal: Option<Journal>,
    links: Vec<String>,
}

/// What a sale in these trials names.
pub fn spec(sale: SaleId, user: u8) -> SpaceSpec {
    SpaceSpec {
        sale,
        user: UserId([user; 32]),
        name: "calm-otter".to_owned(),
        cpu: MilliCpus(1000),
        memory: Bytes(256 * MIB),
        disk: Bytes(256 * MIB),
        rate: BitsPerSecond(100_000_000),
        pids: 200,
        base: DIGEST,
        group: GroupId(GROUP.to_owned()),
        public_port: None,
        snapshot: Bytes::ZERO,
    }
}

/// The same key each time: what one build closed, the next opens.
pub fn access() -> Access {
    Access {
        unlock_key: UnlockKey::take(&mut [0x42; 64]),
        host_key_seed: Some(Zeroizing::new([7; 32])),
        authorized_keys: vec![LOGIN.to_owned()],
    }
}

impl Bench {
    /// Runs a trial on a bench; the disk's ends are blank again after it.
    pub fn with<F: Future<Output = Result<()>>>(test: impl FnOnce(Bench) -> F) -> Result<()> {
        host::module::wait_for_hardware(std::time::Duration::from_secs(60))
            .context("waiting for the disks")?;
        let storage = Storage::start()?;
        storage.lvm().pv_create(Path::new(DISK))?;
        storage.lvm().vg_create(GROUP, Path::new(DISK), &["trial"])?;
        let result = Self::prepare(&storage).and_then(|bench| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(test(bench))
        });
        if result.is_err() {
            sweep(&storage);
        }
        let cleaned = storage
            .lvm()
            .vg_activate(GROUP, false)
            .map_err(anyhow::Error::from)
            .and_then(|()| blank_ends());
        let _ = std::fs::remove_dir_all(JOURNAL);
        result.and(cleaned.context("cleaning up"))
    }

    fn prepare(storage: &Storage) -> Result<Self> {
        let mut base = File::open(BASE)?;
        let bytes = base.seek(SeekFrom::End(0))?;
        base.rewind()?;
        let name = names::base_volume(DIGEST.as_bytes());
        storage.lvm().lv_create(GROUP, &name, bytes, &[])?;
        let mut volume = File::options()
            .write(true)
            .open(names::lvm_device(GROUP, &name))?;
        std::io::copy(&mut base, &mut volume)?;
        volume.flush()?;
        volume.sync_all()?;
        std::fs::create_dir_all(JOURNAL)?;
        let journal = Journal::create(&path())?;
        Ok(Self {
            storage: storage.clone(),
            journal: Some(journal),
            links: links()?,
        })
    }

    pub fn journal(&self) -> Result<Journal> {
        self.journal.clone().context("the journal is closed")
    }

    /// Closes the journal, whoever has a handle to it, so that another process can open it.
    #[cfg(feature = "fault-points")]
    pub fn close_journal(&mut self) -> Result<()> {
        self.journal.take().context("the journal is closed")?.close();
        Ok(())
    }

    /// Closes the journal and opens it again, as a new agent does. Nobody else may have it open.
    pub fn journal_again(&mut self) -> Result<()> {
        self.journal = None;
        // The writer closes the file when its last handle is gone, on its own thread: it holds the lock until then.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            match Journal::open(&path()) {
                Ok(journal) => {
                    self.journal = Some(journal);
                    return Ok(());
                }
                Err(error) if std::time::Instant::now() > deadline => return Err(error.into()),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// Opens the group, as the start of an agent does before it looks at a space: LVM lets a volume go on that the last
    /// one had suspended.
    #[cfg(feature = "fault-points")]
    pub fn activate(&self) -> Result<()> {
        Ok(self.storage.lvm().vg_activate(GROUP, true)?)
    }

    /// Another's volume of one extent, full of one byte.
    #[cfg(feature = "fault-points")]
    pub fn obstacle(&self, number: u32) -> Result<()> {
        let name = format!("{OBSTACLES}{number}");
        self.storage.lvm().lv_create(GROUP, &name, 4 * MIB, &[])?;
        let mut volume = File::options()
            .write(true)
            .open(names::lvm_device(GROUP, &name))?;
        volume.write_all(&vec![OBSTACLE; 4 * MIB as usize])?;
        Ok(volume.sync_all()?)
    }

    /// Removes them all.
    #[cfg(feature = "fault-points")]
    pub fn remove_obstacles(&self) -> Result<()> {
        let volumes = self.storage.lvm().lvs(Some(GROUP))?;
        for volume in volumes.iter().filter(|volume| volume.name.starts_with(OBSTACLES)) {
            self.storage.lvm().lv_remove(GROUP, &volume.name)?;
        }
        Ok(())
    }

    /// The bytes that no volume has.
    pub fn free(&self) -> Result<u64> {
        let groups = self.storage.lvm().vgs()?;
        let group = groups.iter().find(|group| group.name == GROUP);
        Ok(group.context("no group")?.free_bytes)
    }

    /// The kernel has what the journal says, and nothing else: see [`slate`](super::slate).
    #[cfg(feature = "fault-points")]
    pub async fn agrees(&self, provisioner: &Provisioner) -> Result<()> {
        let records = provisioner.records().await?;
        super::slate::agrees(&self.storage, GROUP, &self.journal()?, &records).await
    }

    /// LVM and LUKS.
    #[cfg(feature = "fault-points")]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// As an agent that was cut off within a resize leaves it: the logical volume has grown, nothing else has.
    #[cfg(feature = "fault-points")]
    pub fn extend_volume_alone(&self, sale: SaleId, bytes: u64) -> Result<()> {
        let name = names::space_volume(sale.as_bytes());
        Ok(self.storage.lvm().lv_extend(GROUP, &name, bytes)?)
    }

    /// The volume of this sale has a slot for the key of [`access`], and none for another.
    pub fn opens_by_the_key_alone(&self, sale: SaleId) -> Result<()> {
        let device = names::lvm_device(GROUP, &names::space_volume(sale.as_bytes()));
        let luks = self.storage.luks();
        ensure!(
            luks.opens(&device, &access().unlock_key)?,
            "the user's key does not open it"
        );
        let other = UnlockKey::take(&mut [0x43; 64]);
        ensure!(!luks.opens(&device, &other)?, "another key opens it");
        ensure!(
            !luks.holds_volume_key(&names::mapping(sale.as_bytes()))?,
            "its volume key is still in memory"
        );
        Ok(())
    }

    /// A provisioner that has not looked at the machine yet.
    pub fn unrecovered(&self) -> Result<Provisioner> {
        Ok(Provisioner::new(self.journal()?, self.storage.clone(), None)?)
    }

    pub async fn provisioner(&self) -> Result<Provisioner> {
        let provisioner = self.unrecovered()?;
        provisioner.recover().await?;
        Ok(provisioner)
    }

    /// No volume but the base, no mapping, no mount, no cgroup, no namespace, no link, no rule of any space.
    pub async fn nothing_left(&self) -> Result<()> {
        let volumes = self.storage.lvm().lvs(Some(GROUP))?;
        let base = names::base_volume(DIGEST.as_bytes());
        ensure!(
            volumes.iter().all(|volume| volume.name == base),
            "volumes are left: {volumes:?}"
        );
        let mappings = entries(Path::new("/dev/mapper"))?;
        ensure!(
            !mappings.iter().any(|name| name.starts_with("steading-a")),
            "mappings are left: {mappings:?}"
        );
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        ensure!(!mounts.contains(names::RUN_VOLUME), "mounts are left: {mounts}");
        for (folder, what) in [
            (names::RUN_NETNS, "namespaces"),
            (names::CGROUP_SPACES, "cgroups"),
        ] {
            let mut found = entries(Path::new(folder))?;
            found.retain(|name| what == "namespaces" || Path::new(folder).join(name).is_dir());
            ensure!(found.is_empty(), "{what} are left: {found:?}");
        }
        ensure!(
            links()? == self.links,
            "links: {:?} before, {:?} now",
            self.links,
            links()?
        );
        let rules = String::from_utf8(host::command::nft_ruleset(None)?.stdout)?;
        let of_users = [1, 2].map(|user| names::user_interface(&[user; 32]));
        ensure!(
            !of_users.iter().any(|link| rules.contains(link)),
            "rules of a user are left: {rules}"
        );
        ensure!(
            !rules.contains("{\"dnat\":"),
            "a declared port still leads somewhere: {rules}"
        );
        Ok(())
    }
}

/// Where the journal is.
pub fn path() -> PathBuf {
    Path::new(JOURNAL).join("journal.sqlite")
}

/// The names in a folder; none where it is not there.
pub fn entries(folder: &Path) -> Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn links() -> Result<Vec<String>> {
    let mut found = entries(Path::new("/sys/class/net"))?;
    // ifb makes two of its own when its module is loaded.
    found.retain(|name| !name.starts_with("ifb"));
    found.sort();
    Ok(found)
}

/// Ends what a trial that failed has left, so that each of the next says something of its own. What does not end here
/// is named by the cleaning after it.
fn sweep(storage: &Storage) {
    let all = |folder| entries(Path::new(folder)).unwrap_or_default();
    // A volume that is suspended holds whoever writes to it.
    let _ = storage.lvm().vg_activate(GROUP, true);
    for name in all(names::CGROUP_SPACES) {
        let cgroup = Path::new(names::CGROUP_SPACES).join(name);
        if cgroup.is_dir() {
            let _ = host::cgroup::ensure_absent(&cgroup, std::time::Duration::from_secs(20));
        }
    }
    for name in all(names::RUN_NETNS) {
        let _ = host::netns::delete(&name);
    }
    if let Err(error) = provision::close::close_all(storage) {
        println!("{error}");
    }
}

fn blank_ends() -> Result<()> {
    let mut disk = File::options().write(true).open(DISK)?;
    let size = disk.seek(SeekFrom::End(0))?;
    let zeros = vec![0; 4 * MIB as usize];
    for offset in [0, size - zeros.len() as u64] {
        disk.write_all_at(&zeros, offset)?;
    }
    Ok(disk.sync_all()?)
}
