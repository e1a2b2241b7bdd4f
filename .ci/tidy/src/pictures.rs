//! Photographs belong to others, so none is in the repository; plots of our own runs live in `docs/`.

use crate::Finding;
use crate::tree::Tree;

const ENDINGS: [&str; 9] = [
    ".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".npy",
];

/// Checks file names.
pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.files
        .keys()
        .filter(|path| {
            ENDINGS
                .iter()
                .any(|ending| path.to_ascii_lowercase().ends_with(ending))
        })
        .filter(|path| !(path.starts_with("docs/") && path.ends_with(".png")))
        .map(|path| {
            Finding::new(
                path,
                0,
                "a picture: draw it in the test that needs it, or keep a plot under docs/",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_photograph_is_found_and_a_plot_in_docs_is_not() {
        let tree = Tree::of([
            ("worker/tests/A.JPG", ""),
            ("docs/loss.png", ""),
            ("docs/cat.jpg", ""),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|f| f.path).collect();
        assert_eq!(found, ["docs/cat.jpg", "worker/tests/A.JPG"]);
    }
}
