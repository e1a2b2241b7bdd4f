//! What can be checked of how the page looks: contrasts, dashes, numbers, names for those who do not see it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use data::scenes::{SceneSet, draw};

use super::super::events::{Happening, Kind};
use super::super::mistakes::Worst;
use super::super::{Attention, Material, curves, page};
use super::material::material;

const STYLE: &str = include_str!("../style.css");

/// WCAG 2.1: text (1.4.3), and lines that carry a meaning (1.4.11).
const TEXT: f64 = 4.5;
const LINE: f64 = 3.0;
/// The deepest colour of a heat map, of 1.
const DEEPEST: f64 = 0.8;

#[test]
fn text_and_curves_stand_out_from_the_page_in_light_and_in_dark() {
    for (scheme, colours) in schemes() {
        let colour = |name: &str| {
            *colours
                .get(name)
                .unwrap_or_else(|| panic!("{scheme} has no {name}"))
        };
        let stands_out = |front: [f64; 3], name: &str, ground: [f64; 3], least: f64| {
            let found = contrast(front, ground);
            assert!(found >= least, "{scheme}: {name} has {found:.2} : 1");
        };
        for ground in ["page", "panel"] {
            for text in ["ink", "soft", "fail", "link"] {
                stands_out(colour(text), text, colour(ground), TEXT);
            }
        }
        for line in ["c0", "c1", "c2", "c3", "c4", "c5", "fail", "step"] {
            stands_out(colour(line), line, colour("page"), LINE);
        }
        for depth in [0.0, 0.5 * DEEPEST, DEEPEST] {
            let (heat, panel) = (colour("heat"), colour("panel"));
            let cell = [0, 1, 2].map(|i| depth * heat[i] + (1.0 - depth) * panel[i]);
            stands_out(colour("ink"), "a number in a heat map", cell, TEXT);
        }
    }
}

#[test]
fn no_two_curves_have_the_same_dashes() {
    let dashes = (0..super::super::plot::COLOURS).map(|number| {
        let rule = format!(".line.c{number} {{");
        let (_, rest) = STYLE.split_once(&rule).unwrap();
        let (rule, _) = rest.split_once('}').unwrap();
        // Dash, gap, dash …: in lengths of strokes, so that a longer dash alone is no other pattern.
        let dashes = rule.split_once("stroke-dasharray:");
        let lengths = dashes.map_or("", |(_, lengths)| lengths.trim().trim_end_matches(';'));
        lengths
            .split_whitespace()
            .map(|length| length.parse::<u32>().unwrap())
            .step_by(2)
            .map(|dash| if dash > 8 { '-' } else { '.' })
            .collect::<String>()
    });
    let dashes: Vec<_> = dashes.collect();
    // Green and black are both dotted: they differ in brightness to every eye, and in the gap.
    let different: BTreeSet<_> = dashes.iter().collect();
    assert!(different.len() + 1 >= dashes.len(), "{dashes:?}");
}

#[test]
fn a_plot_holds_numbers_only_whatever_a_step_was() {
    // Given steps whose figures are no numbers
    let mut material = material();
    material.record.steps[3].gradient_norm = f64::NAN;
    material.record.steps[5].loss = f64::INFINITY;
    material.record.steps[7].images_per_second = f64::NAN;

    let mut figures = curves::by_epoch(&material.record);
    figures.extend(curves::by_time(&material.record));

    // Then they are missing, and all others are there
    let lines = figures.iter().flat_map(|figure| &figure.plot.lines);
    for line in lines.clone() {
        let points = line.parts.iter().flatten();
        assert!(
            points.clone().all(|(x, y)| x.is_finite() && y.is_finite()),
            "{}: {line:?}",
            line.name
        );
    }
    let of = |name: &str| {
        let line = lines.clone().find(|line| line.name == name).unwrap();
        line.parts.iter().map(Vec::len).sum::<usize>()
    };
    assert_eq!(
        (of("training loss"), of("gradient norm"), of("head")),
        (19, 19, 20)
    );
}

#[test]
fn pictures_plots_and_places_have_names_of_their_own() {
    // Given a data set whose pictures are there
    let folder = tempfile::tempdir().unwrap();
    let drawn = SceneSet {
        train: 1,
        val: 12,
        seed: 1,
        scale: 0.1,
        threads: NonZeroUsize::MIN,
    };
    draw(&drawn, folder.path(), &|_| {}).unwrap();
    let images = folder.path().join("val2017");
    let mut files: Vec<_> = std::fs::read_dir(&images).unwrap().flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let mut material = material();
    show_pictures(&mut material, &images, &files);

    let page = page::page(&material, &Attention::NotInModel);

    let pictures = tags(&page, "img");
    assert!(!pictures.is_empty());
    for tag in pictures {
        assert!(said(tag, "alt").len() > "validation image ".len(), "{tag}");
        assert!(said(tag, "src").starts_with("data:image/"), "{tag}");
    }
    let plots = plots(&page);
    let names: BTreeSet<_> = plots.iter().map(|plot| said(plot, "aria-label")).collect();
    assert_eq!(names.len(), plots.len(), "{names:?}");
    assert!(!names.contains(""));
    assert_eq!(
        page.matches("<figure>").count(),
        page.matches("<figcaption>").count(),
        "a figure has no caption"
    );
    let ids: Vec<_> = page
        .split(" id=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let once: BTreeSet<_> = ids.iter().collect();
    assert_eq!(once.len(), ids.len(), "an id is there twice: {ids:?}");
    for link in tags(&page, "a") {
        let place = said(link, "href").trim_start_matches('#');
        assert!(once.contains(&place), "{link} leads nowhere");
    }
}

#[test]
fn a_mark_stands_also_at_the_very_end_of_a_curve() {
    // Given a run whose only checkpoint is that of its end
    let mut material = material();
    let happenings = &mut material.record.history.happenings;
    happenings.retain(|one| one.kind != Kind::Checkpoint);
    let drawn = |material: &Material| {
        let page = page::page(material, &Attention::NotInModel);
        let loss = plots(&page)[0].to_owned();
        loss.matches("class=\"mark m-checkpoint\"").count()
    };
    assert_eq!(drawn(&material), 0);
    material.record.history.happenings.push(Happening {
        unix_millis: 1_700_000_020_000,
        step: 20,
        kind: Kind::Checkpoint,
        text: "the checkpoint of step 20 is in place".to_owned(),
    });

    assert_eq!(drawn(&material), 1);
}

#[test]
fn numbers_on_one_axis_are_written_alike() {
    let mut material = material();
    for (step, point) in (0i32..).zip(&mut material.record.steps) {
        point.learning_rate_head = 0.2 * 0.5f64.powi(step);
        point.learning_rate_trunk = point.learning_rate_head;
    }
    let page = page::page(&material, &Attention::NotInModel);
    let rates = plots(&page)
        .into_iter()
        .find(|plot| said(plot, "aria-label").contains("Learning rates"));
    let rates = rates.unwrap();
    assert!(rates.contains("1e-6") && rates.contains("1e-2"), "{rates}");
    assert!(!rates.contains("0.01"), "{rates}");
}

/// Puts pictures of a folder into the place of those that exist nowhere.
fn show_pictures(material: &mut Material, images: &std::path::Path, files: &[std::fs::DirEntry]) {
    let dataset = material.record.dataset.as_mut().unwrap();
    dataset.val.image_dir = images.to_owned();
    for (sample, file) in dataset.val.samples.iter_mut().zip(files) {
        sample.file_name = file.file_name().into_string().unwrap();
    }
    material.worst = Worst::of(material.scores.as_ref().unwrap(), &dataset.val);
}

/// The variables of both schemes, as red, green and blue of 1.
fn schemes() -> [(&'static str, BTreeMap<&'static str, [f64; 3]>); 2] {
    let mut blocks = STYLE.split(":root {").skip(1);
    ["light", "dark"].map(|scheme| {
        let (block, _) = blocks.next().unwrap().split_once('}').unwrap();
        let said = block.split(';').filter_map(|line| line.split_once(": #"));
        let colour = |hex: &str| {
            [0, 2, 4].map(|at| f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0)
        };
        let found =
            said.map(|(name, hex)| (name.trim().trim_start_matches("--"), colour(hex.trim())));
        (scheme, found.collect())
    })
}

/// WCAG 2.1's contrast ratio: 1 to 21.
fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
    let luminance = |colour: [f64; 3]| {
        let [r, g, b] = colour.map(|part| {
            if part <= 0.04045 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// The drawings of a page.
fn plots(page: &str) -> Vec<&str> {
    page.split("<svg class=\"plot\"")
        .skip(1)
        .filter_map(|rest| rest.split("</svg>").next())
        .collect()
}

/// The opening tags of a kind.
fn tags<'a>(page: &'a str, kind: &str) -> Vec<&'a str> {
    page.split(&format!("<{kind} "))
        .skip(1)
        .filter_map(|rest| rest.split('>').next())
        .collect()
}

/// The value of a tag's attribute, empty where it has none.
fn said<'a>(tag: &'a str, attribute: &str) -> &'a str {
    tag.split_once(&format!("{attribute}=\""))
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or("")
}
