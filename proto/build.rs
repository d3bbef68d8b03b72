//! Compiles the .proto files with protox (no protoc on the machine) and generates prost and tonic code.

use std::path::PathBuf;

const FILES: [&str; 4] =
    ["ottla/metadata.proto", "ottla/controller.proto", "ottla/raft.proto", "ottla/admin.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=ottla");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptor.bin"), prost::Message::encode_to_vec(&descriptors))?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
