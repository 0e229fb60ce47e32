//! The page: one document, one style, no script, no picture, nothing from elsewhere.

use std::fmt::{self, Display, Write};

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use crate::console::{Event, Now, Selling, Status};

/// Events that it shows, newest first.
const EVENTS: usize = 40;
/// It looks again by itself.
const AGAIN_SECONDS: u32 = 15;

const STYLE: &str = "\
:root{color-scheme:light dark;--page:#fbfaf7;--ink:#1d211f;--dim:#667069;--line:#dcdcd4;--accent:#0b6b63}\
@media(prefers-color-scheme:dark){:root{--page:#131615;--ink:#dfe3df;--dim:#8d968f;--line:#2b302d;--accent:#5cc4b8}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,\
\"DejaVu Sans Mono\",monospace}\
main{max-width:88ch;margin:0 auto;padding:1.5rem 1rem 3rem}\
header{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 2rem;padding-bottom:.6rem;\
border-bottom:1px solid var(--line)}\
h1{font-size:1em;margin:0}h1 span,.dim,dt{color:var(--dim);font-weight:400}\
header p{margin:0;font-weight:700}.yes{color:var(--accent)}\
dl{margin:.8rem 0 0;display:grid;grid-template-columns:12ch minmax(0,1fr);gap:.35rem 0}\
dd{margin:0;overflow-wrap:anywhere}dd p{margin:0}\
.row{display:grid;grid-template-columns:fit-content(24ch) fit-content(30ch) minmax(0,1fr);gap:0 2ch}.row>*{min-width:0;overflow-wrap:anywhere}\
.row .all{grid-column:1/-1;color:var(--dim)}code{font:inherit;color:var(--accent)}\
ol{list-style:none;margin:.8rem 0 0;padding:.8rem 0 0;border-top:1px solid var(--line)}\
li{display:grid;grid-template-columns:12ch minmax(0,1fr);overflow-wrap:anywhere}li time{color:var(--dim)}\
@media(max-width:40rem){body{font-size:14px}main{padding:1rem .8rem 2rem}dl,li{grid-template-columns:minmax(0,1fr)}\
dl{gap:0}dt{margin-top:.6rem}.row{grid-template-columns:fit-content(50%) minmax(0,1fr)}\
.row>:nth-child(3){grid-column:1/-1}li{margin-bottom:.3rem}}";

/// What a browser may do with it: show it with this one style, and nothing else.
pub(super) fn policy() -> String {
    let digest = BASE64.encode(&Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// A word that somebody else may have chosen.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => out.write_str("&amp;"),
                '<' => out.write_str("&lt;"),
                '>' => out.write_str("&gt;"),
                '"' => out.write_str("&quot;"),
                '\'' => out.write_str("&#39;"),
                letter if market::is_plain(letter) => out.write_char(letter),
                _ => out.write_char(' '),
            }?;
        }
        Ok(())
    }
}

/// The whole document.
pub(super) fn page(status: &Status, now: Now, events: &[Event]) -> String {
    let mut body = Body(String::new());
    body.head(status, now);
    body.0.push_str("<dl>");
    body.field("grid", &status.grid);
    body.field("clock", &status.clock);
    let cure = status.wallet_cure.iter().map(String::as_str);
    body.fields("wallet", std::iter::once(status.wallet.as_str()).chain(cure));
    let faults = status.farmer_faults.iter().map(String::as_str);
    body.fields(
        "farmer.toml",
        std::iter::once(status.farmer_file.as_str()).chain(faults),
    );
    body.field("machine", &status.machine);
    body.fields("network", status.network.iter().map(String::as_str));
    body.disks(status);
    body.spaces(status);
    for (name, text) in [("earned", &status.earned), ("traffic", &status.traffic)] {
        if let Some(text) = text {
            body.field(name, text);
        }
    }
    if !status.health.is_empty() {
        let parts: Vec<String> = status.health.iter().map(ToString::to_string).collect();
        body.fields("health", parts.iter().map(String::as_str));
    }
    for failure in &status.failures {
        let cure = failure.cure.iter().map(String::as_str);
        body.fields(&failure.part, std::iter::once(failure.why.as_str()).chain(cure));
    }
    if let Some(id) = &status.node_id {
        body.field("node", id);
    }
    body.0.push_str("</dl>");
    body.events(events);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"{AGAIN_SECONDS}\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>{}</main></body></html>\n",
        Text(&title(status)),
        body.0
    )
}

fn title(status: &Status) -> String {
    let node = status.node.as_deref().unwrap_or("no id yet");
    match &status.selling {
        Selling::Yes => format!("{node} selling"),
        Selling::Starting => format!("{node} starting"),
        Selling::No(_) => format!("{node} not selling"),
    }
}

struct Body(String);

impl Body {
    fn head(&mut self, status: &Status, now: Now) {
        let node = status
            .node
            .as_ref()
            .map(|node| format!(" · node {node}"))
            .unwrap_or_default();
        let up = crate::console::lasting(now.uptime_seconds);
        let (class, verdict) = match &status.selling {
            Selling::Yes => ("yes", "selling".to_owned()),
            Selling::Starting => ("dim", "starting".to_owned()),
            Selling::No(why) => ("no", format!("not selling: {why}")),
        };
        let _ = write!(
            self.0,
            "<header><h1>Steading {} <span>{} · up {}</span></h1><p class=\"{class}\">{}</p></header>",
            Text(&status.version),
            Text(&node),
            Text(&up),
            Text(&verdict)
        );
    }

    fn field(&mut self, name: &str, text: &str) {
        self.fields(name, std::iter::once(text));
    }

    fn fields<'a>(&mut self, name: &str, texts: impl Iterator<Item = &'a str>) {
        let _ = write!(self.0, "<dt>{}</dt><dd>", Text(name));
        for text in texts {
            let text = if text.is_empty() { "not known yet" } else { text };
            let _ = write!(self.0, "<p>{}</p>", Text(text));
        }
        self.0.push_str("</dd>");
    }

    fn disks(&mut self, status: &Status) {
        let Some(disks) = &status.disks else {
            return self.field("disks", "looking");
        };
        if disks.is_empty() {
            return self.field("disks", "none found: a disk of 4 GiB or more is needed to sell");
        }
        self.0.push_str("<dt>disks</dt><dd>");
        for disk in disks {
            self.row([&disk.name, &disk.size, &disk.state]);
            if let Some(line) = disk.erase() {
                let _ = write!(
                    self.0,
                    "<p class=\"dim\">press W at the node's screen to claim and erase it, or add to farmer.toml this line:</p>\
                     <p><code>{}</code></p>",
                    Text(&line)
                );
            }
        }
        self.0.push_str("</dd>");
    }

    fn spaces(&mut self, status: &Status) {
        if status.spaces.is_empty() {
            return;
        }
        self.0.push_str("<dt>spaces</dt><dd>");
        for space in &status.spaces {
            self.row([&space.name, &space.size, &space.state]);
        }
        self.0.push_str("</dd>");
    }

    fn row(&mut self, cells: [&str; 3]) {
        self.0.push_str("<div class=\"row\">");
        for cell in cells {
            let _ = write!(self.0, "<span>{}</span>", Text(cell));
        }
        self.0.push_str("</div>");
    }

    fn events(&mut self, events: &[Event]) {
        self.0.push_str("<ol>");
        for event in events.iter().rev().take(EVENTS) {
            let _ = write!(
                self.0,
                "<li><time>{}</time><span>{}</span></li>",
                Text(&event.time()),
                Text(&event.text)
            );
        }
        self.0.push_str("</ol>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::{Board, Disk, Space};

    const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{202e}\u{1b}[2J";

    #[test]
    fn what_somebody_else_chose_is_text() {
        let board = Board::new(HOSTILE);
        let says = || HOSTILE.to_owned();
        board.event(HOSTILE);
        board.update(|status| {
            status.node = Some(says());
            status.node_id = Some(says());
            status.selling = Selling::No(says());
            for field in [
                &mut status.grid,
                &mut status.clock,
                &mut status.wallet,
                &mut status.farmer_file,
                &mut status.machine,
            ] {
                *field = says();
            }
            status.farmer_faults = vec![says()];
            status.network = vec![says()];
            status.earned = Some(says());
            status.disks = Some(vec![Disk {
                name: says(),
                size: says(),
                state: says(),
                holds: says(),
                line: Some(says()),
                ..Disk::default()
            }]);
            status.spaces = vec![Space {
                name: says(),
                size: says(),
                state: says(),
                ..Space::default()
            }];
        });
        let page = page(&board.status(), Now::default(), &board.events());
        assert!(
            !page.contains("<script") && !page.contains('\u{202e}') && !page.contains('\u{1b}'),
            "{page}"
        );
        assert!(
            page.matches("&lt;script&gt;").count() >= 17,
            "each of them is shown\n{page}"
        );
        // Nothing of it is markup: the same page of harmless words has as many tags.
        let mut harmless = board.status();
        let count = |page: &str| page.matches('<').count();
        harmless.node = Some("plain".into());
        assert_eq!(
            count(&page),
            count(&super::page(&harmless, Now::default(), &board.events()))
        );
    }

    #[test]
    fn the_policy_names_the_one_style() {
        let policy = policy();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe") && !STYLE.contains("url("));
        let page = page(&Status::default(), Now::default(), &[]);
        assert!(
            page.contains(&format!("<style>{STYLE}</style>")),
            "what is hashed is what stands there"
        );
        assert!(!page.contains(" style=") && !page.contains("http://") && !page.contains("src="));
    }
}
