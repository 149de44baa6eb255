//! The operators' console, as a browser sees it.

#[cfg(feature = "browser-tests")]
mod browser;
mod calls;
mod canaries;
mod crowd;
mod customers;
mod escaping;
mod holds;
mod live;
mod pages;
mod session;
mod walls;
