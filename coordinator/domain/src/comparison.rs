//! Whether one experiment is better than another: what chance over seeds and chance over images leave of a difference in
//! mAP, and a verdict in words that claims no more than that.
//!
//! Two kinds of chance are told apart. Training again with another seed gives another model: only several seeds of each
//! side show by how much ([`seeds`]). Other validation images of the same kind give another figure for the same model:
//! drawing the images again shows by how much ([`bootstrap`]). A difference is claimed only if it stands out of both
//! ([`verdict`]).

pub mod bootstrap;
pub mod seeds;
pub mod verdict;
