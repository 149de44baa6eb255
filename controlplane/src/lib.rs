//! The Ringward control plane: the server, and the operators' command line.
//!
//! `app` starts everything and stops it; `registry` knows the fleet; `nodes` keeps the AMI sessions;
//! `calls` carries calls to their end; `health` looks after what is known of trunks and nodes; `doors` lets connections
//! in, and `http` answers them;
//! `audio` has what callees hear; `audit` seals, signs and erases the audit log;
//! `chat` tells operators what changed; `oncall` phones whoever is to hear of alerts; `status` is what strangers may see; `privacy` erases what else is old;
//! `replicas` says whether this is one of several, and whether it leads.

pub mod agents;
pub mod app;
mod audio;
pub mod audit;
pub mod bootstrap;
pub mod calls;
pub mod chat;
pub mod cli;
pub mod clock;
pub mod doors;
mod gather;
mod health;
pub mod http;
pub mod keys;
pub mod metrics;
pub mod nodes;
pub mod oncall;
pub mod privacy;
pub mod registry;
pub mod replicas;
pub mod rules;
pub mod settings;
pub mod status;
pub mod traces;
pub mod webhooks;
