//! The figures of one firmware as a person reads them.

use super::Run;
use crate::bench::summary;
use crate::show::heading;

/// Medians, the ratio to the stock one, the parts of the way, and one start drawn.
pub fn print(by: &str, kernel: &str, runs: &[Run]) {
    heading(&format!("By {by}, milliseconds"));
    println!(" {:<34}{:>8}{:>8}{:>8}   all starts", "", "min", "median", "max");
    let line = |words: &str, of: &dyn Fn(&Run) -> u64| -> u64 {
        let all: Vec<u64> = runs.iter().map(of).collect();
        let (min, median, max) = summary(&all);
        println!(" {words:<34}{min:>8}{median:>8}{max:>8}   {all:?}");
        median
    };
    let ours = line("power on to PID 1", &|run| run.pid1_ms);
    let stock = line("the same, stock", &|run| run.stock_pid1_ms);
    line("PID 1 to able to sell", &|run| {
        run.able_ms.saturating_sub(run.pid1_ms)
    });
    line("power on to able to sell", &|run| run.able_ms);
    println!(
        " ours to PID 1 / stock to PID 1: {:.2} (stock: {kernel})",
        ours as f64 / stock.max(1) as f64
    );
    println!("\n each part from its begin to its end, beside others:");
    for name in names(runs) {
        line(&name, &|run| span(run, &name));
    }
    let mut sorted: Vec<&Run> = runs.iter().collect();
    sorted.sort_by_key(|run| run.able_ms);
    if let Some(run) = sorted.get(sorted.len().saturating_sub(1) / 2) {
        println!(
            "\n the start of the median, as the node tells it:\n\n{}",
            run.drawn
        );
    }
}

fn names(runs: &[Run]) -> Vec<String> {
    let phases = runs.first().and_then(|run| run.report["phases"].as_array());
    let name = |phase: &serde_json::Value| phase["name"].as_str().map(str::to_owned);
    phases.into_iter().flatten().filter_map(name).collect()
}

fn span(run: &Run, name: &str) -> u64 {
    let phases = run.report["phases"].as_array();
    let found = phases.into_iter().flatten().find(|phase| phase["name"] == name);
    let at = |key: &str| found.and_then(|phase| phase[key].as_i64());
    match (at("begin_ms"), at("end_ms")) {
        (Some(begin), Some(end)) => u64::try_from(end - begin).unwrap_or(0),
        _ => 0,
    }
}
