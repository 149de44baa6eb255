//! Carriers, one behaviour at a time.
