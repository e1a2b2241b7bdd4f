//! The short form of `make chaos`: faults at random from a fixed seed, and the proof that its check can fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;

#[test]
fn random_faults_leave_no_trace_and_every_defect_is_reported() {
    // Given the suite, ended by itself well before five minutes are over
    let worker = Path::new(env!("CARGO_BIN_EXE_worker"));
    let binaries = worker.parent().unwrap();
    assert!(
        binaries.join("coordinator").exists(),
        "{} holds no coordinator; build it: cargo build --release -p coordinator",
        binaries.display()
    );
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/chaos");

    // When it disturbs runs, and puts defects into copies of what one of them left
    let python = std::env::var("HGAT_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python)
        .arg(suite)
        .args(["--short", "--prove", "--until-faults", "20"])
        .args(["--minutes", "2", "--seed", "20"])
        .arg("--binaries")
        .arg(binaries)
        .env_remove("RUST_LOG")
        .env_remove("OMP_NUM_THREADS")
        .output()
        .unwrap();

    // Then every run held, and no defect was passed over
    let said = String::from_utf8_lossy(&output.stdout);
    let problems = String::from_utf8_lossy(&output.stderr);
    println!("{said}");
    assert!(output.status.success(), "{said}\n{problems}");
    let proofs = said
        .lines()
        .filter(|line| line.starts_with("chaos: proof: "));
    let reported = proofs.filter(|line| line.contains(": reported ("));
    assert_eq!(reported.count(), 16, "{said}");
}
