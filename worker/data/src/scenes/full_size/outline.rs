//! What an annotation says of an object: an outline of as many corners as COCO's, or the mask of a crowd.
//!
//! Only arithmetic that IEEE 754 rounds exactly, so that the file is the same on every machine.

use serde::Serialize;

use super::super::random::Stream;

/// Width and height of a picture, pixels.
pub(super) type Size = (usize, usize);

/// `segmentation`, as COCO has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Segmentation {
    /// Outlines, `x, y, x, y, …` each.
    Polygons(Vec<Vec<f64>>),
    /// Run lengths down the columns, background first.
    Runs {
        counts: Vec<usize>,
        size: [usize; 2],
    },
}

/// An object's place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outline {
    pub(super) segmentation: Segmentation,
    /// Square pixels.
    pub(super) area: f64,
    /// `[left, top, width, height]`.
    pub(super) bbox: [f64; 4],
}

/// One object in so many is in two parts, as if something stood before it.
const IN_PARTS: f32 = 0.1;
/// Fewest corners of an outline.
const CORNERS: usize = 8;

/// An object in a picture of this size.
pub(super) fn object(size: Size, random: &mut Stream) -> Outline {
    // Small objects are the most frequent: two in five are below 32 × 32 pixels.
    let u = f64::from(random.unit());
    let side = 0.025 + 0.75 * u * u * u;
    let parts = if random.chance(IN_PARTS) { 2 } else { 1 };
    let polygons: Vec<Vec<f64>> = (0..parts).map(|_| polygon(size, side, random)).collect();
    let area = polygons.iter().map(|polygon| area(polygon)).sum();
    let bbox = bounds(&polygons);
    Outline {
        segmentation: Segmentation::Polygons(polygons),
        area: rounded(area, 1e5),
        bbox,
    }
}

/// An uneven round shape with the longer half axis `side` of the picture's half.
fn polygon((width, height): Size, side: f64, random: &mut Stream) -> Vec<f64> {
    let (width, height) = (width as f64, height as f64);
    let aspect = f64::from(random.between(0.4, 1.0));
    let (rx, ry) = (0.5 * side * width, 0.5 * side * height * aspect);
    let center = |reach: f64, length: f64, random: &mut Stream| {
        reach + f64::from(random.unit()) * (length - 2.0 * reach)
    };
    let (x, y) = (center(rx, width, random), center(ry, height, random));
    // Larger objects are drawn with more corners.
    let more = 14.0 + 60.0 * side;
    let corners =
        CORNERS + (f64::from(random.unit()) * f64::from(random.unit()) * 2.0 * more) as usize;
    let mut points = Vec::with_capacity(2 * corners);
    for corner in 0..corners {
        // A quarter of the circle by the tangent of the half angle, then turned into its quadrant.
        let turn = 4.0 * corner as f64 / corners as f64;
        let t = turn - turn.floor();
        let d = 1.0 + t * t;
        let (c, s) = ((1.0 - t * t) / d, 2.0 * t / d);
        let (c, s) = match turn as usize {
            0 => (c, s),
            1 => (-s, c),
            2 => (-c, -s),
            _ => (s, -c),
        };
        let uneven = f64::from(random.between(0.7, 1.0));
        points.push(rounded(x + c * rx * uneven, 100.0));
        points.push(rounded(y + s * ry * uneven, 100.0));
    }
    points
}

/// The mask of a crowd: a box, in run lengths down the columns.
pub(super) fn crowd((width, height): Size, random: &mut Stream) -> Outline {
    let across = width / 8 + random.below(width / 3);
    let down = height / 8 + random.below(height / 3);
    let left = random.below(width - across);
    let top = random.below(height - down);
    let mut counts = vec![left * height + top];
    for column in 0..across {
        counts.push(down);
        let below = if column + 1 == across {
            height - top - down + (width - left - across) * height
        } else {
            height - down
        };
        counts.push(below);
    }
    Outline {
        segmentation: Segmentation::Runs {
            counts,
            size: [height, width],
        },
        area: (across * down) as f64,
        bbox: [left, top, across, down].map(|side| side as f64),
    }
}

fn rounded(x: f64, unit: f64) -> f64 {
    (x * unit).round() / unit
}

/// Gauss's formula.
fn area(polygon: &[f64]) -> f64 {
    let points = polygon.as_chunks::<2>().0;
    let next = points.iter().cycle().skip(1);
    let twice: f64 = points
        .iter()
        .zip(next)
        .map(|(a, b)| a[0] * b[1] - b[0] * a[1])
        .sum();
    twice.abs() / 2.0
}

fn bounds(polygons: &[Vec<f64>]) -> [f64; 4] {
    let points = || {
        polygons
            .iter()
            .flat_map(|polygon| polygon.as_chunks::<2>().0)
    };
    let min = |axis: usize| points().map(|p| p[axis]).fold(f64::INFINITY, f64::min);
    let max = |axis: usize| points().map(|p| p[axis]).fold(0.0, f64::max);
    let (left, top) = (min(0), min(1));
    [left, top, max(0) - left, max(1) - top].map(|side| rounded(side, 100.0))
}

#[cfg(test)]
mod tests {
    use super::super::super::random::Domain;
    use super::*;

    fn streams() -> impl Iterator<Item = Stream> {
        (0..500).map(|n| Stream::new(3, Domain::TrainPicture, n))
    }

    #[test]
    fn objects_lie_in_their_picture_and_have_an_area() {
        for mut random in streams() {
            let found = object((640, 427), &mut random);
            let [left, top, width, height] = found.bbox;
            assert!(
                left >= 0.0 && top >= 0.0 && width > 0.0 && height > 0.0,
                "{found:?}"
            );
            assert!(
                left + width <= 640.01 && top + height <= 427.01,
                "{found:?}"
            );
            assert!(found.area > 0.0, "{found:?}");
        }
    }

    #[test]
    fn a_crowds_runs_cover_the_whole_picture_and_its_area_is_theirs() {
        for mut random in streams() {
            let found = crowd((640, 427), &mut random);
            let Segmentation::Runs { counts, size } = &found.segmentation else {
                unreachable!("a crowd is in runs")
            };
            assert_eq!(*size, [427, 640]);
            assert_eq!(counts.iter().sum::<usize>(), 640 * 427);
            let shown: usize = counts.iter().skip(1).step_by(2).sum();
            assert_eq!(shown as f64, found.area);
        }
    }
}
