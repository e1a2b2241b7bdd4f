//! The command line as it is typed.

use std::fs;

use clap::CommandFactory;

use super::*;

fn typed(arguments: &[&str]) -> Cli {
    Cli::try_parse_from(std::iter::once("coordinator").chain(arguments.iter().copied())).unwrap()
}

fn failure(arguments: &[&str]) -> Failure {
    run(&typed(arguments).command, &Environment::new()).unwrap_err()
}

#[test]
fn the_command_line_is_well_formed_and_every_help_text_is_there() {
    Cli::command().debug_assert();
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        // A variant's text hides all of its arguments' text: what is longer stands with the variant.
        let is_long = command.get_long_about().is_some();
        let long = [
            "start", "workers", "stop", "ledger", "replay", "report", "compare",
        ];
        assert_eq!(
            is_long,
            long.contains(&command.get_name()),
            "{}",
            command.get_name()
        );
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{} {}",
                command.get_name(),
                argument.get_id()
            );
        }
    }
}

#[test]
fn flags_are_the_strongest_layer_of_the_config() {
    let Command::Start(args) = typed(&[
        "start",
        "--run-dir",
        "r",
        "--workers",
        "3",
        "--set",
        "run.workers=3",
    ])
    .command
    else {
        panic!("not start")
    };
    let environment = Environment::from([("HGAT_RUN__WORKERS".to_owned(), "2".to_owned())]);
    let config = crate::config::Config::load(&args.config.sources(&environment)).unwrap();
    assert_eq!(
        (config.run.workers, config.origin("run.workers")),
        (Some(3), "--workers")
    );
}

#[test]
fn a_flag_and_a_set_value_that_contradict_each_other_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let refused = failure(&[
        "start",
        "--run-dir",
        run_dir.to_str().unwrap(),
        "--workers",
        "2",
        "--set",
        "run.workers=1",
    ]);
    assert_eq!(
        (refused.exit_code, refused.sentence.as_str()),
        (
            USAGE,
            "run.workers = 2 (--workers): --set says 1 of the same key: leave one of the two out"
        )
    );
    assert!(!run_dir.exists());
}

#[test]
fn what_is_wrong_with_a_start_is_said_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let start = |more: &[&str]| {
        let arguments = [
            "start",
            "--run-dir",
            run_dir.to_str().unwrap(),
            "--device",
            "cpu",
        ];
        failure(&[&arguments, more].concat())
    };

    let beyond = start(&["--listen", "0.0.0.0:0"]);
    assert_eq!(beyond.exit_code, USAGE);
    assert!(
        beyond
            .sentence
            .contains("run.listen = 0.0.0.0:0 (--listen) reaches beyond this machine"),
        "{beyond}"
    );
    assert!(beyond.sentence.contains("--insecure"), "{beyond}");

    let no_worker = start(&["--worker-binary", "/nowhere/worker"]);
    assert_eq!(no_worker.exit_code, USAGE);
    assert!(
        no_worker
            .sentence
            .contains("/nowhere/worker: there is no worker binary here"),
        "{no_worker}"
    );

    let environment = Environment::from([("HGAT_PROCESSORS".to_owned(), "abc".to_owned())]);
    let words = ["start", "--run-dir", run_dir.to_str().unwrap()];
    let no_number = run(&typed(&words).command, &environment).unwrap_err();
    assert_eq!(
        (no_number.exit_code, no_number.sentence.as_str()),
        (
            USAGE,
            "environment variable HGAT_PROCESSORS = \"abc\" is not a number of processors: give a whole one such as 4, or \
             unset it"
        )
    );

    let unknown = start(&["--set", "train.epoch=1"]);
    assert!(
        unknown.sentence.contains("did you mean train.epochs?"),
        "{unknown}"
    );

    let nothing = start(&["--resume"]);
    assert!(
        nothing
            .sentence
            .contains("there is no run to resume here (config.toml is missing)"),
        "{nothing}"
    );
    assert!(!run_dir.join("config.toml").exists());
}

#[test]
fn status_of_a_run_that_is_not_there_says_what_to_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let nobody = failure(&["status", "--run-dir", path]);
    assert_eq!(nobody.exit_code, LOST);
    assert!(
        nobody
            .sentence
            .contains("no coordinator has written its address here"),
        "{nobody}"
    );

    // Given the address of a coordinator that has ended
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    fs::write(
        folder.path().join("coordinator.json"),
        format!(r#"{{"address":"http://{address}","pid":1,"run_id":"x"}}"#),
    )
    .unwrap();
    let ended = failure(&["status", "--run-dir", path]);
    assert_eq!(ended.exit_code, LOST);
    assert!(
        ended.sentence.contains(&format!(
            "no coordinator answers at http://{address} (Connection refused"
        )),
        "{ended}"
    );
    assert!(ended.sentence.contains("summary.json"), "{ended}");
}

mod evaluate {
    use super::*;

    const ANNOTATIONS: &str = r#"{
        "images": [{"id": 1, "file_name": "a/1.jpg"}, {"id": 2, "file_name": "b/1.jpg"}, {"id": 3, "file_name": "3.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7}, {"id": 2, "image_id": 3, "category_id": 9}],
        "categories": [{"id": 7, "name": "cat", "supercategory": "animal"}, {"id": 9, "name": "dog", "supercategory": "animal"}]
    }"#;

    /// The result for these lines of predictions.
    fn evaluated(lines: &str) -> Result<u8, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let (predictions, annotations) = (
            folder.path().join("p.jsonl"),
            folder.path().join("instances.json"),
        );
        fs::write(&predictions, lines).unwrap();
        fs::write(&annotations, ANNOTATIONS).unwrap();
        let arguments = [
            "evaluate",
            "--predictions",
            predictions.to_str().unwrap(),
            "--annotations",
            annotations.to_str().unwrap(),
            "--json",
        ];
        run(&typed(&arguments).command, &Environment::new())
    }

    #[test]
    fn images_are_told_apart_by_their_sub_folders_and_those_that_could_not_be_read_are_left_out() {
        let lines = r#"{"file":"b/1.jpg","logits":[0.5,-1.0],"labels":{}}
            {"file":"./a/1.jpg","logits":[1.5,-2.0]}

            {"file":"3.jpg","error":"ends early"}"#;
        assert_eq!(evaluated(lines), Ok(OK));
    }

    #[test]
    fn what_is_wrong_with_a_line_names_file_and_line_and_ends_with_65() {
        let good = r#"{"file":"a/1.jpg","logits":[0,0]}"#;
        let cases = [
            (
                r#"{"file":"1.jpg","logits":[0,0]}"#,
                ", line 2: 1.jpg is not in",
            ),
            (r#"{"file":"1.jpg","logits":[0,0]}"#, "it lists a/1.jpg"),
            (
                r#"{"file":"3.jpg","logits":[0]}"#,
                "line 2: 3.jpg has 1 logits but",
            ),
            (
                r#"{"file":"3.jpg","logits":[0,null]}"#,
                "line 2: is not what `worker predict --json` writes",
            ),
            (
                r#"{"file":"3.jpg"}"#,
                "line 2: 3.jpg has neither logits nor error",
            ),
            (good, "line 2: a/1.jpg has a line already"),
            (r#"{"file":"3.jpg","logits":[0,0]}"#, "1 of 3 images of"),
        ];
        for (line, expected) in cases {
            let failure = evaluated(&format!("{good}\n{line}\n")).unwrap_err();
            assert_eq!(failure.exit_code, 65);
            assert!(
                failure.sentence.contains(expected),
                "{failure} lacks {expected}"
            );
        }
    }
}
