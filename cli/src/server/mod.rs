//! Nodes: what `server` and `dev` run.
//!
//! | module | holds |
//! |---|---|
//! | [`node`] | a node's life: bind, start the roles, stop them in order |
//! | [`options`] | properties as the options of broker and controller |
//! | [`adopt`] | what Kafka has left on the disk, as a new cluster's beginning |
//! | [`limits`] | open files |
//! | [`logging`] | log events to stderr |
//! | `traces` | spans to a collector, with the feature `otlp` |
//! | [`signals`] | Ctrl-C and SIGTERM |

pub(crate) mod adopt;
pub(crate) mod limits;
pub(crate) mod logging;
pub(crate) mod node;
mod options;
pub(crate) mod signals;
#[cfg(feature = "otlp")]
mod traces;
