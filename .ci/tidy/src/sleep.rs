//! Tests wait for a state or pause the clock; a sleep is either too short on a busy machine or
//! longer than needed on every other.

use crate::Finding;
use crate::code::{bare, first_test_line, has_word, is_test_file};
use crate::tree::Tree;

/// Checks test code for sleeps. `allowed` lists files, each with its reason.
pub fn check(tree: &Tree, allowed: &[(&str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in tree.texts(&[".rs"]) {
        if allowed.iter().any(|(file, _)| *file == path) {
            continue;
        }
        let begin = if is_test_file(path) {
            1
        } else {
            first_test_line(source)
        };
        for (i, line) in bare(source).lines().enumerate().skip(begin - 1) {
            let sleeps = ["sleep", "sleep_ms", "park_timeout"];
            if sleeps
                .iter()
                .any(|call| has_word(line, call) && line.contains(&format!("{call}(")))
            {
                findings.push(Finding::new(
                    path,
                    i + 1,
                    "a test sleeps: wait for the state it waits for",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLEEPY: &str =
        "fn f() { sleep(1) }\n#[cfg(test)]\nmod tests {\n    fn t() { thread::sleep(x); }\n}";

    #[test]
    fn a_sleeping_test_is_found_and_sleeping_code_is_not() {
        let tree = Tree::of([
            ("a/src/lib.rs", SLEEPY),
            (
                "a/tests/b.rs",
                "// sleep(\nfn no_sleep() {}\ntokio::time::sleep(d).await;",
            ),
        ]);
        let found: Vec<_> = check(&tree, &[])
            .into_iter()
            .map(|f| (f.path, f.line))
            .collect();
        assert_eq!(
            found,
            [("a/src/lib.rs".into(), 4), ("a/tests/b.rs".into(), 3)]
        );
    }

    #[test]
    fn a_file_with_a_reason_may() {
        let tree = Tree::of([("a/src/lib.rs", SLEEPY)]);
        assert_eq!(
            check(&tree, &[("a/src/lib.rs", "measures the sleep itself")]),
            []
        );
    }
}
