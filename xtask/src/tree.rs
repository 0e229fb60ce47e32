//! Where things lie in the checkout. Nothing else in xtask knows a path.

use std::path::{Path, PathBuf};

/// The checkout and its folder of artefacts.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    target: PathBuf,
}

impl Tree {
    /// The checkout that this xtask was built from. `CARGO_TARGET_DIR` moves what cargo makes, not the artefacts.
    pub fn here() -> Self {
        let root = std::env::var_os("STEADING_ROOT")
            .map(PathBuf::from)
            .unwrap_or_else(|| {
                let here = Path::new(env!("CARGO_MANIFEST_DIR"));
                here.parent().unwrap_or(here).to_owned()
            });
        let target = std::env::var_os("STEADING_ARTEFACTS")
            .map(PathBuf::from)
            .unwrap_or_else(|| root.join("target"));
        Self { root, target }
    }

    /// The checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `target/NAME`: an artefact that this project makes.
    pub fn artefact(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }

    /// The lock file of packages.
    pub fn lock(&self) -> PathBuf {
        self.root.join("packages.lock.toml")
    }

    /// What everything is linked against.
    pub fn sysroot(&self) -> PathBuf {
        self.artefact("sysroot")
    }
}
