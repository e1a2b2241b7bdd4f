//! Docs name files, commands and types only if they exist, so that a move or a renaming shows.

use crate::Finding;
use crate::code::has_word;
use crate::tree::Tree;

/// Checks every Markdown file: spans in backticks and relative links, outside fenced blocks.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(&[".md"]) {
        for (line, prose) in prose_lines(text) {
            let missing = spans(prose)
                .filter_map(|span| missing_name(tree, span))
                .chain(links(prose).filter_map(|link| missing_link(tree, path, link)));
            findings.extend(missing.map(|what| Finding::new(path, line, what)));
        }
    }
    findings
}

/// Lines outside fenced blocks, numbered from 1.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(i, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((i + 1, line))
    })
}

fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
}

/// What is wrong with the name in a span, if it is a name and not there.
fn missing_name(tree: &Tree, span: &str) -> Option<String> {
    let words: Vec<&str> = span.split_whitespace().collect();
    if let ["make", target, ..] = words[..] {
        let is_target = target.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        return (is_target && !has_target(tree, target))
            .then(|| format!("`make {target}` is no target of the Makefile"));
    }
    let [name] = words[..] else { return None };
    if let Some((first, _)) = name.split_once("::") {
        return missing_item(tree, name, first);
    }
    let is_path = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_-./*".contains(c));
    if !is_path {
        return None;
    }
    let there = match name.split_once('/') {
        // Paths whose first folder is not ours are somebody else's: a run's, a data set's.
        Some((first, _)) => !tree.folders.contains(first) || matches_path(tree, name),
        None => {
            let is_source = [".rs", ".py", ".md", ".proto", ".sh", ".cpp"]
                .iter()
                .any(|ending| name.ends_with(ending));
            !is_source
                || tree.has(name)
                || tree
                    .files
                    .keys()
                    .any(|path| path.ends_with(&format!("/{name}")))
        }
    };
    (!there).then(|| format!("`{name}` does not exist"))
}

fn has_target(tree: &Tree, target: &str) -> bool {
    let rule = format!("{target}:");
    tree.texts(&["Makefile"])
        .any(|(_, text)| text.lines().any(|line| line.starts_with(&rule)))
}

/// `crate::module::Item`, where the crate is one of ours: its last name must stand in its sources.
fn missing_item(tree: &Tree, name: &str, first: &str) -> Option<String> {
    let krate = first.replace('_', "-");
    let folder = tree.folders.iter().find(|folder| {
        let its_name = folder.rsplit('/').next();
        its_name == Some(&krate) && tree.has(&format!("{folder}/Cargo.toml"))
    })?;
    let item = name.rsplit("::").next()?.trim_end_matches("()");
    let inside = format!("{folder}/src/");
    let there = tree.texts(&[".rs"]).any(|(path, source)| {
        path.starts_with(&inside)
            && (has_word(source, item) || path.ends_with(&format!("/{item}.rs")))
    });
    (!there).then(|| format!("`{name}`: {krate} has no {item}"))
}

/// Whether a path, perhaps with `*` in its components, is there.
fn matches_path(tree: &Tree, pattern: &str) -> bool {
    if !pattern.contains('*') {
        return tree.has(pattern);
    }
    let pattern: Vec<&str> = pattern.trim_end_matches('/').split('/').collect();
    tree.files.keys().chain(&tree.folders).any(|path| {
        let parts: Vec<&str> = path.split('/').collect();
        parts.len() == pattern.len()
            && pattern
                .iter()
                .zip(parts)
                .all(|(glob, part)| matches_part(glob, part))
    })
}

fn matches_part(glob: &str, part: &str) -> bool {
    match glob.split_once('*') {
        None => glob == part,
        Some((begin, end)) => {
            part.len() >= begin.len() + end.len() && part.starts_with(begin) && part.ends_with(end)
        }
    }
}

fn missing_link(tree: &Tree, from: &str, link: &str) -> Option<String> {
    if link.is_empty() || link.contains(':') {
        return None;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let target = parts.join("/");
    (!target.is_empty() && !tree.has(&target)).then(|| format!("the link to {link} leads nowhere"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(doc: &str) -> Vec<String> {
        let tree = Tree::of([
            ("docs/a.md", doc),
            ("docs/b.md", ""),
            ("Makefile", "demo: setup\n"),
            ("worker/nccl-rs/Cargo.toml", ""),
            ("worker/nccl-rs/src/group.rs", "pub struct ProcessGroup;"),
        ]);
        check(&tree).into_iter().map(|f| f.what).collect()
    }

    #[test]
    fn names_that_are_there_pass() {
        let doc = "`worker/nccl-rs/` `worker/nccl-rs/src/*.rs` `group.rs` `make demo DATA=x` `nccl_rs::ProcessGroup` \
                   `nccl_rs::group` [b](b.md#part) [m](../Makefile) [w](https://x.y) `runs/demo/x` `train/s.json` `std::mem::drop`\n\
                   ```\n`worker/gone.rs`\n```";
        assert_eq!(findings(doc), [""; 0]);
    }

    #[test]
    fn each_kind_of_name_that_is_gone_is_found() {
        for gone in [
            "`worker/gone.rs`",
            "`worker/nccl-rs/src/*.cpp`",
            "`gone.rs`",
            "`make gone`",
            "`nccl_rs::Gone`",
            "[x](gone.md)",
        ] {
            assert_eq!(findings(gone).len(), 1, "{gone}");
        }
    }
}
