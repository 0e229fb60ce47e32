//! The user's unlock key.

use std::fmt;
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

/// Length of an unlock key in bytes.
pub const UNLOCK_KEY_BYTES: usize = 64;

/// The user's unlock key: 64 random bytes that open the one key slot of a volume.
///
/// It has no `Clone`, its `Debug` shows nothing, and its one copy in memory is zeroized when it is
/// dropped. It is never put into a log, an argument, an error or a file.
pub struct UnlockKey(Arc<Zeroizing<[u8; UNLOCK_KEY_BYTES]>>);

impl UnlockKey {
    /// Takes the key out of `bytes`, which are zeroized.
    pub fn take(bytes: &mut [u8; UNLOCK_KEY_BYTES]) -> Self {
        let mut own = Arc::new(Zeroizing::new([0; UNLOCK_KEY_BYTES]));
        // The Arc was made in this line above, so it has no other owner.
        if let Some(place) = Arc::get_mut(&mut own) {
            place.copy_from_slice(bytes);
        }
        bytes.zeroize();
        Self(own)
    }

    /// A second handle to the same bytes, for a thread that works with them. Not a copy: the bytes
    /// are zeroized when the last handle is dropped.
    pub fn another_handle(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_wiped_and_nothing_is_shown() {
        let mut bytes = [0xa7; UNLOCK_KEY_BYTES];
        let key = UnlockKey::take(&mut bytes);
        assert_eq!(bytes, [0; UNLOCK_KEY_BYTES]);
        assert_eq!(key.bytes(), [0xa7; UNLOCK_KEY_BYTES]);
        let shown = format!("{key:?} {:#?}", key.another_handle());
        assert!(!shown.contains("a7") && !shown.contains("167"), "{shown}");
    }
}
