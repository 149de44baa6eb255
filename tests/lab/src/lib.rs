//! The lab: real Asterisk PBXes and carriers in network namespaces, the demo, and everything that CI runs.
