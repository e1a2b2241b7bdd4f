//! What each crate must not know, read from the manifests and followed through `Cargo.lock`.

use std::collections::{BTreeMap, BTreeSet};

use crate::Finding;
use crate::tree::Tree;

/// The only dependencies of the pure decisions: none can do IO, tell the time or draw numbers. The machine's vectors
/// (`fearless_simd`) are for speed alone: no result depends on which it has.
const DOMAIN_MAY_USE: [&str; 3] = ["fearless_simd", "serde", "thiserror"];

/// Crate, what must not be reached from it, why.
const MUST_NOT_REACH: [(&str, &[&str], &str); 6] = [
    (
        "domain",
        &["tokio", "tonic", "redb", "torch-sys", "proto", "data"],
        "decisions are pure",
    ),
    (
        "coordinator",
        &["torch-sys", "nccl-rs", "model"],
        "it starts in milliseconds and runs anywhere",
    ),
    (
        "proto",
        &["domain", "data", "torch-sys"],
        "the wire knows neither decisions nor data",
    ),
    (
        "data",
        &["torch-sys", "tokio", "tonic", "proto", "domain"],
        "pictures and labels, no tensors, no network",
    ),
    (
        "model",
        &["tokio", "tonic", "proto", "nccl-rs", "domain"],
        "the model runs in one process",
    ),
    (
        "nccl-rs",
        &["tokio", "tonic", "proto", "domain", "data", "model"],
        "collectives alone",
    ),
];

/// Checks the domain's manifest and every crate's closure.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let domain = "coordinator/domain/Cargo.toml";
    if let Some(Some(manifest)) = tree.files.get(domain) {
        for (line, dependency) in dependencies(manifest) {
            if !DOMAIN_MAY_USE.contains(&dependency) {
                let what = format!("the domain depends on {dependency}, but decisions are pure");
                findings.push(Finding::new(domain, line, what));
            }
        }
    }
    if let Some(Some(lock)) = tree.files.get("Cargo.lock") {
        let graph = graph(lock);
        for (from, forbidden, why) in MUST_NOT_REACH {
            let reached = reached(&graph, from);
            for known in forbidden.iter().filter(|name| reached.contains(**name)) {
                let what = format!("{from} reaches {known}, which it must not know: {why}");
                findings.push(Finding::new("Cargo.lock", 0, what));
            }
        }
    }
    findings
}

/// Names under `[dependencies]`, with their lines.
fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut within = false;
    manifest.lines().enumerate().filter_map(move |(i, line)| {
        if line.starts_with('[') {
            within = line.trim() == "[dependencies]";
            return None;
        }
        let name = line.split(['.', '=', ' ']).next()?;
        (within && !name.is_empty() && !name.starts_with('#')).then_some((i + 1, name))
    })
}

/// Who depends on whom, versions of a package taken together.
fn graph(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut graph = BTreeMap::<_, BTreeSet<_>>::new();
    for package in lock.split("[[package]]").skip(1) {
        let mut quoted = package.lines().filter_map(|line| {
            let line = line.trim();
            line.strip_prefix("name = ")
                .map(|name| (true, name))
                .or_else(|| line.starts_with('"').then_some((false, line)))
        });
        let Some((true, name)) = quoted.next() else {
            continue;
        };
        let entry = graph.entry(name.trim_matches('"')).or_default();
        // `"tokio 1.2.3",` where there are several versions.
        entry.extend(
            quoted.filter_map(|(_, line)| line.trim_matches(['"', ',']).split([' ', '"']).next()),
        );
    }
    graph
}

fn reached<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = graph.get(from).into_iter().flatten().copied().collect();
    while let Some(name) = open.pop() {
        if reached.insert(name) {
            open.extend(graph.get(name).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_that_can_wait_is_found() {
        let manifest = "[package]\nname = \"domain\"\n[dependencies]\n# pure\nserde.workspace = true\ntokio = \"1\"\n[dev-dependencies]\nrand = \"1\"\n";
        let found = check(&Tree::of([("coordinator/domain/Cargo.toml", manifest)]));
        assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn a_crate_that_learns_something_by_a_detour_is_found() {
        let lock = "[[package]]\nname = \"coordinator\"\nversion = \"0.1.0\"\ndependencies = [\n \"data\",\n]\n\n\
                    [[package]]\nname = \"data\"\ndependencies = [\n \"tch 0.24.0\",\n]\n\n\
                    [[package]]\nname = \"tch\"\ndependencies = [\n \"torch-sys\",\n]\n";
        let found: Vec<_> = check(&Tree::of([("Cargo.lock", lock)]))
            .into_iter()
            .map(|f| f.what)
            .collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("coordinator reaches torch-sys")
                && found[1].starts_with("data reaches")
        );
    }
}
