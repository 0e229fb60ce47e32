//! `steading offers`: the last offers again.

use super::request::{asked_json, offers_text};
use crate::exit::Outcome;
use crate::settings::Settings;
use crate::show::Screen;
use crate::store::Store;

/// Shows what `request` found.
pub fn run(settings: Settings, screen: Screen) -> Outcome {
    let asked = Store::new(settings.folders).asked()?;
    screen.result(&asked_json(&asked), &offers_text(&asked))
}
