//! Which letters a text that others will read may have.

/// Whether a letter shows as itself: no control character, and none of those that have no shape of their own yet
/// change how their neighbours are shown, such as U+202E, which turns a line around. (The general category Cf of
/// Unicode 16, the two line separators, and the private letters that no font agrees on.)
pub fn is_plain(letter: char) -> bool {
    !letter.is_control()
        && !matches!(letter,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}'
            | '\u{f0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_show_something_else_is_not_plain() {
        for letter in [
            '\u{1b}',
            '\n',
            '\u{202e}',
            '\u{200b}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
            '\u{85}',
        ] {
            assert!(!is_plain(letter), "{letter:?}");
        }
        for letter in "Köln 東京 · … “0.40” ½ №".chars() {
            assert!(is_plain(letter), "{letter:?}");
        }
    }
}
