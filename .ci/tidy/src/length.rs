//! One idea per file: at most 400 lines without its tests.

use crate::Finding;
use crate::code::{first_test_line, is_test_file};
use crate::tree::Tree;

/// The longest file that still holds one idea.
pub const LIMIT: usize = 400;

/// Checks sources of every language that the project writes.
pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.texts(&[".rs", ".cpp", ".h", ".py", ".proto"])
        .filter(|(path, _)| !is_test_file(path))
        .filter_map(|(path, source)| {
            let lines = first_test_line(source) - 1;
            (lines > LIMIT).then(|| {
                Finding::new(
                    path,
                    0,
                    format!(
                        "{lines} lines without tests, over {LIMIT}: which second idea is in it?"
                    ),
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_and_long_tests_are_not() {
        let long = "x\n".repeat(LIMIT + 1);
        let tested = format!(
            "{}#[cfg(test)]\nmod tests {{\n{long}}}",
            "x\n".repeat(LIMIT)
        );
        let tree = Tree::of([
            ("a/src/lib.rs", &*long),
            ("a/src/b.rs", &*tested),
            ("a/src/b/tests.rs", &*long),
        ]);
        assert_eq!(
            check(&tree)
                .iter()
                .map(|f| f.path.as_str())
                .collect::<Vec<_>>(),
            ["a/src/lib.rs"]
        );
    }
}
