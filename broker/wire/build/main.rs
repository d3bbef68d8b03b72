//! Generates the message types from the schema files.

mod emit;
mod json;
mod schema;

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=schema");
    println!("cargo:rerun-if-changed=build");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut apis = Vec::new();
    for path in schema_files(Path::new("schema/api"))? {
        apis.push(
            schema::parse_api(&std::fs::read_to_string(&path)?)
                .map_err(|e| format!("{}: {e}", path.display()))?,
        );
    }
    let mut records = Vec::new();
    for path in schema_files(Path::new("schema/records"))? {
        let parsed = schema::parse_records(&std::fs::read_to_string(&path)?);
        records.extend(parsed.map_err(|e| format!("{}: {e}", path.display()))?);
    }
    std::fs::write(out.join("messages.rs"), emit::messages(&apis))?;
    std::fs::write(out.join("api_keys.rs"), emit::api_keys(&apis))?;
    std::fs::write(out.join("persisted.rs"), emit::persisted(&records))?;
    Ok(())
}

fn schema_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "schema"));
    files.sort();
    Ok(files)
}
