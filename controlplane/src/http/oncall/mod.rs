//! Hooks and incidents at the doors, and what incidents phone by.

pub(super) mod hooks;
pub(super) mod incidents;
pub(super) mod intake;
mod placing;
