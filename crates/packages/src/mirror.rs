//! Where the archive is: what the caller says, else the mirror that this machine's own apt names, else the default
//! that mmdebstrap has built in. No address stands in this repository.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The roots of the archive: below each lie `dists/` and `pool/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Root of the main archive, without a slash at its end.
    pub debian: String,
    /// Root of the security archive, without a slash at its end.
    pub security: String,
}

impl Mirror {
    /// Finds the archive. `mirror` and `security` are the caller's options and win.
    pub fn find(mirror: Option<&str>, security: Option<&str>) -> Result<Self> {
        let own = own_entries(Path::new("/etc/apt"));
        let default = || built_in(Path::new("/usr/bin/mmdebstrap"));
        let clean = |uri: &str| uri.trim_end_matches('/').to_owned();
        let debian = match (mirror, own.iter().find(|e| !e.security)) {
            (Some(uri), _) => clean(uri),
            (None, Some(entry)) => clean(&entry.uri),
            (None, None) => default()?.debian,
        };
        let security = match (security, own.iter().find(|e| e.security)) {
            (Some(uri), _) => clean(uri),
            (None, Some(entry)) => clean(&entry.uri),
            (None, None) => default()?.security,
        };
        Ok(Self { debian, security })
    }

    /// What the world uses: the default that mmdebstrap has built in. For what is used far from this machine.
    pub fn public() -> Result<Self> {
        built_in(Path::new("/usr/bin/mmdebstrap"))
    }
}

/// One line or stanza of the machine's apt sources that names a Debian mirror.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    uri: String,
    security: bool,
}

/// All entries of `sources.list` and `sources.list.d`, in the order in which apt reads them.
fn own_entries(etc_apt: &Path) -> Vec<Entry> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(folder) = std::fs::read_dir(etc_apt.join("sources.list.d")) {
        let mut more: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
        more.sort();
        files.extend(more);
    }
    let mut entries = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => entries.extend(text.lines().filter_map(one_line)),
            Some("sources") => entries.extend(text.split("\n\n").filter_map(stanza)),
            _ => {}
        }
    }
    entries
}

/// `deb [options] URI SUITE COMPONENTS...`
fn one_line(line: &str) -> Option<Entry> {
    let line = line.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match line.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", line),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let components: Vec<&str> = words.collect();
    debian(uri, &[suite], &components, options)
}

/// One deb822 stanza.
fn stanza(text: &str) -> Option<Entry> {
    let field = |name: &str| {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
            })
    };
    if field("Enabled").is_some_and(|v| v.eq_ignore_ascii_case("no"))
        || !field("Types")?.split_whitespace().any(|t| t == "deb")
    {
        return None;
    }
    let suites: Vec<&str> = field("Suites")?.split_whitespace().collect();
    let components: Vec<&str> = field("Components")?.split_whitespace().collect();
    debian(
        field("URIs")?.split_whitespace().next()?,
        &suites,
        &components,
        field("Signed-By").unwrap_or(""),
    )
}

/// Third parties name their suites like Debian's, so the key or the end of the path must say Debian as well.
fn debian(uri: &str, suites: &[&str], components: &[&str], signed_by: &str) -> Option<Entry> {
    const SUITES: [&str; 9] = [
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
        "stable",
        "oldstable",
        "testing",
        "unstable",
    ];
    let suite = suites
        .iter()
        .find(|suite| SUITES.contains(&suite.split('-').next().unwrap_or("")))?;
    let end = uri.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    let ours = signed_by.contains("debian-archive-keyring") || end == "debian" || end == "debian-security";
    let fetchable = ["http://", "https://"]
        .iter()
        .any(|scheme| uri.starts_with(scheme));
    // Updates and backports live below the root of the main archive: as good a sign of it as the suite itself.
    (ours && fetchable && components.contains(&"main")).then(|| Entry {
        uri: uri.to_owned(),
        security: suite.contains("-security"),
    })
}

/// mmdebstrap is a Perl script with the defaults as two assignments.
fn built_in(mmdebstrap: &Path) -> Result<Mirror> {
    let script = std::fs::read_to_string(mmdebstrap).with_context(|| {
        format!(
            "no Debian mirror in /etc/apt and no {} to ask",
            mmdebstrap.display()
        )
    })?;
    let assigned = |variable: &str| {
        script.lines().find_map(|line| {
            let value = line
                .trim()
                .strip_prefix("my ")?
                .strip_prefix(variable)?
                .trim()
                .strip_prefix('=')?;
            Some(
                value
                    .trim()
                    .trim_end_matches(';')
                    .trim_matches('\'')
                    .trim_end_matches('/')
                    .to_owned(),
            )
        })
    };
    match (assigned("$mirror"), assigned("$secmirror")) {
        (Some(debian), Some(security)) => Ok(Mirror { debian, security }),
        _ => bail!(
            "no Debian mirror in /etc/apt, none built into mmdebstrap: say --mirror URL --security-mirror URL"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_entries() {
        let entry =
            one_line("deb [arch=amd64 signed-by=/k.gpg] http://mirror.invalid/debian/ bookworm main contrib");
        assert_eq!(
            entry,
            Some(Entry {
                uri: "http://mirror.invalid/debian/".into(),
                security: false
            })
        );
        let entry = one_line("deb http://mirror.invalid/debian-security trixie-security main");
        assert!(entry.is_some_and(|entry| entry.security));
        for other in [
            "# deb http://mirror.invalid/debian bookworm main",
            "deb-src http://mirror.invalid/debian bookworm main",
            "deb http://third.invalid/linux bookworm main",
            "deb http://mirror.invalid/debian focal main",
            "deb cdrom:[Debian]/ bookworm main",
        ] {
            assert_eq!(one_line(other), None, "{other}");
        }
    }

    #[test]
    fn deb822_stanzas() {
        let text = "Types: deb\n# URIs: http://comment.invalid/debian\nURIs: https://m.invalid/x\n\
                    Suites: trixie trixie-updates\nComponents: main\n\
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        assert_eq!(
            stanza(text),
            Some(Entry {
                uri: "https://m.invalid/x".into(),
                security: false
            })
        );
        assert_eq!(stanza(&format!("Enabled: no\n{text}")), None);
        assert_eq!(stanza(&text.replace("Types: deb", "Types: deb-src")), None);
    }

    #[test]
    fn defaults_of_mmdebstrap() -> Result<()> {
        let script = tempfile::NamedTempFile::new()?;
        std::fs::write(
            script.path(),
            "    my $mirror    = 'http://a.invalid/debian';\n    my $secmirror = 'http://b.invalid/s';\n",
        )?;
        let found = built_in(script.path())?;
        assert_eq!(
            (found.debian.as_str(), found.security.as_str()),
            ("http://a.invalid/debian", "http://b.invalid/s")
        );
        std::fs::write(script.path(), "nothing here")?;
        assert!(built_in(script.path()).is_err());
        Ok(())
    }
}
