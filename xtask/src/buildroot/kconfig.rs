//! Reads Kconfig as far as a fragment needs it: which symbols there are, which of them a person may set, on which others
//! each depends, and who selects it. And the files that hold values: `.config`, defconfig, fragment.
//!
//! Expressions are not evaluated. A fragment that gives every symbol which is named in a dependency the value that it has
//! in a configuration that is known to be whole satisfies all of them, so their names are enough.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is known of a symbol, over all places that define it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// A person may set it; others follow from defaults and from who selects them.
    pub prompt: bool,
    /// Names in its conditions, and in those of the menus around it.
    pub depends: BTreeSet<String>,
    /// Who selects it.
    pub selected_by: BTreeSet<String>,
}

/// All symbols by name, without `CONFIG_`.
pub type Symbols = BTreeMap<String, Symbol>;

/// What the words of a line are about.
enum Entry {
    Symbol(String),
    Menu,
    Other,
}

/// Reads `root/Kconfig` and what it sources. `variables` stand for `$(NAME)` in the names of files.
pub fn read(root: &Path, variables: &[(&str, &str)]) -> Result<Symbols> {
    let mut reader = Reader {
        root,
        variables,
        symbols: Symbols::new(),
        around: Vec::new(),
        entry: Entry::Other,
    };
    reader.file("Kconfig")?;
    Ok(reader.symbols)
}

struct Reader<'a> {
    root: &'a Path,
    variables: &'a [(&'a str, &'a str)],
    symbols: Symbols,
    /// Names in the conditions of each `if`, `menu` and `choice` that is open.
    around: Vec<BTreeSet<String>>,
    entry: Entry,
}

impl Reader<'_> {
    fn file(&mut self, name: &str) -> Result<()> {
        let mut path = name.to_owned();
        for (variable, value) in self.variables {
            path = path.replace(&format!("$({variable})"), value);
        }
        let text =
            std::fs::read_to_string(self.root.join(&path)).with_context(|| format!("reading {path}"))?;
        let text = text.replace("\\\n", " ");
        let mut help: Option<Option<usize>> = None;
        for line in text.lines() {
            if let Some(indent) = help {
                let here = width(line);
                match indent {
                    _ if line.trim().is_empty() => continue,
                    None if here > 0 => {
                        help = Some(Some(here));
                        continue;
                    }
                    Some(indent) if here >= indent => continue,
                    _ => help = None,
                }
            }
            let line = without_comment(line).trim();
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            if matches!(word, "help" | "---help---") {
                help = Some(None);
            } else {
                self.line(word, rest.trim())
                    .with_context(|| format!("{path}: {line}"))?;
            }
        }
        Ok(())
    }

    fn line(&mut self, word: &str, rest: &str) -> Result<()> {
        match word {
            "config" | "menuconfig" => {
                let around: BTreeSet<String> = self.around.iter().flatten().cloned().collect();
                let symbol = self.symbols.entry(rest.to_owned()).or_default();
                symbol.depends.extend(around);
                self.entry = Entry::Symbol(rest.to_owned());
            }
            "menu" | "choice" => {
                self.around.push(BTreeSet::new());
                self.entry = Entry::Menu;
            }
            "if" => {
                self.around.push(names(rest));
                self.entry = Entry::Other;
            }
            "endif" | "endmenu" | "endchoice" => {
                if self.around.pop().is_none() {
                    bail!("nothing is open");
                }
                self.entry = Entry::Other;
            }
            "comment" | "mainmenu" => self.entry = Entry::Other,
            "source" => {
                let file = rest.trim_matches('"').to_owned();
                self.entry = Entry::Other;
                self.file(&file)?;
            }
            "depends" | "visible" => self.needs(names(rest)),
            "bool" | "tristate" | "int" | "hex" | "string" | "prompt" => {
                if let Entry::Symbol(name) = &self.entry
                    && rest.starts_with(['"', '\''])
                {
                    self.symbols.entry(name.clone()).or_default().prompt = true;
                    self.needs(names(rest));
                }
            }
            "select" | "imply" => {
                let selected = rest.split_whitespace().next().unwrap_or_default();
                if let (Entry::Symbol(by), "select") = (&self.entry, word) {
                    let selected = self.symbols.entry(selected.to_owned()).or_default();
                    selected.selected_by.insert(by.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn needs(&mut self, names: BTreeSet<String>) {
        match &self.entry {
            Entry::Symbol(name) => self
                .symbols
                .entry(name.clone())
                .or_default()
                .depends
                .extend(names),
            Entry::Menu => {
                if let Some(menu) = self.around.last_mut() {
                    menu.extend(names);
                }
            }
            Entry::Other => {}
        }
    }
}

/// Columns of white space before the first word; a tab goes on to the next multiple of eight.
fn width(line: &str) -> usize {
    let blank = line.chars().take_while(|c| c.is_whitespace());
    blank.fold(0, |at, c| if c == '\t' { (at / 8 + 1) * 8 } else { at + 1 })
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let end = line.find(|c| {
        quote = quoted(quote, c);
        c == '#' && quote.is_none()
    });
    &line[..end.unwrap_or(line.len())]
}

/// The quote that is open behind `c`, when `open` is before it: either kind, and the other kind is a letter in it.
fn quoted(open: Option<char>, c: char) -> Option<char> {
    match open {
        Some(quote) if quote == c => None,
        None if matches!(c, '"' | '\'') => Some(c),
        _ => open,
    }
}

/// Names of symbols in an expression: without what stands in quotes or in `$(…)`.
fn names(expression: &str) -> BTreeSet<String> {
    let (mut plain, mut quote, mut depth, mut before) = (String::new(), None, 0usize, ' ');
    for c in expression.chars() {
        let was = quote;
        quote = quoted(was, c);
        match c {
            '(' if before == '$' || depth > 0 => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if was.or(quote).is_none() && depth == 0 => plain.push(c),
            _ => {}
        }
        before = c;
    }
    let word = |word: &&str| word.len() > 1 && !matches!(*word, "if" | "on" | "visible");
    plain
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(word)
        .map(str::to_owned)
        .collect()
}

/// `CONFIG_NAME=value` and `# CONFIG_NAME is not set`, in order; `n` stands for the latter. `prefix` is `CONFIG_` or `BR2_`.
pub fn values(text: &str, prefix: &str) -> Vec<(String, String)> {
    let named = |line: &str| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let name = line.strip_prefix(prefix)?;
        let (name, value) = match name.strip_suffix(" is not set") {
            Some(name) => (name, "n"),
            None => name.split_once('=')?,
        };
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        plain.then(|| (name.to_owned(), value.to_owned()))
    };
    let is_value = |line: &&str| !line.starts_with('#') || line.ends_with(" is not set");
    text.lines().filter(is_value).filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_depends_on_what_is_around_it() -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let write = |name: &str, text: &str| std::fs::write(scratch.path().join(name), text);
        write(
            "Kconfig",
            "mainmenu \"x\"\nmenu \"Network\"\n\tdepends on NET\nsource \"$(ARCH)/more\"\nendmenu\n\
                          config LIBRARY\n\ttristate\n\tdepends on AFTER\n",
        )?;
        std::fs::create_dir(scratch.path().join("x86"))?;
        write(
            "x86/more",
            "if VENDOR && !($(cc-option,-mX) || HOSTILE)\nconfig CARD\n\ttristate \"A card\" if EXPERT # why\n\
             \tdepends on PCI && \\\n\t\t(MII=y || \"FALSE\" = y)\n\tselect LIBRARY if X\n\thelp\n\t  depends on WORDS\n\
             \n\t  config NONE\n\tdepends on LAST\nendif\nconfig HIDDEN\n\tbool\n\tdefault y\n\
             config SINGLE\n\tbool 'It is \"one\"' if HIDDEN\n",
        )?;
        let symbols = read(scratch.path(), &[("ARCH", "x86")])?;
        let named: Vec<&str> = symbols.keys().map(String::as_str).collect();
        assert_eq!(named, ["CARD", "HIDDEN", "LIBRARY", "SINGLE"]);
        let depends: Vec<&str> = symbols["CARD"].depends.iter().map(String::as_str).collect();
        assert_eq!(
            depends,
            ["EXPERT", "HOSTILE", "LAST", "MII", "NET", "PCI", "VENDOR"]
        );
        assert!(symbols["CARD"].prompt && !symbols["HIDDEN"].prompt && !symbols["LIBRARY"].prompt);
        assert!(symbols["SINGLE"].prompt && symbols["SINGLE"].depends.contains("HIDDEN"));
        assert_eq!(symbols["SINGLE"].depends.len(), 2, "and NET");
        assert!(symbols["LIBRARY"].selected_by.contains("CARD"));
        assert!(!symbols["LIBRARY"].depends.contains("NET"), "the menu is closed");
        write("x86/more", "endif\nendif\n")?;
        assert!(read(scratch.path(), &[("ARCH", "x86")]).is_err());
        Ok(())
    }

    #[test]
    fn values_are_those_that_kconfig_reads() {
        let text =
            "# CONFIG_A is not set\nCONFIG_B=m\n# words about CONFIG_C=y\nCONFIG_D=\"x=y\"\n#CONFIG_E=y\n";
        let pairs = values(text, "CONFIG_");
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("A", "n"), ("B", "m"), ("D", "\"x=y\"")]);
    }
}
