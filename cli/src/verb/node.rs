//! `steading node`: what a farmer tells a node of his own from afar, signed by the owner key that its `farmer.toml`
//! names. Who has no owner key there has the node's own screen and keyboard.

use clap::{Args, Subcommand};
use inventory::boot::{Phase, Report};
use market::id::{NodeId, SaleId};
use market::message::{Act, read_space_line};
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::text::plain;

/// What to tell a node.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  steading node key
  steading node spaces --node NODE
  steading node stop calm-otter --node NODE
The id of a node is on its screen, and in `steading nodes --json`.")]
pub enum Verb {
    /// Show your owner key: the line for farmer.toml that lets this wallet command the node.
    Key,
    /// The spaces that the node has sold, and how each stands.
    Spaces(Target),
    /// End a space: it is torn down, and what its user has not used goes back to the user.
    Stop(Stop),
    /// The node's disks, and what each is for.
    Disks(Target),
    /// Where the time went from power-on to able to sell, and what the node has said since.
    BootReport(BootReport),
}

/// Which node.
#[derive(Debug, Args)]
pub struct Target {
    /// The node: its id, 64 hex digits.
    #[arg(long, value_name = "NODE")]
    node: NodeId,
}

/// Flags of `node boot-report`.
#[derive(Debug, Args)]
pub struct BootReport {
    /// The node: its id, 64 hex digits.
    #[arg(value_name = "NODE", required_unless_present = "node")]
    id: Option<NodeId>,
    /// The same, as the other verbs of `node` have it.
    #[arg(long, value_name = "NODE", conflicts_with = "id")]
    node: Option<NodeId>,
}

impl BootReport {
    fn node(&self) -> Option<NodeId> {
        self.id.or(self.node)
    }
}

/// Flags of `node stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// The space, as the node's screen and `steading node spaces` call it, or its sale's id.
    #[arg(value_name = "SPACE")]
    space: String,
    #[command(flatten)]
    target: Target,
}

impl Verb {
    /// Does it.
    pub async fn run(self, settings: Settings, screen: Screen) -> Outcome {
        let mut client = Client::open(settings)?;
        let done = match self {
            Verb::Key => Ok(key(&client)),
            Verb::Spaces(target) => spaces(&mut client, &target).await,
            Verb::Stop(stop) => self::stop(&mut client, &stop).await,
            Verb::Disks(target) => lines(&mut client, &target, Act::ListDisks).await,
            Verb::BootReport(report) => boot_report(&mut client, report.node()).await,
        };
        client.leave().await;
        let (json, text) = done?;
        screen.result(&json, &text)
    }
}

fn key(client: &Client) -> (Value, String) {
    let line = client.owner_line();
    let public = client.seed.owner_key().verifying_key().to_bytes();
    let text = format!(
        "{line}\n\nPut this line into farmer.toml of each node that is yours. The key follows from this\n\
         wallet's seed, so a backup of the wallet brings it back."
    );
    (json!({"owner": ledger::hex::encode(&public), "line": line}), text)
}

/// The node does it, or says why not.
async fn told(client: &mut Client, node: NodeId, act: Act) -> Outcome<Vec<String>> {
    let mut steps = Steps::new();
    let answer = client.command(node, act, &mut steps).await?;
    drop(steps);
    let lines: Vec<String> = answer.lines.iter().map(|line| plain(line)).collect();
    if answer.done {
        return Ok(lines);
    }
    let failure = Failure::new(Code::NodeRefuses, "the command was not done");
    let failure = lines.into_iter().fold(failure, Failure::because);
    Err(failure.next(format!(
        "`steading node spaces --node {node}` shows how each space stands"
    )))
}

async fn lines(client: &mut Client, target: &Target, act: Act) -> Outcome<(Value, String)> {
    let lines = told(client, target.node, act).await?;
    let text = if lines.is_empty() {
        "the node has nothing to say of it".to_owned()
    } else {
        lines.join("\n")
    };
    Ok((json!({"node": target.node, "lines": lines}), text))
}

/// Phases come as lines among those of what was said: an older node has none.
async fn boot_report(client: &mut Client, node: Option<NodeId>) -> Outcome<(Value, String)> {
    let node = node.ok_or_else(|| Failure::new(Code::Usage, "which node?"))?;
    let (mut report, mut said) = (Report::default(), Vec::new());
    for line in told(client, node, Act::BootReport).await? {
        match line.parse() {
            Ok(phase) => report.add(phase),
            Err(_) => said.push(line),
        }
    }
    let phases: Vec<Value> = report.phases().iter().map(phase).collect();
    let path: Vec<Value> = report
        .path()
        .iter()
        .map(|(part, ms)| json!({"name": part.word(), "ms": ms}))
        .collect();
    let json = json!({
        "node": node, "complete": report.is_complete(), "from_power_on": report.is_from_power_on(),
        "total_ms": report.total_ms(), "phases": phases, "path": path, "lines": said,
    });
    let mut text = match report.phases() {
        [] => "the node keeps no times of its boot\n".to_owned(),
        _ if report.is_complete() => format!("{}\n\n{}", wrapped(&report.sentence()), report.timeline()),
        _ => format!("on the way; so far:\n\n{}", report.timeline()),
    };
    if !said.is_empty() {
        text.push('\n');
        text.push_str(&said.join("\n"));
    }
    Ok((json, text.trim_end().to_owned()))
}

fn phase(phase: &Phase) -> Value {
    let waits: Vec<&str> = phase.part.waits_for().iter().map(|part| part.word()).collect();
    json!({"name": phase.part.word(), "begin_ms": phase.begin_ms, "end_ms": phase.end_ms, "waits_for": waits})
}

/// In lines of at most 80 columns, broken behind commas.
fn wrapped(sentence: &str) -> String {
    let mut lines = vec![String::new()];
    for word in sentence.split_inclusive(", ") {
        let full = lines
            .last()
            .is_some_and(|line| line.len() + word.trim_end().len() > 79);
        if full {
            lines.push("  ".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(word);
        }
    }
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n")
}

async fn sold(client: &mut Client, node: NodeId) -> Outcome<Vec<(SaleId, String)>> {
    let lines = told(client, node, Act::ListSpaces).await?;
    let read = lines.iter().filter_map(|line| read_space_line(line));
    Ok(read.map(|(sale, state)| (sale, state.to_owned())).collect())
}

async fn spaces(client: &mut Client, target: &Target) -> Outcome<(Value, String)> {
    let sold = sold(client, target.node).await?;
    let json: Vec<Value> = sold
        .iter()
        .map(|(sale, state)| json!({"name": sale.name(), "sale": sale, "state": state}))
        .collect();
    let width = sold.iter().map(|(sale, _)| sale.name().len()).max().unwrap_or(0);
    let row = |(sale, state): &(SaleId, String)| format!(" {:<width$}   {state}\n", sale.name());
    let text = if sold.is_empty() {
        "the node has no spaces".to_owned()
    } else {
        sold.iter().map(row).collect()
    };
    Ok((json!({"node": target.node, "spaces": json}), text))
}

/// A name is looked up at the node: it follows from the sale's id, the id does not follow from it.
async fn stop(client: &mut Client, stop: &Stop) -> Outcome<(Value, String)> {
    let node = stop.target.node;
    let sale = match stop.space.parse::<SaleId>() {
        Ok(sale) => sale,
        Err(_) => named(&sold(client, node).await?, &stop.space, node)?,
    };
    let lines = told(client, node, Act::StopSpace(sale)).await?;
    let json = json!({"node": node, "sale": sale, "name": sale.name(), "lines": lines});
    Ok((json, lines.join("\n")))
}

fn named(sold: &[(SaleId, String)], name: &str, node: NodeId) -> Outcome<SaleId> {
    let found: Vec<SaleId> = sold
        .iter()
        .map(|(sale, _)| *sale)
        .filter(|sale| sale.name() == name)
        .collect();
    match found[..] {
        [sale] => Ok(sale),
        [] => Err(Failure::new(
            Code::NotFound,
            format!("no space of that node goes by the name {name:?}"),
        )
        .because(format!(
            "it says that it has {}",
            crate::show::text::count(sold.len(), "space")
        ))
        .next(format!("`steading node spaces --node {node}` lists them"))),
        _ => Err(Failure::new(
            Code::Usage,
            format!("{} spaces of that node go by the name {name:?}", found.len()),
        )
        .because("two words name many sales")
        .next(format!(
            "give the sale's id instead: `steading node spaces --node {node} --json` has it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_two_spaces_share_stops_neither() {
        let node = NodeId([1; 32]);
        let of = |byte: u8| (SaleId([byte; 32]), "active".to_owned());
        let sold = [of(1), of(2)];
        let name = sold[0].0.name();
        assert_eq!(named(&sold, &name, node).unwrap(), sold[0].0);
        assert_eq!(named(&sold, "no-body", node).unwrap_err().code, Code::NotFound);
        let twice = [of(1), of(1)];
        assert_eq!(named(&twice, &name, node).unwrap_err().code, Code::Usage);
    }
}
