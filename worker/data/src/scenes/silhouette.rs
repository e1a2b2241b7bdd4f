//! One outline per supercategory: what tells a vehicle from an animal.

use super::categories::Supercategory;

/// A point; in an outline x and y are between -1 and 1 and y points down.
pub(super) type Point = (f32, f32);

/// The outline of a supercategory: one simple polygon, clockwise on screen.
pub(super) fn outline(supercategory: Supercategory) -> &'static [Point] {
    match supercategory {
        Supercategory::Person => &PERSON,
        Supercategory::Vehicle => &VEHICLE,
        Supercategory::Outdoor => &OUTDOOR,
        Supercategory::Animal => &ANIMAL,
        Supercategory::Accessory => &ACCESSORY,
        Supercategory::Sports => &SPORTS,
        Supercategory::Kitchen => &KITCHEN,
        Supercategory::Food => &FOOD,
        Supercategory::Furniture => &FURNITURE,
        Supercategory::Electronic => &ELECTRONIC,
        Supercategory::Appliance => &APPLIANCE,
        Supercategory::Indoor => &INDOOR,
    }
}

/// Where an outline lies in a picture: turned, flipped, scaled and moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Placement {
    /// Centre, in pixels.
    pub(super) center: Point,
    /// Half of the outline's longer side, in pixels.
    pub(super) radius: f32,
    /// Width over height, around 1.
    pub(super) aspect: f32,
    /// Tangent of half the turn: circles by rational functions need no sine, whose last bit differs between platforms.
    pub(super) half_turn: f32,
    /// Mirrored left to right.
    pub(super) flipped: bool,
}

impl Placement {
    fn turn(self) -> (f32, f32) {
        let t = self.half_turn;
        let d = 1.0 + t * t;
        ((1.0 - t * t) / d, 2.0 * t / d)
    }

    fn stretch(self) -> (f32, f32) {
        let x = self.radius * self.aspect;
        (if self.flipped { -x } else { x }, self.radius)
    }

    /// From the outline's coordinates to pixels.
    pub(super) fn to_picture(self, (u, v): Point) -> Point {
        let ((cos, sin), (sx, sy)) = (self.turn(), self.stretch());
        let (x, y) = (u * sx, v * sy);
        (
            self.center.0 + x * cos - y * sin,
            self.center.1 + x * sin + y * cos,
        )
    }

    /// From pixels back to the outline's coordinates.
    pub(super) fn to_outline(self) -> impl Fn(Point) -> Point + use<> {
        let ((cos, sin), (sx, sy), center) = (self.turn(), self.stretch(), self.center);
        move |(x, y)| {
            let (x, y) = (x - center.0, y - center.1);
            ((x * cos + y * sin) / sx, (y * cos - x * sin) / sy)
        }
    }
}

/// A figure with head, arms and legs.
const PERSON: [Point; 24] = [
    (0.0, -1.0),
    (0.2, -0.93),
    (0.28, -0.75),
    (0.2, -0.57),
    (0.13, -0.5),
    (0.48, -0.42),
    (0.62, 0.15),
    (0.42, 0.2),
    (0.32, -0.12),
    (0.3, 0.2),
    (0.36, 1.0),
    (0.08, 1.0),
    (0.0, 0.35),
    (-0.08, 1.0),
    (-0.36, 1.0),
    (-0.3, 0.2),
    (-0.32, -0.12),
    (-0.42, 0.2),
    (-0.62, 0.15),
    (-0.48, -0.42),
    (-0.13, -0.5),
    (-0.2, -0.57),
    (-0.28, -0.75),
    (-0.2, -0.93),
];

/// A car from the side, wheels below.
const VEHICLE: [Point; 20] = [
    (-1.0, -0.1),
    (-0.6, -0.18),
    (-0.4, -0.62),
    (0.55, -0.62),
    (0.8, -0.15),
    (1.0, -0.05),
    (1.0, 0.4),
    (0.8, 0.4),
    (0.74, 0.58),
    (0.55, 0.66),
    (0.36, 0.58),
    (0.3, 0.4),
    (-0.3, 0.4),
    (-0.36, 0.58),
    (-0.55, 0.66),
    (-0.74, 0.58),
    (-0.8, 0.4),
    (-1.0, 0.4),
    (-1.0, 0.2),
    (-1.0, 0.0),
];

/// An octagonal sign on a post.
const OUTDOOR: [Point; 12] = [
    (-0.27, -1.0),
    (0.27, -1.0),
    (0.66, -0.62),
    (0.66, -0.07),
    (0.27, 0.32),
    (0.12, 0.32),
    (0.12, 1.0),
    (-0.12, 1.0),
    (-0.12, 0.32),
    (-0.27, 0.32),
    (-0.66, -0.07),
    (-0.66, -0.62),
];

/// A four-legged animal from the side, head to the left.
const ANIMAL: [Point; 20] = [
    (-1.0, -0.4),
    (-0.9, -0.66),
    (-0.74, -0.85),
    (-0.62, -0.66),
    (-0.45, -0.42),
    (0.1, -0.36),
    (0.62, -0.4),
    (0.93, -0.75),
    (1.0, -0.6),
    (0.86, -0.1),
    (0.84, 0.8),
    (0.5, 0.8),
    (0.44, 0.3),
    (-0.22, 0.3),
    (-0.26, 0.8),
    (-0.6, 0.8),
    (-0.64, 0.1),
    (-0.72, -0.1),
    (-0.82, -0.16),
    (-0.96, -0.2),
];

/// A bow tie.
const ACCESSORY: [Point; 8] = [
    (-1.0, -0.72),
    (-0.18, -0.22),
    (0.18, -0.22),
    (1.0, -0.72),
    (1.0, 0.72),
    (0.18, 0.22),
    (-0.18, 0.22),
    (-1.0, 0.72),
];

/// A fat five-pointed star.
const SPORTS: [Point; 10] = [
    (0.0, -1.0),
    (0.32, -0.41),
    (0.95, -0.31),
    (0.5, 0.17),
    (0.59, 0.81),
    (0.0, 0.53),
    (-0.59, 0.81),
    (-0.5, 0.17),
    (-0.95, -0.31),
    (-0.32, -0.41),
];

/// A goblet.
const KITCHEN: [Point; 14] = [
    (-0.75, -1.0),
    (0.75, -1.0),
    (0.7, -0.45),
    (0.5, 0.0),
    (0.14, 0.25),
    (0.14, 0.7),
    (0.55, 0.85),
    (0.55, 1.0),
    (-0.55, 1.0),
    (-0.55, 0.85),
    (-0.14, 0.7),
    (-0.14, 0.25),
    (-0.5, 0.0),
    (-0.7, -0.45),
];

/// A disc with a slice cut out.
const FOOD: [Point; 15] = [
    (0.0, -1.0),
    (0.38, -0.92),
    (0.77, -0.64),
    (0.0, 0.0),
    (0.77, 0.64),
    (0.38, 0.92),
    (0.0, 1.0),
    (-0.38, 0.92),
    (-0.71, 0.71),
    (-0.92, 0.38),
    (-1.0, 0.0),
    (-0.92, -0.38),
    (-0.71, -0.71),
    (-0.38, -0.92),
    (-0.2, -0.97),
];

/// A chair from the side.
const FURNITURE: [Point; 10] = [
    (-0.75, -1.0),
    (-0.3, -1.0),
    (-0.3, -0.15),
    (0.75, -0.15),
    (0.75, 1.0),
    (0.42, 1.0),
    (0.42, 0.45),
    (-0.32, 0.45),
    (-0.32, 1.0),
    (-0.75, 1.0),
];

/// A screen on a stand.
const ELECTRONIC: [Point; 12] = [
    (-1.0, -0.8),
    (1.0, -0.8),
    (1.0, 0.4),
    (0.18, 0.4),
    (0.18, 0.62),
    (0.6, 0.66),
    (0.6, 0.8),
    (-0.6, 0.8),
    (-0.6, 0.66),
    (-0.18, 0.62),
    (-0.18, 0.4),
    (-1.0, 0.4),
];

/// A tall box on two feet.
const APPLIANCE: [Point; 8] = [
    (-0.6, -1.0),
    (0.6, -1.0),
    (0.6, 1.0),
    (0.4, 1.0),
    (0.35, 0.8),
    (-0.35, 0.8),
    (-0.4, 1.0),
    (-0.6, 1.0),
];

/// A bear's head with two ears.
const INDOOR: [Point; 18] = [
    (-0.2, -0.62),
    (0.2, -0.62),
    (0.4, -0.9),
    (0.68, -1.0),
    (0.96, -0.85),
    (1.0, -0.58),
    (0.78, -0.25),
    (0.88, 0.1),
    (0.76, 0.5),
    (0.4, 0.82),
    (0.0, 0.92),
    (-0.4, 0.82),
    (-0.76, 0.5),
    (-0.88, 0.1),
    (-0.78, -0.25),
    (-1.0, -0.58),
    (-0.96, -0.85),
    (-0.55, -0.98),
];
