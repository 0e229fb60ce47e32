//! What the node says of an error, to people and to peers.

/// An error with all its causes, once, in one line: bounded, and without letters that move a cursor or turn a line around.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text.chars()
        .map(|letter| if market::is_plain(letter) { letter } else { ' ' })
        .take(600)
        .collect()
}
