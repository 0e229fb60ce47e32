//! Disks, the controllers that they hang on, and how both are said to QEMU.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Where a disk is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Bus {
    /// virtio-blk: `vda`, `vdb`, …
    #[default]
    Virtio,
    /// A USB stick on an xHCI controller.
    Usb,
    /// A USB stick on an EHCI controller.
    Ehci,
    /// A SATA disk on an AHCI controller.
    Sata,
    /// The board's own controller: AHCI on q35, PIIX on an i440FX.
    Ide,
    /// A CD in a drive on the board's own controller.
    Cd,
    /// An NVMe drive.
    Nvme,
    /// A disk behind virtio-scsi.
    VirtioScsi,
    /// A disk behind a MegaRAID controller.
    Megasas,
    /// A disk behind an LSI SAS 1068.
    Mptsas,
    /// A floppy disk on the board's own controller.
    Floppy,
}

/// What is wrong with a disk, for those who want one that is dying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every read from this byte on, to the end of the 512 that it is in, is an error.
    ReadAt(u64),
    /// At most one operation a second.
    Slow,
}

/// A raw disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image file, raw.
    pub path: PathBuf,
    /// Where it is plugged in.
    pub bus: Bus,
    /// The serial number that the guest sees; at most 20 bytes. Empty: none.
    pub serial: String,
    /// Its world-wide name, where the bus has such a thing; none where there is none.
    pub wwn: Option<u64>,
    /// Bytes of a sector: 512, or 4096.
    pub sector_bytes: u32,
    /// Where every write and every flush is written down as it is done (QEMU's `blklogwrites`); virtio-blk only.
    pub log: Option<PathBuf>,
    /// Somebody else writes the image meanwhile: the guest only reads it.
    pub shared: bool,
    /// What is wrong with it.
    pub fault: Option<Fault>,
}

impl Disk {
    /// A disk on virtio-blk.
    pub fn new(path: impl Into<PathBuf>, serial: &str) -> Disk {
        Disk {
            path: path.into(),
            bus: Bus::Virtio,
            serial: serial.into(),
            wwn: None,
            sector_bytes: 512,
            log: None,
            shared: false,
            fault: None,
        }
    }

    /// The same disk, with what is done to it written down in this file, which exists and is large enough.
    pub fn logged(mut self, log: impl Into<PathBuf>) -> Disk {
        self.log = Some(log.into());
        self
    }

    /// A file that QEMU itself writes, for the guest to read.
    pub fn of_log(path: impl Into<PathBuf>, serial: &str) -> Disk {
        Disk {
            shared: true,
            ..Disk::new(path, serial)
        }
    }

    /// The same disk on another bus.
    pub fn on(mut self, bus: Bus) -> Disk {
        self.bus = bus;
        self
    }

    /// The same disk with sectors of so many bytes.
    pub fn sectors_of(mut self, bytes: u32) -> Disk {
        self.sector_bytes = bytes;
        self
    }

    /// The same disk with something wrong.
    pub fn dying(mut self, fault: Fault) -> Disk {
        self.fault = Some(fault);
        self
    }

    /// Makes a sparse image of `bytes` bytes where there is none; an existing one is left as it is.
    pub fn ensure_blank(path: &Path, bytes: u64) -> io::Result<()> {
        if !path.exists() {
            File::create(path)?.set_len(bytes)?;
        }
        Ok(())
    }

    /// The name of the device of the disk at `index`, by which it is pulled out.
    pub fn device_id(index: usize) -> String {
        format!("plug{index}")
    }

    /// The options for the disk at `index`; with `boots`, the firmware tries it in that order.
    pub(crate) fn arguments(&self, index: usize, boots: bool, q35: bool) -> Vec<String> {
        let file = comma(&self.path);
        let mut out = match (&self.log, self.fault) {
            (Some(log), _) => logged(index, &file, &comma(log)).to_vec(),
            (None, Some(Fault::ReadAt(at))) => {
                let sector = at / 512;
                vec![
                    "-drive".into(),
                    format!(
                        "if=none,id=disk{index},driver=blkdebug,image.driver=raw,image.file.driver=file,\
                         image.file.filename={file},inject-error.0.event=none,inject-error.0.iotype=read,\
                         inject-error.0.sector={sector},inject-error.0.errno=5"
                    ),
                ]
            }
            (None, fault) => {
                let how = match (self.shared, self.bus) {
                    (true, _) => "readonly=on,file.locking=off",
                    (false, Bus::Cd) => "readonly=on,media=cdrom",
                    (false, _) => "discard=unmap,detect-zeroes=unmap",
                };
                let pace = match fault {
                    Some(Fault::Slow) => ",throttling.iops-total=1",
                    _ => "",
                };
                vec![
                    "-drive".into(),
                    format!("file={file},format=raw,if=none,id=disk{index},{how}{pace}"),
                ]
            }
        };
        out.push("-device".into());
        out.push(self.device(index, boots, q35));
        out
    }

    fn device(&self, index: usize, boots: bool, q35: bool) -> String {
        let device = match self.bus {
            Bus::Virtio => "virtio-blk-pci".into(),
            Bus::Usb => "usb-storage,bus=xhci.0".into(),
            Bus::Ehci => "usb-storage,bus=ehci.0".into(),
            // Each port of an AHCI controller is a bus of its own, and QEMU looks for a free place on the first alone.
            Bus::Sata | Bus::Ide if q35 => format!("ide-hd,bus=ide.{}", index % 6),
            Bus::Cd if q35 => format!("ide-cd,bus=ide.{}", index % 6),
            Bus::Sata => format!("ide-hd,bus=ahci.{}", index % 6),
            Bus::Ide => "ide-hd".into(),
            Bus::Cd => "ide-cd".into(),
            Bus::Nvme => "nvme".into(),
            Bus::VirtioScsi => "scsi-hd,bus=vscsi.0".into(),
            Bus::Megasas => "scsi-hd,bus=mega.0".into(),
            Bus::Mptsas => "scsi-hd,bus=mpt.0".into(),
            Bus::Floppy => "floppy".into(),
        };
        let mut text = format!("{device},drive=disk{index},id={}", Disk::device_id(index));
        if self.bus == Bus::Floppy {
            return text;
        }
        // An NVMe drive without a serial number is refused by QEMU.
        match (self.serial.as_str(), self.bus) {
            ("", Bus::Nvme) => text.push_str(&format!(",serial=none-{index}")),
            ("", _) => {}
            (serial, _) => text.push_str(&format!(",serial={serial}")),
        }
        // A disk is known to an SAS controller by its address alone: one without is not there for Linux.
        let address = (self.bus == Bus::Mptsas).then_some(0x5000_c500_5341_5300 + index as u64);
        if let Some(wwn) = self.wwn.or(address) {
            text.push_str(&format!(",wwn={wwn:#x}"));
        }
        if self.sector_bytes != 512 {
            let bytes = self.sector_bytes;
            text.push_str(&format!(
                ",logical_block_size={bytes},physical_block_size={bytes}"
            ));
        }
        if self.log.is_some() {
            // The log's driver adds to a request's parts: merged requests would have too many.
            text.push_str(",discard=off,write-zeroes=off,request-merging=off");
        }
        if boots {
            text.push_str(&format!(",bootindex={}", index + 1));
        }
        text
    }
}

/// The controllers that `disks` hang on and the board has not; `usb` where a card hangs on USB too.
pub(crate) fn controllers(disks: &[Disk], usb: bool, q35: bool) -> Vec<&'static str> {
    let has = |bus| disks.iter().any(|disk| disk.bus == bus);
    let mut all = Vec::new();
    if usb || has(Bus::Usb) {
        all.push("qemu-xhci,id=xhci");
    }
    for (bus, controller) in [
        (Bus::Ehci, "usb-ehci,id=ehci"),
        (Bus::VirtioScsi, "virtio-scsi-pci,id=vscsi"),
        (Bus::Megasas, "megasas,id=mega"),
        (Bus::Mptsas, "mptsas1068,id=mpt"),
        (Bus::Floppy, "isa-fdc"),
    ] {
        // The board of an i440FX has a floppy controller of its own.
        if has(bus) && (bus != Bus::Floppy || q35) {
            all.push(controller);
        }
    }
    if has(Bus::Sata) && !q35 {
        all.push("ich9-ahci,id=ahci");
    }
    all
}

/// A path within an option: a comma is doubled for QEMU's parser.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The image below a driver that writes down, in a second file, what passes; the log itself need not outlive the host.
fn logged(index: usize, file: &str, log: &str) -> [String; 6] {
    let node = |name: &str, what: &str| format!("driver=file,node-name={name}{index},filename={what}");
    [
        "-blockdev".into(),
        node("image", file),
        "-blockdev".into(),
        format!("{},locking=off,cache.no-flush=on", node("log", log)),
        "-blockdev".into(),
        format!(
            "driver=blklogwrites,node-name=disk{index},file=image{index},log=log{index},log-sector-size=512,\
             log-super-update-interval=1"
        ),
    ]
}
