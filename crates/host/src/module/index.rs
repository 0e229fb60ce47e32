//! The lists that depmod writes, read: which file a module is, what it needs, what it answers to.
//!
//! The kernel calls `modprobe` once for every name that it looks for, a dozen times in a start, and most have one question:
//! the long lists stay the text that they are, and it is known where in it each alias stands.
//!
//! Names are compared with `-` as `_`, as the kernel does. Formats: modules.dep(5); `alias PATTERN
//! MODULE` with the patterns of fnmatch(3); `softdep MODULE pre: A B post: C`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::ModuleError;
use super::pattern::matches;

/// What the lists of one kernel say.
#[derive(Debug, Default)]
pub struct Index {
    folder: PathBuf,
    modules: HashMap<String, Module>,
    /// modules.alias.
    alias_text: String,
    /// Where in it the pattern and the module of each alias stand.
    aliases: Vec<(Range<usize>, Range<usize>)>,
    soft: HashMap<String, Soft>,
    /// modules.builtin.
    builtin: String,
}

#[derive(Debug, Default)]
struct Module {
    /// Relative to the folder.
    file: String,
    /// Files, the first to be loaded last.
    needs: Vec<String>,
}

#[derive(Debug, Default)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

/// One file to load.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// The module's name.
    pub module: &'a str,
    /// Its file.
    pub path: PathBuf,
    /// Whether the others can do without it.
    pub soft: bool,
}

/// `-` is `_` in the name of a module.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// Whether the first is what [`normal`] makes of the second.
fn is_normal_of(normal: &str, name: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
    normal.len() == name.len() && normal.bytes().zip(name.bytes()).all(same)
}

/// `kernel/fs/ext4/ext4.ko.xz` gives `ext4`.
pub fn module_name(file: &Path) -> String {
    let name = file.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    normal(name.split_once(".ko").map_or(&name, |(stem, _)| stem))
}

impl Index {
    /// Reads the lists in `folder`. Without modules.dep there is nothing to load from; the other
    /// lists may be missing.
    pub fn read(folder: &Path) -> Result<Self, ModuleError> {
        let dependencies = list(folder, "modules.dep")?;
        let optional = |name| match list(folder, name) {
            Err(ModuleError::Lists { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(String::new())
            }
            result => result,
        };
        let (aliases, soft, builtin) = (
            optional("modules.alias")?,
            optional("modules.softdep")?,
            optional("modules.builtin")?,
        );
        Ok(Self::parse(folder, &dependencies, aliases, &soft, builtin))
    }

    /// The same from the texts of the lists.
    pub fn parse(folder: &Path, dependencies: &str, aliases: String, soft: &str, builtin: String) -> Self {
        let modules = dependencies.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(String::from).collect();
            Some((
                module_name(Path::new(file)),
                Module {
                    file: file.to_owned(),
                    needs,
                },
            ))
        });
        Self {
            folder: folder.to_owned(),
            modules: modules.collect(),
            aliases: places(&aliases),
            alias_text: aliases,
            soft: soft.lines().filter_map(parse_soft).collect(),
            builtin,
        }
    }

    /// How many modules there are.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// Whether the kernel has it built in.
    pub fn is_builtin(&self, name: &str) -> bool {
        let name = normal(name);
        self.builtin
            .lines()
            .any(|line| module_name(Path::new(line)) == name)
    }

    /// Whether it drives devices: it answers to what a bus says of one (`pci:…`), and not to names (`fs-ext4`) or to a kind of
    /// processor alone.
    pub fn is_driver(&self, module: &str) -> bool {
        let mut aliases = self.aliases.iter();
        aliases.any(|(pattern, of)| {
            let pattern = &self.alias_text[pattern.clone()];
            is_normal_of(module, &self.alias_text[of.clone()])
                && pattern.contains(':')
                && !pattern.starts_with("cpu:")
        })
    }

    /// The modules that answer to a name or an alias, each once.
    pub fn resolve(&self, name: &str) -> Vec<&str> {
        let name = normal(name);
        if let Some((module, _)) = self.modules.get_key_value(&name) {
            return vec![module];
        }
        let mut found: Vec<&str> = Vec::new();
        for (pattern, module) in &self.aliases {
            if matches(self.alias_text[pattern.clone()].as_bytes(), name.as_bytes())
                && let Some((module, _)) = self
                    .modules
                    .get_key_value(&normal(&self.alias_text[module.clone()]))
                && !found.contains(&module.as_str())
            {
                found.push(module);
            }
        }
        found
    }

    /// The files to load for `module`, in order, itself among them.
    pub fn plan<'a>(&'a self, module: &'a str) -> Vec<Step<'a>> {
        let (mut steps, mut visited) = (Vec::new(), HashSet::new());
        self.visit(module, false, &mut visited, &mut steps);
        steps
    }

    fn visit<'a>(
        &'a self,
        name: &str,
        soft: bool,
        visited: &mut HashSet<&'a str>,
        steps: &mut Vec<Step<'a>>,
    ) {
        let Some((name, module)) = self.modules.get_key_value(name) else {
            return;
        };
        if !visited.insert(name) {
            return;
        }
        let wishes = self.soft.get(name);
        for wish in wishes
            .into_iter()
            .flat_map(|s| &s.before)
            .flat_map(|w| self.resolve(w))
        {
            self.visit(wish, true, visited, steps);
        }
        // The list is of all that is needed, the deepest last; each of them may have wishes too.
        for need in module.needs.iter().rev() {
            self.visit(&module_name(Path::new(need)), soft, visited, steps);
        }
        steps.push(Step {
            module: name,
            path: self.folder.join(&module.file),
            soft,
        });
        for wish in wishes
            .into_iter()
            .flat_map(|s| &s.after)
            .flat_map(|w| self.resolve(w))
        {
            self.visit(wish, true, visited, steps);
        }
    }
}

fn list(folder: &Path, name: &str) -> Result<String, ModuleError> {
    let path = folder.join(name);
    fs::read_to_string(&path).map_err(|source| ModuleError::Lists { path, source })
}

/// Where the pattern and the module of each line `alias PATTERN MODULE` stand.
fn places(text: &str) -> Vec<(Range<usize>, Range<usize>)> {
    const WORD: &str = "alias ";
    let (mut places, mut next) = (Vec::new(), 0);
    for line in text.split_inclusive('\n') {
        let start = next + WORD.len();
        next += line.len();
        let rest = line.strip_prefix(WORD).map(str::trim_end);
        if let Some((pattern, module)) = rest.and_then(|rest| rest.rsplit_once(' ')) {
            let end = start + pattern.len();
            places.push((start..end, end + 1..end + 1 + module.len()));
        }
    }
    places
}

fn parse_soft(line: &str) -> Option<(String, Soft)> {
    let mut words = line.strip_prefix("softdep ")?.split_whitespace();
    let module = normal(words.next()?);
    let (mut soft, mut after) = (Soft::default(), false);
    for word in words {
        match word {
            "pre:" => after = false,
            "post:" => after = true,
            name if after => soft.after.push(name.to_owned()),
            name => soft.before.push(name.to_owned()),
        }
    }
    Some((module, soft))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz kernel/fs/jbd2/jbd2.ko.xz
kernel/lib/crc16.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/fs/jbd2/jbd2.ko.xz: kernel/lib/crc32c.ko.xz
kernel/lib/crc32c.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/drivers/block/virtio_blk.ko.xz:
kernel/drivers/nvme/host/nvme-core.ko.xz:
";
    const ALIASES: &str = "\
# Aliases extracted from modules themselves.
alias fs-ext4 ext4
alias crc32c crc32c_generic
alias virtio:d00000002v* virtio_blk
alias usb:v0BDAp8152d*dc*dsc*dp*ic*isc*ip*in0[1-3]* nvme-core
alias cpu:type:x86,ven*fam*mod*:feature:*0099* aesni-intel
alias missing gone
alias crypto-aes-[0-9]* virtio-blk
";
    const SOFT: &str = "softdep crc32c pre: crc32c-generic\nsoftdep ext4 pre: crc16 post: nvme_core\n";

    fn index() -> Index {
        let builtin = "kernel/drivers/char/tpm/tpm-tis.ko\n";
        Index::parse(
            Path::new("/lib/modules/6.12"),
            DEPENDENCIES,
            ALIASES.to_owned(),
            SOFT,
            builtin.to_owned(),
        )
    }

    fn order(name: &str) -> Vec<String> {
        index()
            .plan(name)
            .iter()
            .map(|step| step.module.to_owned())
            .collect()
    }

    #[test]
    fn needs_come_first_and_each_once() {
        assert_eq!(
            order("ext4"),
            [
                "crc16",
                "crc32c_generic",
                "crc32c",
                "jbd2",
                "mbcache",
                "ext4",
                "nvme_core"
            ]
        );
        assert_eq!(order("virtio_blk"), ["virtio_blk"]);
        assert_eq!(order("unknown"), Vec::<String>::new());
    }

    #[test]
    fn wishes_may_fail_and_needs_may_not() {
        let index = index();
        let soft: Vec<_> = index
            .plan("ext4")
            .iter()
            .filter(|s| s.soft)
            .map(|s| s.module.to_owned())
            .collect();
        assert_eq!(soft, ["crc16", "crc32c_generic", "nvme_core"]);
    }

    #[test]
    fn names_and_aliases_resolve() {
        let index = index();
        assert_eq!(index.resolve("ext4"), ["ext4"]);
        assert_eq!(index.resolve("fs-ext4"), ["ext4"]);
        assert_eq!(index.resolve("nvme_core"), index.resolve("nvme-core"));
        assert_eq!(index.resolve("virtio:d00000002v00001AF4"), ["virtio_blk"]);
        assert_eq!(
            index.resolve("usb:v0BDAp8152d2000dc00dsc00dp00icFFiscFFip00in02"),
            ["nvme_core"]
        );
        assert_eq!(
            index.resolve("usb:v0BDAp8152d2000dc00dsc00dp00icFFiscFFip00in04"),
            Vec::<&str>::new()
        );
        assert_eq!(index.resolve("missing"), Vec::<&str>::new());
        assert_eq!(index.resolve("crypto-aes-256"), ["virtio_blk"]);
        assert_eq!(index.resolve("crypto_aes_256"), ["virtio_blk"]);
        assert!(index.is_builtin("tpm_tis") && !index.is_builtin("ext4"));
        assert!(index.is_driver("virtio_blk") && index.is_driver("nvme_core"));
        assert!(!index.is_driver("ext4") && !index.is_driver("aesni_intel"));
    }

    #[test]
    fn files_lie_below_the_folder() {
        let index = index();
        let plan = index.plan("virtio_blk");
        assert_eq!(
            plan[0].path,
            Path::new("/lib/modules/6.12/kernel/drivers/block/virtio_blk.ko.xz")
        );
    }
}
