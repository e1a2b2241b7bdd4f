//! Attention as tables of coloured numbers: readable without colour, by screen readers, and on a phone.

use maud::{Markup, html};

use super::attention::{Attention, Maps};
use crate::terminal::figures::count;

/// Nodes in one table, at most; of a larger group the first are shown.
const NODES: usize = 40;
/// The deepest colour, in percent: the number on it stays readable.
const DEEPEST: f64 = 80.0;

pub(super) fn section(attention: &Attention) -> Markup {
    match attention {
        Attention::NotInModel => html! {
            p { "This variant has no attention: " code { "model.graph" } " is not " code { "\"gat\"" } "." }
        },
        Attention::Missing(why) => html! {
            p {
                "The attention was not measured: " (why) ". "
                code { "coordinator report" } " tries again."
            }
        },
        Attention::Measured(maps) => measured(maps),
    }
}

fn measured(maps: &Maps) -> Markup {
    let groups: Vec<&str> = maps
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    let several = maps.groups.iter().filter(|group| group.classes.len() > 1);
    html! {
        p {
            "After step " (maps.step) ", mean over " (count(maps.pictures.into(), "validation image", "validation images"))
            ". A row is a node, and its numbers are the shares, in percent, of its attention that it gives to each node of "
            "its graph; they sum to 100. Where all are close to the even share, attention does no more than average."
        }
        p class="soft" { "0 " span class="key" {} " the highest share of the table" }
        h3 { "Between groups" (even(groups.len())) }
        (table("attention between groups", &groups, &maps.between))
        h3 { "Between the classes of a group" }
        div class="maps" {
            @for group in several {
                div {
                    b { (group.name) } (even(group.classes.len()))
                    @let classes: Vec<&str> = group.classes.iter().map(String::as_str).collect();
                    (table(&format!("attention within {}", group.name), &classes, &group.within))
                }
            }
        }
        @let alone: Vec<&str> = maps.groups.iter().filter(|group| group.classes.len() < 2).map(|group| group.name.as_str()).collect();
        @if !alone.is_empty() {
            p class="soft" { "Groups of one class have nothing to attend to: " (alone.join(", ")) "." }
        }
    }
}

/// What each node gets where none is preferred.
fn even(nodes: usize) -> Markup {
    html! { span class="soft" { " · even: " (format!("{:.0} %", 100.0 / nodes.max(1) as f64)) } }
}

fn table(what: &str, nodes: &[&str], rows: &[Vec<f64>]) -> Markup {
    let highest = rows
        .iter()
        .flatten()
        .copied()
        .fold(f64::MIN_POSITIVE, f64::max);
    let shown = nodes.len().min(NODES);
    html! {
        // Reached by the keyboard, so that it can be scrolled without a pointer.
        div class="scroll" role="region" aria-label=(what) tabindex="0" {
            table class="heat" {
                thead {
                    tr { th {} @for node in &nodes[..shown] { th scope="col" { span { (node) } } } }
                }
                tbody {
                    @for (node, row) in nodes.iter().zip(rows).take(shown) {
                        tr {
                            th scope="row" { (node) }
                            @for weight in row.iter().take(shown) {
                                td style={ "--w:" (format!("{:.0}", DEEPEST * weight / highest)) } {
                                    (format!("{:.0}", 100.0 * weight))
                                }
                            }
                        }
                    }
                }
            }
        }
        @if nodes.len() > shown { p class="soft" { "The first " (shown) " of " (nodes.len()) " are shown." } }
    }
}
