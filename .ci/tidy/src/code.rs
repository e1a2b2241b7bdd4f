//! Rust source without its comments and literals, so that a check sees code and only code.

/// `source` with comments and the insides of string and character literals blanked; lines stay in
/// place.
pub fn bare(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(
                chars[at..end]
                    .iter()
                    .map(|&c| if c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_or_comment(chars: &[char], at: usize) -> usize {
    let after_name = at > 0 && is_name(chars[at - 1]);
    match (chars[at], chars.get(at + 1)) {
        ('/', Some('/')) => find(chars, at, |c| c == '\n'),
        ('/', Some('*')) => block_comment(chars, at),
        ('"', _) => quoted(chars, at + 1, '"'),
        ('\'', Some('\\')) => quoted(chars, at + 1, '\''),
        // A character, not a lifetime: the next but one closes it.
        ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at + 3,
        ('r', Some('"' | '#')) if !after_name => raw_string(chars, at),
        ('b' | 'c', Some('r')) if !after_name => match raw_string(chars, at + 1) {
            end if end == at + 1 => at,
            end => end,
        },
        _ => at,
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    chars[from..]
        .iter()
        .position(|&c| stop(c))
        .map_or(chars.len(), |offset| from + offset)
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted(chars: &[char], mut at: usize, close: char) -> usize {
    while at < chars.len() && chars[at] != close {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_string(chars: &[char], at: usize) -> usize {
    let quote = find(chars, at + 1, |c| c != '#');
    let hashes = quote - at - 1;
    if chars.get(quote) != Some(&'"') {
        // A raw identifier, `r#type`.
        return at;
    }
    let mut end = quote + 1;
    loop {
        end = find(chars, end, |c| c == '"') + 1;
        if end > chars.len() {
            return chars.len();
        }
        if chars[end..]
            .iter()
            .take_while(|&&c| c == '#')
            .take(hashes)
            .count()
            == hashes
        {
            return end + hashes;
        }
    }
}

/// Lines of `bare` code (from 1) where `word` stands as a whole word.
pub fn lines_with_word<'a>(bare: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    bare.lines()
        .enumerate()
        .filter(move |(_, line)| has_word(line, word))
        .map(|(i, _)| i + 1)
}

/// Whether `word` stands in `text` with no letter, digit or `_` around it.
pub fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(start, _)| {
        !text[..start].chars().next_back().is_some_and(is_name)
            && !text[start + word.len()..]
                .chars()
                .next()
                .is_some_and(is_name)
    })
}

/// Whether the whole file is a test by its place.
pub fn is_test_file(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}

/// The line (from 1) where a file's inline tests begin, or one past its last line.
///
/// By this repository's habit they are the last item, behind `#[cfg(test)]`.
pub fn first_test_line(source: &str) -> usize {
    let lines: Vec<&str> = source.lines().collect();
    (0..lines.len())
        .find(|&i| {
            lines[i].trim() == "#[cfg(test)]"
                && lines
                    .get(i + 1)
                    .is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
        })
        .map_or(lines.len() + 1, |i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank_and_code_is_not() {
        let source = "let a = \"unsafe \\\" unsafe\"; // unsafe\n/* unsafe /* x */ unsafe */ b('u', '\\'');\n\
                      let r = r#\"unsafe \" \"#; fn f<'a>(x: &'a str) {} br\"unsafe\"; r#type";
        let bare = bare(source);
        assert!(!bare.contains("unsafe"), "{bare}");
        assert_eq!(bare.lines().count(), 3);
        for kept in ["let a =", "b(", "fn f<'a>(x: &'a str) {}", "r#type"] {
            assert!(bare.contains(kept), "{kept} is missing from {bare}");
        }
    }

    #[test]
    fn a_word_within_another_is_not_that_word() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("unsafe_code not_unsafe", "unsafe"));
    }

    #[test]
    fn inline_tests_begin_at_their_attribute() {
        assert_eq!(first_test_line("a\n#[cfg(test)]\nmod tests {\n}"), 2);
        assert_eq!(first_test_line("a\n#[cfg(test)]\nmod tests;\nb"), 5);
    }
}
