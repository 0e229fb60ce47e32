//! Golden text, properties, and the kernel's own opinion of the text.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> InterfaceName {
    InterfaceName::try_from(text.to_owned()).unwrap()
}

fn user(index: u16, spaces: &[(u8, Option<u16>)]) -> UserPlan {
    let spaces = spaces.iter().map(|(space, public_port)| SpacePlan {
        index: SpaceIndex::try_from(*space).unwrap(),
        link: name(&format!("s-{index}-{space}")),
        public_port: *public_port,
    });
    UserPlan {
        index: UserIndex::try_from(index).unwrap(),
        link_of_node: name(&format!("u-{index}")),
        link_of_user: name("node"),
        spaces: spaces.collect(),
    }
}

fn plan() -> Plan {
    let uplink = Uplink {
        interface: name("eth0"),
        prefixes: vec![Prefix {
            address: "203.0.113.7".parse().unwrap(),
            length: 24,
        }],
        resolvers: vec!["2001:db8::53".parse().unwrap(), "10.0.2.3".parse().unwrap()],
    };
    Plan {
        uplinks: vec![uplink],
        openings: Openings {
            prefixes: vec![
                "192.168.7.0/24"
                    .split_once('/')
                    .map(|(address, length)| Prefix {
                        address: address.parse().unwrap(),
                        length: length.parse().unwrap(),
                    })
                    .unwrap(),
            ],
            mail: false,
            status_port: None,
        },
        caps: Caps::default(),
        users: vec![user(0, &[(0, Some(2201)), (1, None)]), user(7, &[(0, None)])],
    }
}

#[test]
fn the_nodes_rules_are_the_golden_ones() {
    assert_eq!(node_rules(&plan()), include_str!("golden/node.nft"));
}

#[test]
fn caps_are_a_chain_of_their_own_and_stand_before_the_answers() {
    let mut plan = plan();
    let (before, users_before) = (node_rules(&plan), user_rules(&plan, &plan.users[0]));
    plan.caps = Caps {
        rate: Some(BitsPerSecond(50_000_000)),
        slowed: true,
    };
    let node = node_rules(&plan);
    assert!(node.contains(
        "type filter hook forward priority filter - 5; policy accept;\n\
         \t\tiifname @links oifname @uplinks limit rate over 6103 kbytes/second burst 64 kbytes drop\n"
    ));
    let user = user_rules(&plan, &plan.users[0]);
    for way in [
        "iifname @spaces oifname \"node\"",
        "iifname \"node\" oifname @spaces",
        "\t\toifname @spaces",
    ] {
        let rule = format!("{way} limit rate over 7 kbytes/second burst 64 kbytes drop\n");
        assert!(user.contains(&rule), "{rule}\n{user}");
    }
    // The rest stays as it is.
    assert_eq!(node.replace(&rate_chain(&node), ""), before);
    assert!(!users_before.contains("limit rate"));
}

#[test]
fn a_status_page_is_for_private_networks_of_the_uplinks_alone() {
    let mut plan = plan();
    assert!(!node_rules(&plan).contains("dport 80 "), "off by default");
    plan.openings.status_port = Some(80);
    for address in ["192.168.1.20", "fd00:7::20"] {
        plan.uplinks[0].prefixes.push(Prefix {
            address: address.parse().unwrap(),
            length: 24,
        });
    }
    let rules = node_rules(&plan);
    let start = rules.find("\tchain input").unwrap();
    let chain = &rules[start..start + rules[start..].find("\t}\n").unwrap()];
    assert_eq!(
        chain,
        "\tchain input {\n\
         \t\ttype filter hook input priority filter; policy accept;\n\
         \t\tiifname @links drop\n\
         \t\tiifname \"eth0\" ip saddr 192.168.1.20/24 tcp dport 80 accept\n\
         \t\tiifname \"eth0\" ip6 saddr fd00:7::20/24 tcp dport 80 accept\n\
         \t\ttcp dport 80 drop\n",
        "spaces first, and of 203.0.113.0/24 nobody"
    );
}

fn rate_chain(rules: &str) -> String {
    let start = rules.find("\tchain rate").unwrap();
    let end = start + rules[start..].find("\t}\n").unwrap() + 3;
    rules[start..end].to_owned()
}

#[test]
fn a_users_rules_are_the_golden_ones() {
    let plan = plan();
    assert_eq!(user_rules(&plan, &plan.users[0]), include_str!("golden/user.nft"));
}

#[test]
fn without_uplinks_users_and_resolvers_the_set_is_still_whole() {
    let rules = node_rules(&Plan::default());
    assert!(
        rules.contains("policy drop") && !rules.contains("elements = {  }"),
        "{rules}"
    );
    assert!(!rules.contains("dport 53"), "no resolver, no way to one");
}

#[test]
fn walls_come_before_the_way_out_and_mail_only_when_opened() {
    let closed = node_rules(&plan());
    let order = [
        "tcp dport { 25, 465, 587 } reject",
        "@opened oifname",
        "@walls reject",
        "oifname @uplinks accept\n",
    ];
    let places: Vec<usize> = order.iter().map(|rule| closed.rfind(rule).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}\n{closed}");
    let mut opened = plan();
    opened.openings.mail = true;
    assert!(!node_rules(&opened).contains("465"));
}

#[test]
fn no_name_can_end_a_rule() {
    for bad in ["", "eth0\"", "a b", "a;b", "a{b", "name-of-16-bytes", "a/b", "ä"] {
        assert!(InterfaceName::try_from(bad.to_owned()).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn each_live_space_may_use_its_own_address_alone(spaces in proptest::collection::btree_set((0u16..1024, 0u8..61), 1..20)) {
        let mut plan = Plan::default();
        for (owner, space) in &spaces {
            let index = UserIndex::try_from(*owner).unwrap();
            match plan.users.iter_mut().find(|user| user.index == index) {
                Some(known) => known.spaces.push(user(*owner, &[(*space, None)]).spaces.remove(0)),
                None => plan.users.push(user(*owner, &[(*space, None)])),
            }
        }
        let node = node_rules(&plan);
        for user in &plan.users {
            let rules = user_rules(&plan, user);
            let subnet = format!("iifname {} ip saddr != {} drop", user.link_of_node, user.index.subnet());
            prop_assert_eq!(node.matches(&subnet).count(), 1);
            for space in &user.spaces {
                let own = format!("iifname {} meta nfproto ipv4 ip saddr != {} drop", space.link, user.address(space));
                prop_assert_eq!(rules.matches(&own).count(), 1);
            }
            prop_assert_eq!(rules.matches("ip saddr != ").count(), user.spaces.len());
        }
    }

    #[test]
    fn each_uplink_prefix_is_a_wall(address: [u8; 4], length in 1u8..=32) {
        let mut plan = plan();
        plan.uplinks[0].prefixes = vec![Prefix { address: IpAddr::V4(address.into()), length }];
        let rules = node_rules(&plan);
        let walls = rules.lines().skip_while(|line| !line.contains("set walls")).find(|line| line.contains("elements"));
        prop_assert!(walls.unwrap().contains(&plan.uplinks[0].prefixes[0].to_string()));
    }
}
