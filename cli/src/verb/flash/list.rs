//! The disks that could be written, and the one that was meant.

use std::path::Path;

use market::quantity::Bytes;
use serde_json::json;

use crate::exit::{Code, Failure, Outcome};
use crate::flash::disks::{self, Found, Refusal};
use crate::show::Screen;
use crate::show::text::plain;

/// Shows all disks: those that can be written first, and why not the others.
pub fn show(screen: Screen) -> Outcome {
    let all = disks::find(Path::new("/"));
    let rows: Vec<_> = all
        .iter()
        .map(|disk| {
            let refusal = disk.refusal(false);
            let mut row = json!(disk);
            row["flashable"] = refusal.is_none().into();
            row["why_not"] = json!(refusal.map(|refusal| refusal.to_string()));
            row
        })
        .collect();
    screen.result(&json!({ "disks": rows }), &text(&all))
}

/// A table of those that can be written, and a line for each of the others.
pub fn text(all: &[Found]) -> String {
    let (good, others): (Vec<&Found>, Vec<&Found>) =
        all.iter().partition(|disk| disk.refusal(false).is_none());
    let mut text = String::new();
    if good.is_empty() {
        text.push_str("There is no stick here that could be flashed. Plug one in.\n");
    } else {
        text.push_str(" disk      size      what                        holds\n");
    }
    for disk in &good {
        let holds = disk.holds.as_deref().unwrap_or("nothing that is known");
        let model = plain(disk.model.as_deref().unwrap_or("-"));
        text.push_str(&format!(
            " {:<8}  {:<8}  {:<26.26}  {:.28}\n",
            disk.name,
            Bytes(disk.bytes).human(),
            model,
            holds
        ));
    }
    for disk in &others {
        let Some(why) = disk.refusal(false) else { continue };
        text.push_str(&format!("not {}: {why}\n", disk.name));
    }
    if let Some(disk) = good.first() {
        text.push_str(&format!("\nflash one: steading flash IMAGE --to {}", disk.name));
    }
    text
}

/// The disk that was meant by this name or path, if it may be written.
pub fn choose(root: &Path, all: &[Found], given: &str, any_disk: bool) -> Outcome<Found> {
    let real = std::fs::canonicalize(given).unwrap_or_else(|_| given.into());
    let name = real
        .strip_prefix("/dev")
        .unwrap_or(&real)
        .to_string_lossy()
        .into_owned();
    let listed = all.iter().find(|disk| disk.name == name).cloned();
    let found = listed.or_else(|| any_disk.then(|| disks::find_any(root, &name)).flatten());
    let Some(disk) = found else {
        let missing = Failure::new(
            Code::NotFound,
            format!("there is no disk {given} here; nothing was written"),
        );
        return Err(match disks::whole_of(root, &name) {
            Some(whole) => missing
                .because(format!("{name} is one partition of {whole}"))
                .next(format!("an image takes the whole disk: --to {whole}")),
            None => missing.next("`steading flash` lists them"),
        });
    };
    let Some(refusal) = disk.refusal(any_disk) else {
        return Ok(disk);
    };
    let next = match &refusal {
        Refusal::System(_) => "choose another: `steading flash` lists them".to_owned(),
        Refusal::InUse(_) => format!("unmount it first (umount /dev/{}…), then repeat", disk.name),
        Refusal::ReadOnly => "move its switch, or take another".to_owned(),
        Refusal::Empty => "put a card in".to_owned(),
        Refusal::TooSmall(_) | Refusal::Sectors(_) => "take another".to_owned(),
        Refusal::BuiltIn => {
            "if it is really meant, add --any-disk; you will have to type its name".to_owned()
        }
    };
    Err(Failure::new(
        Code::DiskRefused,
        format!("{} is not flashed; nothing was written", disk.name),
    )
    .because(refusal)
    .next(next))
}
