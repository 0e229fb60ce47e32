//! A folder that apt takes for an archive: the pinned packages and an index of them. So what is installed is exactly
//! what the lock says, and nothing is downloaded a second time.

use anyhow::{Context, Result};
use packages::Fetched;
use packages::program::{command, text};
use packages::store::sha256;
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
    let packages = folder.join("Packages");
    std::fs::write(&packages, &index)?;
    // Later versions of mmdebstrap take the essential packages from the suite of this name alone.
    let suite = packages::apt::SUITE;
    let release = format!(
        "Origin: Steading\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n\
         SHA256:\n {} {} Packages\n",
        sha256(&packages)?,
        index.len()
    );
    std::fs::write(folder.join("Release"), release)?;
    Ok(())
}
