//! The numbers of this node's offers.

use market::book::Capacity;
use market::id::GroupId;
use market::message::{Gives, Needs};
use market::quantity::{BitsPerSecond, Bytes, MilliCpus, Seconds};
use provision::volume::BESIDE_BYTES;

/// What the node itself needs: kernel, agent, page tables; measured idle at 60 MB and doubled, and more doubled.
const OWN_MEMORY: Bytes = Bytes(320 << 20);
/// What LVM, the base and the state need on a disk beyond what is free.
const OWN_DISK: Bytes = Bytes(64 << 20);
/// Processes and threads in one space: what VS Code's server and a build need.
const PIDS: u32 = 1024;
/// Of the kernel's 32768.
const ALL_PIDS: u32 = 24_576;
/// Id ranges and namespaces are many; this is what a screen still shows.
const ALL_SPACES: u32 = 64;
/// Each way, where the asker names none.
const RATE: BitsPerSecond = BitsPerSecond(100_000_000);
/// Together; the card's speed is not known before it is used.
const ALL_RATE: BitsPerSecond = BitsPerSecond(1_000_000_000);
/// Least CPU time: the kernel takes no less of each tenth of a second than a thousandth of a second.
pub(super) const LEAST_CPU: MilliCpus = MilliCpus(10);
/// Least rate at which a login still comes through before a client gives up.
pub(super) const LEAST_RATE: BitsPerSecond = BitsPerSecond(64_000);
/// Least memory in which a space starts its SSH server.
pub(super) const LEAST_MEMORY: Bytes = Bytes(64 << 20);
/// Least volume: LUKS2 headers take 16 MiB, ext4 its own.
pub(super) const LEAST_DISK: Bytes = Bytes(128 << 20);

/// What a machine with so many cores, so much memory and so much for spaces on its disks can sell.
/// `rate` is what the farmer allows for all spaces together.
pub fn capacity(
    cores: u32,
    memory: Bytes,
    rate: Option<BitsPerSecond>,
    groups: &[(GroupId, Bytes)],
) -> Capacity {
    let disks = groups
        .iter()
        .map(|(group, free)| (group.clone(), free.saturating_sub(OWN_DISK)));
    Capacity {
        cpu: MilliCpus(cores.saturating_mul(1000)),
        memory: memory.saturating_sub(OWN_MEMORY),
        rate: rate.map_or(ALL_RATE, |rate| rate.min(ALL_RATE)),
        pids: ALL_PIDS,
        spaces: ALL_SPACES,
        disks: disks.collect(),
        a_volume: Bytes(BESIDE_BYTES),
    }
}

/// Disks are sold in whole extents, as LVM counts.
pub(super) const EXTENT: Bytes = Bytes(4 << 20);

/// What a space gets that needs this: the figures asked for, sizes rounded up to whole 4 MiB as LVM counts.
/// Who names no rate gets the usual one, or all that the farmer allows where that is less.
pub(super) fn gives(needs: &Needs, most: Option<BitsPerSecond>) -> Gives {
    let disk = Bytes(needs.disk.0.div_ceil(EXTENT.0).saturating_mul(EXTENT.0));
    Gives {
        cpu: needs.cpu,
        memory: needs.memory,
        disk,
        rate: needs.rate.unwrap_or(most.map_or(RATE, |most| most.min(RATE))),
        pids: PIDS,
        snapshot: Bytes::ZERO,
    }
}

/// From the lock to the latest first voucher: half an hour; less for short periods, but long enough for a slow machine.
pub(super) fn accept_window(period: Seconds) -> Seconds {
    Seconds(period.0.clamp(300, 1800))
}

/// From closing or expiry to the refund: 24 periods, a day at most.
pub(super) fn notice(period: Seconds) -> Seconds {
    Seconds(period.0.saturating_mul(24).clamp(60, 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_periods_get_the_usual_windows() {
        assert_eq!(accept_window(Seconds(3600)), Seconds(1800));
        assert_eq!(notice(Seconds(3600)), Seconds(86_400));
        assert_eq!(
            (accept_window(Seconds(10)), notice(Seconds(10))),
            (Seconds(300), Seconds(240))
        );
    }

    /// As many spaces as are let on a disk that they fill: each takes its header beside, so a margin does not do.
    #[test]
    fn what_is_sold_of_a_disk_is_what_lvm_takes() {
        use market::book::Book;
        use market::id::SaleId;
        use provision::volume::extents_for;

        let (group, disk) = (GroupId("g".into()), Bytes(128 << 20));
        let room = Bytes(OWN_DISK.0 + 24 * disk.0);
        let mut book = Book::new(capacity(64, Bytes(64 << 30), None, &[(group.clone(), room)]));
        let asked = Needs {
            cpu: LEAST_CPU,
            memory: LEAST_MEMORY,
            disk,
            rate: Some(LEAST_RATE),
        };
        let given = gives(&asked, None);
        let mut sold = 0;
        while book.look(&given, 0).is_ok() {
            sold += 1;
            book.restore(SaleId([sold; 32]), given, group.clone());
        }
        let taken = u64::from(sold) * extents_for(disk.0).unwrap();
        assert!(sold == 23 && taken <= room.0, "{sold}");
        let one_more = taken + extents_for(disk.0).unwrap();
        assert!(
            one_more > room.0,
            "the control: as many as 128 MiB fit are too many"
        );
        // What is left in the book can be had.
        let left = book.unsold().disks[&group].saturating_sub(Bytes(BESIDE_BYTES));
        assert!(taken + extents_for(left.0).unwrap() <= room.0, "{left:?}");
    }

    #[test]
    fn a_small_machine_keeps_room_for_itself() {
        let sold = capacity(1, Bytes(256 << 20), None, &[]);
        assert_eq!(sold.memory, Bytes::ZERO);
        let asked = Needs {
            cpu: MilliCpus(1),
            memory: Bytes(1),
            disk: Bytes((4 << 20) + 1),
            rate: None,
        };
        assert_eq!(gives(&asked, None).disk, Bytes(8 << 20));
    }

    #[test]
    fn no_more_is_sold_than_the_farmer_allows() {
        let most = BitsPerSecond(50_000_000);
        let sold = capacity(1, Bytes(1 << 30), Some(most), &[]);
        assert_eq!(sold.rate, most);
        let mut asked = Needs {
            cpu: MilliCpus(1),
            memory: Bytes(1),
            disk: Bytes(1),
            rate: None,
        };
        assert_eq!(gives(&asked, Some(most)).rate, most);
        assert_eq!(gives(&asked, Some(ALL_RATE)).rate, RATE);
        // What is asked for stays: the book then says that there is too little.
        asked.rate = Some(BitsPerSecond(60_000_000));
        assert_eq!(gives(&asked, Some(most)).rate, BitsPerSecond(60_000_000));
    }
}
