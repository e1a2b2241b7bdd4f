//! Filling polygons on a picture of floats from 0 to 255.

use super::silhouette::Point;

/// Red, green, blue, each 0 to 255.
pub(super) type Colour = [f32; 3];

/// A picture being drawn: pixels row by row.
#[derive(Clone, Debug)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<Colour>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Canvas {
            width,
            height,
            pixels: vec![[0.0; 3]; width * height],
        }
    }

    /// The length everything is measured by, in pixels: the short side.
    pub(super) fn short_side(&self) -> f32 {
        self.width.min(self.height) as f32
    }

    /// Lays `colour` over the pixel at `index`.
    pub(super) fn blend(&mut self, index: usize, colour: Colour, cover: f32) {
        let pixel = &mut self.pixels[index];
        for (p, c) in pixel.iter_mut().zip(colour) {
            *p += (c - *p) * cover;
        }
    }
}

/// Calls `paint(x, y, cover)` for every pixel of a `width`×`height` picture that the polygon touches, `cover` in (0, 1]
/// being the part of the pixel inside (even-odd rule).
///
/// Cover is exact along x and sampled at four heights of each row: as smooth as 4×4 supersampling and far cheaper.
pub(super) fn fill(
    polygon: &[Point],
    width: usize,
    height: usize,
    mut paint: impl FnMut(usize, usize, f32),
) {
    const ROWS: usize = 4;
    let top = polygon
        .iter()
        .map(|p| p.1)
        .fold(f32::INFINITY, f32::min)
        .max(0.0) as usize;
    let bottom = polygon
        .iter()
        .map(|p| p.1)
        .fold(0.0, f32::max)
        .ceil()
        .min(height as f32) as usize;
    let mut cover = vec![0.0f32; width];
    let mut crossings: Vec<f32> = Vec::with_capacity(polygon.len());
    for y in top..bottom {
        let (mut first, mut last) = (width, 0);
        for sub in 0..ROWS {
            let line = y as f32 + (sub as f32 + 0.5) / ROWS as f32;
            crossings.clear();
            for (i, &(x1, y1)) in polygon.iter().enumerate() {
                let (x2, y2) = polygon[(i + 1) % polygon.len()];
                if (y1 <= line) != (y2 <= line) {
                    crossings
                        .push((x1 + (line - y1) / (y2 - y1) * (x2 - x1)).clamp(0.0, width as f32));
                }
            }
            crossings.sort_by(f32::total_cmp);
            for span in crossings.chunks_exact(2) {
                let (from, to) = (span[0], span[1]);
                if to <= from {
                    continue;
                }
                let (a, b) = (from as usize, (to.ceil() as usize).min(width));
                (first, last) = (first.min(a), last.max(b));
                for (x, c) in cover[a..b].iter_mut().enumerate() {
                    let left = (a + x) as f32;
                    *c += (to.min(left + 1.0) - from.max(left)) / ROWS as f32;
                }
            }
        }
        if first < last {
            for (x, c) in cover[first..last].iter_mut().enumerate() {
                if *c > 0.0 {
                    paint(first + x, y, c.min(1.0));
                }
                *c = 0.0;
            }
        }
    }
}

/// The area of a simple polygon, in square pixels.
pub(super) fn area(polygon: &[Point]) -> f32 {
    let twice: f32 = (0..polygon.len())
        .map(|i| {
            let ((x1, y1), (x2, y2)) = (polygon[i], polygon[(i + 1) % polygon.len()]);
            x1 * y2 - x2 * y1
        })
        .sum();
    twice.abs() / 2.0
}

/// The part of a polygon inside the picture (Sutherland and Hodgman, "Reentrant polygon clipping", 1974).
pub(super) fn clip(polygon: &[Point], width: usize, height: usize) -> Vec<Point> {
    let (w, h) = (width as f32, height as f32);
    // Each side as a distance that is not negative inside.
    let sides: [fn(Point, f32, f32) -> f32; 4] = [
        |p, _, _| p.0,
        |p, w, _| w - p.0,
        |p, _, _| p.1,
        |p, _, h| h - p.1,
    ];
    let mut inside = polygon.to_vec();
    for side in sides {
        let before = std::mem::take(&mut inside);
        for (i, &from) in before.iter().enumerate() {
            let to = before[(i + 1) % before.len()];
            let (a, b) = (side(from, w, h), side(to, w, h));
            if a >= 0.0 {
                inside.push(from);
            }
            if (a >= 0.0) != (b >= 0.0) {
                let t = a / (a - b);
                let cut = (from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1));
                inside.push((cut.0.clamp(0.0, w), cut.1.clamp(0.0, h)));
            }
        }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIAMOND: [Point; 4] = [(8.0, 1.5), (14.5, 8.0), (8.0, 14.5), (1.5, 8.0)];

    #[test]
    fn the_cover_of_a_polygon_adds_up_to_its_area() {
        // given a diamond inside a picture, when it is filled
        let mut sum = 0.0;
        fill(&DIAMOND, 16, 16, |_, _, cover| sum += cover);
        // then its cover is its area
        assert!(
            (sum - area(&DIAMOND)).abs() < 0.1,
            "{sum} against {}",
            area(&DIAMOND)
        );
    }

    #[test]
    fn a_polygon_across_the_border_is_clipped_to_what_is_painted() {
        // given a diamond of which a part lies outside
        let shifted: Vec<Point> = DIAMOND.iter().map(|p| (p.0 - 7.0, p.1 + 5.0)).collect();
        // when it is filled and clipped
        let mut sum = 0.0;
        fill(&shifted, 16, 16, |x, y, cover| {
            assert!(x < 16 && y < 16);
            sum += cover;
        });
        let clipped = clip(&shifted, 16, 16);
        // then both agree, and the clipped outline lies inside
        assert!(
            (sum - area(&clipped)).abs() < 0.1,
            "{sum} against {}",
            area(&clipped)
        );
        assert!(
            clipped
                .iter()
                .all(|p| (0.0..=16.0).contains(&p.0) && (0.0..=16.0).contains(&p.1))
        );
    }

    #[test]
    fn a_polygon_outside_paints_nothing() {
        // given a diamond far outside, on each side
        for (dx, dy) in [(100.0, 0.0), (-100.0, 0.0), (0.0, 100.0), (0.0, -100.0)] {
            let away: Vec<Point> = DIAMOND.iter().map(|p| (p.0 + dx, p.1 + dy)).collect();
            // then no pixel is painted
            fill(&away, 16, 16, |x, y, cover| {
                panic!("painted {x},{y} by {cover}")
            });
        }
    }
}
