//! What only an unpacked release of Buildroot can say: that it takes the configuration, keeps every option, gives the same
//! file back, likes the style, knows our packages, and that its scripts make the medium that `./x image` makes.

use super::fragment;
use super::kernel::{self, Locked};
use super::{DEFCONFIG, FRAGMENTS, Release, SYMBOLS, Source, board_file, none};
use anyhow::{Context, Result, bail, ensure};
use packages::Store;
use packages::program::{command, output, run, text};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// All symbols of the release at `buildroot`, as the file that is kept.
pub fn symbols(buildroot: &Path, release: &Release) -> Result<String> {
    is_release(buildroot, release)?;
    let mut names = BTreeSet::new();
    let files = text(
        command("find")
            .arg(buildroot)
            .args(["-name", "Config.in*", "-type", "f"]),
    )?;
    for file in files.lines() {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
        let config = |line: &str| {
            let mut words = line.split_whitespace();
            let is_one = matches!(words.next(), Some("config" | "menuconfig"));
            words.next().filter(|_| is_one).map(str::to_owned)
        };
        names.extend(
            text.lines()
                .filter_map(config)
                .filter(|name| name.starts_with("BR2_")),
        );
    }
    let names: Vec<String> = names.into_iter().collect();
    Ok(format!(
        "# All symbols in the files Config.in* of Buildroot {}, commit {}. Made by `BUILDROOT=DIR ./x buildroot`.\n{}\n",
        release.version,
        release.commit,
        names.join("\n")
    ))
}

/// The folder holds the release that the tree is for.
fn is_release(buildroot: &Path, release: &Release) -> Result<()> {
    let makefile = buildroot.join("Makefile");
    let makefile = std::fs::read_to_string(&makefile)
        .with_context(|| format!("no Buildroot at {}", buildroot.display()))?;
    let version = makefile
        .lines()
        .find_map(|line| line.strip_prefix("export BR2_VERSION := "));
    ensure!(
        version == Some(&release.version),
        "{} holds Buildroot {version:?}; this tree is for {}",
        buildroot.display(),
        release.version
    );
    if buildroot.join(".git").exists() {
        let head = text(
            command("git")
                .arg("-C")
                .arg(buildroot)
                .args(["rev-parse", "HEAD"]),
        )?;
        ensure!(
            head.trim() == release.commit,
            "{} is at {}",
            buildroot.display(),
            head.trim()
        );
    }
    Ok(())
}

/// All of it, in a folder of its own.
pub fn check(source: &Source, buildroot: &Path, locked: &Locked, store: &Store) -> Result<()> {
    let release = source.release()?;
    ensure!(
        symbols(buildroot, &release)? == source.read(SYMBOLS)?,
        "{SYMBOLS} is not what `BUILDROOT=DIR ./x buildroot` writes"
    );
    let out = source.tree.artefact("buildroot");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    std::fs::create_dir_all(&out)?;
    let make = |words: &[&str]| {
        let mut make = command("make");
        make.arg("-s")
            .arg("-C")
            .arg(buildroot)
            .arg(format!("O={}", out.display()));
        make.arg(format!("BR2_EXTERNAL={}", source.folder.display()))
            .args(words);
        make
    };
    let name = DEFCONFIG.rsplit('/').next().unwrap_or(DEFCONFIG);
    run(&mut make(&[name]))?;
    let read =
        |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let defconfig = source.read(DEFCONFIG)?;
    let have = fragment::unique(&read(&out.join(".config"))?, "BR2_")?;
    let dropped = kernel::dropped(&fragment::unique(&defconfig, "BR2_")?, &have);
    none("Buildroot drops", &dropped)?;
    println!("make {name}: Buildroot {} keeps every option", release.version);

    let saved = out.join("saved");
    run(&mut make(&[
        "savedefconfig",
        &format!("BR2_DEFCONFIG={}", saved.display()),
    ]))?;
    ensure!(
        read(&saved)? == defconfig,
        "savedefconfig gives another file: compare {}",
        saved.display()
    );
    println!("savedefconfig gives the file back");

    let style = style(source, buildroot)?;
    println!("check-package: {style}");

    let described = output(&mut make(&["show-info"]))?;
    packages(&serde_json::from_slice(&described).context("understanding show-info")?)?;
    println!("show-info: both packages are described, and all that they need is there");

    let fragments = FRAGMENTS.map(|name| board_file(source, name));
    locked.takes(store, &fragments)?;
    medium(source, buildroot, &out)
}

/// Buildroot's own judge of style, over every file of the tree but the kept list. What it says of how much it read.
fn style(source: &Source, buildroot: &Path) -> Result<String> {
    let files = text(command("git").arg("-C").arg(&source.folder).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let files = files.lines().filter(|file| *file != SYMBOLS);
    // It says on stderr how much it read, whatever the outcome.
    let judged = command("/usr/bin/python3")
        .arg(buildroot.join("utils/check-package"))
        .arg("-b")
        .args(files.map(|file| source.folder.join(file)))
        .env("PATH", path_with_system_programs())
        .output()
        .context("starting check-package")?;
    let said = String::from_utf8_lossy(&judged.stderr);
    let last: Vec<&str> = said.lines().rev().take(2).collect();
    ensure!(
        judged.status.success() && last.first() == Some(&"0 warnings generated"),
        "check-package (it wants python3-magic, flake8 and shellcheck): {said}{}",
        String::from_utf8_lossy(&judged.stdout)
    );
    ensure!(
        last.get(1).is_some_and(|line| !line.starts_with("0 ")),
        "check-package read nothing: {said}"
    );
    Ok(last.into_iter().rev().collect::<Vec<&str>>().join(", "))
}

/// Python of the system, which has the system's modules.
fn path_with_system_programs() -> String {
    format!("/usr/bin:/usr/sbin:{}", std::env::var("PATH").unwrap_or_default())
}

/// Both packages of the tree, as Buildroot sees them.
fn packages(info: &serde_json::Value) -> Result<()> {
    for name in ["steading-agent", "lxcfs"] {
        let needs = info[name]["dependencies"]
            .as_array()
            .with_context(|| format!("Buildroot describes no {name}"))?;
        for needed in needs.iter().filter_map(|needed| needed.as_str()) {
            ensure!(
                info.get(needed).is_some(),
                "{name} needs {needed}, which the configuration does not build"
            );
        }
    }
    let agent = &info["steading-agent"];
    let locator = agent["downloads"][0]["uris"][0].as_str().unwrap_or_default();
    ensure!(
        locator.starts_with("git+file:///"),
        "the agent comes from {locator:?}"
    );
    ensure!(
        agent["version"]
            .as_str()
            .is_some_and(|version| version.len() == 40),
        "the agent's version is no commit"
    );
    Ok(())
}

/// What the scripts of the board are told.
fn script(source: &Source, name: &str, base: &Path) -> Command {
    let mut script = command(board_file(source, name));
    script
        .env("BR2_EXTERNAL_STEADING_PATH", &source.folder)
        .env("STEADING_BASE", base)
        .env("PATH", path_with_system_programs());
    script
}

/// post-build.sh leaves the programs of the node and says which image this is, in the words that `./x` says it in.
pub fn target(source: &Source) -> Result<()> {
    let out = source.tree.artefact("buildroot-target");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    let target = &out.join("target");
    let sbin = target.join("usr/sbin");
    for folder in ["usr/sbin", "usr/bin", "usr/lib/modules/6.12.1"] {
        std::fs::create_dir_all(target.join(folder))?;
    }
    let programs = source.board("programs")?;
    for program in programs.lines().filter(|program| !program.ends_with("modprobe")) {
        std::fs::write(target.join(program), "program")?;
    }
    for program in ["usr/bin/sh", "usr/sbin/mke2fs"] {
        std::fs::write(target.join(program), "whole")?;
    }
    std::fs::remove_file(sbin.join("mkfs.ext4"))?;
    std::os::unix::fs::symlink("mke2fs", sbin.join("mkfs.ext4"))?;
    std::os::unix::fs::symlink("/init", sbin.join("modprobe"))?;
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let (base, stamp) = (out.join("base.erofs"), out.join("base.stamp"));
    std::fs::write(&base, "abc")?;
    std::fs::write(&stamp, format!("made-of {digest} 2 root\n"))?;
    let build = || run(script(source, "post-build.sh", &base).env("TARGET_DIR", target));
    build()?;
    let image: serde_json::Value =
        serde_json::from_slice(&std::fs::read(target.join("etc/steading/image.json"))?)?;
    let wanted = initramfs::ImageFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: "6.12.1".to_owned(),
        base_digest: digest.to_owned(),
        base_bytes: 3,
        base_data_bytes: 2,
        base_root: "root".to_owned(),
        locked: false,
        seccomp: None,
    };
    ensure!(
        image == serde_json::to_value(&wanted)?,
        "post-build.sh wrote {image} for {wanted:?}"
    );
    let left = |program: &str| target.join(program).exists();
    ensure!(
        left("whole"),
        "post-build.sh leaves nothing to see by that all was unpacked"
    );
    ensure!(
        !left("usr/bin/sh") && !left("usr/sbin/mke2fs"),
        "programs are left over"
    );
    let whole = std::fs::read_to_string(sbin.join("mkfs.ext4"))?;
    ensure!(whole == "whole", "mkfs.ext4 went with what it linked to");
    let modprobe = std::fs::read_link(sbin.join("modprobe"))?;
    ensure!(modprobe == Path::new("/init"), "modprobe is not PID 1's program");
    std::fs::write(&base, "abcd")?;
    let other = build().err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(
        other.contains("is not of"),
        "another base's stamp is taken: {other}"
    );
    std::fs::write(&base, "abc")?;
    std::fs::remove_file(sbin.join("nft"))?;
    let lacks = build().err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(
        lacks.contains("usr/sbin/nft"),
        "a program that is missing is not missed: {lacks}"
    );
    println!("post-build.sh leaves the programs of the node, and says which image it is");
    Ok(())
}

/// post-image.sh, with other bytes for kernel, initramfs, loader and base: the same partitions and `farmer.toml`.
fn medium(source: &Source, buildroot: &Path, out: &Path) -> Result<()> {
    let images = out.join("images");
    std::fs::create_dir_all(images.join("efi-part/EFI/BOOT"))?;
    for name in ["bzImage", "rootfs.cpio.zst", "efi-part/EFI/BOOT/bootx64.efi"] {
        std::fs::write(images.join(name), name)?;
    }
    let base = out.join("base");
    std::fs::write(&base, vec![7; 1_500_000])?;
    run(script(source, "post-image.sh", &base)
        .current_dir(buildroot)
        .env("BINARIES_DIR", &images)
        .env("BUILD_DIR", out)
        .env("BR2_CONFIG", out.join(".config")))
    .context("post-image.sh (it wants genimage, dosfstools and mtools)")?;
    let (theirs, ours) = (images.join("steading.img"), out.join("ours.img"));
    let farmer_toml = source.tree.root().join("image/farmer.toml");
    image::disk::write(
        &ours,
        &image::disk::Medium {
            esp_bytes: image::layout::STICK_ESP_BYTES,
            cluster_bytes: image::layout::STICK_CLUSTER_BYTES,
            files: vec![("farmer.toml", image::fat::Content::File(farmer_toml.clone()))],
            base: &base,
            starts: Some(image::disk::Starts {
                code: [0; 440],
                loader: Vec::new(),
                config: Vec::new(),
            }),
        },
    )?;
    let (have, wanted) = (image::disk::partitions(&theirs)?, image::disk::partitions(&ours)?);
    ensure!(
        have == wanted,
        "genimage made\n{have:#?}\n`./x image` makes\n{wanted:#?}"
    );
    let mut seen = Vec::new();
    for medium in [&theirs, &ours] {
        let esp = format!("{}@@{}", medium.display(), image::disk::ESP_START_BYTES);
        let farmer = output(command("mtype").args(["-i", &esp, "::farmer.toml"]))?;
        ensure!(
            farmer == std::fs::read(&farmer_toml)?,
            "{}: another farmer.toml",
            medium.display()
        );
        let described = text(command("minfo").args(["-i", &esp, "::"]))?;
        seen.push(facts(&described)?);
    }
    ensure!(seen[0] == seen[1], "the system partitions differ: {seen:#?}");
    println!("post-image.sh makes the partitions, the FAT and the farmer.toml of `./x image`");
    std::fs::remove_dir_all(&images)?;
    Ok(std::fs::remove_file(&ours)?)
}

/// What mtools' `minfo` says of a FAT that both makers decide alike.
fn facts(text: &str) -> Result<Vec<String>> {
    let keys = [
        "sector size:",
        "cluster size:",
        "serial number:",
        "disk label=",
        "disk type=",
    ];
    let facts: Vec<String> = keys
        .iter()
        .filter_map(|key| text.lines().find(|line| line.contains(key)))
        .map(|line| line.trim().to_owned())
        .collect();
    if facts.len() != keys.len() {
        bail!("minfo printed something else: {text}");
    }
    Ok(facts)
}
