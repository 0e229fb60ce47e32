//! The patterns of modules.alias.

/// fnmatch(3) without slashes: `*`, `?`, `[a-z]`, `[!a]`. `-` is `_`, as in the text, but inside brackets it makes a
/// range. Linear: on a mismatch only the last star is tried again.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], text[t]),
            Some(&c) if c == text[t] || (c == b'-' && text[t] == b'_') => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(length), _) => (p, t) = (p + length, t + 1),
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Whether the class at the start of `pattern` has `byte`: its length if so. An unclosed one has nothing.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    // A bracket that comes first is a member.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|&c| c == b']')?;
    let mut members = &pattern[start..end];
    let mut found = false;
    while let Some((&low, rest)) = members.split_first() {
        match rest {
            [b'-', high, tail @ ..] => {
                found |= (low..=*high).contains(&byte);
                members = tail;
            }
            _ => {
                found |= low == byte;
                members = rest;
            }
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        let yes = [
            ("a*", "a"),
            ("*b*", "abc"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("a-b_c[a-c]*", "a_b_cb_"),
            ("[!a]x", "bx"),
            ("*in0[1-3]*", "in02"),
        ];
        let no = [
            ("a*", "b"),
            ("a?c", "ac"),
            ("[a-c]x", "dx"),
            ("[!a]x", "ax"),
            ("[", "["),
            ("[ab", "a"),
            ("", "a"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_long_time() {
        let text = "a".repeat(20_000);
        assert!(!matches("*a*a*a*a*a*a*a*b".as_bytes(), text.as_bytes()));
    }
}
