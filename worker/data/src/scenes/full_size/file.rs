//! The annotation file of a set of full size, written as it is made up: nothing of it is held in memory.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use super::super::annotations::{Category, Info, License, categories};
use super::super::categories::CATEGORIES;
use super::super::random::{Domain, FullSizePart, Stream};
use super::labels::Shown;
use super::outline::{Segmentation, Size, crowd, object};

/// A picture of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) id: u32,
    pub(super) size: Size,
}

/// File name of the picture with this id, as in COCO 2014.
pub(super) fn file_name(split: &str, id: u32) -> String {
    format!("COCO_{split}_{id:012}.jpg")
}

/// Writes the file of the split called `split`; `pictures` and `shown` in the order of the file.
pub(super) fn write(
    seed: u64,
    val: bool,
    split: &str,
    (pictures, shown): (&[Picture], &[Shown]),
    out: impl Write,
) -> serde_json::Result<()> {
    let stream = |part, index: usize| Stream::new(seed, Domain::FullSize(part, val), index as u64);
    let file = File {
        info: Info {
            description: format!(
                "a data set of COCO 2014's shape to rehearse with (seed {seed}): no photographs, and nothing of the labels \
                 can be seen in the pictures"
            ),
            url: "",
            version: "1.0",
            year: 2014,
            contributor: "worker scenes",
            date_created: "2014/09/01",
        },
        images: Each(|| {
            pictures.iter().enumerate().map(|(index, picture)| {
                image(split, picture, &mut stream(FullSizePart::Entry, index))
            })
        }),
        licenses: [License::CC0],
        annotations: Each(|| {
            shown.iter().enumerate().map(|(index, shown)| {
                let picture = &pictures[shown.picture as usize];
                annotation(
                    index,
                    shown,
                    picture,
                    &mut stream(FullSizePart::Outline, index),
                )
            })
        }),
        categories: categories(),
    };
    file.serialize(&mut serde_json::Serializer::with_formatter(out, Spaced))
}

fn image(split: &str, picture: &Picture, random: &mut Stream) -> Image {
    let name = file_name(split, picture.id);
    let mut number = |low: usize, count: usize| low + random.below(count);
    let (day, hour, minute, second) = (number(14, 11), number(0, 24), number(0, 60), number(0, 60));
    let (farm, server, photo) = (
        number(1, 9),
        number(2000, 7000),
        number(1_000_000_000, 8_000_000_000),
    );
    let secret = random.next() >> 24;
    Image {
        license: 1,
        coco_url: format!("http://images.example.invalid/{split}/{name}"),
        file_name: name,
        height: picture.size.1,
        width: picture.size.0,
        date_captured: format!("2013-11-{day:02} {hour:02}:{minute:02}:{second:02}"),
        flickr_url: format!(
            "http://farm{farm}.static.example.invalid/{server}/{photo}_{secret:010x}_z.jpg"
        ),
        id: picture.id,
    }
}

fn annotation(index: usize, shown: &Shown, picture: &Picture, random: &mut Stream) -> Annotation {
    let outline = if shown.crowd {
        crowd(picture.size, random)
    } else {
        object(picture.size, random)
    };
    let category_id = CATEGORIES[usize::from(shown.class)].id;
    // COCO's ids have gaps, and a crowd's is made of its category and picture.
    let id = if shown.crowd {
        900_000_000_000 + 100_000_000 * u64::from(category_id) + u64::from(picture.id)
    } else {
        3 * index as u64 + 1 + random.below(3) as u64
    };
    Annotation {
        segmentation: outline.segmentation,
        area: outline.area,
        iscrowd: shown.crowd.into(),
        image_id: picture.id,
        bbox: outline.bbox,
        category_id,
        id,
    }
}

// The keys in COCO's order.
#[derive(Serialize)]
struct File<I, A> {
    info: Info,
    images: I,
    licenses: [License; 1],
    annotations: A,
    categories: Vec<Category>,
}

#[derive(Serialize)]
struct Image {
    license: u32,
    file_name: String,
    coco_url: String,
    height: usize,
    width: usize,
    date_captured: String,
    flickr_url: String,
    id: u32,
}

#[derive(Serialize)]
struct Annotation {
    segmentation: Segmentation,
    area: f64,
    iscrowd: u8,
    image_id: u32,
    bbox: [f64; 4],
    category_id: u32,
    id: u64,
}

/// A list whose items are made when they are written.
struct Each<F>(F);

impl<F, I> Serialize for Each<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// A space after each comma and colon, as Python writes JSON and COCO's files have it.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
