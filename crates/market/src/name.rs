//! Two words for an id, so that people can say which space they mean.
//!
//! Invariant: a name has at most 20 characters of `[a-z-]` and is a valid host name. It is a handle, not an id: two
//! sales may share one (4096 exist); whoever keeps a list gives the second one a suffix.

const FIRST: [&str; 64] = [
    "amber", "ample", "apt", "brave", "brief", "bright", "brisk", "calm", "clear", "clever", "cosy", "crisp",
    "deep", "eager", "early", "fair", "fine", "firm", "fleet", "fond", "free", "fresh", "gentle", "glad",
    "golden", "grand", "green", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively",
    "lucky", "mellow", "merry", "mild", "neat", "nimble", "noble", "patient", "plain", "polite", "proud",
    "quick", "quiet", "rapid", "ready", "sharp", "silver", "smooth", "snug", "solid", "steady", "still",
    "stout", "sunny", "swift", "tidy", "true", "warm", "wise",
];

const SECOND: [&str; 64] = [
    "alder", "badger", "beaver", "birch", "bison", "brook", "cedar", "clover", "crane", "curlew", "dale",
    "deer", "dove", "egret", "elm", "falcon", "fern", "field", "finch", "fox", "glen", "goose", "grove",
    "hare", "hawk", "hazel", "heron", "hill", "ibis", "jay", "juniper", "lark", "linden", "lynx", "maple",
    "marten", "meadow", "mole", "moor", "moose", "oak", "orchard", "otter", "owl", "pine", "plover", "pony",
    "quail", "raven", "reed", "robin", "rowan", "sparrow", "stoat", "stork", "swan", "thrush", "trout",
    "vole", "willow", "wren", "yak", "yarrow", "yew",
];

/// The name of the id with these bytes.
pub fn of(bytes: &[u8; 32]) -> String {
    let (first, second) = (usize::from(bytes[0] & 63), usize::from(bytes[1] & 63));
    format!("{}-{}", FIRST[first], SECOND[second])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_words_are_distinct_and_make_host_names() {
        for words in [FIRST, SECOND] {
            assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), 64);
            assert!(
                words
                    .iter()
                    .all(|word| word.len() <= 9 && word.bytes().all(|byte| byte.is_ascii_lowercase()))
            );
        }
    }
}
