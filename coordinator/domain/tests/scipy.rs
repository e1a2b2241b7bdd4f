//! Welch's test against SciPy's. Runs the Python that `HGAT_PYTHON` names (else `python3`).
// The crate's bans are on its decisions; a test has to run its peer.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::process::Command;

use domain::comparison::seeds::{permutation_p, spread, welch};
use serde_json::{Value, json};

const SCRIPT: &str = r#"
import json, sys
import numpy as np
from scipy import stats
out = []
for a, b in json.loads(sys.argv[1]):
    t = stats.ttest_ind(a, b, equal_var=False)
    interval = t.confidence_interval(0.95)
    exact = stats.permutation_test((a, b), lambda x, y: np.mean(x) - np.mean(y), n_resamples=np.inf)
    out.append([t.pvalue, interval.low, interval.high, t.df, exact.pvalue])
print(json.dumps(out))
"#;

#[test]
fn p_values_and_intervals_are_those_of_scipy() {
    let cases: Vec<(Vec<f64>, Vec<f64>)> = vec![
        (vec![0.812, 0.806, 0.815], vec![0.808, 0.811, 0.803]),
        (vec![0.812, 0.806, 0.815], vec![0.608, 0.611, 0.603]),
        (vec![0.5, 0.52], vec![0.3, 0.301, 0.302, 0.303, 0.36]),
        (vec![0.1, 0.9, 0.4, 0.6], vec![0.2, 0.21]),
    ];
    let named = std::env::var_os("HGAT_PYTHON");
    let python = named.clone().unwrap_or_else(|| "python3".into());
    let probe = Command::new(&python).args(["-c", "import scipy"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        assert!(
            named.is_none(),
            "HGAT_PYTHON is set to {python:?}, which has no SciPy"
        );
        println!("skipped: {python:?} has no SciPy; name one that has by HGAT_PYTHON");
        return;
    }
    let output = Command::new(&python)
        .args(["-c", SCRIPT, &json!(cases).to_string()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let peers: Value = serde_json::from_slice(&output.stdout).unwrap();
    for ((a, b), peer) in cases.iter().zip(peers.as_array().unwrap()) {
        let found = welch(&spread(a).unwrap(), &spread(b).unwrap()).unwrap();
        let mut figures = vec![found.p, found.low, found.high, found.freedom];
        // With sides of unequal size SciPy doubles the smaller tail, and ours counts both as they are.
        if a.len() == b.len() {
            figures.push(permutation_p(a, b).unwrap());
        }
        for (at, figure) in figures.into_iter().enumerate() {
            let peer = peer[at].as_f64().unwrap();
            assert!(
                (figure - peer).abs() <= 1e-9 * peer.abs().max(1e-3),
                "{a:?} {b:?}: figure {at} is {figure}, SciPy says {peer}"
            );
        }
    }
}
