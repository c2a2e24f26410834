//! Which of the servers that can take a request takes it.

mod load;
mod round_robin;

pub(super) use load::Load;
pub(super) use round_robin::Rotation;
