//! How a config is read, refused, shown and recorded.

use std::fs;
use std::path::PathBuf;

use super::*;

#[test]
fn the_defaults_are_the_published_recipe() {
    let config = Config::load(&Sources::default()).unwrap();

    assert_eq!(config.model.backbone, "resnet101");
    assert_eq!(
        (
            config.data.size,
            config.data.resize,
            config.data.transform.as_str()
        ),
        (448, 512, "multi_scale_crop")
    );
    assert_eq!(
        (config.train.optimizer.as_str(), config.train.momentum),
        ("sgd", 0.9)
    );
    assert_eq!(
        (config.train.weight_decay, config.train.clip_norm),
        (1e-4, 10.0)
    );
    assert!(
        config
            .settings()
            .all(|(_, setting)| setting.origin == "default")
    );
}

#[test]
fn the_stronger_layer_wins_and_every_value_keeps_its_origin() {
    // Given the same key on several layers
    let file = file(
        "train.epochs = 1\ntrain.gamma = 0.5\nmodel.hidden = 7\nrun.workers = 1\n[data]\nflip = false\n",
    );
    let sources = Sources {
        file: Some(file.path().join("config.toml")),
        set: vec!["train.epochs=3".into(), "data.mean=[0.5, 0.5, 0.5]".into()],
        flags: vec![("run.workers", "--workers", "4".into())],
        ..Sources::default()
    }
    .with_environment(
        [
            ("HGAT_TRAIN__EPOCHS", "2"),
            ("HGAT_TRAIN__GAMMA", "0.25"),
            ("HGAT_RUN__WORKERS", "2"),
            ("HGAT_PYTHON", "x"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );

    // When
    let config = Config::load(&sources).unwrap();

    // Then
    assert_eq!(
        (config.run.workers, config.origin("run.workers")),
        (Some(4), "--workers")
    );
    assert_eq!(
        (config.train.epochs, config.origin("train.epochs")),
        (3, "--set")
    );
    assert_eq!(config.train.gamma, 0.25);
    assert_eq!(
        config.origin("train.gamma"),
        "environment variable HGAT_TRAIN__GAMMA"
    );
    assert_eq!(config.model.hidden, 7);
    assert!(config.origin("model.hidden").ends_with("config.toml"));
    assert!(!config.data.flip);
    assert_eq!(config.data.mean, [0.5; 3]);
    assert_eq!(config.origin("data.std"), "default");
}

#[test]
fn every_mistake_is_reported_at_once_with_key_value_origin_and_fix() {
    let sources = Sources {
        set: [
            "train.epoch=3",
            "data.epochs=3",
            "modle.graph=gat",
            "model.backbone=resnet19",
            "train.epochs=0",
            "train.gamma=fast",
            "data.mean=[1, 2]",
            "run.listen=localhost",
            "data.transform=squash_crop",
            "data.resize=64",
            "train.micro_batch=7",
            "fog.colour=grey",
            "train.milestones=[9, 4]",
        ]
        .map(String::from)
        .to_vec(),
        ..Sources::default()
    };

    let mistakes = Config::load(&sources).unwrap_err();

    insta::assert_snapshot!(mistakes);
}

#[test]
fn an_argument_without_a_value_a_missing_file_and_a_file_that_is_not_toml_are_named() {
    let mistakes = |sources| Config::load(&sources).unwrap_err().to_string();
    let set = mistakes(Sources {
        set: vec!["train.epochs".into()],
        ..Sources::default()
    });
    assert!(set.contains("train.epochs (--set): has no value"), "{set}");

    let absent = mistakes(Sources {
        file: Some("/nowhere/at/all.toml".into()),
        ..Sources::default()
    });
    assert!(
        absent.starts_with("/nowhere/at/all.toml (--config): cannot be read"),
        "{absent}"
    );

    let folder = file("[train]\nepochs = = 3\n");
    let broken = mistakes(Sources {
        file: Some(folder.path().join("config.toml")),
        ..Sources::default()
    });
    assert!(
        broken.contains("is not TOML") && broken.contains("line 2"),
        "{broken}"
    );
}

#[test]
fn what_is_printed_reads_back_to_the_same_values() {
    // Given a config with something of every kind
    let groups = r#"data.groups=[{ name = "a \"b\"", classes = ["cat", "dog"] }, { name = "c", classes = ["cow"] }]"#;
    let set = [
        groups,
        "data.root=some where/coco",
        "train.warmup=0.15",
        "model.last_bias=-3",
        "train.adam_epsilon=1e-9",
    ];
    let sources = Sources {
        set: set.map(String::from).to_vec(),
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.data.groups.as_ref().unwrap()[0].0, "a \"b\"");
    assert!(config.data.root.as_ref().unwrap().is_absolute());

    // When it is recorded and read
    let folder = file(&config.to_toml());
    let sources = Sources {
        file: Some(folder.path().join("config.toml")),
        ..Sources::default()
    };
    let again = Config::load(&sources).unwrap();

    // Then
    let values = |config: &Config| {
        config
            .settings()
            .map(|(_, setting)| setting.value.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&config));
    assert_eq!(
        (&again.model, &again.data, &again.train, &again.run),
        (&config.model, &config.data, &config.train, &config.run)
    );
}

#[test]
fn a_resume_keeps_what_was_recorded_and_names_what_may_not_change() {
    // Given a run started with 10 epochs on 2 workers
    let set = ["train.epochs=10", "run.workers=2"]
        .map(String::from)
        .to_vec();
    let mut config = Config::load(&Sources {
        set,
        ..Sources::default()
    })
    .unwrap();
    let threads = Threads {
        compute: 3,
        decoding: 1,
    };
    config.record_placement(DeviceChoice::Cpu, 2, Some(threads));
    let folder = file(&config.to_toml());
    let recorded = folder.path().join("config.toml");

    // When it is resumed with nothing, with what may change, and with what may not
    let resume = |set: &[&str]| {
        let set = set.iter().map(ToString::to_string).collect();
        Config::resume(
            &recorded,
            &Sources {
                set,
                ..Sources::default()
            },
        )
    };
    let same = resume(&["train.epochs=10"]).unwrap();
    let moved = resume(&["run.listen=127.0.0.1:7000", "run.keep_checkpoints=9"]).unwrap();
    let refused = resume(&["train.epochs=11", "model.graph=fc"])
        .unwrap_err()
        .to_string();

    // Then
    assert_eq!(
        (same.train.epochs, same.train.threads, same.run.device),
        (10, Some(3), DeviceChoice::Cpu)
    );
    assert_eq!(
        (moved.run.listen.port(), moved.run.keep_checkpoints.get()),
        (7000, 9)
    );
    let beside: Vec<_> = same.beside_defaults().map(|(key, _)| key.name).collect();
    assert_eq!(
        beside,
        ["train.epochs", "train.threads", "run.workers", "run.device"],
        "a recorded config says every key, and few of them differ"
    );
    insta::assert_snapshot!(refused);
}

#[test]
fn the_demo_recipe_loads() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/experiments/demo.toml");
    let config = Config::load(&Sources {
        file: Some(file),
        ..Sources::default()
    })
    .unwrap();

    assert_eq!(
        (
            config.model.backbone.as_str(),
            config.data.size,
            config.data.resize
        ),
        ("resnet18", 64, 72)
    );
    assert_eq!(
        (
            config.train.global_batch,
            config.train.micro_batch,
            config.run.workers
        ),
        (32, 16, Some(2))
    );
    assert_eq!(
        (
            config.train.learning_rate_head,
            config.train.learning_rate_trunk
        ),
        (1.5e-3, 1.5e-3)
    );
}

#[test]
fn the_experiments_are_the_published_recipe_and_differ_in_the_graph_alone() {
    let values = |file: &str| -> Vec<(&'static str, Option<toml::Value>)> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/experiments");
        let config = Config::load(&Sources {
            file: Some(folder.join(file)),
            ..Sources::default()
        })
        .unwrap();
        // What `config print` shows is read back as the same
        let printed = self::file(&config.to_toml());
        let again = Config::load(&Sources {
            file: Some(printed.path().join("config.toml")),
            ..Sources::default()
        })
        .unwrap();
        let all = |config: &Config| -> Vec<_> {
            let settings = config.settings();
            settings
                .map(|(key, setting)| (key.name, setting.value.clone()))
                .collect()
        };
        assert_eq!(all(&config), all(&again), "{file}");
        all(&config)
    };
    let apart = |a: &[(&'static str, Option<toml::Value>)],
                 b: &[(&'static str, Option<toml::Value>)]| {
        let pairs = a.iter().zip(b).filter(|(a, b)| a != b);
        pairs.map(|(a, _)| a.0).collect::<Vec<_>>()
    };
    for name in ["exp", "demo_exp"] {
        let [gat, none, fc] = [1, 2, 3].map(|number| values(&format!("{name}_{number}.toml")));
        assert_eq!(apart(&gat, &none), ["model.graph"]);
        assert_eq!(apart(&gat, &fc), ["model.graph"]);
        let graph = |all: &[(&'static str, Option<toml::Value>)]| {
            let found = all.iter().find(|(key, _)| *key == "model.graph").unwrap();
            found.1.clone().unwrap()
        };
        assert_eq!(
            [gat, none, fc].map(|all| graph(&all)),
            ["gat", "none", "fc"].map(toml::Value::from)
        );
    }
    let defaults = Config::load(&Sources::default()).unwrap();
    let defaults: Vec<_> = defaults
        .settings()
        .map(|(key, setting)| (key.name, setting.value.clone()))
        .collect();
    assert_eq!(
        apart(&values("exp_1.toml"), &defaults),
        ["run.train_figures"]
    );
}

#[test]
fn the_reference_names_every_key() {
    let text = reference();
    for key in KEYS {
        assert!(
            text.contains(key.name) && text.contains(key.doc),
            "{}",
            key.name
        );
        assert!(
            SECTIONS
                .iter()
                .any(|(section, _)| key.name.starts_with(&format!("{section}."))),
            "{}",
            key.name
        );
    }
}

#[test]
fn the_reference_page_is_the_one_generated_from_the_keys() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    assert!(
        fs::read_to_string(page).unwrap() == reference(),
        "docs/config.md is of other keys: run `coordinator config keys > docs/config.md`"
    );
}

/// A folder that holds `config.toml`.
fn file(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.toml"), text).unwrap();
    folder
}
