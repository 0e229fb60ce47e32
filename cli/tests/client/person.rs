//! Somebody with a home folder, the real `steading`, and an `ssh` of the test's own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// An ssh that answers the proof's script as a space would; `facts` is what it says of itself. The word `exit7` on its
/// command line makes it end with 7.
pub fn write_ssh(dir: &Path, facts: &str) {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let path = bin.join("ssh");
    let script = format!(
        "#!/bin/sh\nfor word in \"$@\"; do [ \"$word\" = exit7 ] && exit 7; done\n\
         nonce=$(sed -n \"s/^printf %s '\\([0-9a-f]*\\)'.*/\\1/p\")\n\
         cat <<EOF\n{facts}nonce $nonce\nend end\nEOF\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What a space of half a CPU, 512 MiB and 2 GiB says of itself.
pub fn facts(pids: u32, base: &str) -> String {
    format!(
        "uid 0\nuid_map 0 1000000 65536;\ncpu.max 50000 100000\nmemory.max 536870912\npids.max {pids}\n\
         volume 4096 496000\nbase {base}\n"
    )
}

/// Somebody.
#[derive(Clone)]
pub struct Person {
    pub home: PathBuf,
    /// Its `bin` comes first in PATH.
    pub dir: PathBuf,
    pub ledger: String,
    pub grid: String,
}

impl Person {
    /// The command, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_steading"));
        command
            .args(arguments)
            .env("PATH", format!("{}:{path}", self.dir.join("bin").display()))
            .env("STEADING_HOME", &self.home)
            .env("STEADING_LEDGER", &self.ledger)
            .env("STEADING_GRID", &self.grid)
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs with `--json` and expects success.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {err}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Exit code and standard error.
    pub fn code(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// The state of the only space there is.
    pub fn state(&self) -> String {
        let spaces = self.json(&["spaces"]);
        spaces["spaces"][0]["state"].as_str().unwrap().to_owned()
    }

    /// Free money, and what lies in escrow.
    pub fn balance(&self) -> (u128, u128) {
        let json = self.json(&["wallet", "balance"]);
        let amount = |name: &str| json[name].as_str().unwrap().parse().unwrap();
        (amount("balance"), amount("escrow"))
    }
}
