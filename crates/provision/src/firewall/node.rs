//! The rules of the node's own namespace: between the users' links and the uplinks.

use std::net::IpAddr;

use super::{
    LARGEST_SEGMENT, MAIL_PORTS, MOST_CONNECTIONS_OF_A_USER, MOST_CONNECTIONS_TO_A_USER, Plan, WALLS, beyond,
    set, table,
};
use crate::network::address::is_private;

/// The whole table for the node's namespace.
pub fn node_rules(plan: &Plan) -> String {
    let mut body = set(
        "uplinks",
        "ifname",
        plan.uplinks.iter().map(|uplink| uplink.interface.to_string()),
    );
    body += &set(
        "links",
        "ifname",
        plan.users.iter().map(|user| user.link_of_node.to_string()),
    );
    body += &set("walls", "ipv4_addr", walls(plan));
    body += &set("opened", "ipv4_addr", opened(plan));
    body += &input(plan);
    body += &rate(plan);
    body += &segments();
    body += &forward(plan);
    body += &from_space(plan);
    body += &nat(plan);
    table(&body)
}

fn walls(plan: &Plan) -> impl Iterator<Item = String> {
    let of_uplinks = plan.uplinks.iter().flat_map(|uplink| &uplink.prefixes);
    let of_uplinks = of_uplinks
        .filter(|prefix| prefix.address.is_ipv4())
        .map(ToString::to_string);
    WALLS
        .iter()
        .map(|(prefix, _)| (*prefix).to_owned())
        .chain(of_uplinks)
}

fn opened(plan: &Plan) -> impl Iterator<Item = String> {
    plan.openings
        .prefixes
        .iter()
        .filter(|prefix| prefix.address.is_ipv4())
        .map(ToString::to_string)
}

/// Nothing of a space is for the node itself, answers included: the node never asks a space anything over the network.
/// The status page is for who stands on a private network of an uplink's, and comes in there.
fn input(plan: &Plan) -> String {
    let mut chain = "\tchain input {\n\
                     \t\ttype filter hook input priority filter; policy accept;\n\
                     \t\tiifname @links drop\n"
        .to_owned();
    if let Some(port) = plan.openings.status_port {
        for uplink in &plan.uplinks {
            for prefix in uplink.prefixes.iter().filter(|prefix| is_private(prefix.address)) {
                let family = if prefix.address.is_ipv4() { "ip" } else { "ip6" };
                chain += &format!(
                    "\t\tiifname {} {family} saddr {prefix} tcp dport {port} accept\n",
                    uplink.interface
                );
            }
        }
        chain += &format!("\t\ttcp dport {port} drop\n");
    }
    chain + "\t}\n"
}

/// Both ends of every stream are told to send segments that fit into the narrowest path there commonly is. Many routers
/// drop what is too big without a word, and the far end of a download is not ours to teach.
fn segments() -> String {
    format!(
        "\tchain segments {{\n\
         \t\ttype filter hook forward priority mangle; policy accept;\n\
         \t\ttcp flags & (syn | rst) == syn tcp option maxseg size set {LARGEST_SEGMENT}\n\
         \t}}\n"
    )
}

fn forward(plan: &Plan) -> String {
    let mut chain =
        "\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n".to_owned();
    for user in &plan.users {
        chain += &format!(
            "\t\tiifname {} ip saddr != {} drop\n",
            user.link_of_node,
            user.index.subnet()
        );
    }
    chain += "\t\tct state established,related accept\n\
              \t\tct state invalid drop\n";
    for user in &plan.users {
        let link = &user.link_of_node;
        chain += &format!("\t\tiifname {link} ct count over {MOST_CONNECTIONS_OF_A_USER} drop\n");
        chain += &format!("\t\toifname {link} ct count over {MOST_CONNECTIONS_TO_A_USER} drop\n");
    }
    chain += "\t\tiifname @links jump from_space\n\
              \t\tiifname @uplinks oifname @links ct status dnat accept\n\
              \t}\n";
    chain
}

/// What all spaces together have of the line, each way; before anything is let through as the answer to what was.
fn rate(plan: &Plan) -> String {
    let Some(rate) = plan.caps.rate else {
        return String::new();
    };
    let beyond = beyond(rate);
    format!(
        "\tchain rate {{\n\
         \t\ttype filter hook forward priority filter - 5; policy accept;\n\
         \t\tiifname @links oifname @uplinks {beyond}\n\
         \t\tiifname @uplinks oifname @links {beyond}\n\
         \t}}\n"
    )
}

fn from_space(plan: &Plan) -> String {
    let mut chain = "\tchain from_space {\n\t\tmeta nfproto ipv6 drop\n".to_owned();
    if let Some(resolver) = plan.resolver() {
        chain += &format!("\t\tip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 accept\n");
    }
    if !plan.openings.mail {
        let ports: Vec<String> = MAIL_PORTS.iter().map(ToString::to_string).collect();
        chain += &format!(
            "\t\ttcp dport {{ {} }} reject with icmpx admin-prohibited\n",
            ports.join(", ")
        );
    }
    chain += "\t\toifname @links reject with icmpx admin-prohibited\n\
              \t\tip daddr @opened oifname @uplinks accept\n\
              \t\tip daddr @walls reject with icmpx admin-prohibited\n\
              \t\toifname @uplinks accept\n\
              \t\treject with icmpx admin-prohibited\n\
              \t}\n";
    chain
}

fn nat(plan: &Plan) -> String {
    let mut chains =
        "\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n".to_owned();
    for user in &plan.users {
        for space in &user.spaces {
            let Some(port) = space.public_port else { continue };
            let address = IpAddr::V4(user.address(space));
            chains += &format!("\t\tiifname @uplinks tcp dport {port} dnat ip to {address}:22\n");
        }
    }
    chains += "\t}\n\tchain postrouting {\n\
               \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
               \t\tip saddr 198.18.0.0/15 oifname @uplinks masquerade\n\
               \t}\n";
    chains
}
