//! Whole sales on the real image, from outside: one market, one node, one user, and what happens to them.
//!
//! ```text
//! selling ─► bought ─► exported, cancelled, bought, imported ─► used by ten ssh at once ─► power cut while Active
//!    ─► unlock: files and host key as before ─► a copy of the node beside it ─► cancelled, receipt
//!    ─► power cut while Building ─► nothing is left, the money is back or the sale goes on
//! ```
//!
//! The trials of a list share one stage and run in its order: a boot costs most of a minute under emulation. Each lane
//! is a process of its own.
//! Needs what `./x test` built, named in `STEADING_ARTEFACTS` (a folder) and `STEADING_CLIENT` (the program).

mod carry;
mod console;
mod containers;
mod displaced;
mod identity;
mod keys;
mod line;
mod machine;
mod playbook;
mod resize;
mod snapshot;
mod struck;
mod world;

use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use world::World;

/// A list: the lane in which it runs, its stage, its scenarios in order.
type List = (
    &'static str,
    &'static str,
    &'static [&'static [machine::Scenario]],
);

/// `./x test` runs the lanes beside each other: each waits for clocks and for its one machine, which is one thread, so that
/// two would leave a third of two processors idle.
const LISTS: [List; 6] = [
    (
        "used",
        "used",
        &[
            &[
                ("a_space_is_bought_and_proven", bought),
                ("what_was_paid_is_one_period", paid_one_period),
                (
                    "scp_rsync_and_plain_ssh_work_with_the_written_config",
                    other_programs,
                ),
                (
                    "every_type_of_key_lets_in_or_is_refused",
                    keys::every_type_lets_in,
                ),
            ],
            &machine::SCENARIOS,
            &[
                ("what_a_space_holds_comes_back_in_another", carry::comes_back),
                ("ten_ssh_at_once_go_through_the_relay", ten_at_once),
            ],
        ],
    ),
    (
        "used",
        "struck",
        &[&[
            (
                "a_node_without_a_wallet_joins_and_says_which_line_to_add",
                no_wallet,
            ),
            ("a_node_whose_agent_is_struck_goes_on", |world| {
                world.stage()?;
                let (user, farmer) = (world.user()?.clone(), world.farmer()?.clone());
                struck::goes_on(world.stage()?, &user, &farmer)
            }),
        ]],
    ),
    (
        "worked",
        "worked",
        &[&[
            ("machine_grows_while_a_login_runs", resize::grows),
            ("machine_plays_an_ansible_playbook_twice", playbook::twice),
            (
                "machine_runs_containers_for_root_and_others",
                containers::for_root_and_others,
            ),
            ("line_is_shut_where_nobody_opened_it", line::is_shut),
            ("line_is_open_where_the_farmer_opened_it", line::is_open),
            ("line_carries_what_the_farmer_allows", line::is_limited),
        ]],
    ),
    (
        "lost",
        "cut",
        &[&[
            ("a_power_cut_while_active_loses_nothing", cut_while_active),
            ("a_copy_of_the_node_is_refused_and_the_node_goes_on", copy_refused),
            ("a_snapshot_is_put_back", snapshot::is_put_back),
            (
                "a_snapshot_is_put_back_over_a_power_cut",
                snapshot::is_put_back_over_a_power_cut,
            ),
            ("cancelling_gives_a_receipt_and_the_rest_back", cancelled),
            ("a_power_cut_while_building_leaves_nothing", cut_while_building),
            ("too_much_is_refused_with_reasons", refused),
            ("the_least_that_is_sold_lets_a_login_in", least),
            ("a_farmer_rules_the_node_from_its_console", console::rules),
        ]],
    ),
    ("lost", "displaced", &[&[(displaced::NAME, displaced::goes)]]),
    (
        "lost",
        "same",
        &[&[("a_node_is_the_same_whatever_happens_to_its_disks", |world| {
            identity::is_kept(world.stage()?)
        })]],
    ),
];

fn main() -> ExitCode {
    let arguments = Arguments {
        test_threads: Some(1),
        ..Arguments::from_args()
    };
    let long = std::env::var_os("STEADING_LONG").is_some();
    let trials = LISTS
        .into_iter()
        .flat_map(|(lane, stage, scenarios)| {
            let world = Arc::new(Mutex::new(World::on(stage)));
            let trial = move |&(name, test): &machine::Scenario| {
                let world = Arc::clone(&world);
                Trial::test(format!("{lane}::{name}"), move || {
                    let mut world = world
                        .lock()
                        .map_err(|_| Failed::from("an earlier scenario panicked"))?;
                    let begun = Instant::now();
                    let ended = test(&mut world);
                    print!("{:.0} s ", begun.elapsed().as_secs_f64());
                    ended.map_err(|error| Failed::from(format!("{error:#}\n{}", world.tail())))
                })
                .with_ignored_flag(name == displaced::NAME && !long)
            };
            scenarios.iter().copied().flatten().map(trial)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn no_wallet(world: &mut World) -> Result<()> {
    let mut running = world.start_node_without_wallet()?;
    running.wait_for("  joined ", stage::BOOT_WITHIN)?;
    let line = running.wait_for("not selling: ", Duration::from_secs(60))?;
    ensure!(line.text.contains("wallet"), "the console says: {}", line.text);
    Ok(())
}

fn bought(world: &mut World) -> Result<()> {
    world.start_node()?;
    let answer = world.buy()?;
    ensure!(answer.json["inside"]["uid"] == 0, "not root: {}", answer.out);
    let outside = answer.json["inside"]["outside_uid"]
        .as_u64()
        .context("no outside_uid")?;
    ensure!(outside >= 100_000, "root inside is {outside} outside");
    Ok(())
}

fn paid_one_period(world: &mut World) -> Result<()> {
    let price = world.price_of_period;
    let (user, farmer) = (world.user()?.balance()?, world.farmer()?.balance()?);
    ensure!(farmer == price, "the farmer has {farmer}, a period costs {price}");
    let escrow = world.user()?.in_escrow()?;
    ensure!(
        user + farmer + escrow == world.funded,
        "{user} + {farmer} + {escrow} is not {}",
        world.funded
    );
    Ok(())
}

fn other_programs(world: &mut World) -> Result<()> {
    let (name, config) = (world.space()?, world.ssh_config()?);
    let file = world.scratch()?.join("letter");
    std::fs::write(&file, "from outside\n")?;
    let config = config.display().to_string();
    let path = file.display().to_string();
    let run = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {program}"))?;
        ensure!(
            output.status.success(),
            "{program} {arguments:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    world.says_nothing_but(&name, "0\n")?;
    run("scp", &["-F", &config, &path, &format!("{name}:/root/letter")])?;
    let said = run("ssh", &["-F", &config, &name, "cat /root/letter"])?;
    ensure!(said == "from outside\n", "scp brought {said:?}");
    let rsync = playbook::of_the_packages("usr/bin/rsync")?
        .args(["-e", &format!("ssh -F {config}"), &path])
        .arg(format!("{name}:/root/by-rsync"))
        .status()
        .context("starting rsync")?;
    ensure!(rsync.success(), "rsync ended with {rsync}");
    let said = run("ssh", &["-F", &config, &name, "cat /root/by-rsync"])?;
    ensure!(said == "from outside\n", "rsync brought {said:?}");
    let status = world.user()?.run(&["ssh", &name, "--", "exit 7"])?;
    ensure!(
        status.code == 7,
        "ssh's exit code was 7, steading's is {}",
        status.code
    );
    Ok(())
}

fn ten_at_once(world: &mut World) -> Result<()> {
    let (name, user) = (world.space()?, world.user()?.clone());
    let children: Vec<_> = (0..10)
        .map(|index| {
            user.command(&[
                "ssh",
                &name,
                "--",
                &format!("head -c 65536 /dev/zero | wc -c; echo {index}"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        })
        .collect::<Result<_, _>>()
        .context("starting ten ssh")?;
    for (index, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && said == format!("65536\n{index}\n"),
            "ssh {index}: {} said {said:?}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn cut_while_active(world: &mut World) -> Result<()> {
    machine::enable(world)?;
    let name = world.space()?;
    let hash = "head -c 3000000 /dev/urandom > /root/data && sync && sha256sum /root/data";
    let before = world
        .user()?
        .run(&["ssh", &name, "--", hash])?
        .expect_success("writing a file")?
        .out;
    let node_before = world.node_id()?;
    world.cut_power()?;
    world.copy_node()?;
    world.power_on()?;
    ensure!(
        world.node_id()? == node_before,
        "the node came back as another one"
    );
    world.wait_for("locked")?;
    world
        .user()?
        .run(&["unlock", &name, "--json"])?
        .expect_success("unlocking")?;
    let after = world
        .user()?
        .run(&["ssh", &name, "--", "sha256sum /root/data"])?
        .expect_success("reading it")?
        .out;
    ensure!(before == after, "before the cut {before:?}, after it {after:?}");
    machine::enabled_again(world)
}

/// The disks are those of a moment ago; the space on the copy is locked, the node's runs and is logged in to.
fn copy_refused(world: &mut World) -> Result<()> {
    world.ensure_copied()?;
    let (name, node) = (world.space()?, world.node_id()?);
    let mut login = world.user()?.command(&["ssh", &name, "--", "cat"]);
    let mut login = login
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut copy = world.power_on_copy()?;
    let line = copy.wait_for("not selling: ", stage::BOOT_WITHIN)?;
    ensure!(
        line.text
            .contains("this node's key is in use by another machine, for "),
        "the copy says: {}",
        line.text
    );
    // Whoever asks finds one node, and the login that began before the copy goes on.
    for _ in 0..3 {
        ensure!(
            world.node_id()? == node && copy.seen("  selling").is_none(),
            "the copy sells"
        );
    }
    let mut end = login.stdin.take().context("no end to write to")?;
    std::io::Write::write_all(&mut end, b"still here\n")?;
    drop(end);
    let output = login.wait_with_output()?;
    ensure!(
        output.stdout == b"still here\n",
        "the login was cut: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    copy.cut_power();
    Ok(())
}

fn cancelled(world: &mut World) -> Result<()> {
    let name = world.space()?;
    let answer = world
        .user()?
        .run(&["cancel", &name, "--json"])?
        .expect_success("cancelling")?;
    let receipt = answer.text("/receipt")?.to_string();
    world
        .user()?
        .run(&["verify", &receipt, "--json"])?
        .expect_success("verifying the receipt")?;
    let mut bytes = std::fs::read(&receipt)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let bent = world.scratch()?.join("bent");
    std::fs::write(&bent, bytes)?;
    let refused = world
        .user()?
        .run(&["verify", &bent.display().to_string(), "--json"])?;
    ensure!(
        refused.code != 0,
        "a receipt with a flipped bit was accepted: {}",
        refused.out
    );
    let (user, farmer) = (world.user()?.balance()?, world.farmer()?.balance()?);
    ensure!(world.user()?.in_escrow()? == 0, "money is left in escrow");
    ensure!(
        user + farmer == world.funded,
        "{user} + {farmer} is not {}",
        world.funded
    );
    Ok(())
}

fn cut_while_building(world: &mut World) -> Result<()> {
    let (user, earned) = (world.user()?.balance()?, world.farmer()?.balance()?);
    let mut client = world.start_buying()?;
    world.wait_for("  sold ")?;
    world.wait_for("building")?;
    world.cut_power()?;
    let _ = client.kill();
    let _ = client.wait();
    world.power_on()?;
    // Half built is undone at start; the sale goes on with a new key, or ends and the money returns.
    let open = world
        .user()?
        .run(&["spaces", "--json"])?
        .expect_success("listing spaces")?;
    let name = world.open_space(&open)?;
    world
        .user()?
        .run(&["unlock", &name, "--json"])?
        .expect_success("handing the key over again")?;
    let said = world
        .user()?
        .run(&["ssh", &name, "--", "id -u"])?
        .expect_success("logging in")?
        .out;
    ensure!(said == "0\n", "the space answers {said:?}");
    // The second sale on this node: another host key, and no word of it.
    world.says_nothing_but(&name, "0\n")?;
    world
        .user()?
        .run(&["cancel", &name, "--json"])?
        .expect_success("cancelling")?;
    let spent = user - world.user()?.balance()?;
    ensure!(
        spent == world.farmer()?.balance()? - earned,
        "what left the user did not arrive at the farmer"
    );
    ensure!(world.user()?.in_escrow()? == 0, "money is left in escrow");
    Ok(())
}

fn refused(world: &mut World) -> Result<()> {
    let answer = world
        .user()?
        .run(&["request", "--memory", "64GiB", "--duration", "1h"])?;
    ensure!(
        answer.code != 0,
        "64 GiB were offered by a small node: {}",
        answer.out
    );
    let said = format!("{}{}", answer.out, answer.err);
    ensure!(
        said.contains("not enough memory") && said.contains("64 GiB"),
        "the user was told: {said}"
    );
    let answer = world
        .user()?
        .run(&["request", "--memory", "512", "--duration", "1h"])?;
    ensure!(
        answer.code == 2,
        "a quantity without a unit exits {}: {}",
        answer.code,
        answer.err
    );
    Ok(())
}

/// Less is refused before money; the least itself lets a login in.
fn least(world: &mut World) -> Result<()> {
    world.ensure_bought()?;
    let user = world.user()?.clone();
    for (needs, least) in [
        (["--memory", "63MiB"], "at least 64 MiB"),
        (["--disk", "127MiB"], "at least 128 MiB"),
        (["--cpu", "0.009"], "at least 0.01 CPU"),
    ] {
        let answer = user.run(&[&["request", "--duration", "1h"], &needs[..]].concat())?;
        let said = format!("{}{}", answer.out, answer.err);
        ensure!(
            answer.code != 0 && said.contains(least),
            "{needs:?}: exit {}, {said}",
            answer.code
        );
    }
    let needs = ["--memory", "64MiB", "--disk", "128MiB", "--cpu", "0.25"];
    let bought = user
        .run(&[&["buy", "--json", "--duration", "1h"], &needs[..]].concat())?
        .expect_success("buying the least")?;
    let name = bought.text("/name")?.to_string();
    let said = user
        .run(&["ssh", &name, "--", "id -u; free -m; df -m /"])?
        .expect_success("logging in")?
        .out;
    ensure!(said.starts_with("0\n"), "the least space answers {said:?}");
    println!("the least space: {said}");
    user.run(&["cancel", &name, "--json"])?
        .expect_success("cancelling the least")?;
    Ok(())
}
