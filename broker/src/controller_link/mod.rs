//! A broker's side of the broker-to-controller plane: finding the leader, registering, keeping the lease, following the
//! committed metadata, submitting commands.

mod channel;
mod client;
mod follower;
mod image;
mod session;

pub use client::{ControllerClient, LinkError};
pub use follower::{FollowError, follow_metadata};
pub use image::ImageHandle;
pub use session::{SessionEnd, SessionOptions, SessionSignals, run_session};
