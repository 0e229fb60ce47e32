//! How far a disk is sold.

use super::*;

/// How many of 1 GiB are sold on disks of 10 and 30 GiB where each volume takes a GiB beside, before one is declined.
fn sold_with(a_volume: Bytes) -> (u8, Reason) {
    let mut book = Book::new(Capacity {
        cpu: MilliCpus(100_000),
        memory: Bytes(100 * GIB),
        a_volume,
        ..capacity()
    });
    for number in 0..=64 {
        match book.offer(request(number), asker(number, number), gives(10, GIB / 8, GIB), 0) {
            Ok(_) => {
                book.agree(request(number), sale(number), 0).unwrap();
                book.fund(sale(number), 0).unwrap();
            }
            Err(reasons) => return (number, reasons[0].clone()),
        }
    }
    unreachable!("more spaces than the node has")
}

#[test]
fn a_disk_is_sold_as_far_as_the_volumes_take_it() {
    let gib = u128::from(GIB);
    assert_eq!(
        sold_with(Bytes(GIB)),
        (20, Reason::numbers(DeclineCode::Disk, gib, 0))
    );
    assert_eq!(
        sold_with(Bytes::ZERO).0,
        40,
        "the control: twice what the disks hold"
    );
    // A space that has all of it keeps that, and has no more.
    let mut book = Book::new(Capacity {
        disks: [(group("a"), Bytes(3 * GIB))].into(),
        a_volume: Bytes(GIB),
        ..capacity()
    });
    book.restore(sale(1), gives(10, GIB / 8, 2 * GIB), group("a"));
    assert_eq!(book.resize(sale(1), gives(20, GIB / 8, 2 * GIB)), Ok(()));
    let more = gives(10, GIB / 8, 2 * GIB + 1);
    assert_eq!(book.resize(sale(1), more), Err(BookError::NoCapacity));
}
