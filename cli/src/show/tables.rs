//! Tables: offers, why nobody offers, spaces, nodes.

use std::collections::BTreeMap;

use escrow::Amount;
use market::id::NodeId;
use market::message::{Decline, DeclineCode, Offer, Reason};
use market::quantity::{BitsPerSecond, Bytes, MilliCpus, Seconds};

use super::text::{count, money, plain, short};

/// A table's rows under their heads; `right` names the columns whose figures are aligned.
fn table(heads: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            line.push_str(if column == 0 { " " } else { "   " });
            let parts = if right.contains(&column) {
                [pad.as_str(), cell]
            } else {
                [cell, pad.as_str()]
            };
            line.extend(parts);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One offer as a row.
#[derive(Clone, Debug)]
pub struct OfferRow<'o> {
    /// Who offers.
    pub node: NodeId,
    /// What.
    pub offer: &'o Offer,
    /// All periods.
    pub periods: u32,
}

fn declared(text: Option<&str>, most: usize) -> String {
    let clean = text
        .unwrap_or("")
        .chars()
        .filter(|letter| market::is_plain(*letter));
    let cut: String = clean.take(most).collect();
    if cut.is_empty() { "–".to_owned() } else { cut }
}

/// The table of offers, the best first.
pub fn offers(rows: &[OfferRow<'_>], now_ms: u64) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .zip(1..)
        .map(|(row, number)| {
            let offer = row.offer;
            let per_hour = market::price::per_hour(offer.price, offer.period);
            let in_all = offer.price.checked_mul(u64::from(row.periods));
            let left = offer.valid_until.0.saturating_sub(now_ms) / 1000;
            vec![
                format!("{number}"),
                per_hour.map_or("–".to_owned(), money),
                in_all.map_or("–".to_owned(), money),
                row.node.short(),
                declared(offer.facts.country.as_deref(), 2),
                declared(offer.facts.disk_kind.as_deref(), 6),
                offer.gives.rate.human(),
                if offer.held {
                    format!("{left} s")
                } else {
                    "no".to_owned()
                },
            ]
        })
        .collect();
    let heads = ["#", "an hour", "in all", "node", "place", "disk", "link", "held"];
    let mut text = table(&heads, &[0, 1, 2, 6, 7], &cells);
    for (row, number) in rows.iter().zip(1..) {
        for note in notes(row.offer) {
            text.push_str(&wrapped(&format!("{number}: {note}")));
        }
    }
    text
}

/// What a node says of itself beside the figures, fit for a screen.
pub fn notes(offer: &Offer) -> impl Iterator<Item = String> {
    offer.facts.notes.iter().map(|note| plain(note))
}

/// A text in lines of at most 78 letters, the later ones set in.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::from(" ")];
    for word in text.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|line| line.chars().count() + 1 + word.chars().count() > 78);
        if full {
            lines.push("   ".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.trim().is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Why nobody offers, a line for each kind of reason, and what to try.
pub fn declines(declines: &[(NodeId, Decline)]) -> (Vec<String>, String) {
    let mut groups: BTreeMap<u32, (usize, Reason)> = BTreeMap::new();
    for (_, decline) in declines {
        let Some(first) = decline.reasons.first() else {
            continue;
        };
        let group = groups
            .entry(first.code.number())
            .or_insert_with(|| (0, first.clone()));
        group.0 += 1;
        // The nearest miss is what helps.
        let best = match first.code {
            DeclineCode::Price => first.have < group.1.have,
            _ => first.have > group.1.have,
        };
        if best {
            group.1 = first.clone();
        }
    }
    let mut ordered: Vec<_> = groups.into_values().collect();
    ordered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let line =
        |(number, reason): &(usize, Reason)| format!("{}: {}", count(*number, "node"), reason_words(reason));
    let tries: Vec<String> = ordered
        .iter()
        .filter_map(|(_, reason)| what_to_try(reason))
        .collect();
    let next = if tries.is_empty() {
        "try again in a while, or with fewer filters; `steading nodes` shows who is there".to_owned()
    } else {
        format!("try {}", tries.join(", or "))
    };
    (ordered.iter().map(line).collect(), next)
}

fn quantity(code: DeclineCode, value: u128) -> String {
    let large = u64::try_from(value).unwrap_or(u64::MAX);
    match code {
        DeclineCode::Cpu => MilliCpus(u32::try_from(value).unwrap_or(u32::MAX)).human(),
        DeclineCode::Memory | DeclineCode::Disk => Bytes(large).human(),
        DeclineCode::Rate => BitsPerSecond(large).human(),
        DeclineCode::Price => money(Amount(value)),
        DeclineCode::Duration => Seconds(large).human(),
        DeclineCode::Country
        | DeclineCode::Farmer
        | DeclineCode::Node
        | DeclineCode::Feature
        | DeclineCode::Rail
        | DeclineCode::Spaces
        | DeclineCode::NotSelling
        | DeclineCode::Expired
        | DeclineCode::Busy
        | DeclineCode::Other(_) => value.to_string(),
    }
}

/// One reason in words: `not enough memory (4 GiB asked, 3.1 GiB free)`.
pub fn reason_words(reason: &Reason) -> String {
    let code = reason.code;
    let numbers = match (reason.asked, reason.have) {
        (Some(asked), Some(have)) if code == DeclineCode::Price => {
            format!(
                " ({} an hour, you said {})",
                quantity(code, have),
                quantity(code, asked)
            )
        }
        (Some(asked), Some(have)) => {
            format!(
                " ({} asked, {} free)",
                quantity(code, asked),
                quantity(code, have)
            )
        }
        (None, Some(have)) => format!(" ({} free)", quantity(code, have)),
        (Some(_) | None, None) => String::new(),
    };
    let words = reason.words.as_deref().map(|words| {
        let clean: String = words
            .chars()
            .filter(|letter| market::is_plain(*letter))
            .take(120)
            .collect();
        format!(": {clean}")
    });
    format!("{code}{numbers}{}", words.unwrap_or_default())
}

fn what_to_try(reason: &Reason) -> Option<String> {
    let have = reason.have.filter(|have| *have > 0);
    let flag = match reason.code {
        DeclineCode::Cpu => format!("--cpu {}", MilliCpus(u32::try_from(have?).ok()?)),
        DeclineCode::Memory => format!("--memory {}", whole_unit(have?)?),
        DeclineCode::Disk => format!("--disk {}", whole_unit(have?)?),
        DeclineCode::Rate => format!("--rate {}", BitsPerSecond(u64::try_from(have?).ok()?)),
        DeclineCode::Price => format!("--max-price {}", money(Amount(have?))),
        DeclineCode::Duration => format!("--duration {}", Seconds(u64::try_from(have?).ok()?)),
        DeclineCode::Country => "without --country".to_owned(),
        DeclineCode::Farmer => "without --farmer".to_owned(),
        DeclineCode::Feature => "without --feature".to_owned(),
        DeclineCode::Busy | DeclineCode::Expired => "again in a minute".to_owned(),
        DeclineCode::Node
        | DeclineCode::Rail
        | DeclineCode::Spaces
        | DeclineCode::NotSelling
        | DeclineCode::Other(_) => return None,
    };
    Some(flag)
}

/// The largest round size that is not more: `3GiB`, `700MiB`.
fn whole_unit(bytes: u128) -> Option<Bytes> {
    let bytes = u64::try_from(bytes).ok()?;
    let unit = if bytes >= 1 << 30 { 1u64 << 30 } else { 1u64 << 20 };
    let whole = bytes / unit * unit;
    (whole > 0).then_some(Bytes(whole))
}

/// One space as a row.
#[derive(Clone, Debug)]
pub struct SpaceRow {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: String,
    /// Until when it is paid.
    pub paid_until: String,
    /// CPU, memory, disk.
    pub size: String,
    /// The node's id, whole.
    pub node: String,
}

/// The table of spaces.
pub fn spaces(rows: &[SpaceRow]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.name.clone(),
                row.state.clone(),
                row.paid_until.clone(),
                row.size.clone(),
                short(&row.node),
            ]
        })
        .collect();
    table(&["space", "state", "paid until", "size", "node"], &[], &cells)
}

/// One node as a row.
#[derive(Clone, Debug)]
pub struct NodeRow {
    /// Its id, whole.
    pub node: String,
    /// What the farmer calls it.
    pub name: String,
    /// Where, as declared.
    pub place: String,
    /// The price of the asked size an hour, or why not.
    pub says: String,
    /// Its machine.
    pub machine: String,
}

/// The table of nodes.
pub fn nodes(rows: &[NodeRow]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                short(&row.node),
                row.name.clone(),
                row.place.clone(),
                row.says.clone(),
                row.machine.clone(),
            ]
        })
        .collect();
    table(&["node", "name", "place", "says", "machine"], &[], &cells)
}

/// Text that a farmer declared, fit for a table.
pub fn declared_text(text: Option<&str>, most: usize) -> String {
    declared(text, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use market::id::{Digest, RequestHash};
    use market::message::{Facts, Gives};
    use market::quantity::UnixMillis;

    const NOW_MS: u64 = 1_764_072_000_000;

    fn offer(price: u128, country: &str, disk: &str, rate: u64, held: bool) -> Offer {
        Offer {
            request: RequestHash([1; 32]),
            gives: Gives {
                cpu: MilliCpus(500),
                memory: Bytes(512 << 20),
                disk: Bytes(2 << 30),
                rate: BitsPerSecond(rate),
                pids: 512,
                snapshot: Bytes::ZERO,
            },
            price: Amount(price),
            period: Seconds(3600),
            accept_window: Seconds(1800),
            notice: Seconds(86400),
            rail: escrow::RailName::ledger(&[7; 32]),
            asset: ledger::ASSET.parse().unwrap(),
            payee: escrow::Account::on_ledger(&[7; 32], &[2; 32]),
            give_back_key: escrow::RailKey::ed25519(&[3; 32]),
            base: Digest([4; 32]),
            facts: Facts {
                country: Some(country.to_owned()),
                disk_kind: Some(disk.to_owned()),
                ..Facts::default()
            },
            valid_until: UnixMillis(NOW_MS + 28_000),
            held,
            address: Vec::new(),
        }
    }

    fn rows(offers: &[Offer]) -> Vec<OfferRow<'_>> {
        let row = |(offer, byte)| OfferRow {
            node: NodeId([byte; 32]),
            offer,
            periods: 3,
        };
        offers.iter().zip([0x7c, 0x0a, 0x91]).map(row).collect()
    }

    #[test]
    fn offers_fit_eighty_columns() {
        let offers = [
            offer(400_000, "BE", "ssd", 10_000_000, true),
            offer(450_000, "DE", "nvme", 50_000_000, true),
            offer(12_450_000, "", "\u{1b}[31mhdd", 50_000_000, false),
        ];
        let text = super::offers(&rows(&offers), NOW_MS);
        let golden = [
            " #   an hour   in all   node        place   disk        link   held",
            " 1      0.40     1.20   7c7c…7c7c   BE      ssd      10 Mbit   28 s",
            " 2      0.45     1.35   0a0a…0a0a   DE      nvme     50 Mbit   28 s",
            " 3     12.45    37.35   9191…9191   –       [31mhd   50 Mbit     no",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), golden);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn what_a_node_notes_stands_below_its_offer() {
        let mut noted = offer(400_000, "BE", "ssd", 10_000_000, true);
        noted.facts.notes = vec![
            "line: 1.2 GiB of 500 GiB in 2026-11, used by all spaces; beyond it 64 kbit/s each until the month \
             ends\u{1b}[31m"
                .to_owned(),
        ];
        let text = super::offers(&rows(&[noted]), NOW_MS);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        let below: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            below,
            [
                " 1: line: 1.2 GiB of 500 GiB in 2026-11, used by all spaces; beyond it 64",
                "   kbit/s each until the month ends[31m",
            ]
        );
    }

    fn decline(reason: Reason) -> (NodeId, Decline) {
        (
            NodeId([1; 32]),
            Decline {
                request: RequestHash([1; 32]),
                reasons: vec![reason],
            },
        )
    }

    #[test]
    fn why_nobody_offers_is_grouped_and_the_nearest_miss_is_shown() {
        let all = [
            decline(Reason::numbers(DeclineCode::Memory, 4 << 30, 2 << 30)),
            decline(Reason::numbers(DeclineCode::Price, 400_000, 500_000)),
            decline(Reason::numbers(
                DeclineCode::Memory,
                4 << 30,
                (3 << 30) + (103 << 20),
            )),
        ];
        let (why, next) = declines(&all);
        assert_eq!(
            why,
            [
                "2 nodes: not enough memory (4 GiB asked, 3.1 GiB free)",
                "1 node: dearer than you allow (0.50 an hour, you said 0.40)",
            ]
        );
        assert_eq!(next, "try --memory 3GiB, or --max-price 0.50");
        let plain = [decline(Reason::plain(DeclineCode::NotSelling))];
        let (why, next) = declines(&plain);
        assert_eq!(why, ["1 node: not selling now"]);
        assert!(next.starts_with("try again in a while"), "{next}");
    }

    #[test]
    fn spaces_and_nodes_line_up() {
        let row = SpaceRow {
            name: "calm-otter".to_owned(),
            state: "ready, not proven".to_owned(),
            paid_until: "–".to_owned(),
            size: "0.5 cpu · 512 MiB · 2 GiB".to_owned(),
            node: "7c".repeat(32),
        };
        assert_eq!(
            spaces(&[row]),
            " space        state               paid until   size                        node\n \
             calm-otter   ready, not proven   –            0.5 cpu · 512 MiB · 2 GiB   7c7c…7c7c\n"
        );
    }
}
