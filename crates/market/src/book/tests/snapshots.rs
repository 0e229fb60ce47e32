//! What a snapshot takes.

use super::*;

#[test]
fn a_snapshot_is_sold_as_disk_and_the_kernels_list_of_it_as_memory() {
    let mut book = Book::new(capacity());
    let disk_free = |book: &Book| book.free().disks[&group("a")];
    book.restore(sale(1), gives(100, GIB, 4 * GIB), group("a"));
    assert_eq!(disk_free(&book), Bytes(6 * GIB));
    let memory_free = book.free().memory;
    let with = Gives {
        snapshot: Bytes(4 * GIB + 1),
        ..gives(100, GIB, 4 * GIB)
    };
    book.resize(sale(1), with).unwrap();
    assert_eq!(disk_free(&book), Bytes(2 * GIB - 1));
    assert_eq!(book.free().memory, Bytes(memory_free.0 - 4 * (1 << 20)));
    let too_much = Gives {
        snapshot: Bytes(6 * GIB + 1),
        ..with
    };
    let lacks = book.room_for(sale(1), &too_much, 0).unwrap_err();
    let figures = Reason::numbers(DeclineCode::Disk, u128::from(10 * GIB) + 1, u128::from(10 * GIB));
    assert_eq!(lacks, [figures]);
    assert!(book.resize(sale(1), too_much).is_err());
    book.resize(sale(1), gives(100, GIB, 4 * GIB)).unwrap();
    assert_eq!(disk_free(&book), Bytes(6 * GIB), "it is gone");
    assert_eq!(book.free().memory, memory_free);
}
