//! The network rate of a space, both ways, on the side of each cable that the space cannot touch.
//!
//! ```text
//!   user's namespace                                             space's namespace
//!     link ── tbf (what the space receives) ─────────────────────► eth0
//!     link ◄─ ingress ─ u32 (all) ─ mirred ─► ifb ── tbf (what it sends) ... back into link
//! ```
//!
//! Root inside owns its own namespace and could take away whatever stood on its `eth0`. So what it sends is led, as
//! soon as it arrives on our side, through a device of our own, and is slowed by that device's egress. Slowing
//! (a queue) instead of policing (dropping): TCP then reaches the rate that was sold.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::{Error, Handle};

use futures_util::StreamExt;
use market::quantity::BitsPerSecond;

use crate::network::link::{self, LinkError};

/// How long a packet may wait in the queue before the newest are dropped.
const QUEUE_MS: u64 = 50;
/// The least burst: one packet as large as segmentation offload makes them, which tbf never cuts.
const LEAST_BURST_BYTES: u64 = 66_000;

// <linux/pkt_sched.h>: attributes of tbf, link layers.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;
// <linux/if_ether.h>, in the order of the network.
const ETH_P_ALL: u16 = 3u16.to_be();
/// `ffff:`, where an ingress queue's filters stand.
const INGRESS: u32 = 0xffff_0000;

/// The figures of one token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Bytes that may go at once.
    pub burst: u32,
    /// Bytes that may wait, burst included.
    pub limit: u32,
}

impl Bucket {
    /// The bucket for a rate. Below one byte a second there is no rate to keep: one byte then.
    pub fn of(rate: BitsPerSecond) -> Self {
        let bytes_per_second = (rate.0 / 8).max(1);
        // 10 ms of the rate: a timer tick at HZ=250 is 4 ms.
        let burst = (bytes_per_second / 100).max(LEAST_BURST_BYTES);
        let limit = burst + (bytes_per_second / 1000 * QUEUE_MS).max(LEAST_BURST_BYTES);
        let clamped = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            bytes_per_second,
            burst: clamped(burst),
            limit: clamped(limit),
        }
    }

    /// `struct tc_tbf_qopt`: two `struct tc_ratespec` of 12 bytes, limit, buffer, mtu; native order.
    fn parameters(&self) -> Vec<u8> {
        let mut bytes = ratespec(u32::try_from(self.bytes_per_second).unwrap_or(u32::MAX)).to_vec();
        bytes.extend_from_slice(&[0; 12]); // no peak rate
        bytes.extend_from_slice(&self.limit.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]); // buffer (TCA_TBF_BURST says it in bytes) and mtu
        bytes
    }

    fn options(&self) -> Vec<TcOption> {
        let option = |kind, bytes: &[u8]| TcOption::Other(DefaultNla::new(kind, bytes.to_vec()));
        let mut options = vec![
            option(TCA_TBF_PARMS, &self.parameters()),
            option(TCA_TBF_BURST, &self.burst.to_ne_bytes()),
        ];
        if self.bytes_per_second > u64::from(u32::MAX) {
            options.push(option(TCA_TBF_RATE64, &self.bytes_per_second.to_ne_bytes()));
        }
        options
    }
}

/// `struct tc_ratespec`: cell_log, linklayer, overhead, cell_align, mpu, rate. With a link layer named, the kernel
/// computes times itself and wants no table.
fn ratespec(bytes_per_second: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[1] = TC_LINKLAYER_ETHERNET;
    bytes[8..].copy_from_slice(&bytes_per_second.to_ne_bytes());
    bytes
}

/// Why a rate does not hold.
#[derive(Debug, thiserror::Error)]
pub enum RateError {
    /// A link that the rate needs.
    #[error("the rate of {link} cannot be kept")]
    Link {
        /// The space's link in the user's namespace.
        link: String,
        /// What was wrong with which link.
        #[source]
        source: LinkError,
    },
    /// The kernel refused.
    #[error("the rate of {link} cannot be kept: {act}")]
    Kernel {
        /// The space's link in the user's namespace.
        link: String,
        /// What was tried.
        act: &'static str,
        /// The kernel's answer.
        #[source]
        source: Box<Error>,
    },
}

/// Keeps `link` (the user's end of a space's cable) at `rate` both ways; `turn` names the device for what the space
/// sends. `handle` speaks to the user's namespace.
pub async fn ensure(handle: &Handle, link: &str, turn: &str, rate: BitsPerSecond) -> Result<(), RateError> {
    let of_link = |source| RateError::Link {
        link: link.to_owned(),
        source,
    };
    let failed = |act| {
        move |source| RateError::Kernel {
            link: link.to_owned(),
            act,
            source: Box::new(source),
        }
    };
    let bucket = Bucket::of(rate);
    let cable = link::index(handle, link).await.map_err(of_link)?;
    let turn = link::ensure_ifb(handle, turn).await.map_err(of_link)?;
    set_bucket(handle, cable, bucket)
        .await
        .map_err(failed("the queue towards the space"))?;
    set_bucket(handle, turn, bucket)
        .await
        .map_err(failed("the queue from the space"))?;
    let cable = signed(cable);
    // A queue that is made anew has no filters: each ensure ends with exactly one.
    drop_ingress(handle, cable)
        .await
        .map_err(failed("the old filter could not be removed"))?;
    handle
        .qdisc()
        .add(cable)
        .ingress()
        .execute()
        .await
        .map_err(failed("the ingress queue"))?;
    let filter = handle
        .traffic_filter(cable)
        .add()
        .parent(INGRESS)
        .protocol(ETH_P_ALL);
    let filter = filter.redirect(turn).map_err(failed("the filter"))?;
    filter
        .execute()
        .await
        .map_err(failed("the filter could not be set"))
}

/// Puts a token bucket at the root of the device, in the place of whatever stood there.
async fn set_bucket(handle: &Handle, index: u32, bucket: Bucket) -> Result<(), Error> {
    let mut message = TcMessage::with_index(signed(index));
    message.header.parent = TcHandle::ROOT;
    message.header.handle = TcHandle { major: 1, minor: 0 };
    message.attributes = vec![
        TcAttribute::Kind("tbf".to_owned()),
        TcAttribute::Options(bucket.options()),
    ];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut answers = handle.clone().request(request)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload {
            return Err(Error::NetlinkError(error));
        }
    }
    Ok(())
}

/// Removes the ingress queue and the filters on it.
async fn drop_ingress(handle: &Handle, index: i32) -> Result<(), Error> {
    let mut request = handle.qdisc().del(index);
    let message = request.message_mut();
    message.header.parent = TcHandle::INGRESS;
    message.header.handle = TcHandle::from(INGRESS);
    match request.execute().await {
        // EINVAL and ENOENT: how the kernel says that there is none.
        Err(error) if [nix::libc::EINVAL, nix::libc::ENOENT].contains(&link::errno(&error)) => Ok(()),
        other => other,
    }
}

fn signed(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_in_bits_is_a_bucket_in_bytes() {
        let bucket = Bucket::of(BitsPerSecond(10_000_000));
        assert_eq!(bucket.bytes_per_second, 1_250_000);
        assert_eq!(bucket.burst, 66_000);
        assert_eq!(bucket.limit, 132_000);
        let fast = Bucket::of(BitsPerSecond(100_000_000_000));
        assert_eq!(fast.bytes_per_second, 12_500_000_000);
        assert_eq!(
            fast.options().len(),
            3,
            "beyond 32 bits the rate has an attribute of its own"
        );
    }

    #[test]
    fn the_parameters_have_the_kernels_layout() {
        let bytes = Bucket::of(BitsPerSecond(8_000_000)).parameters();
        assert_eq!(bytes.len(), 36, "sizeof(struct tc_tbf_qopt)");
        assert_eq!(bytes[8..12], 1_000_000u32.to_ne_bytes());
        assert_eq!(bytes[24..28], 132_000u32.to_ne_bytes());
    }
}
