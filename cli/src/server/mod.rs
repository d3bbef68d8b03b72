//! Nodes: what `server` and `dev` run.
//!
//! | module | holds |
//! |---|---|
//! | [`node`] | a node's life: bind, start the roles, stop them in order |
//! | [`options`] | properties as the options of broker and controller |
//! | [`logging`] | log events to stderr |
//! | `traces` | spans to a collector, with the feature `otlp` |
//! | [`signals`] | Ctrl-C and SIGTERM |

pub(crate) mod logging;
pub(crate) mod node;
mod options;
pub(crate) mod signals;
#[cfg(feature = "otlp")]
mod traces;
