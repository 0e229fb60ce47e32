//! An inventory for people: one line a thing, 80 columns, units always.

use std::fmt;

use crate::{Bus, Disk, FirmwareKind, Gpu, Inventory, Nic};

/// Columns of a line; what is longer is cut.
const COLUMNS: usize = 80;
const UNKNOWN: &str = "unknown";

impl fmt::Display for Inventory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(out, "machine", &self.machine())?;
        line(out, "cpu", &self.processors())?;
        line(out, "memory", &self.memory_bytes.map_or(UNKNOWN.into(), binary))?;
        list(out, "disks", self.disks.as_deref(), disk)?;
        list(out, "network", self.nics.as_deref(), nic)?;
        list(out, "gpus", self.gpus.as_deref(), gpu)?;
        line(out, "kernel", self.kernel.as_deref().unwrap_or(UNKNOWN))
    }
}

impl Inventory {
    /// `q35 · UEFI, Secure Boot on · TPM 2`: what it is and how it starts.
    #[must_use]
    pub fn machine(&self) -> String {
        let mut parts = Vec::new();
        if let Some(name) = self.product.name.as_ref().or(self.product.board.as_ref()) {
            parts.push(name.clone());
        }
        parts.extend(self.starts());
        if parts.is_empty() {
            parts.push(UNKNOWN.into());
        }
        parts.join(" · ")
    }

    /// Firmware and security chip, a part each.
    #[must_use]
    pub fn starts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        match (self.firmware.kind, self.firmware.secure_boot) {
            (None, _) => {}
            (Some(FirmwareKind::Bios), _) => parts.push("BIOS".into()),
            (Some(FirmwareKind::Uefi), None) => parts.push("UEFI".into()),
            (Some(FirmwareKind::Uefi), Some(true)) => parts.push("UEFI, Secure Boot on".into()),
            (Some(FirmwareKind::Uefi), Some(false)) => parts.push("UEFI, Secure Boot off".into()),
        }
        match &self.tpm {
            None => {}
            Some(tpm) if !tpm.present => parts.push("no TPM".into()),
            Some(tpm) => parts.push(
                tpm.version
                    .map_or("TPM".into(), |version| format!("TPM {version}")),
            ),
        }
        parts
    }

    fn processors(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.cpu.model.clone());
        parts.extend(self.cpu.cores.map(|n| count(n, "core")));
        parts.extend(self.cpu.threads.map(|n| count(n, "thread")));
        if parts.is_empty() {
            parts.push(UNKNOWN.into());
        }
        parts.join(" · ")
    }
}

/// A size in the binary unit that keeps it between 1 and 1023: `20 GiB`, `1.9 GiB`.
#[must_use]
pub fn binary(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scale = 1024_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let tenths = (u128::from(bytes) * 10 / u128::from(scale)) as u64;
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, UNITS[unit]),
        rest => format!("{}.{rest} {}", tenths / 10, UNITS[unit]),
    }
}

fn count(n: u32, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn disk(disk: &Disk) -> String {
    let mut parts = vec![format!(
        "{:<8} {:>10}",
        disk.name,
        disk.size_bytes.map_or("no medium".into(), binary)
    )];
    parts.extend(disk.bus.map(|bus| {
        match bus {
            Bus::Nvme => "NVMe",
            Bus::Sata => "SATA",
            Bus::Sas => "SAS",
            Bus::Scsi => "SCSI",
            Bus::Usb => "USB",
            Bus::Mmc => "MMC",
            Bus::Virtio => "virtio",
            Bus::Xen => "Xen",
        }
        .to_owned()
    }));
    parts.extend(disk.rotational.map(|turns| match turns {
        true => "turns".into(),
        false => "solid state".into(),
    }));
    parts.extend(disk.model.clone());
    parts.extend(disk.serial.as_ref().map(|serial| format!("serial {serial}")));
    parts.join("  ")
}

fn nic(nic: &Nic) -> String {
    let mut parts = vec![format!("{:<8}", nic.name)];
    parts.extend(nic.mac.clone());
    parts.extend(nic.driver.clone());
    parts.push(
        match nic.link {
            Some(true) => "link",
            Some(false) => "no link",
            None => "link unknown",
        }
        .into(),
    );
    parts.extend(nic.speed_mbit.map(|speed| format!("{speed} Mbit")));
    parts.join("  ")
}

fn gpu(gpu: &Gpu) -> String {
    let id = |id: &Option<String>| id.clone().unwrap_or("????".into());
    format!("{}  {}:{}", gpu.address, id(&gpu.vendor_id), id(&gpu.device_id))
}

fn list<T>(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    things: Option<&[T]>,
    show: impl Fn(&T) -> String,
) -> fmt::Result {
    match things {
        None => line(out, name, UNKNOWN),
        Some([]) => line(out, name, "none"),
        Some(things) => {
            for (index, thing) in things.iter().enumerate() {
                line(out, if index == 0 { name } else { "" }, &show(thing))?;
            }
            Ok(())
        }
    }
}

fn line(out: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    let line: String = format!(" {name:<9} {value}").chars().take(COLUMNS).collect();
    writeln!(out, "{}", line.trim_end())
}
