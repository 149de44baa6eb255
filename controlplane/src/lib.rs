//! The Ringward control plane: the server, and the operators' command line.
