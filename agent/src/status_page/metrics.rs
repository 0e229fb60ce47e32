//! The figures in the text format of Prometheus (exposition format 0.0.4): a name, labels, a number, a line.

use std::fmt::{Display, Write};

use crate::console::{Health, Now, Selling, Status};

/// All of them.
pub(super) fn text(status: &Status, now: Now) -> String {
    let mut out = Metrics::default();
    let labels = [
        ("version", status.version.as_str()),
        ("node", status.node_id.as_deref().unwrap_or_default()),
    ];
    out.head("steading_build_info", "The image and the node's id; always 1.");
    out.line("steading_build_info", &labels, 1);
    out.one(
        "steading_selling",
        "Whether the node sells.",
        u8::from(status.selling == Selling::Yes),
    );
    out.one(
        "steading_uptime_seconds",
        "Since the kernel started.",
        now.uptime_seconds,
    );
    out.one(
        "steading_clock_right",
        "Whether the clock can be believed.",
        u8::from(status.clock_is_right),
    );
    out.one(
        "steading_failures",
        "Parts that failed and say so.",
        status.failures.len(),
    );
    out.one("steading_spaces", "Spaces that are here.", status.spaces.len());
    if let Some(disks) = &status.disks {
        let claimed = disks.iter().filter(|disk| disk.is_claimed()).count();
        let name = "steading_disks";
        out.head(name, "Disks, by what became of them.");
        out.line(name, &[("state", "claimed")], claimed);
        let controllers = disks.iter().filter(|disk| disk.controller).count();
        out.line(
            name,
            &[("state", "not_touched")],
            disks.len() - claimed - controllers,
        );
    }
    let figures = &status.figures;
    if let Some(earned) = &figures.earned {
        let name = "steading_earned";
        out.head(name, "What all sales have paid.");
        out.line(name, &[("asset", &figures.asset)], earned);
    }
    if let Some(bytes) = figures.traffic_bytes {
        let help = "What the uplinks carried in this calendar month, UTC.";
        out.one("steading_traffic_month_bytes", help, bytes);
    }
    if let Some(bytes) = figures.traffic_limit_bytes {
        let help = "What they may carry in a calendar month.";
        out.one("steading_traffic_month_limit_bytes", help, bytes);
    }
    if let Some(bytes) = now.resident_bytes {
        out.one(
            "steading_agent_resident_bytes",
            "Memory that the agent uses.",
            bytes,
        );
    }
    let name = "steading_temperature_celsius";
    out.each(name, "What a sensor of a part says.", status, |part| {
        part.celsius.map(i64::from)
    });
    let name = "steading_life_used_percent";
    out.each(
        name,
        "Of a disk's life as its maker expects it.",
        status,
        |part| part.used_percent.map(i64::from),
    );
    let name = "steading_health_warning";
    out.each(name, "Whether a part warns of itself.", status, |part| {
        Some(i64::from(part.warning.is_some()))
    });
    out.0
}

#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn one(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help);
        self.line(name, &[], value);
    }

    /// A line for each part that says it; nothing where none does.
    fn each(&mut self, name: &str, help: &str, status: &Status, pick: impl Fn(&Health) -> Option<i64>) {
        let told = status.health.iter().filter_map(|part| Some((part, pick(part)?)));
        for (index, (part, value)) in told.enumerate() {
            if index == 0 {
                self.head(name, help);
            }
            self.line(name, &[("part", &part.part)], value);
        }
    }

    fn head(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

/// A label's value: these three alone mean something there.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Disk;

    #[test]
    fn the_figures_are_what_prometheus_reads() {
        let status = Status {
            version: "0.1.0".into(),
            node_id: Some("7e2a".into()),
            selling: Selling::Yes,
            clock_is_right: true,
            disks: Some(vec![
                Disk {
                    name: "vda".into(),
                    state: "claimed, 8 GiB free".into(),
                    ..Disk::default()
                },
                Disk::default(),
            ]),
            figures: crate::console::Figures {
                earned: Some("87.10".into()),
                asset: "credit".into(),
                traffic_bytes: Some(3_328_599_654),
                traffic_limit_bytes: Some(53_687_091_200),
            },
            health: vec![
                Health {
                    part: "a \"disk\"\\\n".into(),
                    celsius: Some(41),
                    warning: Some("it is hot".into()),
                    ..Health::default()
                },
                Health::default(),
            ],
            ..Status::default()
        };
        let now = Now {
            uptime_seconds: 200,
            resident_bytes: Some(20_000_000),
        };
        let text = text(&status, now);
        for line in [
            "steading_build_info{version=\"0.1.0\",node=\"7e2a\"} 1",
            "steading_selling 1",
            "steading_uptime_seconds 200",
            "steading_disks{state=\"claimed\"} 1",
            "steading_disks{state=\"not_touched\"} 1",
            "steading_earned{asset=\"credit\"} 87.10",
            "steading_traffic_month_bytes 3328599654",
            "steading_traffic_month_limit_bytes 53687091200",
            "steading_temperature_celsius{part=\"a \\\"disk\\\"\\\\\\n\"} 41",
            "steading_health_warning{part=\"\"} 0",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        // Each name has its help and its type once, before its lines; all ends with a line's end.
        assert!(text.ends_with('\n'));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let head = format!("# TYPE {name} gauge\n");
            assert_eq!(text.matches(&head).count(), 1, "{name}");
            assert!(text.find(&head) < text.find(line), "{name}");
        }
    }
}
