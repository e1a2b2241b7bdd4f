//! How C++ calls a Rust [`Store`]: one C function per operation, which catches panics and keeps the
//! error for the caller who created the group.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::store::{Store, StoreError};
use crate::sys::{self, Bytes, StoreCallbacks};

/// A store with a memory for its first error.
///
/// C++ sees the error's text only; the value waits here, so that it can be given to the caller as
/// it was.
pub(crate) struct Adapter {
    store: Arc<dyn Store>,
    first_error: Mutex<Option<StoreError>>,
}

impl Adapter {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            first_error: Mutex::new(None),
        })
    }

    /// The first error a callback returned, if any did.
    pub(crate) fn take_error(&self) -> Option<StoreError> {
        self.first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// One counted reference, for C++; given back by [`drop_reference`].
    pub(crate) fn into_raw(this: &Arc<Self>) -> *mut c_void {
        Arc::into_raw(Arc::clone(this)).cast_mut().cast()
    }

    fn keep(&self, error: StoreError) {
        let mut first = self
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
    }
}

pub(crate) static CALLBACKS: StoreCallbacks = StoreCallbacks {
    set,
    get,
    add,
    check,
    wait,
    compare_set,
    delete_key,
    num_keys,
    clone: clone_reference,
    drop: drop_reference,
};

/// Runs one operation: panics and errors become 1, with the message in C++'s `error` buffer.
fn answer(
    state: *mut c_void,
    error: *mut c_void,
    operation: &'static str,
    run: impl FnOnce(&dyn Store) -> Result<(), StoreError>,
) -> i32 {
    // SAFETY: `state` is what `into_raw` gave to the C++ store, which calls only between its
    // construction and its destruction, so its reference is still counted.
    let adapter = unsafe { &*state.cast::<Adapter>() };
    let outcome = catch_unwind(AssertUnwindSafe(|| run(adapter.store.as_ref())));
    let failure = match outcome {
        Ok(Ok(())) => return 0,
        Ok(Err(failure)) => failure,
        Err(panic) => StoreError::Panicked {
            operation,
            message: panic_message(panic.as_ref()),
        },
    };
    write(error, failure.to_string().as_bytes());
    adapter.keep(failure);
    1
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}

fn write(buffer: *mut c_void, bytes: &[u8]) {
    // SAFETY: `buffer` is the `std::string` that the calling C++ frame owns; it copies the bytes
    // before returning and throws nothing.
    unsafe { sys::nrs_buffer_write(buffer, bytes.as_ptr(), bytes.len()) }
}

/// The bytes of one argument, valid during the callback.
fn bytes<'call>(raw: Bytes) -> &'call [u8] {
    if raw.size == 0 {
        return &[];
    }
    // SAFETY: C++ lends `size` bytes at `data` from a string or vector of its calling frame; the
    // slice is used only within the callback (each use here is).
    unsafe { std::slice::from_raw_parts(raw.data, raw.size) }
}

fn key<'call>(raw: Bytes, operation: &'static str) -> Result<&'call str, StoreError> {
    std::str::from_utf8(bytes(raw)).map_err(|source| StoreError::Failed {
        operation,
        key: String::from_utf8_lossy(bytes(raw)).into_owned(),
        source: Box::new(source),
    })
}

fn keys<'call>(
    raw: *const Bytes,
    count: usize,
    operation: &'static str,
) -> Result<Vec<&'call str>, StoreError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: C++ lends an array of `count` entries from its calling frame.
    unsafe { std::slice::from_raw_parts(raw, count) }
        .iter()
        .map(|one| key(*one, operation))
        .collect()
}

fn timeout(milliseconds: i64) -> Duration {
    Duration::from_millis(milliseconds.max(0).unsigned_abs())
}

/// Writes a number to the calling C++ frame.
fn put<T>(out: *mut T, value: T) {
    // SAFETY: `out` points to a local variable of the C++ frame that called.
    unsafe { out.write(value) }
}

extern "C" fn set(state: *mut c_void, at: Bytes, value: Bytes, error: *mut c_void) -> i32 {
    answer(state, error, "set", |store| {
        store.set(key(at, "set")?, bytes(value))
    })
}

extern "C" fn get(
    state: *mut c_void,
    at: Bytes,
    wait_ms: i64,
    out: *mut c_void,
    error: *mut c_void,
) -> i32 {
    answer(state, error, "get", |store| {
        write(out, &store.get(key(at, "get")?, timeout(wait_ms))?);
        Ok(())
    })
}

extern "C" fn add(
    state: *mut c_void,
    at: Bytes,
    amount: i64,
    out: *mut i64,
    error: *mut c_void,
) -> i32 {
    answer(state, error, "add", |store| {
        put(out, store.add(key(at, "add")?, amount)?);
        Ok(())
    })
}

extern "C" fn check(
    state: *mut c_void,
    at: *const Bytes,
    count: usize,
    out: *mut i32,
    error: *mut c_void,
) -> i32 {
    answer(state, error, "check", |store| {
        put(out, i32::from(store.check(&keys(at, count, "check")?)?));
        Ok(())
    })
}

extern "C" fn wait(
    state: *mut c_void,
    at: *const Bytes,
    count: usize,
    wait_ms: i64,
    error: *mut c_void,
) -> i32 {
    answer(state, error, "wait", |store| {
        store.wait(&keys(at, count, "wait")?, timeout(wait_ms))
    })
}

extern "C" fn compare_set(
    state: *mut c_void,
    at: Bytes,
    expected: Bytes,
    desired: Bytes,
    out: *mut c_void,
    error: *mut c_void,
) -> i32 {
    answer(state, error, "compare_set", |store| {
        let key = key(at, "compare_set")?;
        write(
            out,
            &store.compare_set(key, bytes(expected), bytes(desired))?,
        );
        Ok(())
    })
}

extern "C" fn delete_key(state: *mut c_void, at: Bytes, out: *mut i32, error: *mut c_void) -> i32 {
    answer(state, error, "delete_key", |store| {
        put(out, i32::from(store.delete_key(key(at, "delete_key")?)?));
        Ok(())
    })
}

extern "C" fn num_keys(state: *mut c_void, out: *mut i64, error: *mut c_void) -> i32 {
    answer(state, error, "num_keys", |store| {
        put(out, store.num_keys()?);
        Ok(())
    })
}

extern "C" fn clone_reference(state: *mut c_void) -> *mut c_void {
    // SAFETY: `state` came from `Arc::into_raw` and its reference is still counted (see `answer`).
    unsafe { Arc::increment_strong_count(state.cast_const().cast::<Adapter>()) };
    state
}

extern "C" fn drop_reference(state: *mut c_void) {
    // SAFETY: gives back the one reference that this C++ store was made with; it calls this once,
    // from its destructor. The caller's store may panic in its own `Drop`; that must not unwind
    // into C++, and there is nobody left to tell.
    let reference = unsafe { Arc::from_raw(state.cast_const().cast::<Adapter>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(reference)));
}
