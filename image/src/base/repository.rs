//! A folder that apt takes for an archive: the pinned packages and an index of them. So what is installed is exactly
//! what the lock says, and nothing is downloaded a second time.

use anyhow::{Context, Result};
use packages::Fetched;
use packages::program::{command, text};
use std::path::Path;

/// Lays packages and index below `folder`.
pub fn make(fetched: &Fetched, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut index = String::new();
    for (package, deb) in &fetched.debs {
        let name = format!("{}.deb", package.sha256);
        let to = folder.join(&name);
        std::fs::copy(deb, &to).with_context(|| format!("copying {}", package.name))?;
        let control = text(command("dpkg-deb").arg("--field").arg(deb))?;
        let size = to.metadata()?.len();
        index.push_str(control.trim_end());
        index.push_str(&format!(
            "\nFilename: ./{name}\nSize: {size}\nSHA256: {}\n\n",
            package.sha256
        ));
    }
    std::fs::write(folder.join("Packages"), index)?;
    Ok(())
}
