//! The page of a small run that is written by hand in `material`, and the report of one that was resumed.

mod looks;
mod material;
mod resume;

use domain::ledger::Ledger;
use domain::scoring::Figure;

use super::attention::{GroupMap, Maps};
use super::events::History;
use super::*;
use crate::further::Further;
use crate::standing::Standing;
use material::material;

/// What nobody should be able to put into a page.
const HOSTILE: &str = "<script>alert(\"1\")</script>&'x";

#[test]
fn the_page_shows_what_was_reached_and_needs_nothing_from_elsewhere() {
    let material = material();
    let page = page::page(&material, &Attention::NotInModel);

    for part in [
        "61.00 %",
        "after epoch 2, the model that the run ends with",
        "73.00 %",
        "a selected figure: the highest of 2 evaluations",
        "2.00 of 2 epochs, 20 of 20 steps",
        "finished: 2 epochs",
        "cpu on alpha",
        "This variant has no attention",
        "worker-1 was killed by signal 9 (SIGKILL)",
        "3 steps became void",
    ] {
        assert!(page.contains(part), "{part} is not in the page");
    }
    // Loss, validation, rates, norm, two of precision and recall, speed, waiting
    assert_eq!(page.matches("<svg class=\"plot\"").count(), 8);
    assert_eq!(page.matches("role=\"img\" aria-label=").count(), 8);
    // A bar a class, and one class without a positive
    assert_eq!(page.matches("<i style=\"--w:").count(), 3);
    for fetched in [
        "<script",
        "<link",
        "src=\"http",
        "url(",
        "@import",
        "<iframe",
    ] {
        assert!(!page.contains(fetched), "the page has {fetched}");
    }
    let without_namespace = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    assert!(!without_namespace.contains("http://") && !without_namespace.contains("https://"));
    // Every colour is the style sheet's, so that the page follows light and dark.
    let (_, drawn) = page.split_once("</style>").unwrap();
    assert!(!drawn.contains("=\"#0"), "a plot has a colour of its own");
    assert!(page.len() < 200_000, "{} bytes", page.len());
}

#[test]
fn names_from_outside_are_text_wherever_they_appear() {
    // Given a data set, workers, reasons and pictures named by an enemy
    let mut material = material();
    let record = &mut material.record;
    let dataset = record.dataset.as_mut().unwrap();
    dataset
        .classes
        .iter_mut()
        .for_each(|class| class.name = HOSTILE.into());
    dataset
        .groups
        .iter_mut()
        .for_each(|group| group.name = HOSTILE.into());
    dataset
        .val
        .samples
        .iter_mut()
        .for_each(|sample| sample.file_name = HOSTILE.into());
    dataset.val.annotation_file = HOSTILE.into();
    record.run_id = HOSTILE.into();
    record.run_dir = HOSTILE.into();
    record.config = Err(HOSTILE.into());
    record.standing = Standing::Ended(serde_json::json!({ "ended": HOSTILE, "reason": HOSTILE }));
    record
        .history
        .workers
        .values_mut()
        .for_each(|seen| seen.host = HOSTILE.into());
    record.history.problem = Some(HOSTILE.into());
    record
        .history
        .happenings
        .iter_mut()
        .for_each(|one| one.text = HOSTILE.into());
    let dataset = record.dataset.as_ref().unwrap();
    material.worst = Worst::of(material.scores.as_ref().unwrap(), &dataset.val);
    let group = GroupMap {
        name: HOSTILE.into(),
        classes: vec![HOSTILE.into(), HOSTILE.into()],
        within: vec![vec![0.5; 2]; 2],
    };
    let maps = Maps {
        step: 20,
        pictures: 3,
        groups: vec![group.clone(), group],
        between: vec![vec![0.25, 0.75]; 2],
    };

    for attention in [
        Attention::Measured(maps),
        Attention::Missing(HOSTILE.into()),
    ] {
        let page = page::page(&material, &attention);
        assert!(!page.contains("<script"), "a name became a tag");
        assert!(
            !page.contains("alert(\"1\")"),
            "a name could leave an attribute"
        );
        assert!(page.matches("&lt;script&gt;").count() > 20);
    }
}

#[test]
fn attention_is_shown_in_percent_or_else_why_it_is_missing() {
    let material = material();
    let maps = Maps {
        step: 20,
        pictures: 3,
        groups: vec![
            GroupMap {
                name: "shapes".into(),
                classes: vec!["a".into(), "b".into()],
                within: vec![vec![0.125, 0.875], vec![0.5, 0.5]],
            },
            GroupMap {
                name: "alone".into(),
                classes: vec!["c".into()],
                within: vec![vec![1.0]],
            },
        ],
        between: vec![vec![0.25, 0.75], vec![1.0, 0.0]],
    };
    let page_with = page::page(&material, &Attention::Measured(maps));
    assert!(page_with.contains("mean over 3 validation images"));
    assert_eq!(page_with.matches("<table class=\"heat\"").count(), 2);
    assert!(
        page_with.contains("<td style=\"--w:80\">88</td>"),
        "the highest share is the deepest"
    );
    assert!(page_with.contains("Groups of one class have nothing to attend to: alone"));

    let page_without = page::page(&material, &Attention::Missing("the worker was away".into()));
    assert!(page_without.contains("The attention was not measured: the worker was away."));
}

#[test]
fn a_run_that_has_only_begun_has_a_page_too() {
    let mut material = material();
    material.record.steps.clear();
    material.record.evaluations.clear();
    material.record.ledger = Ledger::new();
    material.record.standing = Standing::UnderWay;
    material.record.history = History::default();
    material.scores = Err("nothing was evaluated".into());

    let page = page::page(
        &material,
        &Attention::Missing("there is no checkpoint yet".into()),
    );

    for part in [
        "under way",
        "No step is committed yet",
        "nothing is evaluated yet",
        "No times were recorded",
    ] {
        assert!(page.contains(part), "{part} is not in the page");
    }
    assert!(
        !page.contains("NaN") && !page.contains("inf"),
        "a figure of nothing is shown"
    );
}

#[test]
fn figures_of_training_pictures_are_drawn_beside_validation_where_they_were_taken() {
    let mut material = material();
    let heading = "Training pictures beside validation";
    let page = page::page(&material, &Attention::NotInModel);
    assert!(!page.contains(heading));

    for known in &mut material.record.evaluations {
        known.metrics.further = [Figure::ValAverage, Figure::Online, Figure::TrainClean]
            .map(|figure| Further {
                figure,
                map: Some(0.3),
                samples: 40,
                per_class: Vec::new(),
            })
            .to_vec();
    }
    let page = page::page(&material, &Attention::NotInModel);

    for part in [
        heading,
        "training, online</li>",
        "training, clean</li>",
        "mAP by averaged weights</li>",
    ] {
        assert!(page.contains(part), "{part} is not in the page");
    }
    assert!(!page.contains("training, augmented</li>"));
}
