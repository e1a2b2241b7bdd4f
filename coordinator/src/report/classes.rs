//! Average precision of each class with its support, by supercategory.

use maud::{Markup, html};

use super::record::Record;
use crate::terminal::figures::grouped;

/// (class, average precision, images that show it) of a group.
type Row = (usize, Option<f64>, u32);

/// Bars of the last evaluation.
pub(super) fn bars(record: &Record) -> Markup {
    let (Some(last), _) = record.last_and_best() else {
        return html! { p { "Nothing is evaluated yet." } };
    };
    let figures = &last.metrics.average_precision;
    let row = |class: usize| -> Option<Row> {
        let ap = figures.per_class.get(class).copied()?;
        Some((class, ap, figures.support.get(class).copied().unwrap_or(0)))
    };
    let groups: Vec<(String, Vec<Row>)> = match &record.dataset {
        Ok(dataset) => dataset
            .groups
            .iter()
            .map(|group| {
                let classes = group.classes.iter();
                (
                    group.name.clone(),
                    classes.filter_map(|&class| row(class)).collect(),
                )
            })
            .collect(),
        Err(_) => vec![(
            "all classes".to_owned(),
            (0..figures.per_class.len()).filter_map(row).collect(),
        )],
    };
    html! {
        p class="soft" {
            "Of the last evaluation, after epoch " (last.epoch + 1) ". n: validation images that show the class; a figure "
            "over few images is uncertain. Within a group the highest comes first."
        }
        div class="groups" {
            @for (name, rows) in &groups { (group(record, name, rows)) }
        }
    }
}

fn group(record: &Record, name: &str, rows: &[Row]) -> Markup {
    let known: Vec<f64> = rows.iter().filter_map(|(_, ap, _)| *ap).collect();
    let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
    let mut sorted = rows.to_vec();
    sorted.sort_by(|a, b| b.1.unwrap_or(-1.0).total_cmp(&a.1.unwrap_or(-1.0)));
    html! {
        div {
            h3 {
                (name)
                @if !known.is_empty() { span class="soft" { " · mean " (format!("{:.1} %", 100.0 * mean)) } }
            }
            table class="bars" {
                thead {
                    tr {
                        th scope="col" { "class" }
                        th scope="col" { span class="scale" { span { "0" } span { "50" } span { "100 %" } } }
                        th scope="col" class="n" { "AP" }
                        th scope="col" class="n" { "n" }
                    }
                }
                tbody {
                    @for (class, ap, support) in sorted {
                        tr {
                            th scope="row" { (record.class_name(class)) }
                            @match ap {
                                Some(ap) => {
                                    td class="bar" { i style={ "--w:" (format!("{:.1}", 100.0 * ap)) } {} }
                                    td class="n" { (format!("{:.1} %", 100.0 * ap)) }
                                },
                                None => { td class="bar" {} td class="n" { "–" } },
                            }
                            td class="n" { (grouped(support.into())) }
                        }
                    }
                }
            }
        }
    }
}
