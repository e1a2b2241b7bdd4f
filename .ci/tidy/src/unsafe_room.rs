//! Unsafe code stays in `worker/nccl-rs`, each piece with an argument why it is sound; every other
//! crate takes the workspace's lints, which forbid it.

use crate::Finding;
use crate::code::{bare, has_word, lines_with_word};
use crate::tree::Tree;

const ROOM: &str = "worker/nccl-rs/";

/// Checks all Rust files and manifests.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in tree.texts(&[".rs"]) {
        let code = bare(source);
        if !path.starts_with(ROOM) {
            findings.extend(lines_with_word(&code, "unsafe").map(|line| {
                Finding::new(
                    path,
                    line,
                    format!("unsafe code outside {ROOM}: give it a safe face there"),
                )
            }));
        } else {
            findings.extend(without_argument(path, source, &code));
        }
    }
    for (path, manifest) in tree.texts(&["Cargo.toml"]) {
        let is_crate = manifest.contains("[package]");
        if is_crate && !path.starts_with(ROOM) && !manifest.contains("[lints]\nworkspace = true") {
            findings.push(Finding::new(
                path,
                0,
                "lacks `[lints] workspace = true`, which forbids unsafe code",
            ));
        }
    }
    findings
}

/// Blocks and impls that do not say why they are sound.
fn without_argument<'a>(
    path: &'a str,
    source: &'a str,
    code: &'a str,
) -> impl Iterator<Item = Finding> + 'a {
    let lines: Vec<&str> = source.lines().collect();
    code.lines().enumerate().filter_map(move |(i, line)| {
        // `unsafe fn` and `unsafe extern` state duties; blocks and impls claim that they are met.
        let claims = has_word(line, "unsafe")
            && !["unsafe fn", "unsafe extern", "(unsafe"]
                .iter()
                .any(|form| line.contains(form));
        (claims && !is_argued(&lines, i)).then(|| {
            Finding::new(
                path,
                i + 1,
                "no `SAFETY:` comment: say which pointer is valid, how long, on which thread",
            )
        })
    })
}

/// Whether the comment that ends above line `at`, or stands in it, has an argument. The statement
/// may begin a few lines before the word.
fn is_argued(lines: &[&str], at: usize) -> bool {
    let statement = (at.saturating_sub(3)..=at).rev();
    lines[at].contains("SAFETY:")
        || statement.into_iter().any(|start| {
            lines[..start]
                .iter()
                .rev()
                .take_while(|line| {
                    line.trim_start().starts_with("//") || line.trim_start().starts_with("#[")
                })
                .any(|line| line.contains("SAFETY:"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_outside_its_room_is_found_and_in_a_comment_is_not() {
        let tree = Tree::of([("worker/src/main.rs", "// unsafe\nfn f() { unsafe { g() } }")]);
        assert_eq!(check(&tree).iter().map(|f| f.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn unsafe_in_its_room_needs_an_argument() {
        let argued = "// SAFETY: the pointer outlives the call.\nunsafe { g() }\n// SAFETY: moved whole.\nunsafe impl Send for X {}\n\
                      // SAFETY: p is valid.\nlet x =\n    unsafe { *p };\npub unsafe fn f();";
        assert_eq!(
            check(&Tree::of([("worker/nccl-rs/src/ffi.rs", argued)])),
            []
        );
        let bald = "// A reason of no weight.\nunsafe { g() }";
        assert_eq!(
            check(&Tree::of([("worker/nccl-rs/src/ffi.rs", bald)])).len(),
            1
        );
    }

    #[test]
    fn a_crate_that_leaves_the_workspace_lints_is_found() {
        let tree = Tree::of([
            (
                "proto/Cargo.toml",
                "[package]\nname = \"proto\"\n\n[lints]\nworkspace = true\n",
            ),
            ("other/Cargo.toml", "[package]\nname = \"other\"\n"),
        ]);
        assert_eq!(
            check(&tree)
                .iter()
                .map(|f| f.path.as_str())
                .collect::<Vec<_>>(),
            ["other/Cargo.toml"]
        );
    }
}
