//! The repository's files as people see them: sources and docs, without what is built or run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

/// Every file of the repository, by its path relative to the root with `/` between folders.
#[derive(Debug, Default)]
pub struct Tree {
    /// Text of each file, or `None` where it is not UTF-8.
    pub files: BTreeMap<String, Option<String>>,
    /// Every folder that holds a file, at any depth.
    pub folders: BTreeSet<String>,
}

impl Tree {
    /// Reads the tree under `root`.
    ///
    /// # Errors
    /// When a folder or file cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.walk(root, "")?;
        Ok(tree)
    }

    /// A tree made of texts, for tests.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add(path.into(), Some(text.into()));
        }
        tree
    }

    /// Whether a file or folder is there.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.contains_key(path) || self.folders.contains(path)
    }

    /// Files that are text and whose name ends in one of `endings`.
    pub fn texts<'a>(&'a self, endings: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(|(path, _)| endings.iter().any(|ending| path.ends_with(ending)))
            .filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    fn add(&mut self, path: String, text: Option<String>) {
        for (end, _) in path.match_indices('/') {
            self.folders.insert(path[..end].into());
        }
        self.files.insert(path, text);
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if is_not_ours(prefix, &name) || kind.is_symlink() {
                continue;
            }
            let path = format!("{prefix}{name}");
            if kind.is_dir() {
                self.walk(&entry.path(), &format!("{path}/"))?;
            } else {
                let text = String::from_utf8(fs::read(entry.path())?).ok();
                self.add(path, text);
            }
        }
        Ok(())
    }
}

/// What .gitignore lists: built, run or fetched, never written by hand.
fn is_not_ours(prefix: &str, name: &str) -> bool {
    let at_root = prefix.is_empty();
    (at_root && (name.starts_with("target") || [".git", ".cargo", "runs"].contains(&name)))
        || name == "__pycache__"
        || name.ends_with(".pyc")
}
