//! Where worker processes come from. `local` starts them on this machine; workers started elsewhere need nothing.

pub(crate) mod local;
