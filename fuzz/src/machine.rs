//! What a node reads of the hardware, of disks and of its own helpers.

use std::fs;
use std::path::Path;

use crate::text;

/// A machine as a capture writes it down.
pub fn inventory(bytes: &[u8]) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    // What the capture could make is read, whatever line was wrong after it.
    let _ = inventory::capture::unpack(text(bytes), folder.path());
    let found = inventory::read(folder.path());
    assert_eq!(inventory::read(folder.path()), found);
    let _ = agent::facts::machine_line(&found);
}

/// A disk of 1 MiB that begins with these bytes.
pub fn disk_probe(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    fs::write(file.path(), bytes).unwrap();
    file.as_file().set_len((bytes.len() as u64).max(1 << 20)).unwrap();
    let content = storage::probe::probe(file.path()).unwrap();
    assert!(!content.words().contains(char::is_control));
    let zero = bytes.iter().all(|byte| *byte == 0);
    assert_eq!(content == storage::probe::Content::Empty, zero);
    for partition in storage::probe::partitions(file.path()).unwrap() {
        assert!(partition.name.is_none_or(|name| !name.contains(char::is_control)));
    }
}

/// A report.
pub fn lvm_report(bytes: &[u8]) {
    let _ = storage::lvm::fuzz_report(text(bytes));
}

/// The head of a snapshot's store, and an area.
pub fn snapshot_store(bytes: &[u8]) {
    let _ = storage::snapshot::fuzz_store(bytes);
}

/// A header: what would be opened is encrypted as we format it.
pub fn luks_header(bytes: &[u8]) {
    if storage::luks::fuzz_header(bytes) {
        assert!(text(bytes).contains("aes-xts-plain64"));
    }
}

/// An answer of the helper.
pub fn space_answer(bytes: &[u8]) {
    let _ = serde_json::from_slice::<host::isolate::Answer>(bytes);
    let _ = serde_json::from_slice::<host::isolate::Request>(bytes);
}

/// The four lists, with a line of `--` between them, and what their own words answer to.
pub fn module_lists(bytes: &[u8]) {
    let mut lists = text(bytes).split("\n--\n").map(str::to_owned);
    let [dependencies, aliases, soft, builtin] = std::array::from_fn(|_| lists.next().unwrap_or_default());
    let asked: Vec<String> = aliases.split_whitespace().take(8).map(str::to_owned).collect();
    let index = host::module::Index::parse(Path::new("/lib/modules"), &dependencies, aliases, &soft, builtin);
    assert!(index.len() <= dependencies.lines().count());
    for name in &asked {
        let plans = index.resolve(name).into_iter().map(|module| index.plan(module));
        assert!(
            plans
                .into_iter()
                .all(|plan| (1..=index.len()).contains(&plan.len()))
        );
        let _ = index.is_builtin(name);
    }
}

/// What a SATA disk answers: its figures, their limits, and sense data behind them.
pub fn disk_smart(bytes: &[u8]) {
    let page = |at: usize| {
        let mut page = [0; host::ata::PAGE_BYTES];
        let part = bytes.get(at..).unwrap_or_default();
        let length = part.len().min(page.len());
        page[..length].copy_from_slice(&part[..length]);
        page
    };
    let (mut data, limits) = (page(0), page(host::ata::PAGE_BYTES));
    let sense = bytes.get(2 * host::ata::PAGE_BYTES..).unwrap_or_default();
    // Its sum is made right, or nothing behind it would be reached.
    let _ = host::ata::read(&data, &limits, sense);
    let sum = data[..511].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    data[511] = 0_u8.wrapping_sub(sum);
    let health = host::ata::read(&data, &limits, sense).expect("a page whose sum is right");
    assert!(health.failing.len() <= 30 && health.celsius.is_none_or(|celsius| (-39..128).contains(&celsius)));
    for failing in health.failing {
        assert!(failing.value <= failing.limit && !failing.words().is_empty());
    }
}

/// Lines that say when each part of a boot was done: what is read is written and read as the same again, and its parts
/// are its whole.
pub fn boot_report(bytes: &[u8]) {
    let mut report = inventory::boot::Report::default();
    for line in text(bytes).lines() {
        let _ = line.parse::<inventory::boot::Beat>();
        let Ok(phase) = line.parse::<inventory::boot::Phase>() else {
            continue;
        };
        assert_eq!(phase.to_string().parse(), Ok(phase));
        report.add(phase);
    }
    let path = report.path();
    assert_eq!(path.iter().map(|(_, ms)| ms).sum::<u64>(), report.total_ms());
    assert!(report.phases().len() <= inventory::boot::Part::ALL.len());
    assert!(report.phases().iter().all(|phase| phase.begin_ms <= phase.end_ms));
}
