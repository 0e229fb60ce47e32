//! LVM's reports: JSON in which every value is a string.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::LvmError;
use super::words::{Word, fixed};

pub(super) const PV_FIELDS: &str = "pv_name,pv_uuid,vg_name,pv_size,pv_free,pv_missing";
pub(super) const VG_FIELDS: &str = "vg_name,vg_uuid,vg_size,vg_free,vg_tags,vg_missing_pv_count";
const LV_FIELDS: &str =
    "lv_name,lv_uuid,vg_name,vg_size,lv_size,lv_tags,lv_active,lv_permissions,lv_dm_path,origin";

/// The command line of a report.
pub(super) fn command(name: &'static str, fields: &'static str) -> Vec<Word> {
    fixed(&[
        name,
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        fields,
    ])
}

/// The command line of the report of a group's volumes, or of all.
pub(super) fn lvs(group: Option<&str>) -> Result<Vec<Word>, LvmError> {
    let mut line = command("lvs", LV_FIELDS);
    if let Some(group) = group {
        line.push(Word::name("volume group", group)?);
    }
    Ok(line)
}

/// One physical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhysicalVolume {
    /// Its device, as LVM found it: a kernel name, good until the next boot.
    pub device: PathBuf,
    /// LVM's UUID of it.
    pub uuid: String,
    /// Its group, none when it is in none.
    pub group: Option<String>,
    /// Its size.
    pub size_bytes: u64,
    /// Room in whole extents that no volume has.
    pub free_bytes: u64,
    /// Whether the group names it and no device carries it.
    pub missing: bool,
}

/// One volume group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// LVM's UUID of it.
    pub uuid: String,
    /// All its extents.
    pub size_bytes: u64,
    /// Its extents that no volume has.
    pub free_bytes: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// How many of its physical volumes no device carries.
    pub missing_devices: u64,
}

/// One logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalVolume {
    /// Its name.
    pub name: String,
    /// LVM's UUID of it.
    pub uuid: String,
    /// Its group.
    pub group: String,
    /// All extents of its group.
    pub group_bytes: u64,
    /// Its size.
    pub size_bytes: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether its mapping exists.
    pub active: bool,
    /// Whether it may be written.
    pub writeable: bool,
    /// Its node below /dev/mapper, there while it is active.
    pub path: PathBuf,
    /// Of which volume it is a snapshot; none where it is a volume of its own.
    pub origin: Option<String>,
}

#[derive(Deserialize)]
struct Pv {
    pv_name: String,
    pv_uuid: String,
    vg_name: String,
    pv_size: String,
    pv_free: String,
    pv_missing: String,
}

#[derive(Deserialize)]
struct Vg {
    vg_name: String,
    vg_uuid: String,
    vg_size: String,
    vg_free: String,
    vg_tags: String,
    vg_missing_pv_count: String,
}

#[derive(Deserialize)]
struct Lv {
    lv_name: String,
    lv_uuid: String,
    vg_name: String,
    vg_size: String,
    lv_size: String,
    lv_tags: String,
    lv_active: String,
    lv_permissions: String,
    lv_dm_path: String,
    #[serde(default)]
    origin: String,
}

#[derive(Deserialize)]
struct Report {
    report: Vec<serde_json::Map<String, serde_json::Value>>,
}

pub(super) fn physical_volumes(lines: &[String]) -> Result<Vec<PhysicalVolume>, LvmError> {
    let volume = |pv: Pv| {
        Ok(PhysicalVolume {
            device: pv.pv_name.into(),
            uuid: pv.pv_uuid,
            group: Some(pv.vg_name).filter(|name| !name.is_empty()),
            size_bytes: number("pvs", &pv.pv_size)?,
            free_bytes: number("pvs", &pv.pv_free)?,
            missing: !pv.pv_missing.is_empty(),
        })
    };
    rows::<Pv>("pvs", "pv", lines)?.into_iter().map(volume).collect()
}

pub(super) fn volume_groups(lines: &[String]) -> Result<Vec<VolumeGroup>, LvmError> {
    let group = |vg: Vg| {
        Ok(VolumeGroup {
            name: vg.vg_name,
            uuid: vg.vg_uuid,
            size_bytes: number("vgs", &vg.vg_size)?,
            free_bytes: number("vgs", &vg.vg_free)?,
            tags: tags(&vg.vg_tags),
            missing_devices: number("vgs", &vg.vg_missing_pv_count)?,
        })
    };
    rows::<Vg>("vgs", "vg", lines)?.into_iter().map(group).collect()
}

pub(super) fn logical_volumes(lines: &[String]) -> Result<Vec<LogicalVolume>, LvmError> {
    let volume = |lv: Lv| {
        Ok(LogicalVolume {
            name: lv.lv_name,
            uuid: lv.lv_uuid,
            group: lv.vg_name,
            group_bytes: number("lvs", &lv.vg_size)?,
            size_bytes: number("lvs", &lv.lv_size)?,
            tags: tags(&lv.lv_tags),
            active: lv.lv_active == "active",
            writeable: lv.lv_permissions == "writeable",
            path: lv.lv_dm_path.into(),
            origin: Some(lv.origin).filter(|name| !name.is_empty()),
        })
    };
    rows::<Lv>("lvs", "lv", lines)?.into_iter().map(volume).collect()
}

/// The rows of the one report in `lines`. Warnings are printed at the level of reports, between the lines of the JSON, and
/// begin with letters ("WARNING: …", "Incorrect checksum in …"): one damaged disk does not hide the others.
fn rows<T: DeserializeOwned>(command: &'static str, key: &str, lines: &[String]) -> Result<Vec<T>, LvmError> {
    let error = |why: String| LvmError::Report { command, why };
    let text: String = lines
        .iter()
        .filter(|line| line.trim_start().starts_with(['{', '}', '[', ']', '"', ',']))
        .flat_map(|line| [line.as_str(), "\n"])
        .collect();
    let report: Report = serde_json::from_str(&text).map_err(|e| error(e.to_string()))?;
    let mut all = Vec::new();
    for mut part in report.report {
        if let Some(rows) = part.remove(key) {
            all.extend(serde_json::from_value::<Vec<T>>(rows).map_err(|e| error(e.to_string()))?);
        }
    }
    Ok(all)
}

fn number(command: &'static str, text: &str) -> Result<u64, LvmError> {
    text.parse().map_err(|_| LvmError::Report {
        command,
        why: format!("{text:?} is not a number of bytes"),
    })
}

fn tags(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A report as each of the three commands prints one, for the fuzz target: whether any reads it.
#[cfg(fuzzing)]
pub fn fuzz_report(text: &str) -> bool {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    physical_volumes(&lines).is_ok() | volume_groups(&lines).is_ok() | logical_volumes(&lines).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_report_is_read_with_warnings_in_between() {
        let text = r#"  WARNING: Device /dev/vdb has size of 0 sectors.
  {
      "report": [
          {
              "vg": [
  WARNING: something else
  Incorrect checksum in metadata area header on /dev/vdb1 at 4096.
                  {"vg_name":"steading-a-b", "vg_uuid":"u", "vg_size":"8585740288", "vg_free":"8451522560", "vg_tags":"node-ab,x", "vg_missing_pv_count":"0"}
              ]
          }
      ]
  }"#;
        let groups = volume_groups(&lines(text)).unwrap();
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].tags, ["node-ab", "x"]);
        assert_eq!(groups[0].free_bytes, 8_451_522_560);
    }

    #[test]
    fn what_is_not_a_report_is_refused() {
        assert!(volume_groups(&lines("  nothing")).is_err());
        assert!(volume_groups(&lines(r#"{"report":[{"vg":[{"vg_name":"a"}]}]}"#)).is_err());
        assert!(
            volume_groups(&lines(r#"{"report":[{"vg":[]}]}"#))
                .unwrap()
                .is_empty()
        );
    }
}
