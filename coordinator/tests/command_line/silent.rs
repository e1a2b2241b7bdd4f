//! Asking a coordinator that is there and says nothing.

use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use crate::place::{Place, terminate};

fn send(running: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(running);
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn questions_to_a_stopped_coordinator_end_with_an_error_that_says_what_to_do() {
    // Given a run whose coordinator was stopped
    let folder = tempfile::tempdir().unwrap();
    let at = Place::new(folder.path());
    let (mut running, lines) = at.start_until_step_2(&["--data", "coco"]);
    let address = std::fs::read(folder.path().join("run/coordinator.json")).unwrap();
    let address: serde_json::Value = serde_json::from_slice(&address).unwrap();
    let address = address["address"].as_str().unwrap().to_owned();
    send(&running, rustix::process::Signal::STOP);

    // When it is asked
    let by_folder = ["--run-dir", "run"];
    let questions: [(&[&str], &[&str]); 5] = [
        (&["status"], &by_folder),
        (&["status", "--watch"], &by_folder),
        (&["workers"], &by_folder),
        (&["workers", "--stacks"], &by_folder),
        (&["status"], &["--address", &address]),
    ];
    let asked = Instant::now();
    let asking = questions.map(|(question, whom)| {
        let mut command = at.command(&[question, whom].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    let answers: Vec<Output> = asking.map(|child| child.wait_with_output().unwrap()).into();

    // Then each gives up in time, naming it, its process, and what to do
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    let pid = running.id();
    for ((question, whom), answer) in questions.iter().zip(answers) {
        let text = String::from_utf8(answer.stderr).unwrap();
        assert_eq!(answer.status.code(), Some(75), "{question:?}: {text}");
        let silent = format!("the coordinator at {address} does not answer within 5 s: ");
        assert!(text.contains(&silent), "{question:?}: {text}");
        let advice = if whom == &by_folder {
            format!("its process {pid} was stopped; kill -CONT {pid} lets it go on")
        } else {
            "look at its process".to_owned()
        };
        assert!(text.contains(&advice), "{question:?}: {text}");
    }

    // And who would go on with its run is told the same, not to stop it by a command that it cannot hear
    let refused = at.run(&["start", "--resume", "--run-dir", "run"]);
    assert_eq!(refused.code, 64, "{}", refused.err);
    let advice = format!(
        "a coordinator is running here already (pid {pid}), and its process was stopped: kill -CONT {pid} lets it go on"
    );
    assert!(refused.err.contains(&advice), "{}", refused.err);

    // And when it goes on it answers
    send(&running, rustix::process::Signal::CONT);
    assert_eq!(at.run(&["status", "--run-dir", "run"]).code, 0);
    terminate(&running);
    let rest: Vec<String> = lines.collect();
    assert_eq!(running.wait().unwrap().code(), Some(0), "{rest:?}");
}
