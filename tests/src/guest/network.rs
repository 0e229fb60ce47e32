//! Walls, ways and rates of spaces, tried with packets against the rules that the kernel has.

mod caps;
mod lan;
mod narrow;
pub mod town;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use host::names;
use libtest_mimic::Trial;
use market::id::{SaleId, UserId};
use market::quantity::BitsPerSecond;
use provision::firewall::{self, Caps, InterfaceName, Openings, Plan, SpacePlan, UserPlan};
use provision::network::address::{Prefix, SpaceIndex, UserIndex};
use provision::network::{self, SpaceLink, UserLink, inside, link};

use crate::trial;
use town::{
    CARRIER, INTERNET, METADATA, NODE, PRINTER, ROUTER, Town, UPLINK, ask, knock, knock_at_a_wall, listen,
    send_as, speed,
};

/// The trials of this room.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("network::walls_hold_and_ways_are_open", || run(walls())),
        trial("network::a_guest_of_the_lan_is_behind_the_walls", || {
            run(lan::guest())
        }),
        trial("network::the_farmer_opens_what_he_wants", || run(opened())),
        trial("network::a_rate_is_kept_both_ways", || run(rates())),
        trial("network::connections_beyond_the_limit_are_dropped", || {
            run(connections())
        }),
        trial("network::the_farmers_rate_holds_over_all", || {
            run(caps::rate_of_all())
        }),
        trial("network::a_month_that_is_used_up_leaves_a_trickle", || {
            run(caps::trickle())
        }),
        trial("network::a_narrow_path_that_drops_in_silence_carries_all", || {
            run(narrow::narrow())
        }),
        trial("network::more_users_than_an_id_may_make_namespaces", || {
            run(many_users())
        }),
        trial("network::nothing_is_left", || run(nothing_left())),
    ]
}

/// Runs a trial that awaits.
pub fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

/// Takes our table away.
const NO_RULES: &str = "table inet steading\ndelete table inet steading\n";
const FAST: BitsPerSecond = BitsPerSecond(1_000_000_000);

/// Two users; the first has two spaces, the second one.
struct Spaces {
    all: Vec<SpaceLink>,
}

impl Spaces {
    async fn build(town: &Town, openings: Openings, rate: BitsPerSecond) -> Result<Self> {
        let place = |sale: u8, user: u8, space: u8| -> Result<SpaceLink> {
            Ok(SpaceLink {
                sale: SaleId([sale; 32]),
                user: UserId([user; 32]),
                user_index: UserIndex::try_from(u16::from(user))?,
                space_index: SpaceIndex::try_from(space)?,
                first_id: 100_000 + u32::from(sale) * 65_536,
                rate,
            })
        };
        let all = vec![place(1, 1, 0)?, place(2, 1, 1)?, place(3, 2, 0)?];
        for space in &all {
            network::ensure_user(&UserLink {
                user: space.user,
                index: space.user_index,
            })
            .await?;
        }
        apply(&all, &plan(&all, town, openings)?).await?;
        for space in &all {
            network::ensure_space(space).await?;
            // Again: nothing is made twice, and nothing fails.
            network::ensure_space(space).await.context("the second time")?;
            listen(Some(&path(space)), 22).await?;
        }
        Ok(Self { all })
    }

    async fn remove(self) -> Result<()> {
        for space in &self.all {
            network::ensure_space_absent(&space.sale, &space.user).await?;
        }
        for space in &self.all {
            network::ensure_user_absent(&space.user).await?;
            network::ensure_space_absent(&space.sale, &space.user)
                .await
                .context("the second time")?;
        }
        firewall::apply(None, NO_RULES.to_owned()).await?;
        Ok(())
    }
}

async fn apply(spaces: &[SpaceLink], plan: &Plan) -> Result<()> {
    firewall::apply(None, firewall::node_rules(plan)).await?;
    for user in &plan.users {
        let of_user = spaces.iter().find(|space| space.user_index == user.index);
        let space = of_user.context("a user without a space")?;
        let path = names::netns_path(&names::user_netns(space.user.as_bytes()));
        firewall::apply(Some(&path), firewall::user_rules(plan, user)).await?;
    }
    Ok(())
}

fn plan(spaces: &[SpaceLink], town: &Town, openings: Openings) -> Result<Plan> {
    let mut plan = Plan {
        uplinks: vec![town.uplink()?],
        openings,
        caps: Caps::default(),
        users: Vec::new(),
    };
    for space in spaces {
        let entry = SpacePlan {
            index: space.space_index,
            link: InterfaceName::try_from(names::space_interface(space.sale.as_bytes()))?,
            public_port: (space.sale == SaleId([1; 32])).then_some(2201),
        };
        match plan.users.iter_mut().find(|user| user.index == space.user_index) {
            Some(user) => user.spaces.push(entry),
            None => plan.users.push(UserPlan {
                index: space.user_index,
                link_of_node: InterfaceName::try_from(names::user_interface(space.user.as_bytes()))?,
                link_of_user: InterfaceName::try_from(network::LINK_OF_USER.to_owned())?,
                spaces: vec![entry],
            }),
        }
    }
    Ok(plan)
}

/// The rules for these spaces, without openings, in all namespaces.
pub async fn build_rules(spaces: &[SpaceLink], town: &Town) -> Result<()> {
    apply(spaces, &plan(spaces, town, Openings::default())?).await
}

/// Takes the node's rules away; those of the users go with their namespaces.
pub async fn no_rules() -> Result<()> {
    Ok(firewall::apply(None, NO_RULES.to_owned()).await?)
}

fn path(space: &SpaceLink) -> PathBuf {
    names::netns_path(&names::space_netns(space.sale.as_bytes()))
}

fn address(space: &SpaceLink) -> Ipv4Addr {
    space.user_index.space(space.space_index)
}

async fn walls() -> Result<()> {
    let town = Town::build().await?;
    let spaces = Spaces::build(&town, Openings::default(), FAST).await?;
    let [first, second, other] = &spaces.all[..] else {
        bail!("three spaces")
    };
    let inside_first = path(first);

    // The ways that are open.
    let seen = knock(&inside_first, INTERNET, 80).await.context("the internet")?;
    ensure!(seen == NODE.to_string(), "the internet sees {seen}, not the node");
    knock(&inside_first, first.user_index.gateway(), 53)
        .await
        .context("the gateway answers DNS (stream)")?;
    ask(&inside_first, first.user_index.gateway(), 53)
        .await
        .context("the gateway answers DNS (datagram)")?;
    knock(&inside_first, address(second), 22)
        .await
        .context("the user's own other space")?;
    let seen = knock(town.path(), NODE, 2201)
        .await
        .context("the declared port from outside")?;
    ensure!(seen == ROUTER.to_string(), "the space sees {seen}, not who came");

    // The walls.
    let walled = [
        (ROUTER, 80, "on-link at the uplink"),
        (NODE, 80, "the node's address"),
        (
            first.user_index.link_of_node(),
            80,
            "the node's end of the user's link",
        ),
        (first.user_index.gateway(), 80, "the gateway, but for DNS"),
        (PRINTER, 80, "the farmer's LAN"),
        (METADATA, 80, "link-local"),
        (CARRIER, 80, "the carrier"),
        (address(other), 22, "another user's space"),
        (other.user_index.link_of_user(), 22, "another user's namespace"),
        (INTERNET, 25, "mail"),
        (INTERNET, 465, "mail"),
        (INTERNET, 587, "mail"),
        (NODE, 2201, "the declared port, from inside"),
    ];
    for (to, port, what) in walled {
        if let Ok(seen) = knock_at_a_wall(&inside_first, to, port).await {
            bail!("{what}: {to}:{port} was reached, and saw {seen}");
        }
    }

    // Another's address does not pass, though root inside may take it.
    for from in false_addresses(second) {
        let take = move |handle| async move { link::ensure_address(&handle, "eth0", from, 32).await };
        inside::netlink(Some(&inside_first), take).await??;
        send_as(&inside_first, from).await?;
        ensure!(town.hears_after_all().is_none(), "a datagram from {from} passed");
    }
    send_as(&inside_first, address(first)).await?;
    ensure!(
        town.hears() == Some(NODE.into()),
        "one from its own address did not"
    );

    // The control: without the rules, what was walled is reached.
    let of_user = names::netns_path(&names::user_netns(first.user.as_bytes()));
    for namespace in [None, Some(of_user.as_path())] {
        firewall::apply(namespace, NO_RULES.to_owned()).await?;
    }
    for (to, port, what) in walled
        .into_iter()
        .filter(|(to, _, _)| *to != first.user_index.gateway())
    {
        let node_or_beyond =
            [ROUTER, NODE, PRINTER, METADATA, CARRIER, INTERNET].contains(&to) && port != 2201;
        if node_or_beyond {
            knock(&inside_first, to, port)
                .await
                .with_context(|| format!("without rules, {what} should be reached"))?;
        }
    }
    for from in false_addresses(second) {
        send_as(&inside_first, from).await?;
        ensure!(
            town.hears() == Some(from.into()),
            "without rules, a datagram from {from} should pass"
        );
    }
    spaces.remove().await?;
    town.remove().await
}

/// What `walls` shows to be shut is reached where the farmer opened it, and nothing else is.
async fn opened() -> Result<()> {
    let town = Town::build().await?;
    let openings = Openings {
        prefixes: vec![Prefix {
            address: PRINTER.into(),
            length: 24,
        }],
        mail: true,
        ..Openings::default()
    };
    let spaces = Spaces::build(&town, openings, FAST).await?;
    let inside_first = path(&spaces.all[0]);
    for (to, port) in [(PRINTER, 80), (INTERNET, 25), (INTERNET, 587), (INTERNET, 80)] {
        knock(&inside_first, to, port)
            .await
            .with_context(|| format!("{to}:{port}, which the farmer opened"))?;
    }
    for (to, port) in [(ROUTER, 80), (METADATA, 80), (CARRIER, 80), (NODE, 80)] {
        ensure!(
            knock_at_a_wall(&inside_first, to, port).await.is_err(),
            "{to}:{port} was reached, which nobody opened"
        );
    }
    status_page(&town, &spaces).await?;
    spaces.remove().await?;
    town.remove().await
}

/// With a status page, who stands on the farmer's own network reaches it; others beyond the uplink do not, and no space.
async fn status_page(town: &Town, spaces: &Spaces) -> Result<()> {
    const AT_HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 2);
    const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 1);
    const PAGE: u16 = 80;
    let take = |handle| async move { link::ensure_address(&handle, UPLINK, AT_HOME, 24).await };
    inside::netlink(None, take).await??;
    let beside = |handle| async move { link::ensure_address(&handle, "eth0", NEIGHBOUR, 24).await };
    inside::netlink(Some(town.path()), beside).await??;
    let openings = Openings {
        status_port: Some(PAGE),
        ..Openings::default()
    };
    let mut plan = plan(&spaces.all, town, openings)?;
    for uplink in &mut plan.uplinks {
        uplink.prefixes.push(Prefix {
            address: AT_HOME.into(),
            length: 24,
        });
    }
    apply(&spaces.all, &plan).await?;
    let first = &spaces.all[0];
    let seen = knock(town.path(), AT_HOME, PAGE)
        .await
        .context("the page, from home")?;
    ensure!(seen == NEIGHBOUR.to_string(), "the page sees {seen}");
    ensure!(
        knock_at_a_wall(town.path(), NODE, PAGE).await.is_err(),
        "the page is there for the internet"
    );
    let (link, gateway) = (first.user_index.link_of_node(), first.user_index.gateway());
    for to in [AT_HOME, NODE, link, gateway] {
        ensure!(
            knock_at_a_wall(&path(first), to, PAGE).await.is_err(),
            "a space reaches the page at {to}"
        );
    }
    // The control: without walls it does.
    let of_user = names::netns_path(&names::user_netns(first.user.as_bytes()));
    for namespace in [None, Some(of_user.as_path())] {
        firewall::apply(namespace, NO_RULES.to_owned()).await?;
    }
    for to in [AT_HOME, NODE] {
        knock(&path(first), to, PAGE)
            .await
            .with_context(|| format!("without rules, the page at {to}"))?;
    }
    Ok(())
}

/// Addresses that are not the first space's: its neighbour's, and nobody's.
fn false_addresses(neighbour: &SpaceLink) -> [Ipv4Addr; 2] {
    [address(neighbour), Ipv4Addr::new(192, 0, 2, 77)]
}

/// Entries of the table of connections in the namespace of a space's user.
async fn entries(space: &SpaceLink) -> Result<u32> {
    let path = names::netns_path(&names::user_netns(space.user.as_bytes()));
    let read = || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    let text = inside::run(Some(&path), read).await??;
    Ok(text.trim().parse()?)
}

/// A space's first id may make fewer (`user.max_net_namespaces`); the users' own are no one id's.
async fn many_users() -> Result<()> {
    const USERS: u8 = 40;
    let names: Vec<String> = (0..USERS).map(|user| names::user_netns(&[user; 32])).collect();
    let made: Result<(), _> = names.iter().try_for_each(|name| host::netns::create(name));
    for name in &names {
        host::netns::delete(name)?;
    }
    made?;
    // The control: made by root, as many are too many.
    let mut held = Vec::new();
    let refused = loop {
        let one = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
            std::fs::File::open("/proc/thread-self/ns/net").map_err(|_| nix::errno::Errno::EIO)
        });
        match one.join() {
            Ok(Ok(namespace)) if held.len() < USERS.into() => held.push(namespace),
            Ok(refused) => break refused.err(),
            Err(_) => bail!("the thread panicked"),
        }
    };
    ensure!(
        refused == Some(nix::errno::Errno::ENOSPC),
        "root made {}: {refused:?}",
        held.len()
    );
    Ok(())
}

async fn connections() -> Result<()> {
    let most = firewall::MOST_CONNECTIONS;
    let town = Town::build().await?;
    let spaces = Spaces::build(&town, Openings::default(), FAST).await?;
    let [first, second, other] = &spaces.all[..] else {
        bail!("three spaces")
    };
    town::open_many(&path(first), most + 1000).await?;
    let held = entries(first).await?;
    ensure!(
        held > most / 2 && held <= most + 100,
        "with room for {most} there are {held} entries"
    );
    ensure!(
        knock_at_a_wall(&path(first), INTERNET, 80).await.is_err(),
        "it has too many and may have more"
    );
    for neighbour in [second, other] {
        knock(&path(neighbour), INTERNET, 80)
            .await
            .context("a neighbour of the one with too many")?;
    }
    // The control: the same rules without the count.
    let all = plan(&spaces.all, &town, Openings::default())?;
    let rules = firewall::user_rules(&all, &all.users[0]);
    let uncounted: String = rules
        .lines()
        .filter(|line| !line.contains("ct count"))
        .map(|line| format!("{line}\n"))
        .collect();
    let of_user = names::netns_path(&names::user_netns(first.user.as_bytes()));
    firewall::apply(Some(&of_user), uncounted).await?;
    town::open_many(&path(first), 2 * most).await?;
    let held = entries(first).await?;
    ensure!(held > most + 1000, "without the count there are {held} entries");
    spaces.remove().await?;
    town.remove().await
}

async fn rates() -> Result<()> {
    const RATE: BitsPerSecond = BitsPerSecond(8_000_000);
    const BYTES: usize = 3_000_000;
    const TRIES: usize = 3;
    let town = Town::build().await?;
    let spaces = Spaces::build(&town, Openings::default(), RATE).await?;
    let first = path(&spaces.all[0]);
    for (send, way) in [(true, "towards the space"), (false, "from the space")] {
        // Never more. Less is once in a while the computer's that emulates this machine: then it is measured again.
        let mut most = 0f64;
        for _ in 0..TRIES {
            let speed = speed(&first, INTERNET, send, BYTES).await? * 8.0;
            println!("{way}: {:.2} Mbit/s of {:.2}", speed / 1e6, RATE.0 as f64 / 1e6);
            ensure!(
                speed < RATE.0 as f64 * 1.1,
                "{way}: {speed} bit/s is more than was sold"
            );
            most = most.max(speed);
            if most > RATE.0 as f64 * 0.9 {
                break;
            }
        }
        ensure!(
            most > RATE.0 as f64 * 0.9,
            "{way}: {most} bit/s is much less than was sold"
        );
    }
    spaces.remove().await?;
    town.remove().await
}

async fn nothing_left() -> Result<()> {
    let links = || -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/sys/class/net")? {
            found.push(entry?.file_name().to_string_lossy().into_owned());
        }
        // ifb makes two of its own when its module is loaded.
        found.retain(|name| !name.starts_with("ifb"));
        found.sort();
        Ok(found)
    };
    let before = links()?;
    let town = Town::build().await?;
    let spaces = Spaces::build(&town, Openings::default(), FAST).await?;
    spaces.remove().await?;
    town.remove().await?;
    ensure!(
        links()? == before,
        "links: {:?} before, {:?} after",
        before,
        links()?
    );
    let namespaces: Vec<_> = std::fs::read_dir(names::RUN_NETNS)?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    ensure!(namespaces.is_empty(), "namespaces are left: {namespaces:?}");
    let rules = String::from_utf8(host::command::nft_ruleset(None)?.stdout)?;
    ensure!(!rules.contains("steading"), "rules are left: {rules}");
    Ok(())
}
