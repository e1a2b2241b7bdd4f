//! Who shows what in a set of full size: COCO's frequencies, and company as the kinds of scene have it.

use super::super::categories::{CATEGORIES, class_named};
use super::super::kinds::KINDS;
use super::super::random::{Domain, FullSizePart, Stream};
use super::shape::Counts;

/// Pictures of COCO 2017's training split that the two figures of [`FREQUENCIES`] are of.
const PICTURES: u32 = 118_287;
/// Of each category in COCO 2017's training split: pictures that show it, and objects of it. Both years' splits are cut from
/// the same pictures.
#[rustfmt::skip]
const FREQUENCIES: [(u32, u32); 80] = [
    (64115, 262465), (3252, 7113), (12251, 43867), (3502, 8725), (2986, 5135), (3952, 6069), (3588, 4571),
    (6127, 9973), (3025, 10759), (4139, 12884), (1711, 1865), (1734, 1983), (705, 1285), (5570, 9838), (3237, 10806),
    (4114, 4768), (4385, 5508), (2941, 6587), (1529, 9509), (1968, 8147), (2143, 5513), (960, 1294), (1916, 5303),
    (2546, 5131), (5528, 8720), (3968, 11431), (6841, 12354), (3810, 6496), (2402, 6192), (2184, 2682), (3082, 6646),
    (1654, 2685), (4262, 6347), (2261, 9076), (2506, 3276), (2629, 3747), (3476, 5543), (3486, 6126), (3394, 4812),
    (8501, 24342), (2533, 7913), (9189, 20650), (3555, 5479), (4326, 7770), (3529, 6165), (7111, 14358), (2243, 9458),
    (1586, 5851), (2365, 4373), (1699, 6399), (1939, 7308), (1683, 7852), (1222, 2918), (3166, 5821), (1523, 7179),
    (2925, 6353), (12774, 38491), (4423, 5779), (4452, 8652), (3682, 4192), (11837, 15714), (3353, 4157),
    (4561, 5805), (3524, 4970), (1876, 2262), (3076, 5703), (2115, 2855), (4803, 6434), (1547, 1673), (2877, 3334),
    (217, 225), (4678, 5610), (2360, 2637), (5332, 24715), (4659, 6334), (3593, 6613), (947, 1481), (2140, 4793),
    (189, 198), (1007, 1954),
];
/// How likely a person is in each kind of scene, in the order of [`KINDS`].
const PERSON: [f32; 8] = [0.72, 0.42, 0.80, 0.97, 0.36, 0.45, 0.42, 0.45];
const PERSON_CLASS: usize = 0;
/// How full a picture is: a factor on what its kind of scene makes likely, and its share among a hundred. Their mean is 1.
const FULLNESS: [(f32, u32); 3] = [(0.3, 35), (1.0, 40), (1.98, 25)];
/// No class is surer than this in a kind of scene.
const SUREST: f32 = 0.9;
/// One picture in so many shows a class from anywhere, so that every pair of classes can meet.
const STRANGER: f32 = 0.12;
/// What [`STRANGER`] and the class that an empty picture is given add is taken from the others.
const OTHERS: f32 = 0.94;
/// Most objects of one class in a picture.
const MOST: u32 = 60;
/// From so many objects of a class on, the last annotation may be a crowd.
const CROWD_FROM: u32 = 8;
const CROWD: f32 = 0.35;

/// One annotation: which picture shows which class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Index of the picture in its split.
    pub(super) picture: u32,
    /// Index among the 80 categories.
    pub(super) class: u8,
    /// One entry for many objects, as a mask.
    pub(super) crowd: bool,
}

/// How likely each class is in each kind of scene.
struct Company {
    /// Share of the kinds.
    kinds: [u32; 8],
    /// Of each kind: class, weight, probability.
    classes: [Vec<(usize, u32, f32)>; 8],
}

impl Company {
    fn new() -> Self {
        // A class's pictures are shared out evenly among the kinds that it is at home in; persons are everywhere.
        let homes = |name: &str| {
            let homes = KINDS.iter().filter(|kind| kind.classes.contains(&name));
            homes.count() as u32
        };
        let weights = KINDS.each_ref().map(|kind| -> Vec<(usize, u32)> {
            let classes = kind.classes.iter().filter_map(|name| class_named(name));
            classes
                .filter(|&class| class != PERSON_CLASS)
                .map(|class| (class, FREQUENCIES[class].0 / homes(CATEGORIES[class].name)))
                .collect()
        });
        let kinds = weights
            .each_ref()
            .map(|classes| classes.iter().map(|(_, weight)| weight).sum());
        let total: u32 = kinds.iter().sum();
        let per_picture = OTHERS * (total as f32 / PICTURES as f32);
        let mut kind = 0;
        let classes = weights.map(|classes| {
            let sum = kinds[kind];
            kind += 1;
            let likely =
                |(class, weight)| (class, weight, per_picture * weight as f32 / sum as f32);
            classes.into_iter().map(likely).collect()
        });
        Company { kinds, classes }
    }

    /// The classes of one picture, at least one, each once.
    fn meet(&self, random: &mut Stream) -> Vec<usize> {
        let kind = random.weighted(&self.kinds);
        let fullness = FULLNESS[random.weighted(&FULLNESS.map(|(_, share)| share))].0;
        let mut shown = Vec::new();
        if random.chance(PERSON[kind]) {
            shown.push(PERSON_CLASS);
        }
        for &(class, _, likely) in &self.classes[kind] {
            if random.chance((likely * fullness).min(SUREST)) {
                shown.push(class);
            }
        }
        if random.chance(STRANGER) {
            shown.push(random.weighted(&FREQUENCIES.map(|(pictures, _)| pictures)));
        }
        if shown.is_empty() {
            let weights: Vec<u32> = self.classes[kind]
                .iter()
                .map(|(_, weight, _)| *weight)
                .collect();
            shown.push(self.classes[kind][random.weighted(&weights)].0);
        }
        shown.sort_unstable();
        shown.dedup();
        shown
    }
}

/// How many objects of a class are in a picture that shows it: geometric, with COCO's mean.
fn objects(class: usize, random: &mut Stream) -> u32 {
    let (pictures, objects) = FREQUENCIES[class];
    let another = 1.0 - pictures as f32 / objects as f32;
    let mut count = 1;
    while count < MOST && random.chance(another) {
        count += 1;
    }
    count
}

/// All annotations of a split in the order of the file, exactly as many as `counts` says, over exactly as many pictures. As
/// in COCO, the order says nothing about which belong together.
pub(super) fn shown(seed: u64, val: bool, counts: &Counts) -> Vec<Shown> {
    let stream = |part, index| Stream::new(seed, Domain::FullSize(part, val), index);
    let mut order = stream(FullSizePart::Order, 0);
    let mut pictures: Vec<u32> = (0u32..).take(counts.pictures).collect();
    order.shuffle(&mut pictures);
    pictures.truncate(counts.labelled);

    let company = Company::new();
    let mut groups: Vec<(u32, usize, u32)> = Vec::new();
    for picture in pictures {
        let mut random = stream(FullSizePart::Labels, picture.into());
        for class in company.meet(&mut random) {
            groups.push((picture, class, objects(class, &mut random)));
        }
    }
    level(&mut groups, counts.annotations, &mut order);

    let mut shown = Vec::with_capacity(counts.annotations);
    for (picture, class, count) in groups {
        let crowd = count >= CROWD_FROM && order.chance(CROWD);
        let one = Shown {
            picture,
            class: class as u8,
            crowd: false,
        };
        shown.extend((1..count).map(|_| one));
        shown.push(Shown { crowd, ..one });
    }
    order.shuffle(&mut shown);
    shown
}

/// Adds objects, or takes some where there are several, until there are `wanted` in all. The draw is off by a few in a hundred.
fn level(groups: &mut [(u32, usize, u32)], wanted: usize, random: &mut Stream) {
    let wanted = wanted.max(groups.len());
    let mut total: usize = groups.iter().map(|group| group.2 as usize).sum();
    while total != wanted {
        let at = random.below(groups.len());
        let count = &mut groups[at].2;
        if total > wanted {
            if *count > 1 {
                *count -= 1;
                total -= 1;
            }
        } else if *count > 1 || random.chance(0.1) {
            // Mostly where there are several already: a lone object is rather left alone.
            *count += 1;
            total += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_of_the_published_totals() {
        // 860,001 objects, 2.9 classes a picture.
        let objects: u32 = FREQUENCIES.iter().map(|(_, objects)| objects).sum();
        let labels: u32 = FREQUENCIES.iter().map(|(pictures, _)| pictures).sum();
        assert_eq!(objects, 860_001);
        assert!((2.89..2.91).contains(&(f64::from(labels) / f64::from(PICTURES))));
    }

    #[test]
    fn an_exact_number_is_reached_from_above_and_from_below() {
        let mut random = Stream::new(1, Domain::TrainOrder, 0);
        for wanted in [7, 40] {
            let mut groups = [(0, 0, 4), (1, 0, 9), (2, 5, 1)];
            level(&mut groups, wanted, &mut random);
            assert_eq!(
                groups.iter().map(|group| group.2 as usize).sum::<usize>(),
                wanted
            );
            assert!(groups.iter().all(|group| group.2 >= 1));
        }
    }
}
