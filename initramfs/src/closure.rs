//! Which libraries a set of programs needs, and whether each symbol version that somebody needs is there.

use crate::elf::Elf;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folder of libraries below each tree of packages.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Libraries found so far, by the name under which programs ask for them.
#[derive(Debug, Default)]
pub struct Closure {
    libraries: BTreeMap<String, (PathBuf, Elf)>,
    checked: Vec<(String, Elf)>,
}

impl Closure {
    /// Adds what `program` needs, looked for in `trees` in order. `name` is for the error.
    pub fn add(&mut self, name: &str, program: &Path, trees: &[PathBuf]) -> Result<()> {
        let elf = Elf::read(program)?.with_context(|| format!("{name} is not an ELF file"))?;
        let mut open: Vec<(String, String)> = elf
            .needed
            .iter()
            .map(|library| (name.to_owned(), library.clone()))
            .collect();
        self.checked.push((name.to_owned(), elf));
        while let Some((by, library)) = open.pop() {
            if self.libraries.contains_key(&library) {
                continue;
            }
            let path = trees
                .iter()
                .map(|tree| tree.join(LIBRARIES).join(&library))
                .find(|path| path.exists())
                .with_context(|| format!("{by} needs {library}, which no package of the lock brings"))?
                .canonicalize()?;
            let elf = Elf::read(&path)?.with_context(|| format!("{} is not an ELF file", path.display()))?;
            open.extend(elf.needed.iter().map(|next| (library.clone(), next.clone())));
            self.libraries.insert(library, (path, elf));
        }
        Ok(())
    }

    /// Adds a library that is opened at run time, and what it needs.
    pub fn add_library(&mut self, library: &str, trees: &[PathBuf]) -> Result<()> {
        let path = trees
            .iter()
            .map(|tree| tree.join(LIBRARIES).join(library))
            .find(|path| path.exists())
            .with_context(|| format!("no package of the lock brings {library}"))?;
        self.add(library, &path, trees)?;
        let elf = Elf::read(&path)?.with_context(|| format!("{library} is not an ELF file"))?;
        self.libraries
            .insert(library.to_owned(), (path.canonicalize()?, elf));
        Ok(())
    }

    /// Fails with the first symbol version that nobody here provides.
    pub fn check_versions(&self) -> Result<()> {
        let all = self.checked.iter().map(|(name, elf)| (name, elf));
        for (name, elf) in all.chain(self.libraries.iter().map(|(name, (_, elf))| (name, elf))) {
            for (library, versions) in &elf.versions_needed {
                let Some((_, provider)) = self.libraries.get(library) else {
                    bail!("{name} needs versions of {library}, which is not in the image");
                };
                if let Some(version) = versions
                    .iter()
                    .find(|version| !provider.versions_defined.contains(version))
                {
                    bail!("{name} needs {version} of {library}, which the image's {library} lacks");
                }
            }
        }
        Ok(())
    }

    /// Name and file of each library.
    pub fn libraries(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.libraries
            .iter()
            .map(|(name, (path, _))| (name.as_str(), path.as_path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(defined: &[&str]) -> Elf {
        Elf {
            versions_defined: defined.iter().map(|v| (*v).to_owned()).collect(),
            ..Elf::default()
        }
    }

    #[test]
    fn a_symbol_version_that_the_image_lacks_is_found() {
        let mut closure = Closure::default();
        closure
            .libraries
            .insert("libc.so.6".into(), (PathBuf::new(), library(&["GLIBC_2.36"])));
        let needs = |version: &str| Elf {
            versions_needed: BTreeMap::from([("libc.so.6".to_owned(), vec![version.to_owned()])]),
            ..Elf::default()
        };
        closure.checked.push(("agent".into(), needs("GLIBC_2.36")));
        assert!(closure.check_versions().is_ok());
        closure.checked.push(("agent".into(), needs("GLIBC_2.99")));
        let said = closure.check_versions().map_err(|error| error.to_string());
        assert_eq!(
            said,
            Err("agent needs GLIBC_2.99 of libc.so.6, which the image's libc.so.6 lacks".into())
        );
    }

    #[test]
    fn a_library_that_no_package_brings_is_named() -> Result<()> {
        let nowhere = [PathBuf::from("/nonexistent")];
        let said = Closure::default().add("test", &std::env::current_exe()?, &nowhere);
        assert!(said.is_err_and(|error| error.to_string().contains("which no package of the lock brings")));
        Ok(())
    }
}
