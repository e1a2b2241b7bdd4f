//! From bytes on the host to numbers on the device, and a stream to do it ahead of time.

use tch::{Device, TchError, Tensor};

use crate::ffi::upload as ffi;

/// `bytes` in the shape `sizes`, as numbers of the kind of `like` and where `like` is. On the CPU in one pass over them; to
/// CUDA through pinned memory, and the copy is asynchronous: it is done when the current stream comes to what reads it.
///
/// # Errors
/// When there are not as many bytes as the shape has places, or the device has no room.
pub fn numbers_of(bytes: &[u8], sizes: &[i64], like: &Tensor) -> Result<Tensor, TchError> {
    let places = sizes.iter().try_fold(1usize, |places, &size| {
        places.checked_mul(usize::try_from(size).ok()?)
    });
    if places != Some(bytes.len()) {
        let given = bytes.len();
        return Err(TchError::Shape(format!(
            "{given} bytes do not fill {sizes:?}"
        )));
    }
    ffi::numbers_of(bytes, sizes, like).map_err(|failure| TchError::Torch(failure.message))
}

/// A stream of a CUDA device beside the current one, for work whose result is needed later. On the CPU there is none.
#[derive(Debug)]
pub struct SideStream(Option<ffi::SideStream>);

impl SideStream {
    /// Of this device.
    ///
    /// # Errors
    /// When the device is none of this machine's.
    pub fn new(device: Device) -> Result<Self, TchError> {
        let stream = match device {
            Device::Cuda(index) => Some(ffi::SideStream::new(index).map_err(torch)?),
            _ => None,
        };
        Ok(Self(stream))
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Does `work`; what it queues on the device goes to this stream, where there is one.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, TchError> {
        let Some(stream) = &mut self.0 else {
            return Ok(work());
        };
        let aside = stream.enter().map_err(torch)?;
        let done = work();
        aside.leave().map_err(torch)?;
        Ok(done)
    }

    /// Lets the current stream wait for all that was queued here, and read these tensors that came of it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn hand_over(&mut self, tensors: &[&Tensor]) -> Result<(), TchError> {
        match &mut self.0 {
            Some(stream) => stream.hand_over(tensors).map_err(torch),
            None => Ok(()),
        }
    }
}

fn torch(failure: crate::ffi::Failure) -> TchError {
    TchError::Torch(failure.message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn bytes_are_numbers_of_their_own_afterwards() {
        for kind in [Kind::Float, Kind::Double, Kind::Uint8] {
            let like = Tensor::zeros([1], (kind, Device::Cpu));
            let mut bytes = vec![0u8, 1, 254, 255, 7, 9];
            let numbers = numbers_of(&bytes, &[2, 3], &like).unwrap();
            bytes.fill(99);
            assert_eq!((numbers.size(), numbers.kind()), (vec![2, 3], kind));
            let values: Vec<f64> = numbers
                .flatten(0, -1)
                .to_kind(Kind::Double)
                .try_into()
                .unwrap();
            assert_eq!(values, [0.0, 1.0, 254.0, 255.0, 7.0, 9.0]);
        }
    }

    #[test]
    fn a_shape_that_the_bytes_do_not_fill_is_refused() {
        let like = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        for sizes in [&[2, 2][..], &[6], &[-1, 5], &[i64::MAX, i64::MAX, 5]] {
            assert!(numbers_of(&[0; 5], sizes, &like).is_err(), "{sizes:?}");
        }
        assert_eq!(numbers_of(&[], &[0, 3], &like).unwrap().size(), [0, 3]);
    }

    #[test]
    fn on_the_cpu_work_is_simply_done() {
        let mut stream = SideStream::new(Device::Cpu).unwrap();
        assert!(!stream.is_there());
        let one = stream
            .run(|| Tensor::ones([1], (Kind::Float, Device::Cpu)))
            .unwrap();
        stream.hand_over(&[&one]).unwrap();
        assert_eq!(one.double_value(&[0]), 1.0);
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        // Without CUDA's libraries, and with them beyond the last device
        assert!(SideStream::new(Device::Cuda(120)).is_err());
    }
}
