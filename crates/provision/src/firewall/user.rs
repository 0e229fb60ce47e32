//! The rules of one user's namespace: between the user's spaces and the link to the node.

use super::{MOST_CONNECTIONS, Plan, TRICKLE, UserPlan, beyond, set, table};

/// The whole table for one user's namespace.
pub fn user_rules(plan: &Plan, user: &UserPlan) -> String {
    let mut body = set(
        "spaces",
        "ifname",
        user.spaces.iter().map(|space| space.link.to_string()),
    );
    body += &spoofing(user);
    body += &connections(user);
    if plan.caps.slowed {
        body += &slowed(user);
    }
    body += &name_service(plan, user);
    body += &input();
    body += &forward(user);
    table(&body)
}

/// A space speaks with its own address or not at all, whoever it speaks to: before routing, before every other rule.
fn spoofing(user: &UserPlan) -> String {
    let mut chain =
        "\tchain own_address {\n\t\ttype filter hook prerouting priority raw; policy accept;\n".to_owned();
    for space in &user.spaces {
        let address = user.address(space);
        chain += &format!("\t\tiifname {} meta nfproto ipv6 drop\n", space.link);
        chain += &format!(
            "\t\tiifname {} meta nfproto ipv4 ip saddr != {address} drop\n",
            space.link
        );
    }
    chain += "\t}\n";
    chain
}

/// What would be one connection too many is dropped before it is entered in the table: after the kernel has looked it
/// up (priority -200), before an address is changed (-100).
fn connections(user: &UserPlan) -> String {
    let mut chain =
        "\tchain connections {\n\t\ttype filter hook prerouting priority mangle; policy accept;\n".to_owned();
    for space in &user.spaces {
        chain += &format!(
            "\t\tiifname {} ct state new ct count over {MOST_CONNECTIONS} drop\n",
            space.link
        );
    }
    chain += "\t}\n";
    chain
}

/// What is left when the month's traffic is used up, through the uplinks. The grid's tunnels pass none of this: they are
/// slowed where they are connected.
fn slowed(user: &UserPlan) -> String {
    let (link, beyond) = (&user.link_of_user, beyond(TRICKLE));
    let chain = |hook: &str, from_and_to: &[String]| {
        let mut chain = format!(
            "\tchain slowed_{hook} {{\n\t\ttype filter hook {hook} priority filter - 5; policy accept;\n"
        );
        for way in from_and_to {
            chain += &format!("\t\t{way} {beyond}\n");
        }
        chain + "\t}\n"
    };
    chain(
        "forward",
        &[
            format!("iifname @spaces oifname {link}"),
            format!("iifname {link} oifname @spaces"),
        ],
    ) + &chain("input", &["iifname @spaces".to_owned()])
        + &chain("output", &["oifname @spaces".to_owned()])
}

/// The gateway answers DNS by handing the question to the uplink's resolver.
fn name_service(plan: &Plan, user: &UserPlan) -> String {
    let mut chain =
        "\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n".to_owned();
    if let Some(resolver) = plan.resolver() {
        let gateway = user.index.gateway();
        chain += &format!(
            "\t\tiifname @spaces ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {resolver}\n"
        );
    }
    chain += "\t}\n";
    chain
}

/// The user's namespace serves nothing; a space may see that its gateway lives.
fn input() -> String {
    "\tchain input {\n\
     \t\ttype filter hook input priority filter; policy drop;\n\
     \t\tiifname \"lo\" accept\n\
     \t\tct state established,related accept\n\
     \t\tiifname @spaces icmp type echo-request accept\n\
     \t\tiifname @spaces reject with icmpx admin-prohibited\n\
     \t}\n"
        .to_owned()
}

fn forward(user: &UserPlan) -> String {
    let link = &user.link_of_user;
    format!(
        "\tchain forward {{\n\
         \t\ttype filter hook forward priority filter; policy drop;\n\
         \t\tct state established,related accept\n\
         \t\tct state invalid drop\n\
         \t\tiifname @spaces oifname {link} accept\n\
         \t\tiifname @spaces oifname @spaces accept\n\
         \t\tiifname {link} oifname @spaces tcp dport 22 accept\n\
         \t}}\n"
    )
}
