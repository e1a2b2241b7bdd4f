//! The map in `docs/architecture.md` matches the tree: what it shows is there, and every folder in
//! which one could look for a thing to change is shown.

use std::collections::BTreeSet;

use crate::Finding;
use crate::tree::Tree;

/// The page with the map.
pub const PAGE: &str = "docs/architecture.md";

/// Checks the map: a fenced block that begins with ```` ```map ````, two spaces a level, the name
/// first in its line.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(Some(page)) = tree.files.get(PAGE) else {
        return vec![Finding::new(PAGE, 0, "there is no map")];
    };
    let shown = shown(page);
    let mut findings: Vec<Finding> = shown
        .iter()
        .filter(|(_, path)| !tree.has(path))
        .map(|(line, path)| {
            Finding::new(
                PAGE,
                *line,
                format!("the map shows {path}, which is not there"),
            )
        })
        .collect();
    let shown: BTreeSet<&str> = shown.iter().map(|(_, path)| path.as_str()).collect();
    findings.extend(
        tree.folders
            .iter()
            .filter(|folder| deserves_a_place(tree, folder) && !shown.contains(folder.as_str()))
            .map(|folder| Finding::new(PAGE, 0, format!("the map lacks {folder}"))),
    );
    findings
}

/// Paths in the map with their lines, without a trailing slash.
fn shown(page: &str) -> Vec<(usize, String)> {
    let lines = page
        .lines()
        .enumerate()
        .skip_while(|(_, line)| line.trim() != "```map");
    let mut above: Vec<&str> = Vec::new();
    let mut paths = Vec::new();
    for (i, line) in lines.skip(1).take_while(|(_, line)| line.trim() != "```") {
        let Some(name) = line.split_whitespace().next() else {
            continue;
        };
        let depth = (line.len() - line.trim_start().len()) / 2;
        above.truncate(depth);
        above.push(name.trim_end_matches('/'));
        paths.push((i + 1, above.join("/")));
    }
    paths
}

/// Top-level folders, crates, and the folders of a crate's modules.
fn deserves_a_place(tree: &Tree, folder: &str) -> bool {
    let is_crate = |path: &str| tree.has(&format!("{path}/Cargo.toml"));
    let is_module = folder
        .rsplit_once("/src/")
        .is_some_and(|(krate, module)| is_crate(krate) && !module.contains('/'));
    // Unit tests of one file are found beside it.
    let is_tests_beside_a_file = tree.has(&format!("{folder}.rs"));
    !folder.contains('/') || is_crate(folder) || (is_module && !is_tests_beside_a_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: [(&str, &str); 3] = [
        ("worker/Cargo.toml", ""),
        ("worker/src/train/mod.rs", ""),
        ("worker/src/bin/x/deep.rs", ""),
    ];

    fn findings(map: &str) -> Vec<String> {
        let page = format!("# Map\n```map\n{map}\n```\n");
        let tree = Tree::of(TREE.into_iter().chain([(PAGE, page.as_str())]));
        check(&tree).into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn a_map_that_matches_passes() {
        assert_eq!(
            findings("docs/   pages\nworker/  binary\n  src/\n    train/  loop\n    bin/"),
            [""; 0]
        );
    }

    #[test]
    fn a_folder_that_is_gone_and_one_that_is_missing_are_found() {
        let found = findings("docs/\nworker/\n  src/\n    trane/\n    bin/");
        assert_eq!(
            found,
            [
                "the map shows worker/src/trane, which is not there",
                "the map lacks worker/src/train"
            ]
        );
    }
}
