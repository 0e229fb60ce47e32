//! What stays from boot to boot: a group with the base and a small volume that holds the journal.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::command::{Program, Run};
use host::{mount, names};
use market::id::{GroupId, SaleId};
use market::quantity::Bytes;
use nix::mount::MsFlags;
use provision::journal::Journal;
use provision::space::{Provisioner, SpaceSpec};
use storage::Storage;

use crate::provisioner::{bench, slate};

const DISK: &str = "/dev/vda";
const BASE: &str = "/dev/vdd2";
/// Not a name that a node gives: claiming the other disk must not see it.
const GROUP: &str = "cuts";
const NOTES: &str = "notes";
const MOUNT: &str = "/run/cuts";
const SPACE_BYTES: u64 = 128 << 20;

/// The disk of the spaces, open.
pub struct Ground {
    storage: Storage,
    journal: Journal,
}

impl Ground {
    /// On a blank disk.
    pub fn make() -> Result<Self> {
        let storage = Storage::start()?;
        let lvm = storage.lvm();
        lvm.pv_create(Path::new(DISK))?;
        lvm.vg_create(GROUP, Path::new(DISK), &["cuts"])?;
        let mut base = File::open(BASE)?;
        let bytes = fs::read_to_string("/sys/class/block/vdd2/size")?
            .trim()
            .parse::<u64>()?
            * 512;
        let name = names::base_volume(Self::spec(SaleId([0; 32])).base.as_bytes());
        lvm.lv_create(GROUP, &name, bytes, &[])?;
        let mut volume = File::options()
            .write(true)
            .open(names::lvm_device(GROUP, &name))?;
        std::io::copy(&mut base, &mut volume)?;
        volume.flush()?;
        volume.sync_all()?;
        lvm.lv_create(GROUP, NOTES, 64 << 20, &[])?;
        Run::new(Program::MkfsExt4)
            .args(["-q", "-F"])
            .path(&names::lvm_device(GROUP, NOTES))
            .run()?;
        Self::mount()?;
        let journal = Journal::create(&path())?;
        Ok(Self { storage, journal })
    }

    /// After a cut.
    pub fn find() -> Result<Self> {
        let storage = Storage::start()?;
        storage.lvm().vg_activate(GROUP, true)?;
        Self::mount()?;
        let journal = Journal::open(&path()).context("the journal after a cut")?;
        Ok(Self { storage, journal })
    }

    fn mount() -> Result<()> {
        let device = names::lvm_device(GROUP, NOTES);
        Ok(mount::ensure_mounted(
            &device,
            Path::new(MOUNT),
            "ext4",
            MsFlags::MS_NOATIME,
            "",
        )?)
    }

    /// What is built.
    pub fn spec(sale: SaleId) -> SpaceSpec {
        SpaceSpec {
            disk: Bytes(SPACE_BYTES),
            group: GroupId(GROUP.to_owned()),
            // Half of them are one user's: his namespace is shared.
            ..bench::spec(sale, 1 + sale.0[0] % 2)
        }
    }

    /// LVM and LUKS.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The group's name.
    pub fn group(&self) -> &'static str {
        GROUP
    }

    /// The bytes that no volume has.
    pub fn free(&self) -> Result<u64> {
        let groups = self.storage.lvm().vgs()?;
        let group = groups.iter().find(|group| group.name == GROUP);
        Ok(group.context("no group")?.free_bytes)
    }

    /// A provisioner over this journal.
    pub fn provisioner(&self) -> Result<Provisioner> {
        Ok(Provisioner::new(
            self.journal.clone(),
            self.storage.clone(),
            None,
        )?)
    }

    /// Kernel and journal say the same.
    pub async fn agrees(&self, provisioner: &Provisioner) -> Result<()> {
        let records = provisioner.records().await?;
        slate::agrees(&self.storage, GROUP, &self.journal, &records).await
    }
}

fn path() -> PathBuf {
    Path::new(MOUNT).join("journal.sqlite")
}
