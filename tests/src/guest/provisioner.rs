//! Whole spaces by the provisioner: built, walled, ended, undone, adopted, locked and unlocked, on the real kernel.
//!
//! Uses /dev/vdb: a volume group for one trial, with the base of the boot medium (vdd2) copied into it. Its ends are
//! blank again afterwards.

mod ahead;
pub mod bench;
#[cfg(feature = "fault-points")]
mod dropped;
#[cfg(feature = "fault-points")]
pub mod faults;
#[cfg(feature = "fault-points")]
mod full;
#[cfg(feature = "fault-points")]
mod growing;
mod many;
mod resize;
#[cfg(feature = "fault-points")]
pub mod slate;
#[cfg(feature = "fault-points")]
mod snapshot;
mod times;
#[cfg(feature = "fault-points")]
mod within;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use host::names;
use libtest_mimic::Trial;
use market::id::SaleId;
use provision::firewall::Openings;
use provision::journal::Journal;
use provision::space::{BuildError, Outcome, Phase, Provisioner};
use provision::step::{StepLog, StepState, chain};
use tokio::io::AsyncReadExt;

use crate::network::town::{self, NODE, Town};
use crate::trial;
use bench::{Bench, access, spec};

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("provisioner::spaces_are_built_walled_and_ended", || {
            Bench::with(built)
        }),
        trial("provisioner::a_failed_step_is_undone", || {
            Bench::with(failed_step)
        }),
        trial(
            "provisioner::a_running_space_is_adopted_and_a_dead_one_locked",
            || Bench::with(recovered),
        ),
        trial("provisioner::a_build_that_was_cut_off_is_undone", || {
            Bench::with(cut_off)
        }),
        trial("provisioner::what_was_prepared_ends_without_a_key", || {
            Bench::with(times::no_key_comes)
        }),
        trial("provisioner::where_the_time_of_a_build_goes", || {
            Bench::with(times::table)
        }),
        trial("provisioner::the_first_of_ten_ends_and_lets_go", || {
            Bench::with(many::first_of_ten)
        }),
        trial("provisioner::a_running_space_changes_its_size", || {
            Bench::with(resize::changes)
        }),
        #[cfg(feature = "fault-points")]
        trial("provisioner::a_snapshot_is_taken_and_put_back", || {
            Bench::with(snapshot::taken_and_put_back)
        }),
        #[cfg(feature = "fault-points")]
        trial("snapshots::a_snapshot_is_stopped_at_each_step", || {
            Bench::with(snapshot::stopped)
        }),
        #[cfg(feature = "fault-points")]
        trial("snapshots::a_restore_is_stopped_at_each_point", || {
            Bench::with(snapshot::put_back_stopped)
        }),
        #[cfg(feature = "fault-points")]
        trial("snapshots::the_agent_is_killed_within_what_lvm_does", || {
            Bench::with(within::killed)
        }),
        trial("provisioner::a_start_runs_ahead_once_and_not_far", || {
            Bench::with(ahead::not_far)
        }),
        #[cfg(feature = "fault-points")]
        trial("provisioner::a_full_volume_opens_again", || {
            Bench::with(full::opens_again)
        }),
        #[cfg(feature = "fault-points")]
        trial("provisioner::a_volume_opens_without_the_room_to_grow", || {
            Bench::with(resize::has_no_room)
        }),
        #[cfg(feature = "fault-points")]
        trial("faults::the_agent_is_gone_at_each_step_of_a_resize", || {
            Bench::with(resize::killed)
        }),
        #[cfg(feature = "fault-points")]
        trial("faults::each_step_fails_or_is_repeated", || {
            Bench::with(faults::fail_and_repeat)
        }),
        #[cfg(feature = "fault-points")]
        trial("faults::each_step_of_an_unlock_fails", || {
            Bench::with(faults::unlock_fails)
        }),
        #[cfg(feature = "fault-points")]
        trial("faults::the_undo_of_each_step_fails", || {
            Bench::with(faults::undo_fails)
        }),
        #[cfg(feature = "fault-points")]
        trial("faults::the_agent_is_gone_at_each_step_of_a_build", || {
            Bench::with(faults::killed_building)
        }),
        #[cfg(feature = "fault-points")]
        trial("faults::the_agent_is_gone_at_each_step_of_an_end", || {
            Bench::with(faults::killed_ending_and_unlocking)
        }),
        #[cfg(feature = "fault-points")]
        trial(
            "faults::five_hundred_requests_are_dropped_at_random_steps",
            || Bench::with(dropped::at_random_steps),
        ),
        #[cfg(feature = "fault-points")]
        trial("faults::a_volume_that_grows_is_stopped_at_each_step", || {
            Bench::with(growing::stopped)
        }),
    ]
}

const FIRST: SaleId = SaleId([0xa1; 32]);
const SECOND: SaleId = SaleId([0xa2; 32]);

async fn banner(provisioner: &Provisioner, sale: SaleId) -> Result<()> {
    let mut stream = provisioner.connect(&sale, 22).await?;
    let mut words = [0; 8];
    stream.read_exact(&mut words).await?;
    ensure!(&words == b"SSH-2.0-", "it says {words:?}");
    Ok(())
}

async fn built(bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    let town = Town::build().await?;
    provisioner
        .set_uplinks(vec![town.uplink()?], Openings::default())
        .await?;
    let start = std::time::Instant::now();
    let mut first = spec(FIRST, 1);
    first.public_port = Some(2201);
    let ready = provisioner.build(first, access()).await.map_err(told)?;
    println!("built and answering after {} ms", start.elapsed().as_millis());
    provisioner.build(spec(SECOND, 2), access()).await.map_err(told)?;
    banner(&provisioner, FIRST).await?;

    // Two spaces run as two different nobodies.
    let owner = |sale: SaleId| -> Result<u32> {
        let pid = provisioner.space_pid(&sale).context("no PID 1")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .context("no Uid")?;
        Ok(line.split_whitespace().next().context("no id")?.parse()?)
    };
    ensure!(
        ready.pid == provisioner.space_pid(&FIRST),
        "another PID 1 than was told"
    );
    let (one, other) = (owner(FIRST)?, owner(SECOND)?);
    ensure!(
        one >= 100_000 && other >= 100_000 && one != other,
        "they run as {one} and {other}"
    );
    let seen = provisioner.observe(&FIRST)?;
    ensure!(seen.populated && seen.pids >= 2 && seen.memory.0 > 0, "{seen:?}");

    // The walls, with the rules that the provisioner itself has set.
    let inside = names::netns_path(&names::space_netns(FIRST.as_bytes()));
    let records = provisioner.records().await?;
    let place = |sale| {
        records
            .iter()
            .find(|record| record.spec.sale == sale)
            .map(|record| record.place)
    };
    let (own, others) = (
        place(FIRST).context("no record")?,
        place(SECOND).context("no record")?,
    );
    town::knock(&inside, town::INTERNET, 80)
        .await
        .context("the internet")?;
    town::ask(&inside, own.user_index.gateway(), 53)
        .await
        .context("DNS by the gateway")?;
    let shut = [
        (NODE, 80),
        (town::PRINTER, 80),
        (town::METADATA, 80),
        (town::INTERNET, 25),
        (others.user_index.space(others.space_index), 22),
    ];
    for (to, port) in shut {
        ensure!(
            town::knock_at_a_wall(&inside, to, port).await.is_err(),
            "{to}:{port} was reached"
        );
    }
    let words = town::knock(town.path(), NODE, 2201)
        .await
        .context("the declared port")?;
    ensure!(words.starts_with("SSH-2.0-"), "the declared port says {words:?}");

    // Root inside reboots: the space is back, with another first process, and nobody was asked for a key.
    let before = provisioner.space_pid(&SECOND).context("no PID 1")?;
    host::cgroup::kill(&names::cgroup(SECOND.as_bytes()))?;
    let back = async {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        loop {
            look.tick().await;
            let pid = provisioner.space_pid(&SECOND).filter(|pid| *pid != before);
            if pid.is_some() && banner(&provisioner, SECOND).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back)
        .await
        .context("it did not come back")?;

    // The first of two ends: nothing of it stays, the other one goes on.
    ensure!(
        provisioner.end(FIRST).await?.was_there,
        "there was nothing to end"
    );
    ensure!(!provisioner.end(FIRST).await?.was_there, "it ended twice");
    banner(&provisioner, SECOND)
        .await
        .context("the second space, after the first one's end")?;
    let rules = String::from_utf8(host::command::nft_ruleset(None)?.stdout)?;
    ensure!(
        !rules.contains(&names::user_interface(&[1; 32])),
        "rules of the first user are left: {rules}"
    );
    ensure!(
        rules.contains(&names::user_interface(&[2; 32])),
        "rules of the second user are gone: {rules}"
    );
    provisioner.end(SECOND).await?;
    town.remove().await?;
    bench.nothing_left().await
}

/// An error with all its causes.
pub fn told(error: BuildError) -> anyhow::Error {
    anyhow::anyhow!("{}", chain(&error))
}

async fn failed_step(bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    // Somebody else's namespace stands where the space's would be: the start refuses what the range does not own.
    let name = names::space_netns(FIRST.as_bytes());
    host::netns::create(&name)?;
    let error = match provisioner.build(spec(FIRST, 1), access()).await {
        Ok(_) => bail!("it was built in a namespace that is not its own"),
        Err(error) => error,
    };
    println!("refused: {}", chain(&error));
    ensure!(!error.is_quarantined(), "{}", chain(&error));
    ensure!(provisioner.records().await?.is_empty(), "a record is left");
    bench.nothing_left().await?;
    // Capacity is back: the same sale builds.
    provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    provisioner.end(FIRST).await?;
    bench.nothing_left().await
}

async fn recovered(mut bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    let ready = provisioner.build(spec(FIRST, 1), access()).await.map_err(told)?;
    let mark = names::volume_mount(FIRST.as_bytes()).join("upper/root/mark");
    std::fs::write(&mark, "the user's")?;
    drop(provisioner);

    // The agent starts again: the space goes on, with the same PID 1.
    bench.journal_again()?;
    let provisioner = bench.unrecovered()?;
    let found = provisioner.recover().await?;
    let [one] = &found[..] else { bail!("{found:?}") };
    ensure!(
        matches!(one.outcome, Outcome::Running { pid } if pid == ready.pid),
        "{one:?}"
    );
    banner(&provisioner, FIRST).await?;
    drop(provisioner);

    // All its processes die, as at a power cut: locked, closed, and brought back by the key alone.
    host::cgroup::kill(&names::cgroup(FIRST.as_bytes()))?;
    host::cgroup::wait_empty(&names::cgroup(FIRST.as_bytes()), Duration::from_secs(20))?;
    bench.journal_again()?;
    let provisioner = bench.unrecovered()?;
    let found = provisioner.recover().await?;
    let [one] = &found[..] else { bail!("{found:?}") };
    ensure!(matches!(one.outcome, Outcome::Locked), "{one:?}");
    ensure!(!mark.exists(), "a locked volume is mounted");
    let mut wrong = access();
    wrong.unlock_key = storage::luks::UnlockKey::take(&mut [0x13; 64]);
    wrong.host_key_seed = None;
    ensure!(
        provisioner.unlock(FIRST, wrong).await.is_err(),
        "another key opened it"
    );
    let mut again = access();
    again.host_key_seed = None;
    let kept = "upper/etc/ssh/ssh_host_ed25519_key";
    provisioner.unlock(FIRST, again).await.map_err(told)?;
    banner(&provisioner, FIRST).await?;
    ensure!(
        std::fs::read_to_string(&mark)? == "the user's",
        "the user's file is another"
    );
    ensure!(
        names::volume_mount(FIRST.as_bytes()).join(kept).exists(),
        "no host key"
    );
    provisioner.end(FIRST).await?;
    bench.nothing_left().await
}

/// Returns when the journal says that this step of the first space is applied.
async fn applied(journal: &Journal, step: &str) -> Result<()> {
    loop {
        let steps = journal
            .records(&FIRST)
            .await
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        if steps
            .iter()
            .any(|record| record.step == step && record.state == StepState::Applied)
        {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

async fn cut_off(mut bench: Bench) -> Result<()> {
    let provisioner = bench.provisioner().await?;
    // On a runtime of its own, which is shut down while the network is being made: a crash of the agent.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (builder, journal) = (provisioner.clone(), bench.journal()?);
    runtime.spawn(async move { builder.build(spec(FIRST, 1), access()).await });
    let came = tokio::time::timeout(Duration::from_secs(120), applied(&journal, "limits")).await;
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(60))).await?;
    came.context("it never came so far")??;
    drop((provisioner, journal));
    bench.journal_again()?;
    let provisioner = bench.unrecovered()?;
    let records = provisioner.records().await?;
    ensure!(
        records.len() == 1 && records[0].phase == Phase::Building,
        "{records:?}"
    );
    let found = provisioner.recover().await?;
    ensure!(
        matches!(&found[..], [one] if matches!(one.outcome, Outcome::Undone)),
        "{found:?}"
    );
    bench.nothing_left().await
}
