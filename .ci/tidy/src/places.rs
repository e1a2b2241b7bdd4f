//! Nothing depends on the machine it was written on: no absolute folder of one, and what lies
//! beside the clone is named in `.ci/run` alone.

use crate::Finding;
use crate::tree::Tree;

/// In pieces, lest this file find itself.
const FORBIDDEN: [(&str, &str); 3] = [
    (concat!("/", "work"), "a folder of one machine"),
    (concat!("/", "root"), "somebody's home"),
    (
        concat!("sha", "red", "/"),
        "a folder outside the repository: only .ci/run names it",
    ),
];

/// Checks every text.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(&[""]).filter(|(path, _)| *path != ".ci/run") {
        for (i, line) in text.lines().enumerate() {
            for (place, what) in FORBIDDEN {
                if names(line, place) {
                    findings.push(Finding::new(path, i + 1, format!("names {place}: {what}")));
                }
            }
        }
    }
    findings
}

/// Whether `line` has `place` as a path of its own: not the middle of another.
fn names(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + place.len()..].chars().next();
        let ends = place.ends_with('/')
            || !after.is_some_and(|c| c.is_alphanumeric() || "_-.".contains(c));
        let begins = if place.starts_with('/') {
            !before.is_some_and(|c| c.is_alphanumeric() || "_-.}/*".contains(c))
        } else {
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-')
        };
        begins && ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_one_machine_is_found_and_a_path_that_looks_like_it_is_not() {
        let bad = [
            concat!("open(\"/", "work/data\")"),
            concat!("../sha", "red/data"),
            concat!("cd /", "work"),
        ];
        for line in bad {
            assert_eq!(check(&Tree::of([("a.rs", line)])).len(), 1, "{line}");
        }
        for line in [
            "cd /worker",
            "../worker/src",
            "docs/work/x",
            "unshared/x",
            "shared memory",
        ] {
            assert_eq!(check(&Tree::of([("a.rs", line)])), [], "{line}");
        }
    }

    #[test]
    fn only_the_one_file_may_name_what_lies_beside_the_clone() {
        let line = concat!("../sha", "red/data");
        assert_eq!(check(&Tree::of([(".ci/run", line)])), []);
    }
}
