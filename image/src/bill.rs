//! The bill of materials: what is in an image, under which licences, from which sources. CycloneDX 1.5, JSON.
//!
//! ```text
//! components ──┬─▶ steading-VERSION.cdx.json     a component each: name, version, SHA-256, licences, purl, source
//!              └─▶ steading/a/licences.txt       each text once, with who it is for
//! ```
//!
//! Invariants: the same components give the same bytes; every component has a licence, and every one that was downloaded
//! the hash of what was downloaded.

use anyhow::{Context, Result, ensure};
use packages::store::hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Where a component comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Ours.
    Own,
    /// A crate.
    Crate,
    /// A Debian package.
    Debian,
}

/// Under what a component may be handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Licence {
    /// An expression of SPDX.
    Expression(String),
    /// Names, as the copyright file has them.
    Names(Vec<String>),
}

/// A part of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Where it comes from.
    pub origin: Origin,
    /// CycloneDX's word for what it is: `library`, `application`, `firmware`, `operating-system`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of what was downloaded, in hex.
    pub sha256: Option<String>,
    /// Its licence.
    pub licence: Licence,
    /// Name and version of the source package, where it is another than the component itself.
    pub source: Option<(String, String)>,
    /// Parts of the image that hold it: `base`, `initramfs`, `boot`.
    pub inside: Vec<&'static str>,
    /// Texts of its licences.
    pub texts: Vec<String>,
}

/// Time of the bill: that of every file of the image.
const TIME: &str = "2026-01-01T00:00:00Z";

impl Component {
    /// Its package URL; none for what is ours and is in no registry.
    pub fn purl(&self) -> Option<String> {
        let (name, version) = (escape(&self.name), escape(&self.version));
        match self.origin {
            Origin::Own => None,
            Origin::Crate => Some(format!("pkg:cargo/{name}@{version}")),
            Origin::Debian => {
                let distro = packages::apt::SUITE;
                Some(format!("pkg:deb/debian/{name}@{version}?distro={distro}"))
            }
        }
    }

    fn reference(&self) -> String {
        self.purl()
            .unwrap_or_else(|| format!("steading:{}@{}", self.name, self.version))
    }

    fn json(&self) -> Value {
        let licences = match &self.licence {
            Licence::Expression(expression) => json!([{ "expression": expression }]),
            Licence::Names(names) => names
                .iter()
                .map(|name| json!({ "license": { "name": name } }))
                .collect(),
        };
        let mut value = json!({
            "type": self.kind,
            "bom-ref": self.reference(),
            "name": self.name,
            "version": self.version,
            "licenses": licences,
            "properties": self.inside.iter().map(|part| json!({ "name": "steading:inside", "value": part })).collect::<Vec<_>>(),
        });
        if let Some(purl) = self.purl() {
            value["purl"] = json!(purl);
        }
        if let Some(sha256) = &self.sha256 {
            value["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
        }
        if let Some((name, version)) = &self.source {
            let purl = format!("pkg:deb/debian/{}@{}?arch=source", escape(name), escape(version));
            let source = json!({ "type": self.kind, "name": name, "version": version, "purl": purl });
            value["pedigree"] = json!({ "ancestors": [source] });
        }
        value
    }
}

/// As package URLs want names and versions: all but letters, digits and `.-_~:` in percent.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The bill of `components`, which need not be sorted.
pub fn cyclonedx(version: &str, components: &[Component]) -> Result<String> {
    let mut sorted: Vec<&Component> = components.iter().collect();
    sorted.sort_by_key(|component| (component.origin, component.reference()));
    let own = format!("steading:image@{version}");
    let parts: Vec<Value> = sorted.iter().map(|component| component.json()).collect();
    let references: Vec<String> = sorted.iter().map(|component| component.reference()).collect();
    let digest = hex(&Sha256::digest(serde_json::to_vec(&parts)?));
    let uuid = [
        &digest[..8],
        &digest[8..12],
        &format!("8{}", &digest[12..15]),
        &format!("8{}", &digest[15..18]),
    ];
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": format!("urn:uuid:{}-{}", uuid.join("-"), &digest[18..30]),
        "version": 1,
        "metadata": {
            "timestamp": TIME,
            "component": { "type": "operating-system", "bom-ref": own, "name": "steading", "version": version },
        },
        "components": parts,
        "dependencies": [{ "ref": own, "dependsOn": references }],
    });
    check(&bill)?;
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

/// The rules of CycloneDX 1.5 for what we use of it, and ours: hashes and licences are there.
pub fn check(bill: &Value) -> Result<()> {
    ensure!(
        bill["bomFormat"] == "CycloneDX" && bill["specVersion"] == "1.5",
        "not CycloneDX 1.5"
    );
    let serial = bill["serialNumber"].as_str().unwrap_or_default();
    let groups: Vec<&str> = serial
        .strip_prefix("urn:uuid:")
        .unwrap_or_default()
        .split('-')
        .collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let is_hex = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    ensure!(
        lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| is_hex(group)),
        "{serial} is no serial number"
    );
    let components = bill["components"].as_array().context("no components")?;
    let mut references = std::collections::BTreeSet::new();
    for component in components {
        let name = component["name"].as_str().filter(|name| !name.is_empty());
        let name = name.context("a component has no name")?;
        const KINDS: [&str; 4] = ["library", "application", "firmware", "operating-system"];
        let kind = component["type"].as_str().unwrap_or_default();
        ensure!(KINDS.contains(&kind), "{name}: {kind} is no kind of component");
        let version = component["version"].as_str().unwrap_or_default();
        ensure!(!version.is_empty(), "{name} has no version");
        let reference = component["bom-ref"].as_str().unwrap_or_default();
        ensure!(
            references.insert(reference.to_owned()),
            "{reference} is there twice"
        );
        let is_ours = component.get("purl").is_none();
        let hash = component["hashes"][0]["content"].as_str().unwrap_or_default();
        ensure!(
            is_ours || (hash.len() == 64 && is_hex(hash)),
            "{name} has no SHA-256"
        );
        let licences = component["licenses"].as_array().map_or(&[][..], Vec::as_slice);
        let expressions = licences
            .iter()
            .filter(|one| one.get("expression").is_some())
            .count();
        let said = |one: &Value| {
            one["expression"]
                .as_str()
                .or(one["license"]["name"].as_str())
                .map(str::len)
        };
        ensure!(
            !licences.is_empty()
                && licences
                    .iter()
                    .all(|one| said(one).is_some_and(|length| length > 0)),
            "{name} has no licence"
        );
        ensure!(
            expressions == 0 || licences.len() == 1,
            "{name}: an expression stands alone"
        );
    }
    let known = bill["dependencies"][0]["dependsOn"]
        .as_array()
        .map_or(0, Vec::len);
    ensure!(
        known == components.len(),
        "{known} of {} components belong to the image",
        components.len()
    );
    Ok(())
}

/// All licence texts, each once.
pub fn licences(version: &str, components: &[Component]) -> String {
    let mut texts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut without = Vec::new();
    for component in components {
        let name = format!("{} {}", component.name, component.version);
        if component.texts.is_empty() && component.origin != Origin::Own {
            without.push(format!("{name}: {}", said(&component.licence)));
        }
        for text in &component.texts {
            texts.entry(text.trim()).or_default().push(name.clone());
        }
    }
    let mut blocks: Vec<(Vec<String>, &str)> = texts
        .into_iter()
        .map(|(text, mut names)| {
            names.sort();
            names.dedup();
            (names, text)
        })
        .collect();
    blocks.sort();
    without.sort();
    let mut out = format!(
        "Licences of what is in the image of Steading {version}. The bill of materials beside this file names every part, its\n\
         version and its source. Packages of Debian have their sources in Debian's archive under the names given there, crates\n\
         in the registry of crates.\n\nThe base has the texts of its packages in /usr/share/doc as well, and those of the common licences, which the texts below\n\
         refer to, in /usr/share/common-licenses.\n"
    );
    if !without.is_empty() {
        out.push_str("\nThese came without a text; what they name is:\n\n");
        for line in without {
            out.push_str(&format!("  {line}\n"));
        }
    }
    for (names, text) in blocks {
        out.push_str(&format!("\n{}\n{}\n\n{text}\n", "=".repeat(78), names.join(", ")));
    }
    out
}

fn said(licence: &Licence) -> String {
    match licence {
        Licence::Expression(expression) => expression.clone(),
        Licence::Names(names) => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(origin: Origin, name: &str) -> Component {
        Component {
            origin,
            kind: "library",
            name: name.into(),
            version: "1:2.0+x~1".into(),
            sha256: (origin != Origin::Own).then(|| "ab".repeat(32)),
            licence: Licence::Names(vec!["GPL-2+".into(), "MIT".into()]),
            source: Some(("source".into(), "1:2.0".into())),
            inside: vec!["base"],
            texts: vec![format!("text of {name}"), "common text".into()],
        }
    }

    #[test]
    fn a_bill_is_the_same_whatever_the_order_and_names_all() -> Result<()> {
        let (deb, own) = (
            component(Origin::Debian, "libstdc++6"),
            component(Origin::Own, "host"),
        );
        let krate = Component {
            licence: Licence::Expression("MIT OR Apache-2.0".into()),
            texts: vec![],
            ..component(Origin::Crate, "serde")
        };
        let all = [deb, own, krate];
        let mut turned = all.clone();
        turned.reverse();
        let text = cyclonedx("0.1.0", &all)?;
        assert_eq!(text, cyclonedx("0.1.0", &turned)?);
        let bill: Value = serde_json::from_str(&text)?;
        assert_eq!(
            bill["components"][2]["purl"],
            "pkg:deb/debian/libstdc%2B%2B6@1:2.0%2Bx~1?distro=trixie"
        );
        assert_eq!(
            bill["components"][2]["pedigree"]["ancestors"][0]["purl"],
            "pkg:deb/debian/source@1:2.0?arch=source"
        );
        let texts = licences("0.1.0", &all);
        assert_eq!(texts.matches("common text").count(), 1);
        assert!(texts.contains("  serde 1:2.0+x~1: MIT OR Apache-2.0\n"));
        assert_eq!(texts, licences("0.1.0", &turned));
        Ok(())
    }

    #[test]
    fn what_the_format_or_we_demand_is_missed() -> Result<()> {
        let refused = |change: &dyn Fn(&mut Value)| -> Result<String> {
            let mut bill = serde_json::from_str(&cyclonedx("0.1.0", &[component(Origin::Crate, "serde")])?)?;
            check(&bill)?;
            change(&mut bill);
            Ok(check(&bill).map_or_else(|error| error.to_string(), |()| String::new()))
        };
        let part = |bill: &mut Value| bill["components"][0].take();
        assert_eq!(
            refused(&|bill| bill["components"][0]["licenses"] = json!([]))?,
            "serde has no licence"
        );
        assert_eq!(
            refused(&|bill| bill["components"][0]["hashes"] = json!([]))?,
            "serde has no SHA-256"
        );
        assert_eq!(
            refused(&|bill| bill["components"][0]["type"] = json!("crate"))?,
            "serde: crate is no kind of component"
        );
        assert_eq!(
            refused(&|bill| bill["serialNumber"] = json!("urn:uuid:1"))?,
            "urn:uuid:1 is no serial number"
        );
        let twice = |bill: &mut Value| {
            let one = part(bill);
            bill["components"] = json!([one, one]);
        };
        assert!(refused(&twice)?.ends_with("is there twice"));
        Ok(())
    }
}
