//! The page: one file with everything in it, no script, nothing fetched. Text from outside is escaped by `maud`.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Material;
use super::attention::Attention;
use super::curves::{self, Figure};
use super::plot::{Line, Mark, Plot};
use super::{calibration, classes, header, heat, mistakes, precision_recall, timeline};

const STYLE: &str = include_str!("style.css");

/// The whole report.
pub(super) fn page(material: &Material, attention: &Attention) -> String {
    let record = &material.record;
    let sections = [
        (
            "curves",
            "Training and validation",
            figures(&curves::by_epoch(record), "No step is committed yet."),
        ),
        (
            "classes",
            "Average precision by class",
            classes::bars(record),
        ),
        (
            "precision-recall",
            "Precision and recall",
            precision_recall::section(material),
        ),
        ("calibration", "Calibration", calibration::section(record)),
        ("attention", "Attention", heat::section(attention)),
        ("mistakes", "Worst mistakes", mistakes::section(material)),
        (
            "speed",
            "Throughput",
            figures(&curves::by_time(record), "No times were recorded."),
        ),
        ("events", "Events", timeline::section(record)),
    ];
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Nothing is fetched, whatever a name in the page may try.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                title { (header::title(record)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (header::section(record))
                    nav { @for (id, name, _) in &sections { a href={ "#" (id) } { (name) } } }
                    @for (id, name, content) in &sections {
                        section id=(id) { h2 { (name) } (content) }
                    }
                    (header::footer(record))
                }
            }
        }
    };
    page.into_string()
}

/// Plots with their legends and captions; in words if there are none.
pub(super) fn figures(all: &[Figure], none: &str) -> Markup {
    let drawn: Vec<_> = all
        .iter()
        .filter_map(|one| Some((one, one.plot.svg()?)))
        .collect();
    html! {
        @if drawn.is_empty() { p { (none) } }
        div class="figures" {
            @for (one, svg) in &drawn {
                figure {
                    h3 { (one.heading) }
                    (svg)
                    (legend(&one.plot))
                    figcaption { (one.caption) }
                }
            }
        }
    }
}

fn legend(plot: &Plot) -> Markup {
    let several = plot.lines.len() > 1;
    let marks = plot.kinds_of_marks();
    html! {
        @if several || !marks.is_empty() {
            ul class="legend" {
                @if several {
                    @for (number, line) in plot.lines.iter().enumerate() { (entry(number, line)) }
                }
                @for mark in marks { (mark_entry(mark)) }
            }
        }
    }
}

fn entry(number: usize, line: &Line) -> Markup {
    html! {
        li {
            svg viewBox="0 0 68 24" aria-hidden="true" {
                line class={ "line c" (number) } x1="0" y1="12" x2="68" y2="12" stroke-width="5" {}
            }
            (line.name)
        }
    }
}

fn mark_entry(mark: Mark) -> Markup {
    let (from, to) = mark.height();
    // A short stroke stays visible.
    let (top, bottom) = (24.0 * (1.0 - to), 24.0 * (1.0 - from));
    let (top, bottom) = (top.min(bottom - 8.0).max(0.0), bottom.max(8.0));
    html! {
        li class="at" {
            svg viewBox="0 0 24 24" aria-hidden="true" {
                line class={ "mark " (mark.class()) } x1="12" y1=(top) x2="12" y2=(bottom) stroke-width="4" {}
            }
            (mark.words())
        }
    }
}
