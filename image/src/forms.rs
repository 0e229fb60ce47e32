//! What is handed on of an image, beside it: packed, summed, signed, with its bill of materials.
//!
//! ```text
//! steading-VERSION.img              as it goes onto a stick
//! steading-VERSION.img.zst          the same, packed
//! steading-VERSION.img.zst.minisig  under --sign KEY: minisign -Vm steading-VERSION.img.zst -P …
//! steading-VERSION.cdx.json         what is in it: CycloneDX
//! steading-VERSION.sha256           of the others: sha256sum -c
//! ```
//!
//! Invariants: what was packed has been unpacked again and is the image; nothing larger than its bound is handed on; no
//! signature of an older image is left beside a newer one.

use anyhow::{Context, Result, bail, ensure};
use packages::program::{pinned, run};
use packages::store::sha256;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Most bytes of a packed image.
pub const MOST_PACKED_BYTES: u64 = 150_000_000;

/// From what the forms are made.
#[derive(Debug)]
pub struct Recipe<'a> {
    /// The image, `….img`.
    pub image: &'a Path,
    /// Its bill of materials.
    pub bill: &'a str,
    /// Steading's version, for the comment that the signature covers.
    pub version: &'a str,
    /// minisign's secret key.
    pub key: Option<&'a Path>,
    /// Trees with zstd, minisign and what they stand on.
    pub trees: &'a [&'a Path],
    /// Most bytes of the packed image.
    pub most_packed_bytes: u64,
}

/// A file that is handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it is for.
    pub purpose: &'static str,
}

/// Writes all forms; returns them with the image itself before them.
pub fn write(recipe: &Recipe) -> Result<Vec<Form>> {
    let image = recipe.image;
    let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", image.display()));
    let packed = beside(".zst");
    let signature = beside(".zst.minisig");
    let bill = image.with_extension("cdx.json");
    let sums = image.with_extension("sha256");
    for old in [&packed, &signature, &bill, &sums] {
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", old.display()));
            }
            _ => {}
        }
    }
    std::fs::write(&bill, recipe.bill).with_context(|| format!("writing {}", bill.display()))?;
    pack(recipe, &packed)?;
    let mut forms = vec![
        form(image, "goes onto a stick")?,
        form(&packed, "the same, packed")?,
        form(&bill, "what is in it (CycloneDX)")?,
    ];
    let mut text = String::new();
    for form in &forms {
        let name = form
            .path
            .file_name()
            .context("a file has a name")?
            .to_string_lossy();
        text.push_str(&format!("{}  {name}\n", sha256(&form.path)?));
    }
    std::fs::write(&sums, text).with_context(|| format!("writing {}", sums.display()))?;
    forms.push(form(&sums, "of these: sha256sum -c")?);
    if let Some(key) = recipe.key {
        sign(recipe, key, &packed, &signature)?;
        forms.push(form(&signature, "signature: minisign -Vm")?);
    }
    Ok(forms)
}

fn form(path: &Path, purpose: &'static str) -> Result<Form> {
    Ok(Form {
        path: path.to_owned(),
        bytes: path
            .metadata()
            .with_context(|| format!("no {}", path.display()))?
            .len(),
        purpose,
    })
}

/// Packs with the pinned zstd, whose result does not depend on how many cores there are, and unpacks to compare.
fn pack(recipe: &Recipe, packed: &Path) -> Result<()> {
    let zstd = || pinned(recipe.trees, "usr/bin/zstd");
    let partial = packed.with_extension("partial");
    run(zstd()?
        .args(["-q", "-f", "-T0", "-9", "-o"])
        .arg(&partial)
        .arg(recipe.image))
    .context("packing the image")?;
    let bytes = partial.metadata()?.len();
    if bytes > recipe.most_packed_bytes {
        bail!(
            "the packed image has {:.1} MB, and may have {:.0}: leave out modules, firmware or packages of the base",
            bytes as f64 / 1e6,
            recipe.most_packed_bytes as f64 / 1e6
        );
    }
    let mut unpacking = zstd()?
        .args(["-q", "-d", "-c"])
        .arg(&partial)
        .stdout(Stdio::piped())
        .spawn()
        .context("unpacking the packed image")?;
    let unpacked = unpacking.stdout.take().context("no pipe to zstd")?;
    let same = packages::store::sha256_of(unpacked)? == sha256(recipe.image)?;
    ensure!(
        unpacking.wait()?.success() && same,
        "the packed image does not unpack to the image"
    );
    std::fs::rename(&partial, packed).with_context(|| format!("moving to {}", packed.display()))
}

/// Signs with the pinned minisign. It asks for the key's password on the terminal where the key has one.
fn sign(recipe: &Recipe, key: &Path, file: &Path, signature: &Path) -> Result<()> {
    let mut minisign = pinned(recipe.trees, "usr/bin/minisign")?;
    minisign.arg("-S").arg("-s").arg(key).arg("-m").arg(file);
    minisign.arg("-x").arg(signature);
    // Without comments of ours minisign writes the time: two signatures of one image would differ.
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    minisign
        .arg("-t")
        .arg(format!("steading {} file:{name}", recipe.version));
    minisign.args(["-c", "signature of a Steading image"]);
    let status = minisign
        .stdin(Stdio::inherit())
        .status()
        .context("cannot start minisign")?;
    ensure!(
        status.success() && signature.exists(),
        "minisign made no signature with {}: its words are above",
        key.display()
    );
    Ok(())
}
