//! Options of a verb: `--flag`, `--key VALUE`, the rest in order. What nobody took is refused, so a typing error says so.

use anyhow::{Context, Result, bail};

/// The words behind a verb, taken one by one.
#[derive(Debug, Default)]
pub struct Options {
    words: Vec<String>,
}

impl Options {
    /// All words behind the verb.
    pub fn new(words: Vec<String>) -> Self {
        Self { words }
    }

    /// Takes `--name`; true where it stands.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word.strip_prefix("--") != Some(name));
        self.words.len() < before
    }

    /// Takes `--name VALUE` or `--name=VALUE`.
    pub fn value(&mut self, name: &str) -> Result<Option<String>> {
        let at = self.words.iter().position(|word| {
            word.strip_prefix("--")
                .is_some_and(|rest| rest == name || rest.starts_with(&format!("{name}=")))
        });
        let Some(at) = at else { return Ok(None) };
        let word = self.words.remove(at);
        match word.split_once('=') {
            Some((_, value)) => Ok(Some(value.to_owned())),
            None if at < self.words.len() => Ok(Some(self.words.remove(at))),
            None => bail!("--{name} needs a value"),
        }
    }

    /// Takes every `--name VALUE`, in order.
    pub fn values(&mut self, name: &str) -> Result<Vec<String>> {
        std::iter::from_fn(|| self.value(name).transpose()).collect()
    }

    /// Takes `--name NUMBER`.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>> {
        let value = self.value(name)?;
        value
            .map(|value| {
                value
                    .parse()
                    .with_context(|| format!("--{name} {value}: not a whole number"))
            })
            .transpose()
    }

    /// Takes all that is left.
    pub fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.words)
    }

    /// Refuses what is left.
    pub fn done(self) -> Result<()> {
        match self.words.first() {
            Some(word) => bail!("unknown option {word}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_once() -> Result<()> {
        let words = ["--fresh", "--nodes", "2", "--json=a.json", "--nope"]
            .map(str::to_owned)
            .to_vec();
        let mut options = Options::new(words);
        let mut twice = Options::new(["--set", "a=1", "--set=b=2"].map(str::to_owned).to_vec());
        assert_eq!(twice.values("set")?, ["a=1", "b=2"]);
        assert!(Options::new(vec!["--set".into()]).values("set").is_err());
        assert!(options.flag("fresh") && !options.flag("fresh"));
        assert_eq!(options.number("nodes")?, Some(2));
        assert_eq!(options.value("json")?.as_deref(), Some("a.json"));
        assert!(options.done().is_err());
        assert!(Options::new(vec!["--nodes".into()]).number("nodes").is_err());
        assert!(
            Options::new(vec!["--nodes".into(), "x".into()])
                .number("nodes")
                .is_err()
        );
        Ok(())
    }
}
