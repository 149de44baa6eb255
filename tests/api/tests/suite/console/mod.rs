//! The operators' console, as a browser sees it.

mod escaping;
mod holds;
mod live;
mod pages;
mod session;
