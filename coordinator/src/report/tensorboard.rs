//! An event file that TensorBoard reads: records of `tensorflow.Event` in TFRecord framing.
//!
//! Formats: <https://github.com/tensorflow/tensorboard/blob/2.20.0/tensorboard/compat/proto/event.proto>,
//! `summary.proto` beside it, and <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>. Of
//! the messages only the fields that are written are declared.
//!
//! The file begins with a session's start at step 0. TensorBoard drops what it had read of later steps when it meets one
//! (that is how it takes restarts), so a page that is open shows each step once also after the file was made anew.

use prost::Message;
use proto::v1::StepPoint;

use crate::evaluation::Evaluated;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1: a session starts.
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// In a `oneof`, so that 0 is written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Frames a record: its length, the length's checksum, the bytes, their checksum.
fn frame(record: &[u8], out: &mut Vec<u8>) {
    let length = (record.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(record);
    out.extend(masked(record).to_le_bytes());
}

/// CRC-32C, rotated and offset so that a checksum of data that hold checksums is none of theirs.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// How a file begins: its version, and a session's start.
pub(super) fn head(began_unix_millis: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write(
        &mut out,
        began_unix_millis,
        0,
        What::FileVersion("brain.Event:2".to_owned()),
    );
    write(
        &mut out,
        began_unix_millis,
        0,
        What::SessionLog(SessionLog { status: 1 }),
    );
    out
}

/// Steps and evaluations in order: what belongs to a step (its loss, rates, norm, speed) at its number, from 0, and what
/// was measured between steps at the number of steps before it, as in a checkpoint's name.
pub(super) fn events(steps: &[StepPoint], evaluations: &[Evaluated]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut evaluations = evaluations.iter().peekable();
    let mut now = steps.first().map_or(0, |point| point.unix_millis);
    for point in steps {
        while let Some(known) = evaluations.next_if(|known| known.step <= point.step) {
            write(&mut out, now, known.step, of_evaluation(known));
        }
        now = now.max(point.unix_millis);
        write(&mut out, now, point.step, of_step(point));
    }
    for known in evaluations {
        write(&mut out, now, known.step, of_evaluation(known));
    }
    out
}

fn write(out: &mut Vec<u8>, unix_millis: u64, step: u64, what: What) {
    let event = Event {
        wall_time: unix_millis as f64 / 1000.0,
        step: i64::try_from(step).unwrap_or(i64::MAX),
        what: Some(what),
    };
    frame(&event.encode_to_vec(), out);
}

fn of_step(point: &StepPoint) -> What {
    let mut figures = vec![
        ("train/loss", point.loss),
        ("train/learning_rate_head", point.learning_rate_head),
        ("train/images_per_second", point.images_per_second),
    ];
    if point.unix_millis > 0 {
        figures.extend([
            ("train/learning_rate_trunk", point.learning_rate_trunk),
            ("train/gradient_norm", point.gradient_norm),
            ("train/data_wait_fraction", point.data_wait_fraction),
        ]);
    }
    summary(figures.into_iter())
}

fn of_evaluation(known: &Evaluated) -> What {
    let metrics = &known.metrics;
    let figures = [
        ("val/mAP", metrics.average_precision.map),
        ("val/CF1", metrics.at_threshold.cf1),
        ("val/OF1", metrics.at_threshold.of1),
        ("val/top3_CF1", metrics.top3.cf1),
        ("val/top3_OF1", metrics.top3.of1),
    ];
    let known = figures
        .into_iter()
        .filter_map(|(tag, figure)| Some((tag, figure?)));
    summary(known)
}

fn summary<'a>(figures: impl Iterator<Item = (&'a str, f64)>) -> What {
    let value = figures.map(|(tag, figure)| Value {
        tag: tag.to_owned(),
        simple_value: Some(figure as f32),
    });
    What::Summary(Summary {
        value: value.collect(),
    })
}

/// The steps of a file's events, in order.
#[cfg(test)]
pub(super) fn steps(mut file: &[u8]) -> Vec<i64> {
    let mut steps = Vec::new();
    while let Some((length, rest)) = file.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        let (record, rest) = rest[4..].split_at(length);
        steps.push(Event::decode(record).unwrap().step);
        file = &rest[4..];
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_as_tensorflow_frames_it() {
        // `tf.io.TFRecordWriter(path).write(b"ab")`.
        let mut out = Vec::new();
        frame(b"ab", &mut out);
        assert_eq!(out.len(), 8 + 4 + 2 + 4);
        assert_eq!(out[..8], 2u64.to_le_bytes());
        assert_eq!(out[12..14], *b"ab");
        // CRC-32C of "123456789", by its definition.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
