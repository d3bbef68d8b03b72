//! The gRPC contracts between Ottla's planes, generated from the `.proto` files of this crate.
//!
//! | package | between | file |
//! |---|---|---|
//! | `ottla.metadata.v1` | the Raft log, snapshots and everyone who follows them | `ottla/metadata.proto` |
//! | `ottla.controller.v1` | brokers and controllers | `ottla/controller.proto` |
//! | `ottla.raft.v1` | controllers among themselves | `ottla/raft.proto` |
//! | `ottla.admin.v1` | users and every node | `ottla/admin.proto` |
#![allow(missing_docs, reason = "generated code; the .proto files carry the documentation")]
#![allow(clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated code")]

// prost refers from one package to another by the nesting of their names.
#[doc(hidden)]
pub mod ottla {
    pub mod metadata {
        pub mod v1 {
            tonic::include_proto!("ottla.metadata.v1");
        }
    }
    pub mod controller {
        pub mod v1 {
            tonic::include_proto!("ottla.controller.v1");
        }
    }
    pub mod raft {
        pub mod v1 {
            tonic::include_proto!("ottla.raft.v1");
        }
    }
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("ottla.admin.v1");
        }
    }
}

pub mod transport;

/// Admin plane: users to any node.
pub use ottla::admin::v1 as admin;
/// Brokers to controllers.
pub use ottla::controller::v1 as controller;
/// Metadata records: what a Raft entry holds.
pub use ottla::metadata::v1 as metadata;
/// Controllers among themselves.
pub use ottla::raft::v1 as raft;

/// All descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
