//! DHCP messages: what is asked, and what is believed of an answer (RFC 2131, 2132, 3442).
//!
//! Pure. An answer is hostile until its transaction, its hardware address and every
//! field that is used have been checked, and one option that is nonsense spoils only
//! itself. The bytes are read here and not by `dhcproto`, which ends the process at an
//! option of a wrong length (0.15, `assertion failed: len == 4`); it is the oracle in
//! the tests.
//!
//! ```text
//!  0  op htype hlen hops | 4 transaction | 8 seconds flags | 12 ciaddr | 16 yiaddr
//!  20 siaddr | 24 giaddr | 28 chaddr (16) | 44 sname (64) | 108 file (128)
//!  236 99.130.83.99 | 240 options: code, length, value; 0 is padding, 255 the end
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Where the options begin, behind the cookie.
const OPTIONS_AT: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BROADCAST_FLAG: u16 = 0x8000;

/// The codes of RFC 2132 (and 3442) that are used.
mod code {
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const NAME_SERVER: u8 = 6;
    pub const MTU: u8 = 26;
    pub const TIME_SERVER: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const WANTED: u8 = 55;
    pub const RENEWAL: u8 = 58;
    pub const REBINDING: u8 = 59;
    pub const CLIENT: u8 = 61;
    pub const CLASSLESS_ROUTES: u8 = 121;
}

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// Most entries of a list that is believed (servers, routes).
const MOST_ENTRIES: usize = 16;
/// A shorter lease would only make traffic.
const LEAST_LEASE_SECONDS: u32 = 60;
/// A router that hands out less breaks IPv6 and QUIC.
const LEAST_MTU: u16 = 1280;

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The node's address.
    pub address: Ipv4Addr,
    /// Its prefix length.
    pub length: u8,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// Destination, length, router; the default route is `0.0.0.0/0`. A router of
    /// `0.0.0.0` means: on the cable itself.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers.
    pub resolvers: Vec<Ipv4Addr>,
    /// Time servers (option 42).
    pub time_servers: Vec<Ipv4Addr>,
    /// How long it is good, in seconds; `u32::MAX` is for ever.
    pub seconds: u32,
    /// When to ask the server again.
    pub renew_seconds: u32,
    /// When to ask anybody.
    pub rebind_seconds: u32,
    /// The largest packet, where the network says one.
    pub mtu: Option<u16>,
}

impl Lease {
    /// Whether it leads anywhere beyond the cable.
    pub(super) fn has_router(&self) -> bool {
        self.routes.iter().any(|(_, length, _)| *length == 0)
    }
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Is there anybody?
    Discover,
    /// I take your offer.
    Select { address: Ipv4Addr, server: Ipv4Addr },
    /// I had this address here before (after a cable was pulled).
    Reboot { address: Ipv4Addr },
    /// I have it and want it longer.
    Renew { address: Ipv4Addr },
}

/// An answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Offer(Lease),
    Ack(Lease),
    Nak,
}

/// The bytes of a question.
pub(super) fn encode(ask: Ask, transaction: u32, mac: [u8; 6], seconds: u16) -> Vec<u8> {
    let zero = Ipv4Addr::UNSPECIFIED;
    let own = match ask {
        Ask::Renew { address } => address,
        Ask::Discover | Ask::Select { .. } | Ask::Reboot { .. } => zero,
    };
    // Without an address only a broadcast finds us.
    let flags = if own == zero { BROADCAST_FLAG } else { 0 };
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(transaction.to_be_bytes());
    bytes.extend(seconds.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend(own.octets());
    bytes.resize(28, 0);
    bytes.extend(mac);
    bytes.resize(OPTIONS_AT - COOKIE.len(), 0);
    bytes.extend(COOKIE);
    let mut option = |code: u8, value: &[u8]| {
        bytes.extend([code, value.len() as u8]);
        bytes.extend(value);
    };
    let kind = if ask == Ask::Discover { DISCOVER } else { REQUEST };
    option(code::MESSAGE_TYPE, &[kind]);
    let [a, b, c, d, e, f] = mac;
    option(code::CLIENT, &[1, a, b, c, d, e, f]);
    match ask {
        Ask::Discover | Ask::Renew { .. } => {}
        Ask::Select { address, server } => {
            option(code::REQUESTED_ADDRESS, &address.octets());
            option(code::SERVER, &server.octets());
        }
        Ask::Reboot { address } => option(code::REQUESTED_ADDRESS, &address.octets()),
    }
    let wanted = [
        code::SUBNET_MASK,
        // Before the router, as RFC 3442 wants it.
        code::CLASSLESS_ROUTES,
        code::ROUTER,
        code::NAME_SERVER,
        code::MTU,
        code::TIME_SERVER,
        code::LEASE_TIME,
        code::RENEWAL,
        code::REBINDING,
    ];
    option(code::WANTED, &wanted);
    bytes.push(255);
    // Some servers and relays drop what is shorter than BOOTP was.
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// An answer to this transaction of this card; anything else is nothing.
pub(super) fn decode(bytes: &[u8], transaction: u32, mac: [u8; 6]) -> Option<Answer> {
    let ours = bytes.first() == Some(&2)
        && bytes.get(4..8)? == transaction.to_be_bytes()
        && bytes.get(28..34)? == mac
        && bytes.get(236..OPTIONS_AT)? == COOKIE;
    if !ours {
        return None;
    }
    let options = Options::read(bytes.get(OPTIONS_AT..)?);
    let given = Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(16..20)?).ok()?);
    match options.bytes::<1>(code::MESSAGE_TYPE)? {
        [OFFER] => Some(Answer::Offer(lease(given, &options)?)),
        [ACK] => Some(Answer::Ack(lease(given, &options)?)),
        [NAK] => Some(Answer::Nak),
        _ => None,
    }
}

/// The options of a message; one that comes in pieces is put together (RFC 3396).
struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    fn read(mut rest: &[u8]) -> Self {
        let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        loop {
            match rest {
                [0, after @ ..] => rest = after,
                [code, length, after @ ..] if *code != 255 && after.len() >= usize::from(*length) => {
                    let (value, after) = after.split_at(usize::from(*length));
                    options.entry(*code).or_default().extend(value);
                    rest = after;
                }
                _ => return Self(options),
            }
        }
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    fn bytes<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.get(code)?.try_into().ok()
    }

    fn seconds(&self, code: u8) -> Option<u32> {
        self.bytes(code).map(u32::from_be_bytes)
    }

    /// The believable addresses of a list.
    fn hosts(&self, code: u8) -> Vec<Ipv4Addr> {
        self.get(code)
            .unwrap_or_default()
            .chunks_exact(4)
            .map(|part| Ipv4Addr::new(part[0], part[1], part[2], part[3]))
            .filter(|host| is_host(*host))
            .take(MOST_ENTRIES)
            .collect()
    }
}

fn lease(address: Ipv4Addr, options: &Options) -> Option<Lease> {
    let server = options.bytes::<4>(code::SERVER).map(Ipv4Addr::from)?;
    if !is_host(address) || !is_host(server) {
        return None;
    }
    let length = match options.bytes::<4>(code::SUBNET_MASK) {
        Some(mask) => length_of(mask.into())?,
        None => classful_length(address),
    };
    let seconds = options
        .seconds(code::LEASE_TIME)
        .unwrap_or(3600)
        .max(LEAST_LEASE_SECONDS);
    let rebind_seconds = options
        .seconds(code::REBINDING)
        .filter(|at| *at < seconds)
        .unwrap_or(seconds / 8 * 7)
        .max(LEAST_LEASE_SECONDS / 2);
    let renew_seconds = options
        .seconds(code::RENEWAL)
        .filter(|at| *at <= rebind_seconds)
        .unwrap_or((seconds / 2).min(rebind_seconds))
        .max(LEAST_LEASE_SECONDS / 2);
    Some(Lease {
        address,
        length,
        server,
        routes: routes(options),
        resolvers: options.hosts(code::NAME_SERVER),
        time_servers: options.hosts(code::TIME_SERVER),
        seconds,
        renew_seconds,
        rebind_seconds,
        mtu: options
            .bytes(code::MTU)
            .map(u16::from_be_bytes)
            .filter(|mtu| *mtu >= LEAST_MTU),
    })
}

/// Where classless routes are given, the router option is to be ignored (RFC 3442).
fn routes(options: &Options) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    if let Some(routes) = options.get(code::CLASSLESS_ROUTES).and_then(classless_routes) {
        return routes;
    }
    let routers = options.hosts(code::ROUTER);
    let default = routers.first().map(|router| (Ipv4Addr::UNSPECIFIED, 0, *router));
    default.into_iter().collect()
}

/// Each route: a prefix length, the bytes of the prefix that count, the router.
fn classless_routes(mut rest: &[u8]) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
    let mut routes = Vec::new();
    while let [length, after @ ..] = rest {
        let counting = usize::from(length.div_ceil(8));
        if *length > 32 || after.len() < counting + 4 {
            return None;
        }
        let mut to = [0; 4];
        to[..counting].copy_from_slice(&after[..counting]);
        let keep = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
        let to = Ipv4Addr::from(u32::from_be_bytes(to) & keep);
        let router = <[u8; 4]>::try_from(&after[counting..counting + 4]).ok()?.into();
        if (is_host(router) || router.is_unspecified()) && !to.is_multicast() && routes.len() < MOST_ENTRIES {
            routes.push((to, *length, router));
        }
        rest = &after[counting + 4..];
    }
    Some(routes)
}

/// An address that one machine can have.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_loopback()
        || address.octets()[0] == 0)
}

fn length_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let length = bits.leading_ones();
    (length > 0 && bits.count_ones() == length).then_some(length as u8)
}

fn classful_length(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// The door for the fuzz target.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// An answer to transaction 0x01020304 of the card 02:00:00:00:00:01: the lease, where it is one.
    pub fn dhcp(bytes: &[u8]) -> Option<super::Lease> {
        match super::decode(bytes, 0x0102_0304, [2, 0, 0, 0, 0, 1])? {
            super::Answer::Offer(lease) | super::Answer::Ack(lease) => Some(lease),
            super::Answer::Nak => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::v4::{
        Decodable, Decoder, DhcpOption, Encodable, Encoder, Message, MessageType, Opcode, OptionCode,
    };
    use proptest::prelude::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn answer(kind: MessageType, change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(7, zero, Ipv4Addr::new(10, 0, 2, 15), zero, zero, &MAC);
        message.set_opcode(Opcode::BootReply);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 2, 2)));
        options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        options.insert(DhcpOption::Router(vec![Ipv4Addr::new(10, 0, 2, 2)]));
        options.insert(DhcpOption::DomainNameServer(vec![Ipv4Addr::new(10, 0, 2, 3)]));
        options.insert(DhcpOption::AddressLeaseTime(86_400));
        change(&mut message);
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).expect("encoded");
        bytes
    }

    #[test]
    fn an_ordinary_answer_is_a_lease() {
        let Some(Answer::Ack(lease)) = decode(&answer(MessageType::Ack, |_| {}), 7, MAC) else {
            panic!("no lease");
        };
        assert_eq!(lease.address, Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(lease.length, 24);
        assert_eq!(
            lease.routes,
            vec![(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 2, 2))]
        );
        assert_eq!(lease.resolvers, vec![Ipv4Addr::new(10, 0, 2, 3)]);
        assert_eq!((lease.renew_seconds, lease.rebind_seconds), (43_200, 75_600));
        assert!(lease.has_router());
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let bytes = answer(MessageType::Offer, |message| {
            message.opts_mut().insert(DhcpOption::ClasslessStaticRoute(vec![
                ("0.0.0.0/0".parse().expect("a net"), Ipv4Addr::new(10, 0, 2, 9)),
                ("192.168.7.0/24".parse().expect("a net"), Ipv4Addr::UNSPECIFIED),
            ]));
        });
        let Some(Answer::Offer(lease)) = decode(&bytes, 7, MAC) else {
            panic!("no lease");
        };
        assert_eq!(
            lease.routes,
            vec![
                (Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 2, 9)),
                (Ipv4Addr::new(192, 168, 7, 0), 24, Ipv4Addr::UNSPECIFIED),
            ]
        );
    }

    #[test]
    fn answers_to_others_and_nonsense_are_nothing() {
        let good = answer(MessageType::Ack, |_| {});
        assert_eq!(decode(&good, 8, MAC), None, "another transaction");
        assert_eq!(decode(&good, 7, [0; 6]), None, "another card");
        assert_eq!(decode(&good[..20], 7, MAC), None);
        for bad in [
            answer(MessageType::Ack, |m| {
                m.set_yiaddr(Ipv4Addr::BROADCAST);
            }),
            answer(MessageType::Ack, |m| {
                m.set_yiaddr(Ipv4Addr::LOCALHOST);
            }),
            answer(MessageType::Ack, |m| {
                m.opts_mut()
                    .insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 0, 255, 0)));
            }),
            answer(MessageType::Ack, |m| {
                m.opts_mut().remove(OptionCode::ServerIdentifier);
            }),
            answer(MessageType::Ack, |m| {
                m.set_opcode(Opcode::BootRequest);
            }),
        ] {
            assert_eq!(decode(&bad, 7, MAC), None);
        }
    }

    #[test]
    fn one_bad_option_spoils_only_itself() {
        let mut bytes = answer(MessageType::Ack, |_| {});
        let end = bytes.iter().rposition(|byte| *byte == 255).expect("the end");
        bytes.truncate(end);
        bytes.extend([42, 3, 1, 2, 3, 12, 2, 0xff, 0xff, 121, 2, 24, 10, 26, 1, 5]);
        let Some(Answer::Ack(lease)) = decode(&bytes, 7, MAC) else {
            panic!("no lease");
        };
        assert_eq!(lease.time_servers, vec![] as Vec<Ipv4Addr>);
        assert_eq!(lease.mtu, None);
        assert!(
            lease.has_router(),
            "broken classless routes leave the router: {lease:?}"
        );
    }

    #[test]
    fn times_are_kept_in_order() {
        let bytes = answer(MessageType::Ack, |m| {
            m.opts_mut().insert(DhcpOption::AddressLeaseTime(1));
            m.opts_mut().insert(DhcpOption::Renewal(900));
            m.opts_mut().insert(DhcpOption::Rebinding(0));
        });
        let Some(Answer::Ack(lease)) = decode(&bytes, 7, MAC) else {
            panic!("no lease");
        };
        assert_eq!(lease.seconds, 60);
        assert!(lease.renew_seconds <= lease.rebind_seconds && lease.rebind_seconds < lease.seconds);
    }

    #[test]
    fn a_question_can_be_read_by_others() {
        let bytes = encode(
            Ask::Select {
                address: Ipv4Addr::new(10, 0, 2, 15),
                server: Ipv4Addr::new(10, 0, 2, 2),
            },
            7,
            MAC,
            3,
        );
        assert!(bytes.len() >= 300);
        let message = Message::decode(&mut Decoder::new(&bytes)).expect("decoded");
        assert!(message.flags().broadcast());
        assert_eq!(message.opts().msg_type(), Some(MessageType::Request));
        let renew = encode(
            Ask::Renew {
                address: Ipv4Addr::new(10, 0, 2, 15),
            },
            7,
            MAC,
            3,
        );
        let message = Message::decode(&mut Decoder::new(&renew)).expect("decoded");
        assert_eq!(message.ciaddr(), Ipv4Addr::new(10, 0, 2, 15));
        assert!(!message.flags().broadcast());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0_usize..300, with in any::<u8>()) {
            let _ = decode(&bytes, 7, MAC);
            let mut near = answer(MessageType::Ack, |_| {});
            let at = at % near.len();
            near[at] = with;
            if let Some(Answer::Ack(lease)) = decode(&near, 7, MAC) {
                prop_assert!(lease.length <= 32 && lease.seconds >= LEAST_LEASE_SECONDS);
            }
        }
    }
}
