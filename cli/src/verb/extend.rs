//! `steading extend`: more time; both sign, then the lock is topped up.

use clap::Args;
use market::quantity::Seconds;
use serde_json::json;

use super::find_active;
use crate::client::Client;
use crate::client::selling::Walk;
use crate::exit::{Code, Failure, Outcome};
use crate::settings::Settings;
use crate::show::Screen;
use crate::show::steps::Steps;
use crate::show::text::money;

/// What the signed messages allow (`market::message::Amend`).
const MOST_PERIODS: u32 = 100_000;

/// Flags of `extend`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  steading extend calm-otter --duration 2h")]
pub struct Arguments {
    /// The space.
    #[arg(value_name = "NAME")]
    name: String,
    /// How much longer: a whole number of the sale's periods.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    duration: Seconds,
}

/// Extends.
pub async fn run(arguments: Arguments, settings: Settings, screen: Screen) -> Outcome {
    let mut client = Client::open(settings)?;
    let next = "only a space that is active can be extended";
    let (files, record) = find_active(&client.store, &arguments.name, next)?;
    let extended: Outcome<_> = async {
        let held = files.lock()?;
        let record = files.record()?.unwrap_or(record);
        let mut walk = Walk::resume(&mut client, files, record).await?;
        let period = walk.body.period;
        let most = MOST_PERIODS.saturating_sub(walk.record.periods);
        if arguments.duration.0 / period.0.max(1) > u64::from(most) {
            return Err(Failure::new(
                Code::Usage,
                format!(
                    "--duration {} is longer than a sale can be; nothing was sent",
                    arguments.duration
                ),
            )
            .because(format!(
                "a sale has at most {MOST_PERIODS} periods of {period}, this one has {}",
                walk.record.periods
            ))
            .next(format!(
                "write --duration {} or less",
                Seconds(u64::from(most).saturating_mul(period.0))
            )));
        }
        let periods = period.periods_in(arguments.duration).ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!(
                    "--duration {} is not a whole number of periods of {period}; nothing was sent",
                    arguments.duration
                ),
            )
            .because("both sign whole periods")
            .next(format!("write --duration {period}, or a multiple of it"))
        })?;
        let mut steps = Steps::new();
        walk.extend(periods, &mut steps).await?;
        drop((steps, held));
        let json = json!({
            "name": walk.record.name,
            "periods": walk.record.periods,
            "total": walk.total(),
            "amended": walk.files.path(&format!("amended-{}", walk.record.amendments)),
        });
        let text = format!(
            "{} has {} periods in all, {} in escrow for them",
            walk.record.name,
            walk.record.periods,
            money(walk.total())
        );
        Ok((json, text))
    }
    .await;
    client.leave().await;
    let (json, text) = extended?;
    screen.result(&json, &text)
}
