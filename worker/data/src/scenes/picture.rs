//! One picture: which objects it has, where they are, which of them can be seen, and its pixels.

use super::SceneSet;
use super::background::{clutter, draw, expose, jitter};
use super::categories::{CATEGORIES, class_named};
use super::kinds::{KINDS, Kind};
use super::look::look;
use super::random::{Domain, Stream};
use super::raster::{Canvas, area, clip, fill};
use super::silhouette::{Placement, Point, outline};

/// The two splits, named as COCO's folders are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    Train,
    Val,
}

impl Split {
    /// Name of the folder of pictures, and last part of the annotation file's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Split::Train => "train2017",
            Split::Val => "val2017",
        }
    }

    fn domains(self) -> (Domain, Domain) {
        match self {
            Split::Train => (Domain::TrainOrder, Domain::TrainPicture),
            Split::Val => (Domain::ValOrder, Domain::ValPicture),
        }
    }
}

/// A drawn picture and what can be seen on it.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) canvas: Canvas,
    /// Drawn in shades of grey, and stored so.
    pub(super) gray: bool,
    /// The objects of which at least a quarter can be seen, front to back.
    pub(super) labelled: Vec<Seen>,
}

/// A labelled object.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Index among the 80 categories.
    pub(super) class: usize,
    /// The whole outline, covered parts included, clipped to the picture; in pixels.
    pub(super) outline: Vec<Point>,
    /// How many pixels of it can be seen.
    pub(super) visible: usize,
    /// Its area if nothing covered it and the picture had no border, in square pixels.
    pub(super) whole: f32,
}

/// COCO's most frequent sizes and how often they come among a hundred pictures.
pub(super) const SIZES: [((usize, usize), u32); 14] = [
    ((640, 480), 30),
    ((480, 640), 12),
    ((640, 427), 15),
    ((427, 640), 6),
    ((640, 426), 6),
    ((640, 425), 5),
    ((640, 428), 4),
    ((500, 375), 8),
    ((375, 500), 4),
    ((500, 333), 3),
    ((640, 360), 2),
    ((640, 640), 2),
    ((612, 612), 2),
    ((333, 500), 1),
];

/// The size of the tiny ones, whatever the scale: COCO's smallest pictures are about so large.
const TINY: (usize, usize) = (72, 52);
/// One picture in so many is tiny.
const TINY_EVERY: u64 = 100;
/// One picture in so many is grey.
const GRAY_EVERY: u64 = 80;
/// An object is labelled if at least this share of it can be seen.
pub(super) const VISIBLE: f32 = 0.25;
/// Longer side of an object, in short sides of the picture.
const OBJECT: (f32, f32) = (0.46, 0.70);

/// Places tried for each object.
const PLACES: usize = 4;

/// Draws the picture number `index` (from 0) of a split: a pure function of seed, scale, split and index.
pub(super) fn compose(set: &SceneSet, split: Split, index: usize) -> Picture {
    let (order, picture) = split.domains();
    let mut random = Stream::new(set.seed, picture, index as u64);
    let every = |n: u64, offset: u64| {
        let shifted = set
            .seed
            .wrapping_mul(31)
            .wrapping_add(index as u64 + offset);
        shifted.is_multiple_of(n)
    };
    let (tiny, gray) = (every(TINY_EVERY, 57), every(GRAY_EVERY, 23));

    let (width, height) = size(&mut random, set.scale, tiny);
    let lead = lead(set.seed, order, index);
    let homes: Vec<&Kind> = KINDS
        .iter()
        .filter(|kind| kind.classes.contains(&CATEGORIES[lead].name))
        .collect();
    let kind = *random.pick(&homes);

    let mut canvas = Canvas::new(width, height);
    draw(&mut canvas, &kind.backdrop, &mut random.fork());
    clutter(&mut canvas, &mut random.fork());
    let objects = objects(kind, lead, &canvas, &mut random.fork());
    let labelled = paint(&mut canvas, &objects, &mut random.fork());
    expose(&mut canvas, &mut random.fork());
    Picture {
        canvas,
        gray,
        labelled,
    }
}

fn size(random: &mut Stream, scale: f32, tiny: bool) -> (usize, usize) {
    let (width, height) = SIZES[random.weighted(&SIZES.map(|size| size.1))].0;
    let scaled = |side: usize| ((side as f32 * scale + 0.5) as usize).max(16);
    if tiny {
        TINY
    } else {
        (scaled(width), scaled(height))
    }
}

/// The class that stands in front in picture `index`: every class once in each round of 80 pictures, in an order of the
/// round's own, so that even a small set has them all.
fn lead(seed: u64, order: Domain, index: usize) -> usize {
    let mut round: Vec<usize> = (0..CATEGORIES.len()).collect();
    Stream::new(seed, order, (index / round.len()) as u64).shuffle(&mut round);
    round[index % round.len()]
}

/// The objects of a picture, back to front: the lead last, with others of its kind of scene behind.
fn objects(
    kind: &Kind,
    lead: usize,
    canvas: &Canvas,
    random: &mut Stream,
) -> Vec<(usize, Placement)> {
    let others = 1 + random.weighted(&[20, 35, 30, 15]);
    let mut objects: Vec<(usize, Placement)> = Vec::new();
    for _ in 0..others {
        let name = random.pick::<&str>(kind.classes);
        let class = class_named(name).unwrap_or(lead);
        let place = roomiest(canvas, &objects, random);
        objects.push((class, place));
    }
    let place = roomiest(canvas, &objects, random);
    objects.push((lead, place));
    objects
}

/// The one of a few random places that is farthest from the objects there: they still cover each other, but seldom so
/// much that nothing tells them apart.
fn roomiest(canvas: &Canvas, objects: &[(usize, Placement)], random: &mut Stream) -> Placement {
    let room = |place: &Placement| {
        objects
            .iter()
            .map(|(_, other)| {
                let (x, y) = (
                    place.center.0 - other.center.0,
                    place.center.1 - other.center.1,
                );
                (x * x + y * y) / ((place.radius + other.radius) * (place.radius + other.radius))
            })
            .fold(f32::INFINITY, f32::min)
    };
    let mut best = place(canvas, random);
    for _ in 1..PLACES {
        let other = place(canvas, random);
        if room(&other) > room(&best) {
            best = other;
        }
    }
    best
}

fn place(canvas: &Canvas, random: &mut Stream) -> Placement {
    let side = canvas.short_side();
    let radius = random.between(OBJECT.0, OBJECT.1) * side / 2.0;
    // Up to four tenths of the half-size may stick out.
    let margin = 0.6 * radius;
    Placement {
        center: (
            random.between(margin, canvas.width as f32 - margin),
            random.between(margin, canvas.height as f32 - margin),
        ),
        radius,
        aspect: random.between(0.85, 1.18),
        half_turn: random.between(-0.1, 0.1),
        flipped: random.chance(0.5),
    }
}

/// Paints the objects back to front and says which can be seen.
fn paint(canvas: &mut Canvas, objects: &[(usize, Placement)], random: &mut Stream) -> Vec<Seen> {
    let (width, height) = (canvas.width, canvas.height);
    // Which object is in front at each pixel; one more than its index, 0 for none.
    let mut front = vec![0u8; width * height];
    let mut outlines = Vec::with_capacity(objects.len());
    for (number, (class, placement)) in (1u8..).zip(objects) {
        let shape: Vec<Point> = outline(CATEGORIES[*class].supercategory)
            .iter()
            .map(|&p| placement.to_picture(p))
            .collect();
        let look = look(*class);
        let inks = look.inks.map(|ink| jitter(ink, random));
        // Textures do not sit at the same place of every object of a class.
        let shift = (random.between(-0.2, 0.2), random.between(-0.2, 0.2));
        // Light from above or below, left or right.
        let slope = (random.between(-0.15, 0.15), random.between(-0.15, 0.15));
        let to_outline = placement.to_outline();
        fill(&shape, width, height, |x, y, cover| {
            let (u, v) = to_outline((x as f32 + 0.5, y as f32 + 0.5));
            let share = look
                .texture
                .share(u + shift.0, v + shift.1, placement.radius);
            let light = 1.0 + slope.0 * u + slope.1 * v;
            let mut colour = inks[0];
            for (c, second) in colour.iter_mut().zip(inks[1]) {
                *c = (*c + (second - *c) * share) * light;
            }
            canvas.blend(y * width + x, colour, cover);
            if cover >= 0.5 {
                front[y * width + x] = number;
            }
        });
        outlines.push(shape);
    }
    let mut visible = vec![0usize; objects.len() + 1];
    for &number in &front {
        visible[usize::from(number)] += 1;
    }
    let seen = |(i, shape): (usize, &Vec<Point>)| Seen {
        class: objects[i].0,
        outline: clip(shape, width, height),
        visible: visible[i + 1],
        whole: area(shape),
    };
    outlines
        .iter()
        .enumerate()
        .rev()
        .map(seen)
        .filter(|seen| seen.visible as f32 >= VISIBLE * seen.whole)
        .collect()
}
