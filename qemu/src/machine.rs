//! What a machine consists of, and the command line that says so to QEMU.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::console::Running;
use crate::disk::{self, Disk};

/// How instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// Software emulation: works everywhere, ten times slower.
    #[default]
    Tcg,
    /// The same with a thread for each processor: what one of them does costs the others nothing, as on hardware. For
    /// measurements alone, see the crate's first page.
    TcgThreads,
    /// Hardware virtualisation: only where the person asked for it.
    Kvm,
}

/// Which firmware reads the boot medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, built into QEMU.
    Bios,
    /// OVMF: its code, and a private copy of its variables (written by the guest).
    Uefi {
        /// `OVMF_CODE*.fd`, read only.
        code: PathBuf,
        /// A copy of `OVMF_VARS*.fd` that belongs to this machine.
        vars: PathBuf,
        /// The build with System Management Mode, which Secure Boot needs.
        secure: bool,
    },
}

/// Which machine QEMU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Board {
    /// PCI Express, AHCI: a machine of the last fifteen years.
    #[default]
    Q35,
    /// An i440FX with PIIX: PCI alone, and the oldest machine that is sold to.
    I440fx,
}

/// What the machine starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// Kernel and initramfs handed over by QEMU itself: no firmware, no loader.
    Direct {
        /// An ELF `vmlinux` with a PVH note, or a bzImage.
        kernel: PathBuf,
        /// The initramfs, any format that the kernel unpacks.
        initrd: PathBuf,
        /// The kernel's command line.
        command_line: String,
    },
    /// The first disk, read by a firmware.
    Disk(Firmware),
}

/// A TCP port of the host's loopback that leads to a port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Port on 127.0.0.1.
    pub host: u16,
    /// Port in the guest.
    pub guest: u16,
}

/// What no emulated processor has: it is emulated wrongly, or slower than what the kernel does without it.
const NOT_EMULATED: &str = ",-cx16,-erms,-fsrm,-smap";

/// The device of the card that leads somewhere, by which its cable is pulled.
pub const CARD_ID: &str = "card";

/// A virtual machine, not yet started.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Shown in errors and in the process list.
    pub name: String,
    /// Number of processors.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// What it starts from.
    pub boot: Boot,
    /// Its disks, the boot medium first.
    pub disks: Vec<Disk>,
    /// A network card behind QEMU's user network (10.0.2.15, gateway and host 10.0.2.2).
    pub network: bool,
    /// The card's model, as QEMU calls it.
    pub card: String,
    /// Further words about QEMU's user network: `ipv4=off`, `net=…`.
    pub user_network: String,
    /// The firmware starts it from the network, by that card, or by the first wire where there is none.
    pub boots_from_network: bool,
    /// Further cards of that model, which lead nowhere; they come before the one that does.
    pub dead_cards: u8,
    /// Forwarded ports; need the network.
    pub forwards: Vec<Forward>,
    /// A second card, whose cable ends at this port of 127.0.0.1: frames, each with its length before it (32 bits).
    pub cable: Option<u16>,
    /// Further cards of that model, each on a cable as that one; they come after the dead ones, before the one that leads
    /// somewhere.
    pub wires: Vec<u16>,
    /// How instructions are executed.
    pub accel: Accel,
    /// The board.
    pub board: Board,
    /// The processor, as QEMU calls it; what [`NOT_EMULATED`] names is taken away from any, see the crate's first page.
    pub cpu: String,
    /// What the machine's own clock says at power-on, `1970-01-01T00:00:00`; none: the right time.
    pub clock: Option<String>,
    /// A socket on which QEMU takes orders, to be opened by `Running::monitor`.
    pub monitor: Option<PathBuf>,
    /// Every console line is also appended here.
    pub console_log: Option<PathBuf>,
    /// A guest that resets itself starts again; else QEMU ends then.
    pub resets: bool,
    /// A VGA screen beside the serial line (nobody sees it but the guest).
    pub screen: bool,
}

/// The machine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program is not there.
    #[error("qemu-system-x86_64 did not start; on Debian: apt install qemu-system-x86")]
    NoQemu(#[source] io::Error),
    /// The log of the console cannot be written.
    #[error("cannot write the console's log {path}")]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something the machine needs is not there: QEMU's own words would be less clear.
    #[error("{what} of machine \"{name}\" is missing: {path}")]
    Missing {
        /// The machine.
        name: String,
        /// Which part.
        what: &'static str,
        /// The file that is not there.
        path: PathBuf,
    },
}

impl Machine {
    /// Two processors, 1 GiB, a network card, no disk.
    pub fn new(name: &str, boot: Boot) -> Machine {
        Machine {
            name: name.into(),
            cpus: 2,
            memory_mib: 1024,
            boot,
            disks: Vec::new(),
            network: true,
            card: "virtio-net-pci".into(),
            user_network: String::new(),
            boots_from_network: false,
            dead_cards: 0,
            forwards: Vec::new(),
            cable: None,
            wires: Vec::new(),
            accel: Accel::Tcg,
            board: Board::Q35,
            cpu: "max".into(),
            clock: None,
            monitor: None,
            console_log: None,
            resets: false,
            screen: false,
        }
    }

    /// Starts it; its console is read line by line.
    pub fn start(&self) -> Result<Running, StartError> {
        self.check()?;
        let log =
            match &self.console_log {
                None => None,
                Some(path) => Some(File::options().create(true).append(true).open(path).map_err(
                    |source| StartError::Log {
                        path: path.clone(),
                        source,
                    },
                )?),
            };
        let child = self
            .command()
            .args([
                "-chardev",
                "stdio,id=console,signal=off",
                "-serial",
                "chardev:console",
                "-monitor",
                "none",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(StartError::NoQemu)?;
        Ok(Running::new(self.name.clone(), child, log, self.monitor.clone()))
    }

    /// Starts it with the terminal as its console, and returns when it has ended.
    /// Ctrl-A X ends it, Ctrl-A C reaches QEMU's monitor.
    pub fn hand_over(&self) -> Result<std::process::ExitStatus, StartError> {
        self.check()?;
        self.command()
            .args(["-serial", "mon:stdio"])
            .status()
            .map_err(StartError::NoQemu)
    }

    fn check(&self) -> Result<(), StartError> {
        let missing = |what, path: &Path| StartError::Missing {
            name: self.name.clone(),
            what,
            path: path.to_path_buf(),
        };
        let needed: Vec<(&'static str, &Path)> = match &self.boot {
            Boot::Direct { kernel, initrd, .. } => vec![("the kernel", kernel), ("the initramfs", initrd)],
            Boot::Disk(Firmware::Bios) => vec![],
            Boot::Disk(Firmware::Uefi { code, vars, .. }) => {
                vec![("the firmware", code), ("the firmware's variables", vars)]
            }
        };
        let disks = self.disks.iter().map(|disk| ("a disk", disk.path.as_path()));
        match needed.into_iter().chain(disks).find(|(_, path)| !path.exists()) {
            Some((what, path)) => Err(missing(what, path)),
            None => Ok(()),
        }
    }

    /// `setpriv --pdeathsig` ends the machine with whoever started it, however that one ended.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command.args(self.arguments());
        command
    }

    fn arguments(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        let mut push = |args: &[&str]| out.extend(args.iter().map(|arg| (*arg).to_string()));
        let secure = matches!(&self.boot, Boot::Disk(Firmware::Uefi { secure: true, .. }));
        push(&["-name", &self.name, "-nodefaults", "-display", "none"]);
        if !self.resets {
            push(&["-no-reboot"]);
        }
        let q35 = self.board == Board::Q35;
        push(&[
            "-M",
            match (self.board, secure) {
                (Board::Q35, true) => "q35,smm=on",
                (Board::Q35, false) => "q35",
                (Board::I440fx, _) => "pc",
            },
        ]);
        let cpu = format!("{}{NOT_EMULATED}", self.cpu);
        match self.accel {
            Accel::Tcg => push(&["-accel", "tcg,thread=single", "-cpu", &cpu]),
            Accel::TcgThreads => push(&["-accel", "tcg,thread=multi", "-cpu", &cpu]),
            Accel::Kvm => push(&["-accel", "kvm", "-cpu", "host"]),
        }
        push(&[
            "-smp",
            &self.cpus.to_string(),
            "-m",
            &format!("{}M", self.memory_mib),
        ]);
        push(&["-device", "virtio-rng-pci"]);
        if self.screen || matches!(self.boot, Boot::Disk(_)) {
            push(&["-vga", "std"]);
        }
        match &self.boot {
            Boot::Direct {
                kernel,
                initrd,
                command_line,
            } => {
                push(&[
                    "-kernel",
                    &show(kernel),
                    "-initrd",
                    &show(initrd),
                    "-append",
                    command_line,
                ]);
            }
            Boot::Disk(Firmware::Bios) => {}
            Boot::Disk(Firmware::Uefi { code, vars, secure }) => {
                if *secure {
                    push(&["-global", "driver=cfi.pflash01,property=secure,value=on"]);
                }
                push(&[
                    "-drive",
                    &format!("if=pflash,format=raw,unit=0,readonly=on,file={}", show(code)),
                ]);
                push(&[
                    "-drive",
                    &format!("if=pflash,format=raw,unit=1,file={}", show(vars)),
                ]);
            }
        }
        if let Some(clock) = &self.clock {
            push(&["-rtc", &format!("base={clock}")]);
        }
        if let Some(socket) = &self.monitor {
            let end = format!("unix:{},server=on,wait=off", show(socket));
            push(&["-qmp", &end]);
        }
        let usb_card = self.network && self.card.starts_with("usb-");
        for controller in disk::controllers(&self.disks, usb_card, q35) {
            push(&["-device", controller]);
        }
        let boots = matches!(self.boot, Boot::Disk(_));
        for (index, disk) in self.disks.iter().enumerate() {
            out.extend(disk.arguments(index, boots, q35));
        }
        out.extend(self.cards());
        let mut push = |args: &[&str]| out.extend(args.iter().map(|arg| (*arg).to_string()));
        if let Some(port) = self.cable {
            let end = format!("socket,id=cable,connect=127.0.0.1:{port}");
            push(&["-netdev", &end, "-device", "virtio-net-pci,netdev=cable"]);
        }
        out
    }

    /// The cards: those that lead nowhere, and the one with QEMU's user network behind it.
    fn cards(&self) -> Vec<String> {
        let mut out = Vec::new();
        let on = if self.card.starts_with("usb-") {
            ",bus=xhci.0"
        } else {
            ""
        };
        for index in 0..self.dead_cards {
            let hub = format!("hubport,id=dead{index},hubid={}", index + 1);
            let card = format!("{}{on},netdev=dead{index}", self.card);
            out.extend(["-netdev".into(), hub, "-device".into(), card]);
        }
        let first = if self.boots_from_network {
            ",bootindex=0"
        } else {
            ""
        };
        for (index, port) in self.wires.iter().enumerate() {
            let wire = format!("socket,id=wire{index},connect=127.0.0.1:{port}");
            let first = if index == 0 && !self.network { first } else { "" };
            let card = format!("{}{on},netdev=wire{index}{first}", self.card);
            out.extend(["-netdev".into(), wire, "-device".into(), card]);
        }
        if !self.network {
            return out;
        }
        let forwards: String = self
            .forwards
            .iter()
            .map(|f| format!(",hostfwd=tcp:127.0.0.1:{}-:{}", f.host, f.guest))
            .collect();
        let more = match self.user_network.as_str() {
            "" => String::new(),
            words => format!(",{words}"),
        };
        let card = format!("{}{on},netdev=user,id={CARD_ID}{first}", self.card);
        out.extend([
            "-netdev".into(),
            format!("user,id=user{forwards}{more}"),
            "-device".into(),
            card,
        ]);
        out
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine::new(
            "a",
            Boot::Direct {
                kernel: "/k".into(),
                initrd: "/i".into(),
                command_line: "quiet".into(),
            },
        )
    }

    #[test]
    fn emulation_is_the_default_and_kvm_only_when_asked() {
        assert!(machine().arguments().contains(&"tcg,thread=single".to_string()));
        let mut asked = machine();
        asked.accel = Accel::Kvm;
        assert!(asked.arguments().contains(&"kvm".to_string()));
    }

    #[test]
    fn a_missing_file_is_named_before_qemu_starts() {
        let error = machine().start().err().map(|error| error.to_string());
        assert_eq!(
            error.as_deref(),
            Some("the kernel of machine \"a\" is missing: /k")
        );
    }

    #[test]
    fn a_comma_in_a_path_does_not_become_an_option() {
        let mut machine = machine();
        machine.disks.push(Disk::new("/a,readonly=on", "s"));
        assert!(
            machine
                .arguments()
                .iter()
                .any(|arg| arg.starts_with("file=/a,,readonly=on,format=raw"))
        );
    }
}
