//! Which symbol makes a module: `obj-$(CONFIG_NAME) += module.o` in the Makefile of its folder, or of one above it.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The kernel's Makefiles, each read once.
#[derive(Debug)]
pub struct Makefiles {
    root: PathBuf,
    /// Per folder: symbol and what it adds.
    read: BTreeMap<PathBuf, Vec<(String, Vec<String>)>>,
}

impl Makefiles {
    /// Of the sources at `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            read: BTreeMap::new(),
        }
    }

    /// The symbols of which each makes the module at `path`, as in `drivers/net/veth`; most often one.
    pub fn makers(&mut self, path: &str) -> Result<BTreeSet<String>> {
        let module = Path::new(path);
        for folder in module.ancestors().skip(1) {
            let object = format!("{}.o", module.strip_prefix(folder)?.display());
            let makers: BTreeSet<String> = self
                .lines(folder)?
                .iter()
                .filter(|(_, objects)| objects.contains(&object))
                .map(|(symbol, _)| symbol.clone())
                .collect();
            if !makers.is_empty() {
                return Ok(makers);
            }
        }
        None.with_context(|| format!("no Makefile makes {path} for a symbol"))
    }

    fn lines(&mut self, folder: &Path) -> Result<&[(String, Vec<String>)]> {
        if !self.read.contains_key(folder) {
            let mut lines = Vec::new();
            for name in ["Kbuild", "Makefile"] {
                let path = self.root.join(folder).join(name);
                if path.exists() {
                    let text = std::fs::read_to_string(&path)
                        .with_context(|| format!("reading {}", path.display()))?;
                    lines.extend(parse(&text));
                }
            }
            self.read.insert(folder.to_owned(), lines);
        }
        Ok(self.read.get(folder).map(Vec::as_slice).unwrap_or_default())
    }
}

/// Lines of `obj-$(CONFIG_NAME) += objects`, and of `LIST-$(CONFIG_NAME) := objects` where some `obj-…` adds `$(LIST-y)`.
/// Conditions around them are not looked at.
fn parse(text: &str) -> Vec<(String, Vec<String>)> {
    let text = text.replace("\\\n", " ");
    let adds_list = |list: &str| {
        let word = format!("$({list}-y)");
        let adds = |line: &str| line.starts_with("obj-") && line.contains(&word);
        text.lines().any(adds)
    };
    let line = |line: &str| {
        let (target, objects) = line.split('#').next()?.split_once('=')?;
        let target = target.trim_end_matches([':', '+']).trim();
        let (list, symbol) = target
            .strip_suffix(')')
            .and_then(|target| target.split_once("-$(CONFIG_"))
            .or_else(|| target.strip_suffix('}')?.split_once("-${CONFIG_"))?;
        let objects = objects.split_whitespace().map(str::to_owned).collect();
        (list == "obj" || adds_list(list)).then(|| (symbol.to_owned(), objects))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_in_its_folder_or_above() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        std::fs::create_dir_all(scratch.path().join("net/deep"))?;
        std::fs::write(
            scratch.path().join("net/Makefile"),
            "obj-$(CONFIG_VETH) += veth.o\nobj-y += deep/\nobj-$(CONFIG_TWO)\t:= \\\n  one.o deep/far.o # obj-$(CONFIG_NO) += no.o\n\
             obj-$(CONFIG_A) += both.o\nobj-$(CONFIG_B) += both.o\nveth-objs := a.o\n\
             more-$(CONFIG_MORE) := more.o\nobj-$(CONFIG_NET) += $(more-y)\nveth-$(CONFIG_DEBUG) += debug.o\n",
        )?;
        let mut makefiles = Makefiles::new(scratch.path());
        let mut makers =
            |module| -> Result<Vec<String>> { Ok(makefiles.makers(module)?.into_iter().collect()) };
        assert_eq!(makers("net/veth")?, ["VETH"]);
        assert_eq!(makers("net/deep/far")?, ["TWO"]);
        assert_eq!(makers("net/more")?, ["MORE"]);
        assert_eq!(makers("net/both")?, ["A", "B"]);
        for module in ["net/no", "net/a", "net/debug", "far"] {
            assert!(makers(module).is_err(), "{module}");
        }
        Ok(())
    }
}
