//! The figures of one evaluation as JSON, alike in `summary.json` and `coordinator evaluate --json`. All are from 0 to 1.

use domain::average_precision as ap;
use domain::group_means::{self, group_means};
use domain::{calibration, multilabel, other_definitions, thresholds};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Metrics;

/// The figures, under names that people know; `groups` are (name, class indices).
#[must_use]
pub fn figures_json(
    metrics: &Metrics,
    classes: &[String],
    groups: &[(String, Vec<usize>)],
) -> Value {
    let figures = &metrics.average_precision;
    let of_groups: Vec<_> = groups.iter().map(|(_, classes)| classes.clone()).collect();
    let by_group: Map<String, Value> = groups
        .iter()
        .map(|(name, _)| name.clone())
        .zip(
            group_means(figures, &of_groups)
                .iter()
                .map(|mean| json!(mean)),
        )
        .collect();
    let without_positive: Vec<&String> = figures
        .classes_without_positive
        .iter()
        .filter_map(|class| classes.get(*class as usize))
        .collect();
    let best_f1 = metrics.best_thresholds.as_ref().map(|best| {
        json!({
            "overall": best.overall,
            "per_class": by_name(classes, &best.per_class),
            "mean_class_f1": best.mean_class_f1,
        })
    });
    let others = metrics.other_definitions.as_ref().map(|others| {
        let variant = |variant: &other_definitions::Variant| {
            json!({ "map": variant.map, "per_class": by_name(classes, &variant.per_class) })
        };
        json!({
            "eleven_point": variant(&others.eleven_point),
            "every_point": variant(&others.every_point),
            "epsilon": variant(&others.epsilon),
        })
    });
    json!({
        "map": figures.map,
        "chance_map": figures.chance_map,
        "per_class": by_name(classes, &figures.per_class),
        "support": by_name(classes, &figures.support),
        "classes_without_positive": without_positive,
        "groups": by_group,
        "images": figures.samples,
        "at_threshold": metrics.at_threshold,
        "top3": metrics.top3,
        "top3_at_threshold": metrics.top3_at_threshold,
        "calibration": metrics.calibration,
        "best_f1": best_f1,
        "other_definitions": others,
    })
}

/// What the figures mean, to be printed beside them.
#[must_use]
pub fn definitions() -> Vec<(&'static str, &'static str)> {
    vec![
        ("definition", ap::DEFINITION),
        ("mean_definition", ap::MEAN_DEFINITION),
        ("chance_definition", ap::CHANCE_DEFINITION),
        ("multilabel_definition", multilabel::DEFINITION),
        ("group_definition", group_means::DEFINITION),
        ("calibration_definition", calibration::DEFINITION),
        ("best_f1_definition", thresholds::DEFINITION),
        (
            "other_definitions_definition",
            other_definitions::DEFINITION,
        ),
    ]
}

fn by_name<T: Serialize>(classes: &[String], values: &[T]) -> Map<String, Value> {
    classes
        .iter()
        .cloned()
        .zip(values.iter().map(|value| json!(value)))
        .collect()
}
