//! The inputs that are kept.

use std::{fs, io, path::PathBuf};

/// The inputs of a target, in the order of their names.
///
/// # Errors
/// What the file system says.
pub fn corpus(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder("corpus", target))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        inputs.push((name.into_owned(), fs::read(&path)?));
    }
    inputs.sort();
    Ok(inputs)
}

/// Where the inputs go that broke a target.
///
/// # Errors
/// What the file system says.
pub fn artifacts(target: &str) -> io::Result<PathBuf> {
    let folder = folder("artifacts", target);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn folder(kind: &str, target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(kind)
        .join(target)
}
