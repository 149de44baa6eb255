//! Asterisk Manager Interface: codec and client that treat every byte as chosen by a stranger.
