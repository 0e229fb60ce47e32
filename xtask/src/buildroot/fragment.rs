//! From the modules of the initramfs to the fragment of the kernel's configuration that builds them.
//!
//! ```text
//! modules (initramfs) ── Makefiles ──▶ symbols ── Kconfig ──▶ what they depend on ── values of the locked kernel ──▶ fragment
//! ```
//!
//! Invariant: every value is the one that the locked kernel was built with, so what boots there is asked for here. What
//! another fragment gives stands there alone.

use super::kbuild::Makefiles;
use super::kconfig::{self, Symbols};
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A symbol's name to its value.
pub type Values = BTreeMap<String, String>;

/// What a fragment is made from.
pub struct Sources<'a> {
    /// Paths of modules, as in `drivers/net/veth`.
    pub modules: &'a BTreeSet<String>,
    /// Symbols of the other fragments: they must have what they depend on.
    pub beside: &'a BTreeSet<String>,
    /// The kernel's Makefiles.
    pub makefiles: Makefiles,
    /// The kernel's Kconfig.
    pub symbols: &'a Symbols,
    /// The configuration of the locked kernel, with those of the other fragments in it.
    pub locked: &'a Values,
    /// What both come from, for the first line.
    pub source: String,
}

/// The text of the fragment.
pub fn make(mut sources: Sources) -> Result<String> {
    let mut made: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for module in sources.modules {
        let makers = sources.makefiles.makers(module)?;
        let symbol = makers
            .into_iter()
            .find(|maker| is_on(sources.locked, maker))
            .with_context(|| {
                format!("{module} is in the locked kernel, but nothing that makes it is on there")
            })?;
        made.entry(symbol).or_default().push(module);
    }
    let roots = made.keys().chain(sources.beside).cloned().collect();
    let wanted = closure(roots, sources.symbols, sources.locked);

    let mut text = format!(
        "# Made by `./x buildroot` from the modules of the initramfs, the Makefiles and Kconfig of {}, and the\n\
         # configuration of the kernel in packages.lock.toml. Each line has the value that it has there. Not to be edited.\n",
        sources.source
    );
    let prompted = |name: &str| sources.symbols.get(name).is_some_and(|symbol| symbol.prompt);
    for (symbol, modules) in &made {
        for module in modules {
            write!(text, "\n# module {module}")?;
        }
        match prompted(symbol) && !sources.beside.contains(symbol) {
            true => writeln!(text, "\nCONFIG_{symbol}={}", sources.locked[symbol])?,
            false => writeln!(text, "\n# follows CONFIG_{symbol}")?,
        }
    }
    writeln!(text, "\n# What these depend on.")?;
    for symbol in &wanted {
        if prompted(symbol) && !made.contains_key(symbol) && !sources.beside.contains(symbol) {
            writeln!(text, "CONFIG_{symbol}={}", sources.locked[symbol])?;
        }
    }
    Ok(text)
}

fn is_on(values: &Values, name: &str) -> bool {
    values.get(name).is_some_and(|value| value == "y" || value == "m")
}

/// `roots`, all that is named in their conditions and on in the locked kernel, and for each symbol that nobody may set
/// one that selects it.
fn closure(roots: BTreeSet<String>, symbols: &Symbols, locked: &Values) -> BTreeSet<String> {
    let mut taken = BTreeSet::new();
    let mut open: Vec<String> = roots.into_iter().collect();
    loop {
        while let Some(name) = open.pop() {
            if is_on(locked, &name) && taken.insert(name.clone()) {
                open.extend(
                    symbols
                        .get(&name)
                        .into_iter()
                        .flat_map(|symbol| symbol.depends.iter().cloned()),
                );
            }
        }
        let lacks = taken.iter().find_map(|name| {
            let symbol = symbols.get(name).filter(|symbol| !symbol.prompt)?;
            let met = symbol.selected_by.is_empty() || !symbol.selected_by.is_disjoint(&taken);
            let by = symbol
                .selected_by
                .iter()
                .find(|by| locked.get(*by) == locked.get(name));
            by.filter(|_| !met).cloned()
        });
        match lacks {
            Some(by) => open.push(by),
            None => return taken,
        }
    }
}

/// The modules that a fragment was made for.
pub fn modules(text: &str) -> BTreeSet<String> {
    let module = |line: &str| line.strip_prefix("# module ").map(str::to_owned);
    text.lines().filter_map(module).collect()
}

/// Values by name; an error where one is given twice.
pub fn unique(text: &str, prefix: &str) -> Result<Values> {
    let mut values = Values::new();
    for (name, value) in kconfig::values(text, prefix) {
        if values.insert(name.clone(), value).is_some() {
            anyhow::bail!("{prefix}{name} stands there twice");
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKEFILE: &str = "obj-$(CONFIG_CARD) += card.o\nobj-$(CONFIG_LIBRARY) += library.o\n";
    const KCONFIG: &str = "config VENDOR\n\tbool \"Vendor\"\nif VENDOR\nconfig CARD\n\ttristate \"Card\"\n\tdepends on !OFF\nendif\n\
                           config OFF\n\tbool \"Off\"\nconfig LIBRARY\n\ttristate\nconfig USER\n\ttristate \"User\"\n\tselect LIBRARY\n";

    fn made(modules: &[&str], locked: &str) -> Result<String> {
        let scratch = tempfile::tempdir()?;
        std::fs::write(scratch.path().join("Makefile"), MAKEFILE)?;
        std::fs::write(scratch.path().join("Kconfig"), KCONFIG)?;
        make(Sources {
            modules: &modules.iter().map(|&module| module.to_owned()).collect(),
            beside: &BTreeSet::new(),
            makefiles: Makefiles::new(scratch.path()),
            symbols: &kconfig::read(scratch.path(), &[])?,
            locked: &unique(locked, "CONFIG_")?,
            source: "a test".into(),
        })
    }

    #[test]
    fn a_fragment_has_the_modules_and_what_they_need() -> Result<()> {
        let locked =
            "CONFIG_VENDOR=y\nCONFIG_CARD=m\nCONFIG_LIBRARY=m\nCONFIG_USER=m\n# CONFIG_OFF is not set\n";
        let text = made(&["card", "library"], locked)?;
        assert_eq!(
            modules(&text).into_iter().collect::<Vec<_>>(),
            ["card", "library"]
        );
        let values = unique(&text, "CONFIG_")?;
        let pairs: Vec<(&str, &str)> = values.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("CARD", "m"), ("USER", "m"), ("VENDOR", "y")]);
        assert!(!made(&["card"], locked)?.contains("USER"));
        let said = made(&["card"], "CONFIG_VENDOR=y\n").map_err(|error| error.to_string());
        assert!(said.is_err_and(|error| error.contains("nothing that makes it is on")));
        Ok(())
    }

    #[test]
    fn an_option_that_stands_there_twice_is_found() {
        assert!(unique("CONFIG_A=y\nCONFIG_B=m\n", "CONFIG_").is_ok());
        assert!(unique("CONFIG_A=y\n# CONFIG_A is not set\n", "CONFIG_").is_err());
    }
}
